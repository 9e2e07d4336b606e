"""A worker's groups of points: alone in their process, and charged for what they really took."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperlib.core import paths
from paperlib.instruments.reconstruction.points import CascadePoint
from paperlib.sweep import store, worker
from paperlib.sweep.plan import load_data
from paperlib.sweep.worker import Terms, finish

POINT = CascadePoint(
    dataset="digits", depth=20, width=16, solver="adam", steps=1, train_images=64, test_images=10
)


def terms(device: str = "cpu") -> Terms:
    root = str(paths.data_root())
    return Terms(device, root, load_data(POINT, root).checksum, POINT.code_version)


def curve(file: Path) -> np.ndarray:
    found = store.read_point(file)
    assert found is not None
    return found["r_squared"]


@pytest.mark.slow
def test_threads_of_one_process_find_the_numbers_that_they_find_one_after_the_other(
    tmp_path: Path,
) -> None:
    told = terms()
    files = [tmp_path / f"{number}.npz" for number in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads get in each other's way if they can
    try:
        with ThreadPoolExecutor(4) as threads:
            reasons = list(threads.map(lambda file: finish({POINT: file}, told), files))
    finally:
        sys.setswitchinterval(before)
    assert reasons == [""] * 8
    assert finish({POINT: tmp_path / "alone.npz"}, told) == ""
    for file in files:
        np.testing.assert_array_equal(curve(file), curve(tmp_path / "alone.npz"))


def test_one_point_that_fails_takes_no_other_of_its_group_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [replace(POINT, depth=2, solver="ridge", seed=seed) for seed in range(3)]
    measure = CascadePoint.measure

    def fails(point: CascadePoint, data: Any, **options: Any) -> dict[str, np.ndarray]:
        if point.seed == 1:
            raise ValueError("stage 2 overflows")
        return measure(point, data, **options)

    monkeypatch.setattr(CascadePoint, "measure", fails)
    files = {point: tmp_path / f"{point.seed}.npz" for point in points}
    assert finish(files, terms()) == "ValueError: stage 2 overflows"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.npz", "2.npz"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_point_takes_cpu_time_on_a_cpu_and_time_of_the_clock_on_a_gpu(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def idle(points: Any, **options: Any) -> list[dict[str, np.ndarray]]:
        time.sleep(0.3)  # as the host does while a GPU computes
        return [{} for _ in points]

    monkeypatch.setattr(worker, "measure_together", idle)
    assert finish({POINT: tmp_path / "point.npz"}, terms(device)) == ""
    found = store.read_point(tmp_path / "point.npz")
    assert found is not None
    seconds = json.loads(str(found[store.ABOUT]))["seconds"]
    assert seconds < 0.1 if device == "cpu" else 0.3 <= seconds < 10
