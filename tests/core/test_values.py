"""What a word of the command line or a value in a YAML file stands for."""

from typing import Any

import pytest
import yaml

from paperlib.core.values import parsed, read_yaml, word_of

READ: list[tuple[str, Any]] = [
    ("30", 30),
    ("-7", -7),
    ("010", 10),
    ("1e-3", 0.001),  # a text to YAML 1.1
    ("1e2", 100.0),
    ("-0.5", -0.5),
    ("2.5", 2.5),
    (".5", 0.5),
    ("true", True),
    ("False", False),
    ("null", None),
    # texts, whatever YAML 1.1 makes of them
    ("10:21", "10:21"),
    ("1:30:00", "1:30:00"),
    ("no", "no"),
    ("on", "on"),
    ("Yes", "Yes"),
    ("y", "y"),
    ("2024-06-18", "2024-06-18"),
    ("1_000", "1_000"),
    ("0x1f", "0x1f"),
    ("nan", "nan"),
    ("infinity", "infinity"),
    ("mnist", "mnist"),
    ("./my images/x.npz", "./my images/x.npz"),
]


def same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted) and type(found) is type(wanted)


@pytest.mark.parametrize(("text", "value"), READ)
def test_a_word_is_a_number_or_a_truth_only_where_everyone_reads_it_so(
    text: str, value: Any
) -> None:
    assert same(parsed(text), value)


@pytest.mark.parametrize(("text", "value"), READ)
def test_a_word_in_a_list_or_in_a_file_is_the_same_as_alone(text: str, value: Any) -> None:
    (found,) = parsed(f"[{text}]")
    assert same(found, value)
    assert same(read_yaml(f"key: {text}\n")["key"], value)


def test_lists_and_quotes_are_yaml() -> None:
    assert parsed("[3:26, 6:3]") == ["3:26", "6:3"]
    assert parsed('["3:26", 4]') == ["3:26", 4]
    assert parsed("[1, 2]") == [1, 2]
    assert parsed("'30'") == "30"
    assert parsed("") == ""
    assert parsed('"true"') == "true"
    assert parsed("{a: 1}") == {"a": 1}


@pytest.mark.parametrize(
    "value", [3, -0.05, 1e-05, True, "10:21", "", ["3:26", ""], [0.6, 3.0], []]
)
def test_what_is_printed_of_a_value_is_read_as_that_value(value: Any) -> None:
    assert same(parsed(word_of(value)), value)


def test_a_list_is_one_word_of_a_shell() -> None:
    assert word_of(("3:26", "6:3")) == "[3:26,6:3]"


@pytest.mark.parametrize("text", ["my #1.npz", "a: b", "*.npz", "@home", "- a", "%d", "C:\\x", "#"])
def test_a_text_without_brackets_or_quotes_is_taken_as_it_is(text: str) -> None:
    assert parsed(text) == text


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[1,", "'", "[" * 5000])
def test_brackets_and_quotes_that_do_not_close_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read the value"):
        parsed(text)


def test_nothing_in_a_file_is_run() -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml("key: !!python/object/apply:os.getcwd []\n")


def test_an_empty_file_is_none() -> None:
    assert read_yaml("# nothing\n") is None
