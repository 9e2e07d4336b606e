"""Phases are said of models that mean field has phases for, and of no others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperlib import probe

IMAGES = torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def stack(activation: type[nn.Module], sigma_w2: float, *, norm: Any = None) -> nn.Sequential:
    """Ten wide layers with small biases."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(10):
        layer = nn.Linear(64 if number else 768, 64)
        nn.init.normal_(layer.weight, 0, (sigma_w2 / layer.in_features) ** 0.5)
        nn.init.normal_(layer.bias, 0, 0.2)
        layers += [layer, *([norm(64)] if norm else []), activation()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("activation", "sigma_w2", "phase"),
    [(nn.Tanh, 0.3, "ordered"), (nn.Tanh, 9.0, "chaotic"), (nn.ReLU, 0.3, "ordered")],
)
def test_weights_and_activations_in_turn_have_a_phase(
    activation: type[nn.Module], sigma_w2: float, phase: str
) -> None:
    assert probe(stack(activation, sigma_w2), IMAGES).phase == phase


@pytest.mark.parametrize("sigma_w2", [2.0, 8.0])
def test_rectifiers_have_no_chaotic_phase(sigma_w2: float) -> None:
    assert probe(stack(nn.ReLU, sigma_w2), IMAGES).phase in ("critical", "undecided")


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).tanh()


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNN(16, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.flatten(1, 2))[0][:, -1]


@pytest.mark.parametrize(
    "model",
    [
        stack(nn.Tanh, 9.0, norm=nn.LayerNorm),
        stack(nn.ReLU, 0.3, norm=nn.BatchNorm1d),
        nn.Sequential(nn.Flatten(), nn.Linear(768, 64), *(Skip() for _ in range(4))),
        Attends(),
        Recurrent(),
        nn.Sequential(nn.Flatten(), nn.Linear(768, 2), nn.Tanh(), nn.Linear(2, 64)),
    ],
)
def test_norms_skips_attention_recurrence_and_narrow_layers_have_none(model: nn.Module) -> None:
    report = probe(model, IMAGES)
    assert report.phase == "none"
    assert "\nat layer" in report.summary()
    assert not any(f"\n{word}: at" in str(report) for word in ("ordered", "chaotic", "critical"))


def test_a_softmax_at_the_end_changes_no_phase() -> None:
    model = stack(nn.Tanh, 0.3)
    assert probe(nn.Sequential(*model, nn.Softmax(1)), IMAGES).phase == "ordered"


def test_a_working_network_is_not_called_ordered() -> None:
    torch.manual_seed(0)
    layers = [m for n in range(4) for m in (nn.Conv2d(16 if n else 3, 16, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 10))
    report = probe(model, IMAGES * 0.25 + 0.5)
    assert report.phase_numbers["correlation"] > 0.9
    assert report.phase == "critical"


@pytest.mark.slow
def test_resnet18_of_torchvision_is_not_called_chaotic() -> None:
    from paperlib.core.vision import torchvision

    torch.manual_seed(0)
    report = probe(torchvision.models.resnet18(), nn.functional.interpolate(IMAGES, (32, 32)))
    assert report.phase == "none"
