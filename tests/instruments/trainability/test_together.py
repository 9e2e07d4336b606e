"""Trained side by side, networks come to what they come to alone."""

from typing import Any

import numpy as np
import pytest

from paperlib import load_dataset
from paperlib.instruments.trainability.grids import GridTraining

SETTINGS: dict[str, Any] = {"dataset": "digits", "batch_size": 16, "test_images": 100}
SEEDS = (0, 1)


def both(points: list[GridTraining]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    data = load_dataset("digits")
    alone = [point.measure(data) for point in points]
    return list(zip(alone, GridTraining.measure_together(points, data), strict=True))


def test_curves_and_accuracies_are_those_of_each_alone() -> None:
    size = {"depth": 2, "channels": 4, "budget": 20, "train_images": 200}
    network = {"architecture": "cnn", "trained_by": ("adam 0.001",)}
    points = [
        GridTraining(sigma_w2=s, seed=seed, **SETTINGS, **network, **size)
        for s, seed in zip((0.3, 1.7), SEEDS, strict=True)
    ]
    for alone, together in both(points):
        np.testing.assert_allclose(alone["curve"], together["curve"], atol=1e-4)
        np.testing.assert_allclose(alone["accuracy"], together["accuracy"], atol=0.011)
        np.testing.assert_allclose(alone["loss"], together["loss"], atol=1e-4)
        for name in ("steps", "diverged", "parameters"):
            np.testing.assert_array_equal(alone[name], together[name])


@pytest.mark.slow
def test_each_leaves_when_its_own_training_is_decided() -> None:
    size = {"depth": 2, "width": 60, "budget": 480, "train_images": 1400}
    points = [
        GridTraining(sigma_w2=s, seed=seed, **SETTINGS, **size)
        for s in (0.002, 1.7)
        for seed in SEEDS
    ]
    found = both(points)
    assert {int(steps) for alone, _ in found for steps in alone["steps"]} == {100, 120, 480}
    for alone, together in found:
        for name in ("steps", "diverged"):
            np.testing.assert_array_equal(alone[name], together[name])
        for name in ("accuracy", "loss"):
            np.testing.assert_array_equal(np.isnan(alone[name]), np.isnan(together[name]))
        np.testing.assert_allclose(alone["accuracy"], together["accuracy"], atol=0.031)


def test_one_that_diverges_stops_and_the_others_go_on() -> None:
    size = {"depth": 3, "width": 30, "budget": 30, "train_images": 200, "activation": "relu"}
    trained_by = ("adam 0.001", "sgd 0.01")
    points = [
        GridTraining(sigma_w2=s, seed=0, trained_by=trained_by, **SETTINGS, **size)
        for s in (1e13, 1.7)
    ]
    (wild, wild_too), (tame, tame_too) = both(points)
    assert wild["diverged"].tolist() == wild_too["diverged"].tolist() == [0, 1]
    assert wild["steps"].tolist() == wild_too["steps"].tolist() == [30, 2]
    assert tame["steps"].tolist() == tame_too["steps"].tolist() == [30, 30]
    np.testing.assert_array_equal(wild["accuracy"], wild_too["accuracy"])
    np.testing.assert_allclose(tame["curve"], tame_too["curve"], rtol=1e-3)


def test_a_gpu_trains_all_networks_of_one_depth_together_and_a_cpu_each_alone() -> None:
    points = [GridTraining(depth=depth, seed=seed) for depth in (5, 9) for seed in SEEDS]
    assert [point.alike("cuda") for point in points] == [5, 5, 9, 9]
    assert len({point.alike("cpu") for point in points}) == 4


@pytest.mark.gpu
def test_a_gpu_comes_to_what_a_cpu_comes_to() -> None:
    size = {"depth": 2, "width": 30, "budget": 30, "train_images": 200}
    points = [GridTraining(seed=seed, **SETTINGS, **size) for seed in SEEDS]
    data = load_dataset("digits")
    there = GridTraining.measure_together(points, data, device="cuda")
    for point, found in zip(points, there, strict=True):
        np.testing.assert_allclose(found["curve"], point.measure(data)["curve"], atol=1e-3)
