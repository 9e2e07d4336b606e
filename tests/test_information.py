"""Information at a resolution: closed forms, limits, and what may not change an estimate."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from paperlib.measures.information import (
    edges,
    gaussian_channel,
    information,
    noisy,
    patterns,
    quantiles,
    ranges,
    widths,
)

SIGNS = np.arange(512) % 3 % 2  # a label that is no half


def activations(count: int = 512, neurons: int = 3, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed).standard_normal((count, neurons))
    return np.tanh(numbers).astype(np.float32)


def plain(symbols: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The definition: entropy of rows, minus that within each class."""

    def entropy(rows: np.ndarray) -> float:
        share = np.unique(rows, axis=0, return_counts=True)[1] / len(rows)
        return float(-(share * np.log2(share)).sum())

    classes = [symbols[labels == each] for each in np.unique(labels)]
    within = sum(len(rows) / len(labels) * entropy(rows) for rows in classes)
    return entropy(symbols), entropy(symbols) - within


@pytest.mark.parametrize("width", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_information_is_its_definition_and_scikit_learns(width: float, classes: int) -> None:
    symbols, labels = widths(activations(), width), np.arange(512) % classes
    known, label, alone = information(symbols, labels)
    assert (known, label) == pytest.approx(plain(symbols, labels), abs=1e-12)
    rows = np.unique(symbols, axis=0, return_inverse=True)[1].ravel()
    assert label == pytest.approx(mutual_info_score(rows, labels) / math.log(2), abs=1e-9)
    assert alone == pytest.approx((np.bincount(rows)[rows] == 1).mean())


def test_networks_side_by_side_are_measured_as_each_alone() -> None:
    many = np.stack([activations(seed=seed) for seed in range(4)])
    together = information(widths(many, 0.3), SIGNS)
    for number, one in enumerate(many):
        alone = information(widths(one, 0.3), SIGNS)
        assert [float(each[number]) for each in together] == [float(each) for each in alone]


def test_inputs_that_all_differ_have_log_n_bits_and_the_whole_label() -> None:
    known, label, alone = information(patterns(activations()), SIGNS)
    assert known == 9
    assert label == pytest.approx(plain(SIGNS[:, None], SIGNS)[1])
    assert alone == 1


def test_a_constant_layer_says_nothing() -> None:
    same = np.full((512, 3), 0.3, np.float32)
    for symbols in (widths(same, 0.07), quantiles(same, 7), ranges(same, 7, 0.3, 0.3)):
        assert [float(each) for each in information(symbols, SIGNS)] == [0, 0, 0]
    values = torch.from_numpy(same)
    assert np.abs(noisy(values, torch.from_numpy(SIGNS), 1e-3)).max() < 1e-5
    assert gaussian_channel(values, 1e-3) == pytest.approx(0, abs=1e-9)


def test_clusters_far_apart_hold_the_log_of_their_number() -> None:
    clusters = torch.arange(512) % 8
    values = torch.nn.functional.one_hot(clusters).double() * 100
    assert information(widths(values.numpy(), 1.0), SIGNS)[0] == pytest.approx(3)
    lower, upper, label = noisy(values, (clusters < 4).long(), 1e-3)
    assert (lower, upper, label) == pytest.approx((3, 3, 1))


@pytest.mark.parametrize("apart", [0.01, 0.05, 0.2])
def test_two_points_have_the_bounds_of_the_closed_form(apart: float) -> None:
    values, noise = torch.tensor([[0.0], [apart]], dtype=torch.float64), 1e-3
    lower, upper, label = noisy(values, torch.tensor([0, 1]), noise)
    assert upper == pytest.approx(1 - math.log2(1 + math.exp(-(apart**2) / 2 / noise)))
    assert lower == pytest.approx(1 - math.log2(1 + math.exp(-(apart**2) / 8 / noise)))
    assert label == pytest.approx(upper)  # one input of each class


def test_bounds_are_those_of_a_plain_double_loop() -> None:
    values = torch.from_numpy(activations(40)).double()
    labels, noise = torch.arange(40) % 3, 0.02

    def bound(rows: torch.Tensor, spread: float) -> float:
        terms = [[math.exp(-float((a - b).square().sum()) / spread) for b in rows] for a in rows]
        return -sum(math.log2(sum(row) / len(rows)) for row in terms) / len(rows)

    within = sum((labels == c).sum().item() / 40 * bound(values[labels == c], 2 * noise)
                 for c in range(3))  # fmt: skip
    whole = bound(values, 2 * noise)
    expected = bound(values, 8 * noise), whole, whole - within
    assert noisy(values, labels, noise) == pytest.approx(expected)


def test_a_gaussian_channel_lies_between_the_pairwise_bounds() -> None:
    """T = x + noise in one dimension, for which ½ log2 (1 + Σ/σ²) is the truth."""
    values = torch.randn(3000, 1, generator=torch.Generator().manual_seed(0)).double()
    lower, upper, _ = noisy(values, torch.zeros(3000, dtype=torch.int64), 0.01)
    truth = gaussian_channel(values, 0.01)
    assert truth == pytest.approx(0.5 * math.log2(1 + float(values.var(correction=0)) / 0.01))
    assert lower < truth < upper


def test_a_channel_of_several_neurons_is_half_the_log_of_a_determinant() -> None:
    values = torch.from_numpy(activations()).double()
    spread = np.cov(values.numpy().T, bias=True)
    expected = np.linalg.slogdet(np.eye(3) + spread / 0.1)[1] / 2 / math.log(2)
    assert gaussian_channel(values, 0.1) == pytest.approx(expected)


def test_finer_bins_never_hold_less_and_end_at_log_n() -> None:
    found = [float(information(widths(activations(), 2.0**-k), SIGNS)[0]) for k in range(20)]
    assert all(finer >= coarser for coarser, finer in itertools.pairwise(found))
    assert found[0] < 4
    assert found[-1] == 9


def test_the_label_is_never_known_better_than_it_is_or_than_the_input() -> None:
    entropy = plain(SIGNS[:, None], SIGNS)[1]
    for width in (0.01, 0.1, 0.5, 1.0, 3.0):
        known, label, _ = information(widths(activations(), width), SIGNS)
        assert -1e-12 <= label <= min(entropy, known) + 1e-12


def test_order_and_copies_of_neurons_change_no_bins() -> None:
    values = activations()
    for symbols in (widths(values, 0.2), quantiles(values, 9), patterns(values)):
        one = information(symbols, SIGNS)[0]
        assert information(symbols[:, ::-1], SIGNS)[0] == pytest.approx(one, abs=1e-12)
        twice = np.concatenate([symbols, symbols[:, :1]], 1)
        assert information(twice, SIGNS)[0] == pytest.approx(one, abs=1e-12)


def test_a_rotation_changes_no_noisy_information_and_a_copy_does() -> None:
    values, labels = torch.from_numpy(activations()).double(), torch.from_numpy(SIGNS)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())
    moved = values @ turn.Q + 5
    np.testing.assert_allclose(noisy(moved, labels, 0.1), noisy(values, labels, 0.1), atol=1e-9)
    assert gaussian_channel(moved, 0.1) == pytest.approx(gaussian_channel(values, 0.1))
    assert noisy(torch.cat([values, values], 1), labels, 0.1)[1] > noisy(values, labels, 0.1)[1]


