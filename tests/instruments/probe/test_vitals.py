"""Vital signs against closed forms on tiny networks."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib.activations.inputs import Inputs
from paperlib.activations.operations import Record, Step
from paperlib.instruments.probe import examination
from paperlib.instruments.probe.signs import copied_share, effective_rank, signs_of, units_of
from paperlib.instruments.probe.vitals import vital_signs


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight.clone()
    if bias is not None:
        layer.bias.data = bias.clone()
    return layer


def at(signs: xr.Dataset, name: str, stage: int = 1) -> float:
    return float(signs[name].sel(stage=stage))


def signs(values: Tensor, name: str = "relu") -> Any:
    return signs_of(Step(1, name, "", (0,), 0, 1), values, {})


def test_size_is_the_root_mean_square() -> None:
    images = drawn(50, 6)
    found = vital_signs(nn.Sequential(linear(3 * torch.eye(6))), images)
    assert at(found, "rms") == pytest.approx(3 * float(images.square().mean().sqrt()), rel=1e-6)


def test_contrast_is_the_deviation_from_the_mean_sample_against_the_size() -> None:
    images = drawn(50, 6) + 2
    found = vital_signs(nn.Sequential(linear(torch.eye(6))), images)
    expected = (images - images.mean(0)).square().mean().sqrt() / images.square().mean().sqrt()
    assert at(found, "contrast") == pytest.approx(float(expected), rel=1e-6)


def test_dead_units_are_those_that_are_zero_for_every_sample() -> None:
    bias = torch.tensor([0.0, -100, 0, -100])
    model = nn.Sequential(linear(torch.eye(4), bias), nn.ReLU(), linear(torch.eye(4)))
    found = vital_signs(model, drawn(40, 4))
    assert at(found, "dead") == at(found, "constant") == 0.5


def test_constant_units_need_not_be_dead() -> None:
    weight = torch.diag(torch.tensor([1.0, 0, 0, 0]))
    found = vital_signs(nn.Sequential(linear(weight, torch.full((4,), 0.3))), drawn(40, 4))
    assert (at(found, "constant"), at(found, "dead")) == (0.75, 0.0)


def test_units_of_a_field_are_its_channels() -> None:
    field = drawn(20, 5, 6, 6)
    field[:, 1:3] = 0
    assert signs(field).units == 5
    assert signs(field).dead == pytest.approx(0.4)
    assert units_of(field).shape == (20, 5, 36)
    assert units_of(drawn(3, 5, 64, 64)).shape == (3, 5, 64)


def test_copied_units_are_those_that_equal_another_one() -> None:
    units = drawn(30, 4, 1)
    twice = torch.cat([units, units[:, :1], units[:, :1]], 1)
    assert copied_share(units) == 0
    assert copied_share(twice) == pytest.approx(2 / 6)
    assert copied_share(torch.cat([units, -units], 1)) == 0


def test_saturated_are_the_numbers_at_an_end_of_tanh_and_sigmoid() -> None:
    values = torch.tensor([0.0, 0.5, 0.99, -0.99]).repeat(10, 1)
    assert signs(values, "tanh").saturated == 0.5
    assert signs((values + 1) / 2, "sigmoid").saturated == 0.5
    assert math.isnan(signs(values, "relu").saturated)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equal_variances_in_so_many_directions_have_that_rank(rank: int) -> None:
    codes, _ = torch.linalg.qr(drawn(200, rank) - drawn(200, rank).mean(0))
    codes -= codes.mean(0)
    codes, _ = torch.linalg.qr(codes)
    frame, _ = torch.linalg.qr(drawn(8, rank, seed=1))
    assert effective_rank((codes @ frame.T)[:, :, None]) == pytest.approx(rank, rel=1e-4)


def test_the_rank_of_two_unequal_variances_is_the_exponential_of_their_entropy() -> None:
    codes = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    shares = np.array([0.9, 0.1])
    expected = math.exp(-float((shares * np.log(shares)).sum()))
    assert effective_rank(codes[:, :, None]) == pytest.approx(expected, rel=1e-6)


def test_nothing_that_varies_has_rank_zero() -> None:
    assert effective_rank(torch.ones(20, 4, 1)) == 0


class Residual(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.stem, self.branch = linear(torch.eye(4)), linear(size * torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.branch(x)


@pytest.mark.parametrize("size", [0.0, 0.25, 3.0])
def test_a_branch_is_measured_against_its_skip(size: float) -> None:
    found = vital_signs(Residual(size), drawn(40, 4))
    assert at(found, "branch", int(found.stage[-1])) == pytest.approx(size, rel=1e-5)


def test_the_gradient_of_the_cross_entropy_is_that_of_the_formula() -> None:
    images, labels = drawn(30, 5), torch.arange(30) % 3
    first, last = drawn(4, 5, seed=1), drawn(3, 4, seed=2)
    found = vital_signs(nn.Sequential(linear(first), linear(last)), images, labels)
    hidden = images @ first.T
    slopes = (hidden @ last.T).softmax(1) - nn.functional.one_hot(labels, 3)
    at_hidden = (slopes @ last).square().mean().sqrt()
    assert at(found, "gradient") == pytest.approx(float(at_hidden), rel=1e-5)
    of_weight = float((slopes.T @ hidden / 30).square().mean().sqrt())
    assert float(found["weight_gradient"][-1]) == pytest.approx(of_weight, rel=1e-5)
    relative = of_weight / float(last.square().mean().sqrt())
    assert float(found["update"][-1]) == pytest.approx(relative, rel=1e-5)


def test_the_loss_at_the_start_stands_beside_that_of_guessing() -> None:
    model = nn.Sequential(linear(torch.zeros(3, 5)))
    found = vital_signs(model, drawn(30, 5), torch.arange(30) % 3)
    assert found.attrs["loss"] == pytest.approx(math.log(3), rel=1e-6)
    assert found.attrs["ln_classes"] == pytest.approx(math.log(3))


def test_labels_that_are_no_classes_of_the_outputs_are_not_used() -> None:
    found = vital_signs(nn.Sequential(linear(drawn(3, 5))), drawn(30, 5), torch.arange(30))
    assert "loss" not in found.attrs


def test_without_labels_the_gradient_is_that_of_a_readout_of_variance_one() -> None:
    found = vital_signs(nn.Sequential(linear(drawn(200, 5))), drawn(64, 5))
    assert at(found, "gradient") == pytest.approx(1, rel=0.03)


def test_the_variance_of_weights_is_told_with_their_fan_in() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    found = vital_signs(model, drawn(20, 2, 6, 6))
    assert found["weight_fan_in"].values.tolist() == [18, 48]
    for weight, sigma in zip((model[0].weight, model[3].weight), found["weight_sigma_w2"]):  # noqa: B905
        expected = float(weight.detach().square().mean()) * weight[0].numel()
        assert float(sigma) == pytest.approx(expected, rel=1e-5)


def test_layers_that_write_in_place_are_seen_before_and_after() -> None:
    layers = [linear(torch.eye(4), torch.full((4,), -100.0)), nn.ReLU(inplace=True)]
    found = vital_signs(nn.Sequential(*layers, linear(torch.eye(4))), drawn(40, 4))
    assert at(found, "dead") == 1


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Flatten())
    model = model.append(nn.Linear(64, 3)).train()
    before, numbers = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    vital_signs(model, drawn(20, 1, 6, 6), torch.arange(20) % 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("labels", [torch.zeros(3), [0, 1], torch.zeros(())])
def test_labels_of_another_number_are_refused(labels: Any) -> None:
    with pytest.raises(ValueError, match="labels must be a tensor of 20 whole numbers"):
        vital_signs(nn.Sequential(linear(drawn(3, 5))), drawn(20, 5), labels)


@pytest.mark.parametrize(
    ("numbers", "largest", "count"),
    [(40, 2**26, 64), (40, 400, 10), (40, 130, 2), (2**21, 2**26, 8)],
)
def test_of_a_large_model_few_samples_run(
    numbers: int, largest: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "LARGEST", largest)
    outline = Record(layers={("", 1, 0): 1}, shapes={0: (3, 4), 1: (3, numbers)})
    rows = examination._rows(Inputs.in_order(drawn(100, 4), nn.Linear(4, 4)), outline)
    assert (len(rows), rows[0], rows[-1]) == (count, 0, 99)


def test_two_samples_are_enough_for_vital_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = nn.Sequential(linear(3 * torch.eye(6))), drawn(50, 6)
    monkeypatch.setattr(examination, "LARGEST", 6)
    two = images[[0, 49]]
    found = vital_signs(model, images)
    assert at(found, "rms") == pytest.approx(3 * float(two.square().mean().sqrt()), rel=1e-6)
