"""Where activations lie, against plain formulas, and that an offset changes nothing."""

import pytest
import torch
from torch import Tensor

from paperlib.instruments.probe.clouds import UNITS, Cloud, mean_cosine


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cloud(here: Tensor, near: Tensor, parts: int = 1) -> Cloud:
    found = Cloud()
    for some in zip(here.chunk(parts), near.chunk(parts), strict=True):
        found.add(*some)
    return found


def test_mean_cosine_is_the_mean_over_pairs() -> None:
    rows = numbers(7, 5)
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    assert mean_cosine(rows) == pytest.approx(float((cosines.sum() - 7) / 42), abs=1e-6)
    assert mean_cosine(torch.zeros(3, 4)) == 1.0


def test_spread_and_separation_are_those_of_their_definitions() -> None:
    here, step = numbers(12, 30), 0.01 * numbers(12, 30, seed=1)
    found = cloud(here, here + step)
    spread = float((here - here.mean(0)).square().sum(1).mean().sqrt())
    assert found.spread == pytest.approx(spread, rel=1e-6)
    assert found.separation == pytest.approx(float(step.norm(dim=1).mean()) / spread, rel=1e-4)


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_add_up_to_the_whole(parts: int) -> None:
    here, near = numbers(12, 30), numbers(12, 30, seed=1)
    whole, added = cloud(here, near), cloud(here, near, parts)
    for name in ("cosine", "parallel", "spread", "separation"):
        assert getattr(added, name) == pytest.approx(getattr(whole, name), rel=1e-9)


@pytest.mark.parametrize("offset", [-3.0, 1.0, 100.0])
def test_an_offset_changes_neither_cosine_nor_separation(offset: float) -> None:
    here, near = numbers(12, 30).double(), numbers(12, 30, seed=1).double()
    still, moved = cloud(here, near), cloud(here + offset, near + offset)
    for name in ("cosine", "spread", "separation"):
        assert getattr(moved, name) == pytest.approx(getattr(still, name), rel=1e-6)
    assert moved.parallel != pytest.approx(still.parallel, abs=0.01)


def test_numbers_that_are_all_equal_are_parallel_and_nothing_lies_apart() -> None:
    found = cloud(torch.ones(12, 3), torch.ones(12, 3))
    assert (found.cosine, found.spread, found.separation) == (1.0, 0.0, 0.0)


def test_of_many_units_some_are_compared() -> None:
    here = numbers(4, 2 * UNITS)
    assert cloud(here, here).cosine == pytest.approx(0.0, abs=0.02)


def test_neighbours_that_only_rounding_separates_are_not_apart() -> None:
    """As deep in the ordered phase, where all activations are one but for their last digits."""
    one = numbers(1, 30)
    rounded = one * (1 + 1e-7 * numbers(12, 30, seed=1))
    again = one * (1 + 1e-7 * numbers(12, 30, seed=2))
    assert cloud(rounded, again).separation == 0.0
    apart = cloud(rounded.double(), again.double()).separation
    assert apart > 0.5
