"""What texts stand for: a word of the command line, a YAML file of a profile."""

import re
from collections.abc import Callable
from typing import Any

import yaml

# YAML 1.2's plain scalars. YAML 1.1, which PyYAML reads, knows numbers to base 60 (10:21 is 621),
# dates, and yes, no, on and off for true and false.
_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"~|null|Null|NULL"), lambda text: None),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)
_OPENING = ("[", "{", "'", '"')


class _Loader(yaml.SafeLoader):
    """YAML with the scalars above; nothing in it is run."""


_Loader.yaml_implicit_resolvers = {}


def _text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return _scalar(node.value) if node.style is None else node.value


_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def _scalar(text: str) -> Any:
    return next((read(text) for form, read in _PLAIN if form.fullmatch(text)), text)


def parsed(text: str) -> Any:
    """Return the value that a word of the command line stands for.

    Brackets and quotes are YAML; all else is true, false, null, a number, or the text itself.

    Raises:
        ValueError: brackets or quotes that do not close.
    """
    if not text.startswith(_OPENING):
        return _scalar(text)
    try:
        return read_yaml(text)
    except (yaml.YAMLError, RecursionError):
        raise ValueError(
            f"cannot read the value {text[:120]!r}: expected YAML, such as 30, [1, 2] or "
            "mnist; quote texts with brackets or colons"
        ) from None


def word_of(value: Any) -> str:
    """Return the word of the command line that stands for a value, or for a list of values, as
    `parsed` reads it; an empty text in quotes, which a shell takes away."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(word_of, value))}]"
    return str(value) or "''"


def read_yaml(text: str) -> Any:
    """Return the values in a YAML text; None where it is empty.

    Raises:
        yaml.YAMLError: it is none.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
