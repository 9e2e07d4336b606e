"""Suggested initialisations: what they change, what they leave, that they make nothing worse."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperlib import load_dataset, probe
from paperlib.activations.guard import untouched
from paperlib.activations.inputs import Inputs
from paperlib.activations.tuning import looks_drawn, unit_variance
from paperlib.instruments.probe.trials import AS_IS, KNOWN, named_weights
from paperlib.training import train


def images(count: int = 120) -> Tensor:
    found = load_dataset("digits").floats("train")[:count]
    return nn.functional.adaptive_avg_pool2d(found, 8)


def dense(depth: int, activation: Any, *, width: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(width if number else 64, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


# -- which weights look drawn, and gains from data


@pytest.mark.parametrize("draw", [nn.init.normal_, nn.init.uniform_, nn.init.orthogonal_])
def test_random_weights_look_drawn(draw: Any) -> None:
    torch.manual_seed(0)
    for shape in ((64, 64), (300, 20), (16, 8, 3, 3)):
        assert looks_drawn(draw(torch.empty(shape)))
    assert looks_drawn(torch.zeros(64, 64))


def test_weights_some_of_whose_units_are_larger_do_not() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    weight[:8] *= 3
    assert not looks_drawn(weight)
    assert not looks_drawn(weight.T)


def test_layer_by_layer_every_output_gets_variance_one_and_nothing_is_changed() -> None:
    model, x = dense(6, nn.ReLU), images()
    before = copy.deepcopy(model.state_dict())
    inputs = Inputs.in_order(x, model)
    found = unit_variance(model, inputs.part(0, 120), list(named_weights(model)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for number, layer in enumerate(model):
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(found[f"{number}.weight"])
                layer.bias.zero_()
    with untouched(model, 0):
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                assert float(x.std()) == pytest.approx(1, rel=1e-4)


# -- suggestions


def test_known_gains_are_found_for_relu_and_biases_become_zero() -> None:
    model = dense(14, nn.ReLU)
    suggestion = probe(model, images()).suggest()
    assert suggestion.rule == KNOWN
    assert suggestion.factor == pytest.approx(6**0.5, rel=0.02)
    changed = suggestion.apply(copy.deepcopy(model))
    assert not changed[1].bias.any()
    assert model[1].bias.any()
    square = float(changed[3].weight.detach().square().mean()) * 64
    assert square == pytest.approx(2.0, rel=1e-4)
    assert suggestion.report.cutoff is None
    assert "take the gains of the activations" in str(suggestion)


def test_what_looks_trained_or_does_not_learn_is_left_alone() -> None:
    model = dense(14, nn.ReLU)
    model[3].requires_grad_(False)
    with torch.no_grad():
        model[5].weight[:8] *= 4
    suggestion = probe(model, images()).suggest()
    assert {"3.weight", "5.weight"}.isdisjoint(suggestion.change.factors)
    assert "3.bias" not in suggestion.change.zeroed
    assert "left as they are" in suggestion.notes[0]
    assert "'3.weight', '5.weight'" in suggestion.notes[0]


def test_copies_are_drawn_anew() -> None:
    model = dense(3, nn.ReLU)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.01)
    suggestion = probe(model, images()).suggest()
    assert set(suggestion.change.drawn) == {"1.weight", "3.weight", "5.weight", "7.weight"}
    assert suggestion.apply(model)[1].weight.std() > 0.1
    assert not any(d.ill for d in probe(model, images()).diagnoses)


def test_a_layer_that_is_too_narrow_is_to_be_widened() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 1), nn.Tanh(), nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 10)
    )
    white = torch.randn(120, 64, generator=torch.Generator().manual_seed(0))
    suggestion = probe(model, white).suggest()
    assert suggestion.rule == AS_IS
    assert "widen '2'" in str(suggestion)


def test_the_edge_of_the_grid_is_said() -> None:
    model = dense(14, nn.Tanh)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.25)
    suggestion = probe(model, images(), layers=["2", "28"]).suggest(gains=(2.0,))
    if suggestion.rule == "one factor":
        assert "the last one that was tried" in suggestion.notes[0]
    else:
        assert suggestion.sigma_w2 == pytest.approx(1, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "activation"), [(14, nn.ReLU), (20, nn.Tanh), (30, nn.SELU), (3, nn.ReLU)]
)
def test_no_advice_makes_a_network_worse(depth: int, activation: Any) -> None:
    x, labels = images(1000), load_dataset("digits").labels("train")[:1000]

    def accuracy(model: nn.Module) -> float:
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        train(model, (x[:800], labels[:800]), optimiser=optimiser, steps=150, batch_size=64)
        with torch.no_grad():
            return float((model(x[800:]).argmax(1) == labels[800:]).float().mean())

    model = dense(depth, activation)
    suggestion = probe(model, x[:120]).suggest()
    assert accuracy(suggestion.apply(copy.deepcopy(model))) > accuracy(model) - 0.03
