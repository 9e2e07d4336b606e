"""A trial: what it learns where the answer is known, what it costs, what it leaves alone."""

import math

import pytest
import torch
from test_signals import mixed, relu_net, rows
from torch import Tensor, nn

from paperlib import probe
from paperlib.activations.inputs import Inputs
from paperlib.instruments.probe import trial as module
from paperlib.instruments.probe.trial import (
    BATCH,
    STEPS,
    StopsLearning,
    operations,
    trial_of,
)


def separable(count: int = 150) -> tuple[Tensor, Tensor]:
    """Three clouds that a linear layer tells apart."""
    labels = torch.arange(count) % 3
    return 0.3 * rows(count, 8) + 3 * torch.eye(3, 8, dtype=torch.float64)[labels], labels


def tried(model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> dict[str, float]:
    return trial_of(model.eval(), Inputs.in_order(images, model), labels, seed=seed)


def linear(classes: int = 3, width: int = 8) -> nn.Module:
    model = nn.Linear(width, classes).double()
    with torch.no_grad():
        model.weight.copy_(rows(classes, width) / width**0.5)
    return model


def test_a_linear_layer_learns_what_is_linear() -> None:
    found = tried(linear(), *separable())
    assert found["trial_accuracy"] == 1.0
    assert found["trial_loss"] < 0.1


def test_labels_without_meaning_are_not_learnt_for_other_images() -> None:
    images, labels = separable(300)
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    assert tried(linear(), images, shuffled)["trial_accuracy"] < 0.5


def test_a_network_of_dead_neurons_stays_at_chance() -> None:
    dead = relu_net(8, 8, 3)
    with torch.no_grad():
        dead[0].weight.zero_()
        dead[0].bias.fill_(-1.0)
    found = tried(dead, *separable())
    assert found["trial_accuracy"] == pytest.approx(1 / 3, abs=0.05)
    assert found["trial_loss"] == pytest.approx(math.log(3), rel=0.1)


def test_the_model_stays_as_it_is_and_the_seed_decides() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 3).eval()
    before = [p.clone() for p in model.parameters()]
    found = [tried(model, images, labels, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert all(map(torch.equal, model.parameters(), before))
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_a_network_that_diverges_is_right_about_nothing() -> None:
    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * (math.inf if self.training else 1.0)

    found = tried(Explodes(), *separable())
    assert found == {"trial_accuracy": 0.0, "trial_loss": math.inf}


class OnlyInEvaluation(nn.Module):
    """As a batch norm before which one number is left for each sample of a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("Expected more than 1 value\n  per channel when training")
        return self.layer(x)


def test_a_model_that_stops_in_training_mode_says_so_among_the_reasons() -> None:
    images, labels = separable()
    with pytest.raises(StopsLearning, match="ValueError: Expected more than 1 value per channel"):
        tried(OnlyInEvaluation(), images, labels)
    verdict = probe(OnlyInEvaluation(), images, labels).verdict
    assert "trial_accuracy" not in verdict.signals
    assert verdict.reasons[0] == (
        "in training mode the model stops: ValueError: Expected more than 1 value per channel when "
        "training"
    )


def test_a_model_that_cannot_be_copied_is_not_tried() -> None:
    model = linear()
    model.forward_only = (number for number in range(3))  # type: ignore[assignment]
    assert tried(model, *separable()) == {}


def test_operations_are_three_forward_passes_for_each_sample_of_each_step() -> None:
    model = nn.Sequential(nn.Linear(8, 5, bias=False), nn.Linear(5, 3, bias=False)).double()
    inputs = Inputs.in_order(separable()[0], model)
    multiplications = 8 * 5 + 5 * 3
    samples = BATCH * STEPS
    assert operations(model, inputs) == 2 * multiplications * 3 * samples


def test_what_would_take_too_long_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEAREST", 1e3)
    assert tried(linear(), *separable()) == {}
