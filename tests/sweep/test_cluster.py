"""Dask: the same numbers, on loopback; workers and schedulers that die lose nothing finished."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  loads its settings; `dask.config.set` would drop them at its end
import psutil
import pytest
import xarray as xr
from checkout import ROOT
from test_engines import deadly, odd

from paperlib import CascadeSweep, load_result, run_sweep
from paperlib.core import paths
from paperlib.sweep import cluster
from paperlib.sweep.engines import Engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own() -> Iterator[Any]:
    """The client of a cluster of two workers on this machine, that gives up a task early."""
    few = {"distributed.scheduler.allowed-failures": 1}
    with dask.config.set(few), cluster.client(None, 2) as client:
        yield client


def test_every_task_ends_once_with_its_reason(own: Any) -> None:
    assert sorted(cluster.run(own, odd, range(50))) == [(task, odd(task)) for task in range(50)]


def test_a_long_list_is_sent_in_few_chunks(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CHUNKS", 7)
    sent: list[int] = []
    submit = own.submit

    def counted(work: Any, task: Any, chunk: Any, **options: Any) -> Any:
        sent.append(len(chunk))
        return submit(work, task, chunk, **options)

    monkeypatch.setattr(own, "submit", counted)
    assert sorted(cluster.run(own, odd, range(50))) == [(task, odd(task)) for task in range(50)]
    assert sent == [8, 8, 8, 8, 8, 8, 2]


def test_everything_listens_on_loopback(own: Any) -> None:
    listening = [
        connection.laddr.ip
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4  # a scheduler, two workers and their nannies
    assert set(listening) == {cluster.LOOPBACK}


def test_the_client_of_this_process_is_used_and_left_open(own: Any) -> None:
    with own.as_current(), Engine("dask", jobs=1) as engine:
        assert sorted(engine.run(odd, range(4))) == [(task, odd(task)) for task in range(4)]
    assert own.status == "running"


def test_a_sweep_on_a_cluster_has_the_numbers_of_one_on_this_machine(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CascadeSweep(
        dataset="digits", depth=3, width=24, sigma_w2=(0.8, 1.7), seeds=(0, 1, 2),
        train_images=100, test_images=20,
    )  # fmt: skip
    results = []
    for name, options in (("dask", {"backend": "dask"}), ("loky", {"jobs": 2})):
        (tmp_path / name / "notebooks").mkdir(parents=True)
        monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / name))
        with own.as_current():
            results.append(run_sweep(config, **options))
        (file,) = (tmp_path / name / "data/results").glob("*.nc")
        xr.testing.assert_identical(load_result(file), results[-1])
    xr.testing.assert_identical(*(result.drop_attrs() for result in results))


def test_a_scheduler_is_found_by_its_address(own: Any) -> None:
    with Engine(address=own.scheduler_info()["address"]) as engine:
        assert sorted(engine.run(odd, range(4))) == [(task, odd(task)) for task in range(4)]
    assert own.status == "running"


def test_an_address_where_nobody_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with (
        pytest.raises(ConnectionError, match="no Dask scheduler answers at 'tcp://127"),
        Engine(address="tcp://127.0.0.1:9") as engine,
    ):
        engine.run(odd, range(4))


@pytest.mark.faults
def test_tasks_whose_workers_were_killed_are_begun_again(own: Any, tmp_path: Path) -> None:
    work = partial(deadly, deaths=(3, 11), once=str(tmp_path))
    assert sorted(cluster.run(own, work, range(20))) == [(task, "") for task in range(20)]


@pytest.mark.faults
def test_a_task_that_kills_every_worker_fails_alone(
    own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CHUNKS", 2)
    outcomes = dict(cluster.run(own, partial(deadly, deaths=(1,)), range(6)))
    assert outcomes.pop(1).startswith("its worker was killed, perhaps for want of memory")
    assert outcomes == dict.fromkeys((0, 2, 3, 4, 5), "")


def noted(task: int, *, folder: str) -> str:
    import time

    time.sleep(0.3)
    Path(folder, str(task)).touch()
    return ""


def test_what_nobody_waits_for_any_more_is_not_begun(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CHUNKS", 3)
    outcomes = cluster.run(own, partial(noted, folder=str(tmp_path)), range(60))
    next(outcomes)
    outcomes.close()
    own.submit(odd, 1, pure=False).result()  # a worker is free again: the rest was given up
    assert len(list(tmp_path.iterdir())) < 60


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that are killed at the end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def command(*words: str) -> list[str]:
    """A command of Dask's with this interpreter."""
    return [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]


@pytest.mark.faults
def test_a_scheduler_that_is_killed_is_told_and_nothing_finished_is_lost(
    processes: list["subprocess.Popen[str]"], tmp_path: Path
) -> None:
    own_tests = os.pathsep.join(
        [str(ROOT / "tests" / "sweep"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    )
    here = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": own_tests}, "text": True}
    options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    scheduler = subprocess.Popen(
        command("dask_scheduler", *options), stderr=subprocess.PIPE, **here
    )
    processes.append(scheduler)
    assert scheduler.stderr is not None
    lines = iter(scheduler.stderr.readline, "")
    address = next(m[0] for line in lines if (m := re.search(r"tcp://127\.0\.0\.1:\d+", line)))
    options = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    processes.append(
        subprocess.Popen(
            command("dask_worker", address, *options), stderr=subprocess.DEVNULL, **here
        )
    )
    folder = tmp_path / "done"
    folder.mkdir()
    with Engine(address=address) as engine:
        outcomes = engine.run(partial(noted, folder=str(folder)), range(100))
        for _ in range(4):
            next(outcomes)
        scheduler.send_signal(signal.SIGKILL)
        with pytest.raises(ConnectionError, match="the Dask scheduler is gone; what was finished"):
            list(outcomes)
    assert 4 <= len(list(folder.iterdir())) < 100
