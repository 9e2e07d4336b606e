"""The backward signal of models whose Jacobians are known, and that nothing is changed."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from paperlib import cnn, initialise, mlp
from paperlib.activations.slopes import slopes
from paperlib.activations.tracing import ProbeError

COUNT = 6


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes))).double()


def by_name(*arguments: object, **options: object) -> dict[str, Tensor]:
    return {stage.name: value for stage, value in slopes(*arguments, **options)}  # type: ignore[arg-type]


def test_behind_linear_layers_they_are_products_of_the_weights() -> None:
    model, cotangent = linear(4, 5, 3, 2), rows(COUNT, 2, seed=1)
    found = by_name(model, rows(COUNT, 4), cotangent=cotangent)
    last = cotangent
    torch.testing.assert_close(found["2"], last)
    torch.testing.assert_close(found["1"], last @ model[2].weight)
    torch.testing.assert_close(found["0"], last @ model[2].weight @ model[1].weight)


def test_with_labels_they_are_probabilities_less_truth() -> None:
    model, images, labels = linear(4, 5, 3), rows(COUNT, 4), torch.arange(COUNT) % 3
    found = by_name(model, images, labels)
    error = model(images).softmax(1) - nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(found["1"], error.detach())
    torch.testing.assert_close(found["0"], (error @ model[1].weight).detach())


def test_of_a_network_of_ours_they_are_those_of_autograd_at_its_stages() -> None:
    network = cnn((1, 5, 5), depth=3, channels=4, classes=3).double()
    initialise(network, sigma_w2=1.5, sigma_b2=0.1, seed=0)
    images, cotangent = rows(COUNT, 1, 5, 5), rows(COUNT, 3, seed=1)
    found = by_name(network, images, cotangent=cotangent)
    assert list(found) == network.stage_names
    for level, name in enumerate(found, start=1):
        below = network.stages[:level](images).detach().requires_grad_()
        above = network.head(network.stages[level:](below))
        (expected,) = torch.autograd.grad((above * cotangent).sum(), below)
        torch.testing.assert_close(found[name], expected)


def test_a_layer_that_writes_into_a_stage_does_not_change_what_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)).double()
    images, cotangent = rows(COUNT, 4), rows(2, seed=1)
    found = by_name(model, images, layers=["0", "1"], cotangent=cotangent)
    behind = (cotangent @ model[2].weight).expand(COUNT, 5)
    torch.testing.assert_close(found["1"], behind.detach())
    torch.testing.assert_close(found["0"], (behind * (model[0](images) > 0)).detach())


class Loop(nn.Module):
    """A recurrent net whose cell is called once for each row of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.read = nn.RNNCell(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 4)
        for row in x.unbind(1):
            state = self.cell(row, state)
        return self.read(state)


def test_every_call_of_a_cell_is_a_stage_of_its_own_and_gradients_run_through_time() -> None:
    torch.manual_seed(0)
    model, images, cotangent = Loop().double(), rows(COUNT, 5, 3), rows(2, seed=1)
    found = by_name(model, images, layers=["cell"], cotangent=cotangent)
    assert list(found) == ["cell", *(f"cell#{call}" for call in range(2, 6))]
    states = [rows(COUNT, 4) * 0]
    for row in images.unbind(1):
        states.append(model.cell(row, states[-1]))
    slope = (cotangent @ model.read.weight).expand(COUNT, 4)
    for name, state in reversed(list(zip(found, states[1:], strict=True))):
        torch.testing.assert_close(found[name], slope.detach())
        slope = (slope * (1 - state**2)) @ model.cell.weight_hh


def test_where_the_output_ignores_a_stage_its_slope_is_zero() -> None:
    model = linear(4, 5, 3)
    with torch.no_grad():
        model[1].weight.zero_()
    found = by_name(model, rows(COUNT, 4))
    assert not found["0"].any()
    assert found["1"].any()


@pytest.mark.parametrize("size", [1, 4])
def test_the_size_of_batches_changes_nothing(size: int) -> None:
    model, images = linear(4, 5, 3), rows(COUNT, 4)
    whole, parts = by_name(model, images), by_name(model, images, batch_size=size)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-12, atol=1e-12)


def test_parameters_that_do_not_learn_change_nothing() -> None:
    model, images = linear(4, 5, 3), rows(COUNT, 4)
    expected = by_name(model, images)
    found = by_name(model.requires_grad_(False), images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_model_and_the_images_are_left_as_they_were_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 2))
    images = torch.rand(COUNT, 4)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, kept = copy.deepcopy(model.state_dict()), images.clone()
    generator = torch.get_rng_state()
    slopes(model, images)
    with pytest.raises(ProbeError, match="stopped in layer '0'"):
        slopes(model, torch.zeros(COUNT, 3))
    with pytest.raises(ProbeError, match="labels must lie in 0 … 1"):
        slopes(model, images, torch.full((COUNT,), 2))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [p.grad is None for p in model.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_deep_network_in_single_precision_agrees_with_double() -> None:
    network = mlp((1, 4, 4), depth=30)
    initialise(network, sigma_w2=1.5, sigma_b2=0.05, seed=0)
    images = torch.rand(COUNT, 1, 4, 4)
    single = by_name(network, images)
    double = by_name(copy.deepcopy(network).double(), images.double())
    for name, value in double.items():
        torch.testing.assert_close(single[name].double(), value, rtol=1e-3, atol=1e-5)
