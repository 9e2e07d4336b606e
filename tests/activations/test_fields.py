"""Activations as fields: their arrangement by hand, principal channels against NumPy."""

import numpy as np
import pytest
import torch

from paperlib.activations.fields import Level, Shape, principal, shape_of


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ((), (1, 1, 1)),
        ((10,), (10, 1, 1)),
        ((3, 8, 8), (3, 8, 8)),
        ((3, 8, 6), (3, 8, 6)),
        ((8, 8, 3), (3, 8, 8)),  # channels last
        ((7, 16), (16, 1, 7)),  # tokens
        ((17, 16), (16, 4, 4)),  # tokens of a 32 × 32 image, one in front
        ((2, 3, 4, 5), (2, 12, 5)),
    ],
)
def test_numbers_become_channels_height_and_width(
    raw: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    shape = shape_of(raw, image=(3, 32, 32))
    assert (shape.channels, shape.height, shape.width) == expected
    count = torch.arange(2 * torch.Size(raw).numel()).view(2, *raw)
    assert shape.field(count).shape == (2, *expected)


def test_tokens_of_an_image_lie_where_their_squares_were() -> None:
    shape = shape_of((5, 3), image=(1, 8, 8))
    assert shape.skipped == 1
    tokens = torch.arange(15.0).view(1, 5, 3)
    field = shape.field(tokens)
    assert torch.equal(field[0, :, 0, 1], tokens[0, 2])
    assert torch.equal(field[0, :, 1, 0], tokens[0, 3])


def test_sequences_without_an_image_stay_sequences_in_either_order() -> None:
    assert shape_of((16, 5)) == Shape((16, 5), 5, 1, 16, channels_last=True)
    first = shape_of((16, 5), channels_first=True)
    assert (first.channels, first.width, first.kind) == (16, 5, "sequence")


def test_a_small_level_is_kept_as_it_is() -> None:
    level = Level(shape_of((3, 8, 8)), 10_000)
    values = torch.randn(4, 3, 8, 8)
    assert level.whole
    assert torch.equal(level.take(values), values)
    assert level.mean_square == pytest.approx(float(values.square().mean()))


def test_a_large_level_is_averaged_and_turned_to_its_principal_channels() -> None:
    level = Level(shape_of((300, 64, 64)), 10**9)
    assert level.kept_shape == (128, 32, 32)
    assert not level.whole
    assert Level(shape_of((300, 64, 64)), 5000).kept_shape == (16, 16, 16)


def test_averages_are_over_squares_of_positions() -> None:
    level = Level(shape_of((2, 64, 64)), 10**9)
    values = torch.randn(3, 2, 64, 64)
    expected = values.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    torch.testing.assert_close(level.take(values), expected)


@pytest.mark.parametrize(("rows", "features"), [(200, 12), (12, 200)])
def test_principal_directions_are_those_of_a_singular_value_decomposition(
    rows: int, features: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, features, generator=generator) * torch.linspace(3, 0.1, features)
    found = principal(values, 4)
    centred = (values - values.mean(0)).double().numpy()
    expected = np.linalg.svd(centred, full_matrices=False)[2][:4].T
    overlap = np.abs(found.double().numpy().T @ expected)
    np.testing.assert_allclose(overlap, np.eye(4), atol=1e-3)


def test_directions_that_do_not_exist_are_zero() -> None:
    found = principal(torch.randn(3, 10), 6)
    assert found.shape == (10, 6)
    assert not found[:, 3:].any()