def test_a_scale_changes_no_bins_of_the_own_range_and_a_monotone_map_no_quantiles() -> None:
    values = activations()
    low, high = values.min(), values.max()
    scaled = ranges(values * 1024, 29, low * 1024, high * 1024)
    np.testing.assert_array_equal(scaled, ranges(values, 29, low, high))
    warped = quantiles(values.astype(np.float64) ** 3, 8)
    assert (warped == quantiles(values.astype(np.float64), 8)).mean() > 0.99


def test_quantiles_fill_their_bins_alike() -> None:
    counts = np.bincount(quantiles(activations(), 8).ravel())
    assert len(counts) == 8
    assert counts.min() == counts.max() == 512 * 3 / 8


def test_an_edge_at_zero_gives_any_symmetric_signal_a_bit_and_a_bin_there_none() -> None:
    tiny = activations(neurons=1) * 1e-6
    assert information(widths(tiny, 0.07), SIGNS)[0] == pytest.approx(1, abs=0.01)
    assert information(widths(tiny, 0.07, shift=0.035), SIGNS)[0] == 0
    assert information(edges(tiny, np.linspace(-1, 1, 30)), SIGNS)[0] == 0  # 29 bins
    assert information(edges(tiny, np.linspace(-1, 1, 31)), SIGNS)[0] > 0.99  # 30


def test_bins_around_zero_refuse_activations_that_outgrow_them() -> None:
    values = np.maximum(activations() * 3, 0)
    with pytest.raises(ValueError, match=r"\d+% of the activations are outside of the bins"):
        edges(values, np.linspace(-1, 1, 30))
    assert edges(np.minimum(values, 1), np.linspace(-1, 1, 30)).max() == 28


@pytest.mark.parametrize("given", [0.0, -1.0, math.nan, "fine"])
def test_a_resolution_must_be_a_positive_number(given: object) -> None:
    for call in (
        lambda: widths(activations(), given),
        lambda: noisy(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), given),
        lambda: gaussian_channel(torch.zeros(3, 1), given),
    ):
        with pytest.raises(ValueError, match=r"(width|noise) must be"):
            call()
