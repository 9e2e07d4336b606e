"""Steps in units of the parameters' own lengths: their closed form, and what cannot change them."""

import copy

import pytest
import torch
from torch import Tensor, nn

from paperlib.training.lars import Lars

GENERATOR = torch.Generator().manual_seed(0)


def stepped(parameter: nn.Parameter, gradients: list[Tensor], **options: float) -> Tensor:
    optimiser = Lars({"it": parameter}, **options)  # type: ignore[arg-type]
    for gradient in gradients:
        parameter.grad = gradient
        optimiser.step()
    return parameter.detach()


def test_steps_are_shares_of_the_first_length_with_the_momentum_of_directions() -> None:
    start = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    slopes = [torch.randn(2, 2, generator=GENERATOR, dtype=torch.float64) for _ in range(3)]
    first, second, third = (slope / slope.norm() for slope in slopes)
    found = stepped(nn.Parameter(start.clone()), slopes, lr=0.01, momentum=0.5)
    way = 1.75 * first + 1.5 * second + third  # each is seen in all later steps
    torch.testing.assert_close(found, start - 0.01 * 5 * way)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_size_of_a_gradient_does_not_matter(size: float) -> None:
    slope = torch.tensor([0.6, 0.8])
    found = stepped(nn.Parameter(torch.tensor([1.0, 0.0])), [slope * size], lr=0.1)
    torch.testing.assert_close(found, torch.tensor([0.94, -0.08]))


@pytest.mark.parametrize("slope", [0.0, torch.nan, torch.inf])
def test_without_a_direction_nothing_moves(slope: float) -> None:
    start = torch.tensor([1.0, 2.0])
    found = stepped(nn.Parameter(start.clone()), [torch.full((2,), slope)], lr=0.1)
    assert torch.equal(found, start)


def test_what_has_no_length_moves_by_the_one_that_is_given() -> None:
    bias = nn.Parameter(torch.zeros(2))
    assert torch.equal(stepped(bias, [torch.ones(2)], lr=0.1), torch.zeros(2))
    optimiser = Lars({"bias": bias}, 0.1, lengths={"bias": 2.0})
    optimiser.step()
    torch.testing.assert_close(bias.detach(), torch.full((2,), -0.2 / 2**0.5))


def test_a_rescaled_relu_layer_learns_the_same_function() -> None:
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    scaled = copy.deepcopy(plain)
    with torch.no_grad():
        for parameter in scaled[0].parameters():
            parameter.mul_(1000.0)
        scaled[2].weight.div_(1000.0)
    images = torch.randn(20, 4, generator=GENERATOR, dtype=torch.float64)
    labels = torch.arange(20) % 3
    for network in (plain, scaled):
        optimiser = Lars(dict(network.named_parameters()), 0.03)
        for _ in range(20):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
    torch.testing.assert_close(scaled(images), plain(images))
