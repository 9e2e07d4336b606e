"""Infinite width: the numbers of theory, and drawn and trained networks that approach them."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from paperlib import load_dataset
from paperlib.instruments import infinite_width
from paperlib.instruments.infinite_width import Settings, image_r2, law
from paperlib.training import squared_error, train

SMALL = Settings(
    dataset="digits", sigma_w2=(0.6, 1.7), depth=3, networks=2, law_sigma_w2=(1.7,),
    law_widths=(100, 200), trained_depth=2, trained_widths=(16, 128), members=2, steps=20,
    train_images=40, test_images=30,
)  # fmt: skip


def test_reading_from_a_kernel_is_ridge_regression_on_its_features() -> None:
    rng = np.random.default_rng(0)
    features, images = rng.random((50, 12)), rng.random((50, 6))
    x, y = features[:30] - features[:30].mean(0), images[:30] - images[:30].mean(0)
    weight = np.linalg.solve(x.T @ x / 30 + 0.02 * np.eye(12), x.T @ y / 30)
    back = images[:30].mean(0) + (features[30:] - features[:30].mean(0)) @ weight
    spread = ((images[30:] - images[:30].mean(0)) ** 2).sum()
    expected = 1 - ((images[30:] - back) ** 2).sum() / spread
    found = image_r2(features @ features.T / 12, images, 30, ridge=0.02 / 12)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif("PAPERLIB_DATA" not in os.environ, reason="needs MNIST")
def test_the_ordered_wall_stands_where_theory_puts_it() -> None:
    """0.65, 0.18 and 0.004 at levels 10, 14 and 20, of 300 images."""
    settings = Settings(train_images=300)
    task = infinite_width._task(settings, load_dataset("mnist", limit=300))
    levels = infinite_width._r2_levels(settings, task, 0.6, 784)
    assert levels[9] == pytest.approx(0.65, abs=0.03)
    assert levels[13] == pytest.approx(0.18, abs=0.02)
    assert levels[19] == pytest.approx(0.004, abs=0.002)


@pytest.fixture(scope="module")
def digits() -> infinite_width._Task:
    return infinite_width._task(SMALL, load_dataset("digits", limit=40))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_gap_to_drawn_networks_falls_with_their_width(
    digits: infinite_width._Task, activation: str
) -> None:
    settings = replace(SMALL, activation=activation)
    exact = np.array(infinite_width._r2_levels(settings, digits, 1.7, 784))
    gaps = [
        exact - np.mean([infinite_width._drawn(settings, digits, 1.7, width, n, 784)
                         for n in range(3)], 0)
        for width in (150, 600)
    ]  # fmt: skip
    assert (gaps[1] > 0).all()
    assert (gaps[0] / gaps[1] > 2.5).all()  # four times the width: a quarter of the gap
    assert (gaps[1] < 0.1).all()


def test_the_last_layer_alone_learns_as_its_closed_form_says(digits: infinite_width._Task) -> None:
    """Against that layer trained step by step, less what it says before."""
    rates = {"nngp": 0.2, "ntk": 0.2}
    *_, closed = infinite_width._learners(SMALL, digits, 16, 0, rates)
    network = infinite_width._network(SMALL, digits, 16, 0).double()
    images = digits.images.double()
    with torch.no_grad():
        features, before = network[:-1](images), network(images)
    lessons = features[:40], torch.as_tensor(digits.targets) + before[:40]
    layer = network[-1]
    optimiser = torch.optim.SGD([
        {"params": [layer.weight], "lr": 0.2 * SMALL.trained_sigma_w2 / 16},
        {"params": [layer.bias], "lr": 0.2 * SMALL.sigma_b2},
    ], lr=0.2)  # fmt: skip
    train(layer, lessons, optimiser=optimiser, steps=20, batch_size=40,
          rule=squared_error)  # fmt: skip
    with torch.no_grad():
        found = (layer(features[40:]) - before[40:]).numpy()
    np.testing.assert_allclose(closed, found, atol=1e-5)


def test_wider_networks_and_their_mean_learn_what_their_kernel_predicts(
    digits: infinite_width._Task,
) -> None:
    found = {name: values for name, (_, values, _) in
             infinite_width._trainings(SMALL, digits).items()}  # fmt: skip
    for way in (1, 2):
        narrow, wide = found["distance"][way].mean(-1)
        assert wide < 0.6 * narrow
        assert (found["ensemble_distance"][way] < found["distance"][way].mean(-1)).all()
    # what a network says before training does not go away with its width
    assert found["distance"][0, 1].mean() > 2 * found["distance"][1, 1].mean()


def made(gap: np.ndarray) -> xr.Dataset:
    """A result with this gap (law_width, level), of 30 fitted images."""
    return xr.Dataset(
        {
            "law_infinite": (("law_sigma_w2", "level"), np.full((1, gap.shape[1]), 0.9)),
            "law_drawn": (("law_sigma_w2", "law_width", "network", "level"),
                          0.9 - gap[None, :, None]),
            "law_images": 30,
        },
        {"law_sigma_w2": [1.7], "law_width": [40, 100, 200], "level": [1, 2, 3, 4]},
    )  # fmt: skip


def test_the_law_finds_exponents_that_were_put_in_and_leaves_narrow_networks_out() -> None:
    widths, levels = np.array([40, 100, 200.0]), np.array([1, 2, 3, 4.0])
    gap = 3 * levels**1.2 / widths[:, None] ** 0.9
    gap[0] = 0.2  # near the peak of interpolation
    found = law(made(gap), 1.7)
    assert found == {"a": pytest.approx(3), "q": pytest.approx(1.2), "p": pytest.approx(0.9),
                     "points": 8 - int((gap[1:] > 0.27).sum())}  # fmt: skip


def test_no_law_is_fitted_to_gaps_that_are_none() -> None:
    found = law(made(np.zeros((3, 4))), 1.7)
    assert found["points"] == 0
    assert np.isnan(found["p"])


def test_scores_are_given_by_variance_and_level(digits: infinite_width._Task) -> None:
    result = infinite_width.measure(SMALL, load_dataset("digits", limit=40))
    for values in infinite_width.scores(result).values():
        assert values.dims == ("sigma_w2", "level")
    assert "level 1: " in infinite_width.findings(result)
