"""A loss as a function of parameters: closed forms, finite differences, nothing changed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.losses import Loss
from paperlib.activations.tracing import ProbeError

COUNT = 7


def model_of(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).double()


def curved() -> nn.Sequential:
    torch.manual_seed(0)
    return model_of(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(COUNT, 4, generator=generator, dtype=torch.float64)


LABELS = torch.arange(COUNT) % 3


def test_the_value_and_the_gradient_are_those_of_cross_entropy(images: Tensor) -> None:
    model = curved()
    loss = Loss(model, images, LABELS, batch_size=3)
    expected = nn.functional.cross_entropy(model(images), LABELS)
    assert loss.value() == pytest.approx(expected.item(), rel=1e-12)
    slopes = torch.autograd.grad(expected, list(model.parameters()))
    for found, slope in zip(loss.gradient().values(), slopes, strict=True):
        torch.testing.assert_close(found, slope)


def test_the_value_elsewhere_is_that_of_a_model_with_those_parameters(images: Tensor) -> None:
    model, other = curved(), curved()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3)
    loss = Loss(model, images, LABELS)
    expected = nn.functional.cross_entropy(other(images), LABELS).item()
    assert loss.value(Loss(other, images, LABELS).parameters) == pytest.approx(expected)
    assert loss.value() != pytest.approx(expected)


def test_without_labels_it_is_the_mean_of_contracted_outputs(images: Tensor) -> None:
    model = model_of(nn.Linear(4, 2))
    loss = Loss(model, images, cotangent=torch.tensor([2.0, -1.0]))
    assert loss.value() == pytest.approx(
        float((model(images) @ torch.tensor([2.0, -1]).double()).mean())
    )
    slope = loss.gradient()["0.weight"]
    torch.testing.assert_close(slope, torch.outer(torch.tensor([2.0, -1]).double(), images.mean(0)))


def test_curvature_is_a_finite_difference_of_gradients(images: Tensor) -> None:
    loss, step = Loss(curved(), images, LABELS, batch_size=4), 1e-5
    along = {name: torch.randn_like(p) for name, p in loss.parameters.items()}
    found = loss.curvature_along(along)

    def slopes(sign: int) -> dict[str, Tensor]:
        model = curved()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(sign * step * along[name])
        return Loss(model, images, LABELS).gradient()

    ahead, behind = slopes(1), slopes(-1)
    for name, product in found.items():
        expected = (ahead[name] - behind[name]) / (2 * step)
        torch.testing.assert_close(product, expected, rtol=1e-6, atol=1e-8)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend, self.recur = nn.MultiheadAttention(4, 2, batch_first=True), nn.LSTM(4, 4)
        self.read = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None].repeat(1, 3, 1)
        x = self.attend(x, x, x, need_weights=False)[0]
        return self.read(self.recur(x.transpose(0, 1))[0][-1])


def test_attention_and_recurrent_layers_have_a_curvature(images: Tensor) -> None:
    torch.manual_seed(0)
    loss = Loss(Attending(), images.float(), LABELS)
    found = loss.curvature_along(loss.gradient())
    assert all(value.isfinite().all() for value in found.values())
    assert any(value.any() for value in found.values())


def test_the_model_is_left_as_it_was_also_after_an_error(images: Tensor) -> None:
    model = model_of(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    loss = Loss(model, images, LABELS)
    loss.value({name: torch.zeros_like(p) for name, p in loss.parameters.items()})
    loss.curvature_along(loss.gradient())
    with pytest.raises(ProbeError, match="labels must be a tensor of 7"):
        Loss(model, images, LABELS[:3])
    with pytest.raises(RuntimeError):
        loss.value({"0.weight": torch.zeros(1, 1, 1)})
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert [p.grad is None for p in model.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_model_that_does_not_learn_is_refused(images: Tensor) -> None:
    with pytest.raises(ProbeError, match="no parameter of the model learns"):
        Loss(curved().requires_grad_(False), images, LABELS)
