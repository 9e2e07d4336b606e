"""Adaptive sweeps, of columns that a formula gives: no network is needed to see where they look."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.core import paths
from paperlib.instruments.prediction.points import PredictorSweep
from paperlib.instruments.reconstruction.points import (
    CURVES,
    CascadePoint,
    CascadeSweep,
    shown_depths,
)
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.notebooks.findings.cascades import setting
from paperlib.plots import collapse_depths, describe
from paperlib.sweep import points, run_sweep
from paperlib.sweep.adaptive import FIRST, agree, refinement
from paperlib.sweep.store import load_result, save_result
from paperlib.training.outcome import wall

DEPTH = 30
VARIANCES = tuple(round(0.1 + 0.1 * i, 10) for i in range(41))  # 0.1 … 4.1
GRID = CascadeSweep(
    dataset="digits", depth=DEPTH, sigma_w2=VARIANCES, seeds=(0, 1), train_images=20, test_images=4
)
Column = Callable[[float, int], np.ndarray]  # R² by depth, of a variance and a seed


def step(sigma_w2: float, seed: int) -> np.ndarray:
    """A wall between 1.7 and 1.8 at every depth: nothing below it, everything above."""
    return np.full(DEPTH, float(sigma_w2 > 1.75))


def cone(sigma_w2: float, seed: int) -> np.ndarray:
    """The image dies the faster the further away the variance is from 1.7."""
    return np.exp(-np.arange(1, DEPTH + 1) * min(2.0, 3 * abs(sigma_w2 - 1.7) ** 2))


def noisy(sigma_w2: float, seed: int) -> np.ndarray:
    """A plateau on which variances differ as seeds do."""
    rng = np.random.default_rng([round(1000 * sigma_w2), seed])
    return np.full(DEPTH, 0.5) + (0.1, -0.1)[seed] + rng.uniform(-0.01, 0.01, DEPTH)


def steep(sigma_w2: float, seed: int) -> np.ndarray:
    """A curve that changes everywhere by more than any tolerance."""
    return np.full(DEPTH, 0.1 * sigma_w2)


class Measured:
    """Stands for `measure_point`, and notes what it was called for; dies after so many points."""

    def __init__(self, column: Column, lives: float = math.inf) -> None:
        self.column, self.lives, self.asked = column, lives, []

    def __call__(self, point: CascadePoint, **options: object) -> dict[str, np.ndarray]:
        if len(self.asked) >= self.lives:
            raise KeyboardInterrupt
        self.asked.append((point.sigma_w2, point.seed))
        curve = self.column(point.sigma_w2, point.seed).astype(np.float32)
        shown = np.full((len(shown_depths(DEPTH)), 1, 2, 2), 7, np.uint8)
        curves = dict.fromkeys(CURVES, curve)
        return {**curves, "cutoff": np.int32(3), "example": shown, "original": shown[0]}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fresh_home(tmp_path, monkeypatch)


def fresh_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "notebooks").mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(folder))
    return folder


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[xr.Dataset, Measured]]:
    """A sweep of columns by formula, and who measured them."""

    def sweep(column: Column, config: CascadeSweep = GRID, **options: object):
        measured = Measured(column)
        monkeypatch.setattr(points, "measure_point", measured)
        return run_sweep(config, jobs=1, **options), measured

    return sweep


def measured_variances(result: xr.Dataset) -> list[float]:
    return result.sigma_w2.values[(result["finished"] == 1).all("seed")].tolist()


def wall_at(result: xr.Dataset, depth: int) -> float:
    height = result["r_squared"].sel(depth=depth).mean("seed")
    return wall(height.values, result.sigma_w2.values, 0.02)


@pytest.mark.slow
def test_a_wall_is_found_by_bisection_and_nothing_else_is_measured(swept) -> None:
    result, measured = swept(step, adaptive=True)
    coarse = len(VARIANCES[::FIRST])
    assert len(measured.asked) == 2 * (coarse + math.log2(FIRST))
    whole, _ = swept(step)
    assert wall_at(result, 10) == wall_at(whole, 10)
    np.testing.assert_array_equal(result["r_squared"], whole["r_squared"])


@pytest.mark.slow
def test_a_cone_stands_where_the_whole_sweep_has_it(swept) -> None:
    result, measured = swept(cone, adaptive=True)
    assert len(measured.asked) < 0.8 * 2 * len(VARIANCES)
    whole, _ = swept(cone)
    for depth in (3, 10, DEPTH):
        assert wall_at(result, depth) == pytest.approx(wall_at(whole, depth), abs=0.01)
    np.testing.assert_allclose(result["r_squared"], whole["r_squared"], atol=0.02)


def test_a_plateau_is_measured_no_further_than_its_seeds_differ(swept) -> None:
    _, measured = swept(noisy, adaptive=True, tolerance=1e-6)
    assert len(measured.asked) == 2 * len(VARIANCES[::FIRST])
    _, alone = swept(noisy, replace(GRID, seeds=(1,)), adaptive=True, tolerance=1e-6)
    assert len(alone.asked) == len(VARIANCES) - len(VARIANCES[::FIRST])  # a seed has no spread


def test_where_everything_changes_an_adaptive_sweep_is_the_whole_one(swept) -> None:
    result, measured = swept(steep, adaptive=True, tolerance=0.005)
    assert sorted(measured.asked) == [(s, seed) for s in VARIANCES for seed in (0, 1)]
    assert len(measured.asked) == len(set(measured.asked))
    whole, again = swept(steep)
    assert not again.asked, "an adaptive sweep's points have the files of the whole one's"
    assert not result["follows"].any()
    xr.testing.assert_identical(result.drop_vars("follows"), whole)


def test_a_result_says_what_was_measured_and_what_follows(swept) -> None:
    result, measured = swept(step, adaptive=True)
    np.testing.assert_array_equal(result["follows"] + result["finished"], 1)
    assert measured_variances(result) == sorted({sigma_w2 for sigma_w2, _ in measured.asked})
    follower = result.where(result["follows"] == 1, drop=True).isel(sigma_w2=0, seed=0)
    assert follower["r_squared"].notnull().all()
    assert follower["cutoff"] == -1
    assert (follower["example"] == 0).all()


def test_figures_and_findings_say_how_much_was_measured_and_draw_what_follows(swept) -> None:
    result, measured = swept(cone, adaptive=True)
    told = f"{len(measured.asked)} of {2 * len(VARIANCES)} points measured, others follow"
    assert describe(result).endswith(told)
    assert told in setting(result)
    assert "Only" not in setting(result)
    whole, _ = swept(cone)
    assert "follow" not in describe(whole)
    depths, expected = collapse_depths(result), collapse_depths(whole)
    np.testing.assert_allclose(depths, expected, atol=1)  # a tolerance of 2%, or one stage


def test_a_follower_lies_between_its_measured_neighbours(swept) -> None:
    def sloping(sigma_w2: float, seed: int) -> np.ndarray:
        return np.full(DEPTH, 0.5 + 0.01 * sigma_w2 + seed)

    result, measured = swept(sloping, adaptive=True)
    assert len(measured.asked) == 2 * len(VARIANCES[::FIRST])
    expected = [[0.5 + 0.01 * sigma_w2 + seed for seed in (0, 1)] for sigma_w2 in VARIANCES]
    np.testing.assert_allclose(result["r_squared"].isel(depth=0), expected, rtol=1e-6)


@pytest.mark.slow
def test_a_whole_sweep_starts_from_what_an_adaptive_one_measured_and_not_from_followers(
    swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, measured = swept(step, adaptive=True)
    save_result(result, tmp_path / "adaptive.nc")
    xr.testing.assert_identical(load_result(tmp_path / "adaptive.nc"), result)
    (tmp_path / "elsewhere").mkdir()
    fresh_home(tmp_path / "elsewhere", monkeypatch)
    _, rest = swept(step, start_from=tmp_path / "adaptive.nc")
    assert len(rest.asked) + len(measured.asked) == 2 * len(VARIANCES)
    assert not set(rest.asked) & set(measured.asked)


def test_what_another_sweep_has_finished_does_not_follow(swept) -> None:
    few = replace(GRID, sigma_w2=VARIANCES[1:3], seeds=(0,))
    swept(step, few)
    result, _ = swept(step, adaptive=True)
    assert (result["finished"].sel(sigma_w2=list(VARIANCES[1:3]), seed=0) == 1).all()
    assert (result["follows"].sel(sigma_w2=list(VARIANCES[1:3]), seed=1) == 1).all()


@pytest.mark.slow
def test_a_sweep_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fresh_home(tmp_path_factory.mktemp("whole"), patch)
        whole = Measured(cone)
        patch.setattr(points, "measure_point", whole)
        expected = run_sweep(GRID, jobs=1, adaptive=True).drop_attrs()

    @settings(max_examples=4, deadline=None)
    @given(st.lists(st.integers(0, 30), min_size=1, max_size=3))
    def killed(lives: list[int]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            fresh_home(tmp_path_factory.mktemp("killed"), patch)
            asked = []
            for life in [*lives, math.inf]:
                measured = Measured(cone, life)
                patch.setattr(points, "measure_point", measured)
                try:
                    result = run_sweep(GRID, jobs=1, adaptive=True)
                except KeyboardInterrupt:
                    continue
                finally:
                    asked += measured.asked
            xr.testing.assert_identical(result.drop_attrs(), expected)
            assert sorted(asked) == sorted(whole.asked), "no point twice, and no other point"

    killed()


def test_trainings_are_refined_at_every_depth_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def trained(point, **options: object) -> dict[str, np.ndarray]:
        asked.append((point.sigma_w2, point.depth))
        accuracy = float(point.depth == 5 or point.sigma_w2 > 1.75)
        return {name: np.float32(accuracy) for name in point.fields}

    monkeypatch.setattr(points, "measure_point", trained)
    config = TrainingSweep(dataset="digits", sigma_w2=VARIANCES, seeds=(0,), depths=(5, 20))
    result = run_sweep(config, jobs=1, adaptive=True)
    coarse = len(VARIANCES[::FIRST])
    depths = [depth for _, depth in asked]
    assert (depths.count(5), depths.count(20)) == (coarse, coarse + math.log2(FIRST))
    expected = [[1.0, float(sigma_w2 > 1.75)] for sigma_w2 in VARIANCES]
    np.testing.assert_array_equal(result["accuracy"].sel(seed=0), expected)


@pytest.mark.parametrize("config", [PredictorSweep(dataset="digits"), 3], ids=str)
def test_only_a_grid_with_a_curve_to_watch_is_swept_adaptively(config: object) -> None:
    with pytest.raises(ValueError, match=r"adaptive|config"):
        run_sweep(config, jobs=1, adaptive=True)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 17, 100])
def test_refinement_of_what_always_differs_visits_every_place_once(count: int) -> None:
    visited = [place for new in refinement(count, lambda left, right: False) for place in new]
    assert sorted(visited) == list(range(count))
    first: Iterator[list[int]] = refinement(count, lambda left, right: True)
    assert list(first) == [sorted({*range(0, count, FIRST), count - 1})]


def test_neighbours_agree_only_if_the_image_is_lost_at_the_same_depth() -> None:
    left = np.where(np.arange(50) < 40, 0.03, 0.0)[None]
    for depth, same in ((39, True), (41, True), (37, False)):  # one stage is always allowed
        right = np.where(np.arange(50) < depth, 0.03, 0.0)[None]
        assert agree(left, right, tolerance=0.031) == same


def test_a_curve_without_a_value_agrees_only_with_its_like() -> None:
    known = np.array([[0.5, 0.4]])
    broken = np.array([[0.5, np.nan]])
    assert agree(broken, broken, tolerance=0.1)
    assert not agree(known, broken, tolerance=0.1)
