"""Scores of predictors: against counts by hand, and where there is nothing to score."""

import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from paperlib.instruments.prediction.names import PREDICTORS
from paperlib.instruments.prediction.scoring import (
    best_threshold,
    mistakes,
    predictor_label,
    rank_correlation,
    roc_auc,
    scoreboard,
)
from paperlib.training.outcome import trainable_depth, trained_threshold, wall

LOWEST = np.finfo(np.float64).min
DEPTHS = [2, 4, 8]
NAN = np.nan

ACCURACY = np.array(
    [  # of seed 0, of seed 1; the second variance is censored, and its seed 1 has a gap
        [[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]],
        [[0.9, 0.9, 0.7], [0.9, 0.2, 0.7]],
        [[0.8, 0.6, 0.1], [0.8, 0.1, 0.1]],
    ]
)
TRAINS = ACCURACY > 0.5
MEASURED = np.array([[2, 2], [8, 8], [4, 2]])
SOME = np.random.default_rng(9).normal(size=(3, 2, 3)) + TRAINS  # neither perfect nor useless


@pytest.fixture(autouse=True)
def _no_warning():
    """Nothing here overflows, or takes the mean of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trainings(accuracy: np.ndarray = ACCURACY, *, classes: int = 10) -> xr.Dataset:
    """A grid of trainings, finished where the accuracy is known, of 1, 2, 3, … seconds each."""
    dims = ("sigma_w2", "seed", "depth")
    seconds = np.arange(1.0, accuracy.size + 1).reshape(accuracy.shape)
    return xr.Dataset(
        {
            "accuracy": (dims, accuracy.copy()),
            "seconds": (dims, seconds),
            "finished": (dims, (~np.isnan(accuracy)).astype(np.int8)),
        },
        {
            "sigma_w2": [1.0, 1.7, 3.0][: len(accuracy)],
            "seed": list(range(accuracy.shape[1])),
            "depth": DEPTHS,
        },
        {"provenance": json.dumps({"data": {"classes": classes}})},
    )


def predictions(**scores: np.ndarray) -> xr.Dataset:
    """Scores at the grid's depths (sigma_w2, seed, depth), put among depths 1 … 10.

    At the depths between they say the opposite of everything.
    """
    at_depths = np.stack([np.asarray(values, float) for values in scores.values()], axis=2)
    every = np.full((*at_depths.shape[:3], 10), LOWEST)
    every[..., ::2] = -LOWEST
    every[..., np.array(DEPTHS) - 1] = at_depths
    shape = every.shape[:3]
    return xr.Dataset(
        {
            "scores": (("sigma_w2", "seed", "predictor", "depth"), every),
            "seconds": (("sigma_w2", "seed", "predictor"), np.full(shape, 0.5)),
        },
        {
            "sigma_w2": [1.0, 1.7, 3.0][: shape[0]],
            "seed": list(range(shape[1])),
            "predictor": list(scores),
            "depth": np.arange(1, 11),
        },
    )


def row(scores: np.ndarray, accuracy: np.ndarray = ACCURACY, *, classes: int = 10) -> pd.Series:
    return scoreboard(predictions(it=scores), trainings(accuracy, classes=classes)).loc["it"]


# --- what trains ---


def test_the_threshold_lies_halfway_from_chance_to_the_best() -> None:
    assert trained_threshold(ACCURACY, classes=10) == pytest.approx((0.1 + 0.9) / 2)
    assert trained_threshold([0.3, NAN, 0.8], classes=4) == pytest.approx((0.25 + 0.8) / 2)
    assert trained_threshold(trainings()["accuracy"], classes=10) == pytest.approx(0.5)


@pytest.mark.parametrize("best", [0.0, 0.1, 0.118, np.float32(0.1)])
def test_a_grid_on_which_nothing_learns_has_no_threshold(best: float) -> None:
    with pytest.raises(ValueError, match=r"learnt anything.*chance is 0.1; train for more steps"):
        trained_threshold([0.0, best], classes=10)


def test_a_grid_without_accuracies_or_classes_has_no_threshold() -> None:
    with pytest.raises(ValueError, match="no accuracy is known"):
        trained_threshold([NAN, NAN], classes=10)
    with pytest.raises(ValueError, match="classes must be >= 2, got 1"):
        trained_threshold([0.9], classes=1)


@pytest.mark.parametrize(
    ("column", "depth"),
    [
        ([0.9, 0.9, 0.1], 4),
        ([0.9, 0.5, 0.1], 4),  # to reach it is enough
        ([0.9, 0.9, 0.9], 8),  # censored
        ([0.4, 0.3, 0.1], 0),
        ([0.9, 0.1, 0.9], 8),  # one that trains outweighs a shallower one that failed
        ([0.1, 0.9, 0.1], 4),
        ([0.9, NAN, NAN], 2),
        ([NAN, NAN, 0.1], 0),
        ([NAN, NAN, NAN], NAN),
        ([LOWEST, LOWEST, LOWEST], 0),
    ],
)
def test_the_trainable_depth_is_the_deepest_that_trains(column: list, depth: float) -> None:
    assert trainable_depth(column, DEPTHS, 0.5) == pytest.approx(depth, nan_ok=True)


def test_trainable_depths_come_for_a_whole_grid_in_any_order_of_depths() -> None:
    grid = trainings()
    np.testing.assert_array_equal(trainable_depth(grid["accuracy"], grid["depth"], 0.5), MEASURED)
    np.testing.assert_array_equal(
        trainable_depth(ACCURACY[..., [2, 0, 1]], [8, 2, 4], 0.5), MEASURED
    )


@pytest.mark.parametrize(("values", "expected"), [
    ([0.0, 0.0, 0.4, 0.1], 2.5),  # the first rise counts
    ([0.0, 0.2, 0.2, 0.2], 2.0),
    ([0.0, np.nan, 0.4, 0.4], 2.0),  # what is not known is stepped over
    ([0.3, 0.0, 0.4, 0.4], np.nan),  # there already
    ([0.0, 0.1, 0.1, 0.1], np.nan),
])  # fmt: skip
def test_a_wall_stands_where_values_first_rise_to_the_threshold(values, expected) -> None:
    assert wall(values, [1.0, 2.0, 3.0, 4.0], 0.2) == pytest.approx(expected, nan_ok=True)


def test_a_wall_needs_a_rising_grid_of_the_same_length() -> None:
    with pytest.raises(ValueError, match="rising sigma_w2"):
        wall([0.0, 1.0], [2.0, 1.0], 0.5)
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        wall([0.0, 1.0], [1.0, 2.0, 3.0], 0.5)


def test_the_trainable_depth_at_an_infinite_threshold_is_none_or_all() -> None:
    assert trainable_depth([0.1, 0.9, 0.1], DEPTHS, np.inf) == 0
    assert trainable_depth([0.1, LOWEST, LOWEST], DEPTHS, -np.inf) == 8


def test_depths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"last axis .* got \(3, 2, 3\) and \(2,\) depths"):
        trainable_depth(ACCURACY, [2, 4], 0.5)
    with pytest.raises(ValueError, match=r"depths must be >= 1, got \[0, 4, 8\]"):
        trainable_depth(ACCURACY, [0, 4, 8], 0.5)


# --- one predictor's scores ---


@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_the_auc_is_the_share_of_pairs_in_the_right_order(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    scores, trains = random.integers(0, distinct, 40) / 7, random.random(40) < 0.3
    pairs = list(itertools.product(scores[trains], scores[~trains]))
    expected = sum((high > low) + 0.5 * (high == low) for high, low in pairs) / len(pairs)
    assert 0 < expected < 1
    assert roc_auc(scores, trains) == pytest.approx(expected, rel=1e-12)


def test_the_auc_of_perfect_inverted_and_constant_scores() -> None:
    trains = [True, False, True, False, False]
    assert roc_auc(trains, trains) == 1
    assert roc_auc([-1.0, 0, -1, 0, 0], trains) == 0
    assert roc_auc([3.0] * 5, trains) == 0.5


def test_the_auc_holds_at_the_ends_of_float64() -> None:
    # of six pairs four are in order and one is tied
    scores = [-LOWEST, -LOWEST, LOWEST, LOWEST, LOWEST]
    assert roc_auc(scores, [True, True, False, True, False]) == pytest.approx(5 / 6)


def test_the_auc_depends_on_the_order_alone() -> None:
    random = np.random.default_rng(0)
    scores, trains = random.normal(size=50), random.random(50) < 0.5
    assert roc_auc(np.exp(9 * scores), trains) == roc_auc(scores, trains)


@pytest.mark.parametrize("all_train", [True, False])
def test_there_is_no_auc_where_all_networks_train_or_none(all_train: bool) -> None:
    assert np.isnan(roc_auc([1.0, 2, 3], [all_train] * 3))


@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_no_threshold_is_wrong_less_often_than_the_best(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    for _ in range(20):
        scores, trains = random.integers(0, distinct, 12).astype(float), random.random(12) < 0.5
        best = best_threshold(scores, trains)
        anywhere = np.append(np.unique(scores), [-1, 2000])
        least = min(((scores >= limit) != trains).sum() for limit in anywhere)
        assert ((scores >= best) != trains).sum() == least


@pytest.mark.parametrize(
    ("scores", "trains", "expected"),
    [
        ([1, 2, 4, 8], [0, 0, 1, 1], 3),
        ([1, 2, 4, 8], [1, 1, 1, 1], -np.inf),
        ([1, 2, 4, 8], [0, 0, 0, 0], np.inf),
        ([1, 2, 4, 8], [1, 1, 0, 0], np.inf),  # upside down: no better than to say nothing trains
        ([1, 2, 4, 8, 10], [0, 1, 0, 1, 1], 6),  # 1.5 is as good
        ([1, 2, 4, 8, 16, 32], [0, 1, 0, 1, 0, 1], 6),  # 1.5 and 24 too
        ([LOWEST, -5, -LOWEST], [0, 1, 1], LOWEST / 2),
        ([LOWEST, LOWEST / 2], [0, 1], 0.75 * LOWEST),
        ([LOWEST, LOWEST, -LOWEST, -LOWEST], [0, 0, 1, 1], 0),
    ],
)
def test_the_best_threshold_lies_between_scores(
    scores: list, trains: list, expected: float
) -> None:
    assert best_threshold(scores, trains) == expected


def test_the_rank_correlation_is_pearsons_of_mean_ranks() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, (2, 15))
    ranks = [[(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x] for x in (first, second)]
    expected = np.corrcoef(ranks)[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected, rel=1e-12)


def test_equal_predictions_correlate_with_nothing_and_equal_measurements_cannot() -> None:
    assert rank_correlation([3, 3, 3], [1, 2, 3]) == 0
    assert np.isnan(rank_correlation([1, 2, 3], [8, 8, 8]))
    assert np.isnan(rank_correlation([3, 3], [8, 8]))
    assert np.isnan(rank_correlation([3], [8]))


# --- the scoreboard ---


def test_a_perfect_predictor_scores_in_full() -> None:
    found = row(TRAINS)
    agreement = ["auc", "auc_std", "spearman", "depth_error", "unfitted_error"]
    assert list(found.index) == [*agreement, "seconds", "saving"]
    assert found["auc":"depth_error"].tolist() == pytest.approx([1, 0, 1, 0])


def test_an_inverted_predictor_orders_all_pairs_wrongly() -> None:
    found = row(-ACCURACY)
    assert found["auc"] == pytest.approx((0 + 0) / 2)
    assert found["depth_error"] > 2


def test_constant_scores_know_nothing() -> None:
    for value in (0.0, LOWEST, -LOWEST):
        found = row(np.full((3, 2, 3), value))
        # of the 9 networks 6 train with seed 0 and 4 with seed 1; so with seed 1 all are said to
        # train, and with seed 0 none
        assert found["auc"] == 0.5
        assert found["spearman"] == 0
        assert found["depth_error"] == pytest.approx(((2 + 8 + 4) / 3 + (6 + 0 + 6) / 3) / 2)


def test_networks_that_overflow_score_lowest_and_count() -> None:
    scores = np.where(TRAINS, -3.0, LOWEST)
    assert row(scores)["auc":"depth_error"].tolist() == pytest.approx([1, 0, 1, 0])
    scores[1, 0, 2] = LOWEST  # this one trains, to depth 8; the next one below it to depth 4
    found = row(scores)
    assert found["auc"] == pytest.approx((1 - 0.5 / 6 + 1) / 2)
    assert found["auc_std"] == pytest.approx(0.5 / 6 / np.sqrt(2))
    assert found["depth_error"] == pytest.approx((4 / 3 + 0) / 2)


def test_the_table_agrees_with_scipy_seed_by_seed() -> None:
    scores, found = SOME, row(SOME)
    auc, correlation, error = [], [], []
    for seed in (0, 1):
        own, true = scores[:, seed].ravel(), TRAINS[:, seed].ravel()
        statistic = scipy.stats.mannwhitneyu(own[true], own[~true]).statistic
        auc.append(statistic / true.sum() / (~true).sum())
        limit = best_threshold(scores[:, 1 - seed].ravel(), TRAINS[:, 1 - seed].ravel())
        predicted = [
            max((d for d, s in zip(DEPTHS, column, strict=True) if s >= limit), default=0)
            for column in scores[:, seed]
        ]
        correlation.append(scipy.stats.spearmanr(predicted, MEASURED[:, seed]).statistic)
        error.append(np.mean(np.abs(predicted - MEASURED[:, seed])))
    assert found["auc"] == pytest.approx(np.mean(auc))
    assert found["auc_std"] == pytest.approx(abs(auc[0] - auc[1]) / np.sqrt(2))
    assert found["spearman"] == pytest.approx(np.mean(correlation))
    assert found["depth_error"] == pytest.approx(np.mean(error))
    assert 0 < found["depth_error"] < 6


def test_the_threshold_comes_from_the_other_seed() -> None:
    shifted = TRAINS + np.array([0, 10])[:, np.newaxis]  # perfect on each seed, but not on both
    found = row(shifted)
    assert found["auc"] == 1
    # of seed 0 none is then said to train, of seed 1 all
    assert found["depth_error"] == pytest.approx(((2 + 8 + 4) / 3 + (6 + 0 + 6) / 3) / 2)
    assert found["spearman"] == 0


def test_one_seed_alone_gives_its_own_threshold() -> None:
    found = row(TRAINS[:, :1] + 10, ACCURACY[:, :1])
    assert found[["auc", "spearman", "depth_error"]].tolist() == pytest.approx([1, 1, 0])
    assert np.isnan(found["auc_std"])


def test_a_predicted_depth_may_be_a_multiple_of_the_true_one() -> None:
    # 1 - depth/end is positive down to its own end, which here is seven times too deep
    ends = 7 * np.array([2, 8, 4])[:, np.newaxis, np.newaxis] + np.zeros((3, 2, 1))
    accuracy = np.where(np.array(DEPTHS) <= ends / 7, 0.9, 0.1)
    scores = 1 - np.array(DEPTHS) / ends
    assert row(scores, accuracy)["auc":"depth_error"].tolist() == pytest.approx([1, 0, 1, 0])


def test_predictors_that_state_a_depth_are_also_taken_at_their_word() -> None:
    # the scores 1 - depth/end are above 0 just above the end; measured are 2, 8 and 4
    ends = np.array([3.0, 99.0, 2.0])[:, np.newaxis, np.newaxis] + np.zeros((3, 2, 1))
    accuracy = np.where(np.array(DEPTHS) <= np.array([[[2]], [[8]], [[4]]]), 0.9, 0.1)
    scores = 1 - np.array(DEPTHS) / ends
    table = scoreboard(
        predictions(correlation_depth=scores, other=scores),
        trainings(accuracy * np.ones((3, 2, 3))),
    )
    assert table.loc["correlation_depth", "unfitted_error"] == pytest.approx((0 + 0 + 4) / 3)
    assert np.isnan(table.loc["other", "unfitted_error"])


def test_the_best_predictor_comes_first() -> None:
    table = scoreboard(
        predictions(worst=-ACCURACY, some=SOME, best=ACCURACY, same=0 * SOME), trainings()
    )
    assert table.index[0] == "best"
    assert table.index[-1] == "worst"
    assert table.index.name == "predictor"
    assert table["auc"].is_monotonic_decreasing
    assert table.loc["best"].equals(row(ACCURACY))


def test_costs_are_per_untrained_network_and_for_the_grid() -> None:
    given = predictions(it=TRAINS, slow=TRAINS)
    given["seconds"][:] = np.arange(6).reshape(3, 2)[:, :, np.newaxis] * [1, 100]
    table = scoreboard(given, trainings())
    assert table.loc["it", "seconds"] == pytest.approx(2.5)
    assert table.loc["slow", "seconds"] == pytest.approx(250)
    assert table.loc["it", "saving"] == pytest.approx(sum(range(1, 19)) / 15)
    assert table.loc["slow", "saving"] == pytest.approx(sum(range(1, 19)) / 1500)


def test_seconds_of_a_gpu_are_not_compared_with_those_of_a_processor() -> None:
    given, grid = predictions(it=TRAINS), trainings()
    about = {**json.loads(grid.attrs["provenance"]), "computed": [{"device": "cuda"}]}
    grid.attrs["provenance"] = json.dumps(about)
    table = scoreboard(given, grid)
    assert np.isnan(table.loc["it", "saving"])
    assert table.loc["it", "auc"] == 1


def test_trainings_that_are_not_finished_are_left_out_of_everything() -> None:
    accuracy = ACCURACY.copy()
    accuracy[0, 0, 2] = accuracy[2] = NAN  # a network, and a variance
    scores = TRAINS.astype(float)
    scores[0, 0, 2] = scores[2] = 99
    table = scoreboard(predictions(it=scores), trainings(accuracy))
    found = table.loc["it"]
    assert found["auc":"depth_error"].tolist() == pytest.approx([1, 0, 1, 0])
    done = [n for n in range(1, 13) if n != 3]
    assert found["saving"] == pytest.approx(sum(done) / (4 * 0.5))
    wrong = mistakes(predictions(it=scores), trainings(accuracy))
    assert wrong["sigma_w2"].values.tolist() == [1.0, 1.7]
    assert not wrong.any()


def test_what_finished_says_counts_not_the_number_beside_it() -> None:
    grid = trainings()
    grid["accuracy"][1, 0, 2] = 0.1
    grid["finished"][1, 0, 2] = 0
    assert scoreboard(predictions(it=TRAINS), grid).loc["it", "auc"] == 1


def test_a_seed_without_trainings_leaves_the_other_alone() -> None:
    accuracy = ACCURACY.copy()
    accuracy[:, 1] = NAN
    both = row(SOME, accuracy).drop("saving")  # their seconds are numbered anew
    alone = row(SOME[:, :1], ACCURACY[:, :1]).drop("saving")
    pd.testing.assert_series_equal(both, alone)


def test_a_grid_on_which_everything_trains_tells_no_predictors_apart() -> None:
    found = row(TRAINS, np.full((3, 2, 3), 0.9))
    assert found[["auc", "auc_std", "spearman"]].isna().all()
    assert found["depth_error"] == 0


def test_neither_the_order_of_dims_nor_of_values_matters() -> None:
    given, grid = predictions(it=SOME), trainings()
    expected = scoreboard(given, grid)
    turned = given.transpose(..., "sigma_w2").isel(sigma_w2=[2, 0, 1], seed=[1, 0])
    pd.testing.assert_frame_equal(scoreboard(turned, grid), expected)
    pd.testing.assert_frame_equal(scoreboard(given, grid.transpose("depth", ...)), expected)


def test_the_arguments_are_not_touched() -> None:
    given, grid = predictions(it=TRAINS), trainings()
    scoreboard(given, grid)
    mistakes(given, grid)
    xr.testing.assert_identical(given, predictions(it=TRAINS))
    xr.testing.assert_identical(grid, trainings())


# --- where a predictor is wrong ---


def test_a_perfect_predictor_is_wrong_nowhere() -> None:
    wrong = mistakes(predictions(it=TRAINS), trainings())
    assert wrong.dims == ("predictor", "sigma_w2", "depth")
    assert wrong["depth"].values.tolist() == DEPTHS
    assert not wrong.any()


def test_mistakes_have_a_sign_and_count_seeds() -> None:
    scores = TRAINS.astype(float)
    scores[0, 0, 1] = 1  # says that it trains, but it does not
    scores[1, 1, 0] = 0  # trains, but it does not say so
    scores[2, :, 2] = 1
    scores[0, 0, 0], scores[0, 1, 2] = 0, 1
    wrong = mistakes(predictions(other=TRAINS, it=scores), trainings()).sel(predictor="it")
    np.testing.assert_array_equal(wrong, [[-0.5, 0.5, 0.5], [-0.5, 0, 0], [0, 0, 1]])


def test_one_mistake_of_each_kind_cancels() -> None:
    accuracy = ACCURACY.copy()
    accuracy[2, :, 1] = 0.9, 0.1
    scores = (accuracy > 0.5).astype(float)
    scores[2, :, 1] = 0, 1
    assert mistakes(predictions(it=scores), trainings(accuracy)).sel(sigma_w2=3.0, depth=4) == 0


def test_there_is_no_mistake_where_no_training_is_finished() -> None:
    accuracy = ACCURACY.copy()
    accuracy[1, :, 1] = NAN
    wrong = mistakes(predictions(it=-ACCURACY), trainings(accuracy)).isel(predictor=0)
    assert np.isnan(wrong).values.tolist() == [[False] * 3, [False, True, False], [False] * 3]


# --- what cannot be compared ---


@pytest.mark.parametrize("function", [scoreboard, mistakes])
def test_predictions_of_another_grid_are_refused(function) -> None:
    given, grid = predictions(it=TRAINS), trainings()
    with pytest.raises(ValueError, match=r"same sigma_w2; .*: \[\], only trained: \[3.0\]; choose"):
        function(given.isel(sigma_w2=[0, 1]), grid)
    with pytest.raises(ValueError, match=r"same seed; only predicted: \[1\], only trained: \[\]"):
        function(given, grid.isel(seed=[0]))
    with pytest.raises(ValueError, match=r"every trained depth .* \[8\] have none"):
        function(given.sel(depth=slice(1, 7)), grid)


def test_scores_that_are_not_finite_are_refused_by_name() -> None:
    bad = TRAINS.astype(float)
    bad[0, 0, 0] = NAN
    infinite = np.where(TRAINS, np.inf, 0)
    with pytest.raises(ValueError, match=r"scores must be finite; some of bad, worse are not"):
        scoreboard(predictions(bad=bad, good=TRAINS, worse=infinite), trainings())


def test_other_variables_or_dims_are_refused() -> None:
    given, grid = predictions(it=TRAINS), trainings()
    with pytest.raises(ValueError, match=r"scores of predictions must have the dims .* got seed"):
        scoreboard(given.isel(sigma_w2=0), grid)
    with pytest.raises(ValueError, match=r"accuracy of trained must have the dims"):
        scoreboard(given, grid.isel(depth=0))
    with pytest.raises(KeyError, match="finished"):
        scoreboard(given, grid.drop_vars("finished"))


def test_chance_is_that_of_the_classes_that_were_trained() -> None:
    # of two classes 0.7 is halfway from chance to 0.9, of ten it is 0.5
    accuracy = np.array([[[0.9, 0.6, 0.1]], [[0.9, 0.9, 0.6]]])
    scores = (accuracy > 0.7).astype(float)
    assert row(scores, accuracy, classes=2)["auc"] == 1
    assert row(scores, accuracy, classes=10)["auc"] < 1
    wrong = mistakes(predictions(it=scores), trainings(accuracy, classes=2))
    assert not wrong.any()


def test_trainings_that_taught_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no accuracy is known"):
        row(TRAINS, np.full((3, 2, 3), NAN))
    with pytest.raises(ValueError, match="no network has learnt anything"):
        row(TRAINS, np.full((3, 2, 3), 0.118))


def test_predictors_are_named_as_in_the_readme() -> None:
    labels = {predictor_label(name) for name in PREDICTORS}
    assert len(labels) == len(PREDICTORS)
    assert {"R², closed form", "published cutoff, Adam", "6 ξ_c (mean field)"} <= labels
    assert not any("_" in label.replace("ξ_c", "") for label in labels)
