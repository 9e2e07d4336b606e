"""Inverses between levels: against normal equations in float64, and maps that can be undone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.fields import Level, shape_of
from paperlib.instruments.probe.level_inverses import CheckedMoments, Dense, Local, inverse_between


def level(*raw: int) -> Level:
    return Level(shape_of(raw), 10**9)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ridge(x: Tensor, y: Tensor, resolution: float, new: Tensor) -> np.ndarray:
    x64, y64 = (v.double().numpy() for v in (x, y))
    centred = x64 - x64.mean(0)
    scatter = centred.T @ centred / len(x) + resolution * np.eye(x.shape[1])
    weight = np.linalg.solve(scatter, centred.T @ (y64 - y64.mean(0)) / len(x))
    return (new.double().numpy() - x64.mean(0)) @ weight + y64.mean(0)


@pytest.mark.parametrize(
    ("samples", "features", "targets", "as_samples"),
    [(200, 20, 6, False), (60, 20, 6, False), (60, 300, 6, False), (60, 300, 4000, True)],
)
def test_dense_inverses_are_ridge_regressions_however_they_are_solved(
    samples: int, features: int, targets: int, as_samples: bool
) -> None:
    """Few and many samples, kept as a matrix or as samples; without noise λ stays as it is."""
    hidden = numbers(samples + 5, 4) @ numbers(4, features, seed=1)
    x, new = hidden[:samples], hidden[samples:]
    y = x @ numbers(features, targets, seed=2)
    inverse = Dense(level(targets))
    inverse.fit(x[:, :, None, None], y[:, :, None, None], 1e-3, torch.float64)
    assert (inverse.weight is None) == as_samples
    found = inverse(new[:, :, None, None]).flatten(1).numpy()
    np.testing.assert_allclose(found, ridge(x, y, 1e-3, new), atol=1e-3 * float(y.std()))


def test_a_fit_of_noise_to_few_samples_falls_back_to_the_mean() -> None:
    codes, targets = numbers(40, 60), numbers(40, 3, seed=1)
    inverse = Dense(level(3))
    inverse.fit(codes[:, :, None, None], targets[:, :, None, None], 1e-3, torch.float64)
    found = inverse(numbers(500, 60, seed=2)[:, :, None, None]).flatten(1)
    assert float((found - targets.mean(0)).square().mean()) < 0.1
    plain = ridge(codes, targets, 1e-3, numbers(500, 60, seed=2))
    assert float(np.square(plain - targets.mean(0).numpy()).mean()) > 0.3


def test_checked_moments_stay_at_the_resolution_where_that_predicts_best() -> None:
    x = numbers(2000, 8)
    y = x @ numbers(8, 3, seed=1)
    moments = CheckedMoments(torch.float64)
    for part in zip(x.split(300), y.split(300), strict=True):
        moments.update(*part)
    weight, bias = moments.solve(1e-2)
    new = numbers(7, 8, seed=2)
    found = new.double() @ weight.T + bias
    np.testing.assert_allclose(found, ridge(x, y, 1e-2, new), atol=1e-8)


def test_checked_moments_grow_coarse_where_nothing_can_be_predicted() -> None:
    moments = CheckedMoments(torch.float64)
    moments.update(numbers(60, 30), numbers(60, 4, seed=1))
    weight, _ = moments.solve(1e-3)
    assert float(weight.abs().max()) < 0.1


@pytest.mark.parametrize(
    ("layer", "below"),
    [
        (nn.Conv2d(2, 24, 3, padding=1), (2, 8, 8)),
        (nn.Conv2d(2, 24, 2, stride=2), (2, 8, 8)),
        (nn.Conv2d(2, 24, 3, stride=2, padding=1), (2, 7, 9)),
    ],
)
def test_local_inverses_undo_a_convolution_that_loses_nothing(
    layer: nn.Conv2d, below: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    layer.reset_parameters()
    images = nn.functional.avg_pool2d(numbers(300, *below[:1], 16, 20), 3, 1)
    images = images[:, :, : below[1], : below[2]].contiguous()
    with torch.no_grad():
        codes = layer(images)
    inverse = inverse_between(level(*codes.shape[1:]), level(*below), 250)
    assert isinstance(inverse, Local)
    inverse.fit(codes[:250], images[:250], 1e-6, torch.float64)
    with torch.no_grad():
        error = (inverse(codes[250:]) - images[250:]).square().mean() / images.var()
    assert float(error) < 0.02


def test_tokens_are_read_with_their_neighbours_in_time() -> None:
    times = numbers(300, 10, 6)
    codes = torch.roll(times, 1, 1)  # each token tells of the one before
    upper, lower = level(10, 6), level(10, 6)
    inverse = inverse_between(upper, lower, 250)
    fields = upper.take(codes), lower.take(times)
    inverse.fit(fields[0][:250], fields[1][:250], 1e-6, torch.float64)
    found = inverse(fields[0][250:]).detach()
    inner = (slice(None), slice(None), slice(None), slice(0, 9))
    assert float((found - fields[1][250:])[inner].square().mean()) < 0.02


def test_a_field_of_too_few_positions_is_read_as_a_whole() -> None:
    assert isinstance(inverse_between(level(200, 2, 2), level(3, 4, 4), 20), Dense)
    assert isinstance(inverse_between(level(10), level(3, 4, 4), 2000), Dense)
