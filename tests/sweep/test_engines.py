"""Tasks side by side: each ends once, with its reason; killed workers cost only what they did."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from paperlib.sweep import engines
from paperlib.sweep.engines import Engine


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(engines.BACKEND_VARIABLE, raising=False)
    monkeypatch.delenv(engines.ADDRESS_VARIABLE, raising=False)


def odd(task: int) -> str:
    return "odd" if task % 2 else ""


def deadly(task: int, *, deaths: tuple[int, ...], once: str = "") -> str:
    """Kills its own process at some tasks; each of them once only, where there is a folder."""
    if task in deaths:
        if not once:
            os.kill(os.getpid(), signal.SIGKILL)
        mark = Path(once, str(task))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return ""


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_task_ends_once_with_its_reason(jobs: int) -> None:
    with Engine(jobs=jobs) as engine:
        outcomes = list(engine.run(odd, range(20)))
    assert sorted(outcomes) == [(task, odd(task)) for task in range(20)]


def test_one_job_runs_in_this_process_and_one_task_after_the_other() -> None:
    ran: list[int] = []

    def note(task: int) -> str:
        ran.append(task)
        return ""

    outcomes = Engine(jobs=1).run(note, range(3))
    assert ran == []
    next(outcomes)
    assert ran == [0]


@pytest.mark.faults
@pytest.mark.slow
def test_tasks_whose_workers_were_killed_are_begun_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = partial(deadly, deaths=(3, 11), once=str(tmp_path))
    outcomes = list(Engine(jobs=2).run(work, range(20)))
    assert sorted(outcomes) == [(task, "") for task in range(20)]
    assert capsys.readouterr().out.count("a worker was killed") in (1, 2)  # both may die at once


@pytest.mark.faults
@pytest.mark.slow
def test_a_task_that_kills_every_worker_fails_alone() -> None:
    outcomes = dict(Engine(jobs=2).run(partial(deadly, deaths=(0,)), range(12)))
    assert outcomes.pop(0).startswith("its worker was killed, perhaps for want of memory")
    assert outcomes == dict.fromkeys(range(1, 12), "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"backend": name}, f"backend must be one of dask, loky, .*; got '{name}'")
            for name in ("dusk", "multiprocessing", "threading")
        ),
        ({"backend": "loky", "address": "tcp://x:1"}, "address is for the backend 'dask'.*'loky'"),
    ],
)
def test_a_wrong_backend_or_address_is_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(**settings)


def test_a_missing_dask_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install dask distributed"):
        Engine("dask")


def test_an_address_means_dask_and_the_environment_stands_in_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Engine().backend == "loky"
    assert Engine(address="tcp://127.0.0.1:8786").backend == "dask"
    monkeypatch.setenv(engines.ADDRESS_VARIABLE, "tcp://127.0.0.1:1")
    assert (Engine().backend, Engine().address) == ("dask", "tcp://127.0.0.1:1")
    assert (Engine("loky").backend, Engine("loky").address) == ("loky", None)
    monkeypatch.delenv(engines.ADDRESS_VARIABLE)
    monkeypatch.setenv(engines.BACKEND_VARIABLE, "dask")
    assert (Engine().backend, Engine().address) == ("dask", None)


def test_what_was_chosen_reaches_the_processes_that_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (engines.BACKEND_VARIABLE, engines.ADDRESS_VARIABLE):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    engines.choose(None, None)
    assert engines.BACKEND_VARIABLE not in os.environ
    engines.choose(None, "tcp://127.0.0.1:8786")
    assert os.environ[engines.BACKEND_VARIABLE] == "dask"
    assert os.environ[engines.ADDRESS_VARIABLE] == "tcp://127.0.0.1:8786"
    with pytest.raises(ValueError, match="backend must be one of"):
        engines.choose("nonsense", None)
