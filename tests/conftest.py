"""What every test runs under: no display, one torch thread, no deadlines."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch
from hypothesis import settings
from order import longest_first
from tiny_data import refuse_requests

from paperlib.core import paths
from paperlib.datasets import Dataset, load_dataset

# Not by MPLBACKEND: notebooks that tests run would inherit it and lose their inline figures.
matplotlib.use("Agg")

# Sums split over threads round differently: with one, numbers do not depend on the machine's cores.
torch.set_num_threads(1)
# Kernels and workers that tests start, too: threads of several of them wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

# A slow machine is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.hookimpl(trylast=True)  # after those that are not wanted are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = longest_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.fixture(autouse=True, scope="session")
def system_data() -> Iterator[Path]:
    """Where the system's packages put data sets: no test finds them unless it asks for this."""
    installed = paths.SYSTEM_DATA
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "SYSTEM_DATA", installed / "hidden-from-tests")
        yield installed


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The images that ship with scikit-learn; not to be changed."""
    return load_dataset("digits")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that were tried and refused, as they come."""
    return refuse_requests(monkeypatch)


def pytest_collection_finish() -> None:
    """Leave what has been imported and collected out of all later searches for garbage."""
    gc.collect()
    gc.freeze()
