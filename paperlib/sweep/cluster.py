"""Tasks on a Dask cluster: a running one, or one of this machine that listens on loopback.

Every task writes its own results. So no finished result is lost if the scheduler, a worker or the
process that started the sweep dies.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

TaskT = TypeVar("TaskT")
Work = Callable[[TaskT], str]  # returns why it failed; empty: it did not
Outcome = tuple[TaskT, str]  # with what its work returned

PERHAPS_MEMORY = "perhaps for want of memory (try fewer jobs)"
LOOPBACK = "127.0.0.1"
CHUNKS = 1000  # that tasks are put into at most: few for a scheduler, many for an even load
PATIENCE = 30  # seconds that a scheduler is waited for


def client(address: str | None, jobs: int) -> AbstractContextManager[Any]:
    """A client of the scheduler at an address, else the one that this process has, else one of a
    new cluster of so many workers.

    Raises:
        ConnectionError: no scheduler answers there.
    """
    import distributed

    if address is None:
        try:
            return nullcontext(distributed.default_client())  # its owner closes it
        except ValueError:
            return _own_cluster(jobs)
    try:
        made: Any = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address!r} ({error}); expected the address that "
            "`dask scheduler` prints, such as tcp://127.0.0.1:8786"
        ) from error
    return made


@contextmanager
def _own_cluster(jobs: int) -> Iterator[Any]:
    """A client of a cluster on this machine, for this machine only; its workers come back when
    they are killed, and as with loky nothing but the system limits their memory."""
    import dask
    import distributed

    with (
        # Else a worker that needs longer to come back is given up, one after the other.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}),
        distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            memory_limit=0,
            host=LOOPBACK,
            dashboard_address=f"{LOOPBACK}:0",
        ) as made,
        distributed.Client(made, set_as_default=False) as opened,
    ):
        yield opened


def run(client: Any, work: Work, tasks: Sequence[TaskT]) -> Iterator[Outcome]:
    """Each task as its chunk ends, with why it failed; empty: it did not.

    The tasks of a chunk whose workers were killed more often than Dask allows (three times) come
    last, and alone.

    Raises:
        ConnectionError: the scheduler is gone.
    """
    import distributed

    size = -(-len(tasks) // CHUNKS)
    chunks = [tasks[begin : begin + size] for begin in range(0, len(tasks), size)]
    suspects: list[TaskT] = []
    try:
        for chunk, reasons in _ended(client, work, chunks):
            if reasons is None:
                suspects += chunk
            else:
                yield from zip(chunk, reasons, strict=True)
        for task in suspects:
            for _, reasons in _ended(client, work, [[task]]):
                yield task, reasons[0] if reasons else f"its worker was killed, {PERHAPS_MEMORY}"
    except distributed.CancelledError as error:
        raise ConnectionError(
            "the Dask scheduler is gone; what was finished is kept: start one and run again"
        ) from error


def _ended(
    client: Any, work: Work, chunks: Sequence[Sequence[TaskT]]
) -> Iterator[tuple[Sequence[TaskT], list[str] | None]]:
    """Each chunk with what came of its tasks; None: of its workers too many were killed."""
    import distributed

    sent = {client.submit(_one_by_one, work, chunk, pure=False): chunk for chunk in chunks}
    try:
        for future in distributed.as_completed(list(sent), loop=client.loop):
            chunk = sent.pop(future)
            try:
                yield chunk, future.result()
            except distributed.KilledWorker:
                yield chunk, None
    finally:
        if sent:
            client.cancel(list(sent))


def _one_by_one(work: Work, chunk: Sequence[TaskT]) -> list[str]:
    """Why each task failed; those that come after the chunk was given up are not begun."""
    return [work(task) if _wanted() else "it was given up" for task in chunk]


def _wanted() -> bool:
    """Whether anybody still waits for what this thread of a worker computes."""
    import distributed

    worker = distributed.get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state in ("executing", "long-running")
