"""Notebooks side by side: lines that say whose they are, failures as of one alone, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import ROOT
from tiny_project import NAME, build

from paperlib.cli import main
from paperlib.notebooks import at_once
from paperlib.notebooks.at_once import run_at_once

QUICK = [sys.executable, "-S", "-E", "-c"]  # Python without its site-packages starts at once


def test_every_line_says_whose_it_is_and_none_says_it_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = {
        name: [*QUICK, f"print('{name}: running'); print('[##..] 1 of 2')"] for name in ("a", "b")
    }
    assert run_at_once(commands, 2, threads=1)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [f"{n}: {said}" for n in "ab" for said in ("[##..] 1 of 2", "running")]


def test_commands_run_side_by_side_and_never_more_than_the_limit(tmp_path: Path) -> None:
    code = "import os, sys, time\nopen(sys.argv[1], 'w').close(); time.sleep(0.3)\n"
    code += "print(len(os.listdir('.')))\nos.remove(sys.argv[1])"
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr("builtins.print", lambda text, **options: seen.append(text))
        run_at_once({name: [*QUICK, code, name] for name in "abcde"}, 2, threads=1)
    assert {line.split(": ")[1] for line in seen} <= {"1\n", "2\n"}
    assert "2\n" in {line.split(": ")[1] for line in seen}


def test_a_failure_does_not_stop_the_others_and_is_told_at_the_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ends = {"a": "raise SystemExit('it broke')", "b": "print('b: done')"}
    assert not run_at_once({name: [*QUICK, code] for name, code in ends.items()}, 1, threads=1)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("b: done\n", "it broke\n")


def test_each_is_given_its_share_of_threads_unless_the_environment_says_how_many(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"a": [*QUICK, f"import os; print(os.environ['{at_once.THREADS}'])"]}
    for number, wanted in ((None, "3"), ("7", "7")):
        monkeypatch.delenv(at_once.THREADS, raising=False)
        if number:
            monkeypatch.setenv(at_once.THREADS, number)
        run_at_once(told, 2, threads=3)
        assert capsys.readouterr().out == f"a: {wanted}\n"


WAITING = """
import sys
from paperlib.notebooks import at_once

at_once.PATIENCE = 0.5
code = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)"
at_once.run_at_once(
    {name: [sys.executable, "-S", "-c", code, name] for name in "abc"}, 2, threads=1
)
"""


@pytest.mark.faults
@pytest.mark.parametrize("everybody", [True, False])
def test_after_ctrl_c_none_is_left_and_none_begins(everybody: bool, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=tmp_path, start_new_session=True,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    # as a terminal does, or as `kill -INT` does
    (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], int, int]]:
    """What the command line would run at once, in a project of two notebooks on four cores."""
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    folder = build(tmp_path) / "notebooks"
    (folder / "02_more.ipynb").write_bytes((folder / f"{NAME}.ipynb").read_bytes())
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    found: list[tuple[dict[str, str], int, int]] = []

    def note(commands: dict[str, list[str]], limit: int, *, threads: int) -> bool:
        said = {name: " ".join(words[3:]) for name, words in commands.items()}
        found.append((said, limit, threads))
        return False

    monkeypatch.setattr(at_once, "run_at_once", note)
    return found


def test_each_notebook_has_a_command_with_the_same_options_and_its_share_of_the_cores(
    asked: list[tuple[dict[str, str], int, int]],
) -> None:
    words = "run --at-once 2 --profile paper -p depth 7 --force --save --output there"
    assert main(words.split()) == 1
    same = "run --jobs 2 -p depth 7 --profile=paper --output=there --force --save"
    assert asked == [({name: f"{same} {name}" for name in (NAME, "02_more")}, 2, 2)]


def test_jobs_are_those_that_were_asked_for(
    asked: list[tuple[dict[str, str], int, int]],
) -> None:
    main(["run", "1", "--at-once", "8", "--jobs", "3"])
    assert asked == [({NAME: f"run --jobs 3 {NAME}"}, 8, 1)]


def test_none_at_once_is_refused(
    asked: list[tuple[dict[str, str], int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--at-once", "0"]) == 1
    assert capsys.readouterr().err == "paperlib: at_once must be >= 1, got 0\n"
    assert asked == []
