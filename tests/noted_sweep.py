"""A sweep that notes when each of its points begins and ends, for tests that kill it meanwhile.

    python noted_sweep.py '{"settings": {...}, "jobs": 2, "backend": "loky", "seconds": 0.1}'

in a project of its own ($PAPERLIB_HOME); the notes go to `notes` there.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperlib.instruments.reconstruction.points import CascadeSweep
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.sweep import run, worker
from paperlib.sweep.grid import Sweep

NOTES = "notes"
KINDS: dict[str, type[Sweep]] = {"cascades": CascadeSweep, "trainings": TrainingSweep}

_finish, _measure_together = worker.finish, worker.measure_together


def finish(files: Mapping[Any, Path], terms: worker.Terms, *, seconds: float, home: str) -> str:
    """`worker.finish`, taking longer, with a note before the measurement and one after writing."""
    begun: list[Any] = []

    def measure_together(points: Sequence[Any], **options: Any) -> list[Any]:
        begun.extend(points)
        _note(home, "begin", points)
        time.sleep(seconds)
        return _measure_together(points, **options)

    worker.measure_together = measure_together
    reason = _finish(files, terms)
    _note(home, "end", begun)
    return reason


def _note(home: str, what: str, points: Sequence[Any]) -> None:
    lines = (f"{os.getpid()} {what} {point.sigma_w2} {point.seed}\n" for point in points)
    # one write to the end of a file, of few bytes, is never mixed with another's
    descriptor = os.open(Path(home, NOTES), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, "".join(lines).encode())
    os.close(descriptor)


@dataclass(frozen=True)
class Note:
    """One line of the notes."""

    pid: int
    what: str  # begin or end
    point: str


def notes(home: Path) -> list[Note]:
    """What was noted so far, in order."""
    file = home / NOTES
    lines = file.read_text().splitlines() if file.exists() else []
    parts = (line.split(maxsplit=2) for line in lines)
    return [Note(int(pid), what, point) for pid, what, point in parts]


def unfinished(home: Path) -> list[tuple[int, str]]:
    """What was begun by a process that has not ended it, or never did: that and the point."""
    begun, ended = (
        Counter((note.pid, note.point) for note in notes(home) if note.what == what)
        for what in ("begin", "end")
    )
    return list((begun - ended).elements())


def start(home: Path, **options: Any) -> "subprocess.Popen[str]":
    """The sweep in a process group of its own; its output goes to `log` in the home."""
    (home / "notebooks").mkdir(exist_ok=True)
    with (home / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, __file__, json.dumps(options)],
            env={**os.environ, "PAPERLIB_HOME": str(home), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def kill(pid: int) -> None:
    """Send kill -9 to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main(text: str) -> None:
    """Run the sweep that the options describe."""
    from functools import partial

    import noted_sweep  # by its name, for that is how workers import what they are sent

    # as in a terminal: what a shell starts in its background ignores Ctrl-C, and so would this
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = json.loads(text)
    home = os.environ["PAPERLIB_HOME"]
    noted = partial(noted_sweep.finish, seconds=options.get("seconds", 0.0), home=home)
    run.finish = noted
    config = KINDS[options.get("kind", "cascades")].from_dict(options["settings"])
    given = {key: options[key] for key in ("jobs", "backend", "address") if key in options}
    run.run_sweep(config, **given)


if __name__ == "__main__":
    main(sys.argv[1])
