"""What products of samples say, against explicit features, scikit-learn and fits in turn."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from paperlib.instruments.probe.grams import (
    accuracy_left_out,
    alignment,
    cosines,
    effective_rank,
    left_out,
    log_condition,
    mean_cosine,
    r_squared_left_out,
    same_class,
)

COUNT = 30


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cosines_are_those_of_the_features() -> None:
    features = rows(COUNT, 5)
    expected = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    torch.testing.assert_close(cosines(features @ features.T), expected)


def test_the_mean_cosine_is_of_pairs_and_not_of_samples_with_themselves() -> None:
    features, labels = torch.eye(4, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    features[1] = features[0]
    gram = features @ features.T
    assert mean_cosine(gram) == pytest.approx(2 / 12)
    assert mean_cosine(gram, same_class(labels)) == pytest.approx(0.5)
    assert mean_cosine(gram, ~same_class(labels)) == 0


def test_samples_without_length_count_as_parallel() -> None:
    assert mean_cosine(torch.zeros(3, 3, dtype=torch.float64)) == 1


def test_the_condition_is_that_of_the_features_less_their_mean() -> None:
    features = rows(6, 40) + 100
    values = torch.linalg.svdvals(features - features.mean(0))[:5]
    expected = 2 * math.log(values[0] / values[-1])
    assert log_condition(features @ features.T) == pytest.approx(expected, rel=1e-6)
    whole = torch.linalg.svdvals(features)
    expected = 2 * math.log(whole[0] / whole[-1])
    assert log_condition(features @ features.T, centre=False) == pytest.approx(expected, rel=1e-6)


def test_what_differs_along_k_directions_equally_has_rank_k() -> None:
    orthogonal = torch.linalg.qr(rows(COUNT, 4) - rows(COUNT, 4).mean(0))[0]
    assert effective_rank(orthogonal @ orthogonal.T) == pytest.approx(4, rel=0.1)
    assert effective_rank(torch.ones(5, 5, dtype=torch.float64)) == 0


def test_a_kernel_that_is_the_labels_is_aligned_and_a_floor_hides_what_hardly_differs() -> None:
    labels = torch.arange(COUNT) % 3
    same = same_class(labels).double()
    assert alignment(same, labels, floor=0.0) == pytest.approx(1)
    faint = 1 + 1e-6 * same  # all samples nearly alike
    assert alignment(faint, labels, floor=0.0) == pytest.approx(1, abs=1e-6)
    assert alignment(faint, labels, floor=1e-3) < 0.01
    noise = rows(COUNT, 500)
    assert abs(alignment(noise @ noise.T, labels, floor=0.0)) < 0.3


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_a_ridge_with_each_sample_left_out_is_fitted_once_for_all(penalty: float) -> None:
    features, targets = rows(COUNT, 8) + 3, rows(COUNT, 2, seed=1) - 5
    expected = []
    for number in range(COUNT):
        others = np.arange(COUNT) != number
        ridge = Ridge(penalty).fit(features[others], targets[others])
        expected.append(ridge.predict(features[number : number + 1])[0])
    found = left_out(features @ features.T, targets, penalty)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_targets_that_are_linear_come_back_and_noise_does_not() -> None:
    features = rows(200, 5)
    gram = features @ features.T
    assert r_squared_left_out(gram, features @ rows(5, 3, seed=1), 1e-6) > 0.999
    assert abs(r_squared_left_out(gram, rows(200, 3, seed=2), 1e-6)) < 0.1
    assert r_squared_left_out(torch.zeros_like(gram), features, 1e-6) == pytest.approx(0)


def test_targets_of_more_numbers_than_samples_are_counted_all() -> None:
    features, targets = rows(COUNT, 8), 7 + rows(COUNT, 5 * COUNT, seed=1)
    targets[:, :4] += 9 * features[:, :4]
    gram = features @ features.T
    errors = (left_out(gram, targets, 0.1) - targets).square().sum()
    spread = (targets - targets.mean(0)).square().sum() * (COUNT / (COUNT - 1)) ** 2
    found = r_squared_left_out(gram, targets, 0.1)
    assert found == pytest.approx(float(1 - errors / spread), abs=1e-12)


def test_labels_that_are_linear_are_read_and_others_by_chance() -> None:
    labels = torch.arange(300) % 3
    features = torch.nn.functional.one_hot(labels, 3).double() + 0.1 * rows(300, 3)
    assert accuracy_left_out(features @ features.T, labels, 1e-3) == 1
    noise = rows(300, 3)
    assert accuracy_left_out(noise @ noise.T, labels, 1e-3) == pytest.approx(1 / 3, abs=0.1)
    assert accuracy_left_out(noise @ noise.T, labels + 5, 1e-3) == accuracy_left_out(
        noise @ noise.T, labels, 1e-3
    )


def test_of_several_penalties_that_counts_which_predicts_best() -> None:
    features, targets = rows(COUNT, 28), rows(COUNT, 1, seed=1)  # nearly as many as samples
    gram = features @ features.T
    assert r_squared_left_out(gram, targets, 1e-6) < -1
    both = r_squared_left_out(gram, targets, 1e-6, 1e6)
    assert both == r_squared_left_out(gram, targets, 1e6) > -0.1
