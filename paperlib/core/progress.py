"""How far a long computation is: a line that updates where a person watches, else plain lines."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self

LOG_INTERVAL = 30.0  # seconds between lines in a log; bars freeze there


def clock_of(device: str) -> Callable[[], float]:
    """Return what times a computation: CPU seconds, as machines are shared; on a GPU the clock."""
    return time.process_time if device == "cpu" else time.perf_counter


class Progress:
    """Counts finished units of work and tells so: in Jupyter and terminals in place, else rarely.

    Use as a context manager; call `advance` once per unit.
    """

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done = 0
        self._begin = self._last = time.monotonic()
        self._handle: Any = None

    def __enter__(self) -> Self:
        if _jupyter_is_watched():
            from IPython.display import DisplayHandle

            self._handle = DisplayHandle()
            self._handle.display({"text/plain": self._text()}, raw=True)
        return self

    def advance(self) -> None:
        """Count one more finished unit."""
        self.done += 1
        now = time.monotonic()
        if self._handle is not None:
            self._handle.update({"text/plain": self._text()}, raw=True)
        elif sys.stderr.isatty():
            print(f"\r{self._text()}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now - self._last >= LOG_INTERVAL:
            self._last = now
            print(self._text(), flush=True)

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            return
        if sys.stderr.isatty():
            print(file=sys.stderr)
        else:
            print(self._text(), flush=True)

    def _text(self) -> str:
        spent = time.monotonic() - self._begin
        filled = round(20 * self.done / self.total)
        text = (
            f"[{'#' * filled}{'.' * (20 - filled)}] {self.done} of {self.total} {self.unit}, "
            f"{spent:.0f} s"
        )
        if not 0 < self.done < self.total:  # before the first unit nothing is known
            return text
        return f"{text}, about {spent / self.done * (self.total - self.done):.0f} s left"


def _jupyter_is_watched() -> bool:
    """Whether a notebook front end that can answer is on the other side; papermill cannot."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kernel = getattr(shell, "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
