"""Several commands at a time, each in a process of its own, with lines that say whose they are."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

PATIENCE = 30.0  # seconds that an interrupted command has to end by itself
THREADS = "OMP_NUM_THREADS"
INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)  # how a command ends after Ctrl-C


def run_at_once(commands: Mapping[str, Sequence[str]], limit: int, *, threads: int) -> bool:
    """Run commands side by side, and return whether all of them ended well.

    What one prints is printed line by line, with its name before it where the line does not begin
    with it; its errors go where this process' go. After Ctrl-C no other command begins, and those
    that run, which a terminal interrupts too, are waited for.

    Args:
        commands: the words of each command, by name, in the order in which they begin.
        limit: how many run at a time, 1 or more.
        threads: of torch and NumPy in each, unless the environment says how many.
    """
    stopped = Event()
    running: set[subprocess.Popen[str]] = set()
    environment = {THREADS: str(threads), **os.environ}

    def run(name: str, words: Sequence[str]) -> bool:
        if stopped.is_set():
            return False
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
            running.add(process)
            assert process.stdout is not None
            for line in process.stdout:
                print(line if line.startswith(name) else f"{name}: {line}", end="", flush=True)
        running.remove(process)
        if process.returncode in INTERRUPTED:  # it may know of Ctrl-C before this process does
            stopped.set()
        return process.returncode == 0

    with ThreadPoolExecutor(limit) as pool, _ended(running, stopped):
        waiting = [pool.submit(run, name, words) for name, words in commands.items()]
        return all([future.result() for future in waiting])


@contextmanager
def _ended(running: set["subprocess.Popen[str]"], stopped: Event) -> Iterator[None]:
    """End what runs where this process is interrupted, even if nobody else interrupts it."""
    try:
        yield
    except BaseException:
        stopped.set()
        for process in list(running):
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.terminate()
        raise
