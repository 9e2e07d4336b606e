"""Suggested initialisations: what they change, what they leave, that they make nothing worse."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib import load_dataset, probe
from paperlib.instruments.probe import remedies
from paperlib.instruments.probe.remedies import (
    AS_IS,
    KNOWN,
    LAYERS,
    LSUV,
    Change,
    best_of,
    changes_of,
    guessing,
    steps_for,
)
from paperlib.instruments.probe.suggestion import GAINS, ONE_FACTOR, suggestion_by_factor
from paperlib.training import train

LABELS = load_dataset("digits").labels("train")


def images(count: int = 120) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(load_dataset("digits").floats("train")[:count], 8)


def dense(depth: int, activation: Any, *, width: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(width if number else 64, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def changes(model: nn.Module) -> dict[str, Change]:
    patient = probe(model, images(), LABELS[:120])._patient
    assert patient is not None
    return {change.rule: change for change in changes_of(model, patient)}


def accuracy(model: nn.Module, steps: int = 150) -> float:
    x, y = images(1000), LABELS[:1000]
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    train(model, (x[:800], y[:800]), optimiser=optimiser, steps=steps)
    with torch.no_grad():
        return float((model(x[800:]).argmax(1) == y[800:]).float().mean())


@pytest.mark.slow
def test_known_gains_are_he_s_for_relu_and_biases_become_zero() -> None:
    model = dense(6, nn.ReLU)
    changed = changes(model)[KNOWN].apply(copy.deepcopy(model))
    for number in range(1, 12, 2):
        size = float(changed[number].weight.detach().square().mean()) * 64
        assert size == pytest.approx(2.0, rel=1e-4)
        assert not changed[number].bias.any()
    assert torch.equal(changed[13].weight, model[13].weight)  # no activation follows


@pytest.mark.parametrize("rule", [LAYERS, LSUV])
def test_layer_by_layer_outputs_have_variance_one(rule: str) -> None:
    model, x = dense(6, nn.Tanh), images()
    before = copy.deepcopy(model.state_dict())
    changed = changes(model)[rule].apply(copy.deepcopy(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for layer in changed:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                assert float(x.std()) == pytest.approx(1, rel=0.1)  # of the probe's first samples
    product = changed[3].weight @ changed[3].weight.T
    is_orthogonal = torch.allclose(product, product[0, 0] * torch.eye(64), atol=1e-4)
    assert is_orthogonal == (rule == LSUV)


def test_copies_and_dead_weights_are_drawn_anew_with_the_gain_that_fits() -> None:
    model = dense(3, nn.ReLU)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.01)
    change = changes(model)[KNOWN]
    assert set(change.drawn) == {"1.weight", "3.weight", "5.weight", "7.weight"}
    changed = change.apply(model)
    assert float(changed[3].weight.detach().square().mean()) * 64 == pytest.approx(2.0, rel=1e-4)
    assert float(changed[7].weight.detach().square().mean()) * 64 == pytest.approx(1.0, rel=1e-4)


def test_what_looks_trained_or_does_not_learn_is_left_alone() -> None:
    model = dense(6, nn.ReLU)
    model[3].requires_grad_(False)
    with torch.no_grad():
        model[5].weight[:8] *= 4
    for change in changes(model).values():
        assert {"3.weight", "5.weight"}.isdisjoint({*change.factors, *change.drawn})
        assert {"3.bias", "5.bias"}.isdisjoint(change.zeroed)


def test_the_best_rule_learns_most_and_a_model_that_learns_keeps_a_lead() -> None:
    guess = guessing(torch.arange(10))
    assert guess == pytest.approx(math.log(10))
    assert best_of({AS_IS: 2.3, LAYERS: 2.1, LSUV: math.inf}, guess) == LAYERS
    assert best_of({AS_IS: 2.15, LSUV: 2.14}, guess) == AS_IS
    assert best_of({AS_IS: 0.5, LSUV: 0.4}, guess) == AS_IS  # less than a tenth ahead
    assert best_of({AS_IS: 0.5, LSUV: 0.3}, guess) == LSUV
    assert best_of({AS_IS: math.inf, LSUV: 2.0}, guess) == LSUV
    assert best_of({AS_IS: 2.3, LSUV: 2.25}, guess) is None  # nothing is learnt
    assert best_of({AS_IS: math.inf, LSUV: math.inf}, guess) is None


def test_guessing_knows_how_frequent_labels_are() -> None:
    assert guessing(torch.tensor([0, 0, 0, 2])) == pytest.approx(0.5623351)
    assert guessing(torch.tensor([1, 1])) == 0


@pytest.mark.slow
def test_where_no_rule_teaches_the_model_anything_the_image_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = dense(4, nn.Tanh), images(), LABELS[:120]
    assert probe(model, x, y).suggest().table.index.name == "rule"
    monkeypatch.setattr(remedies, "STEPS", 1)
    monkeypatch.setattr(remedies, "FEWEST", 1)
    assert probe(model, x, y).suggest().table.index.name == "weights ×"


@pytest.mark.slow
def test_without_labels_with_factors_or_where_it_is_dear_it_is_one_factor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = dense(2, nn.Tanh), images(), LABELS[:120]
    for found in (probe(model, x).suggest(gains=(4.0,)), probe(model, x, y).suggest(gains=(4.0,))):
        assert found.table.index.name == "weights ×"
        assert found.change.rule in (AS_IS, ONE_FACTOR)
    monkeypatch.setattr(remedies, "DEAREST", 1.0)
    assert probe(model, x, y).suggest().table.index.name == "weights ×"


def test_a_model_that_stops_in_training_mode_gets_one_factor() -> None:
    class Stops(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("only for inference")
            return super().forward(x)

    model = Stops(*dense(2, nn.Tanh))
    found = probe(model, images(), LABELS[:120]).suggest()
    assert found.table.index.name == "weights ×"


def searched(phase: Any, left: Any, gains: Any = GAINS) -> tuple[Any, list[float]]:
    """What is suggested, and which gains were looked at, where this is found with each."""
    model, looked = nn.Linear(4, 4, bias=False), []
    size = float(model.weight.detach().square().mean())

    def found(gain: float) -> Any:
        numbers = {"r_squared": left(gain)}
        return SimpleNamespace(phase=phase(gain), phase_numbers=numbers, overflow=None)

    def end_of(changed: nn.Module) -> Any:
        looked.append(float(changed.weight.detach().square().mean()) / size)
        return found(looked[-1])

    return suggestion_by_factor(found(1.0), model, lambda _: None, end_of, gains), looked


def test_where_nothing_is_left_with_any_factor_the_edge_of_order_is_searched() -> None:
    found, looked = searched(
        lambda gain: "ordered" if gain < 1.1 else "chaotic", lambda gain: 1.1 < gain < 1.3
    )
    np.testing.assert_allclose(sorted(looked), [*GAINS[:3], 2**0.25, 2**0.5, *GAINS[3:]], rtol=1e-5)
    assert found.gain == pytest.approx(2**0.25)


def test_where_something_is_left_the_factors_about_the_best_are_tried_twice() -> None:
    found, looked = searched(lambda _: "critical", lambda gain: 1 - abs(math.log2(gain) - 1.2) / 9)
    assert len(looked) == len(GAINS) + 4
    assert found.gain == pytest.approx(2**1.25)


def test_a_model_without_phases_that_no_factor_changes_is_looked_at_three_times() -> None:
    assert len(searched(lambda _: "none", lambda _: 0.5)[1]) == 3
    assert len(searched(lambda _: "critical", lambda _: 0.5)[1]) > len(GAINS)
    found, looked = searched(lambda _: "none", lambda gain: 0.5 + 0.1 * (gain == 0.25))
    assert len(looked) > len(GAINS)
    assert found.gain == pytest.approx(0.25)


def test_the_suggested_copy_is_probed_when_it_is_asked_for_and_as_the_model_was() -> None:
    model = dense(8, nn.Tanh)
    suggestion = probe(model, images()).suggest(gains=(4.0,))
    changed = suggestion.apply(copy.deepcopy(model))
    with torch.no_grad():
        model[1].weight.zero_()
    now = probe(changed, images()).result
    np.testing.assert_allclose(suggestion.report.result["r_squared"], now["r_squared"], atol=1e-6)
    assert suggestion.report is suggestion.report


def test_dear_trainings_are_shorter_and_the_dearest_are_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = dense(2, nn.Tanh)
    patient = probe(model, images(), LABELS[:120])._patient
    assert patient is not None
    assert steps_for(model, patient) == remedies.STEPS
    forward = 2 * sum(p.numel() for p in model.parameters())  # operations for a sample
    step = 4 * 3 * 32 * forward  # of four trainings
    for steps, taken in ((40, 40), (29, 0)):
        monkeypatch.setattr(remedies, "DEAREST", (steps + 0.5) * step)
        assert steps_for(model, patient) == taken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "activation"), [(14, nn.ReLU), (20, nn.Tanh), (30, nn.SELU), (3, nn.ReLU)]
)
def test_no_advice_makes_a_network_worse(depth: int, activation: Any) -> None:
    model = dense(depth, activation)
    suggestion = probe(model, images(), LABELS[:120]).suggest()
    assert accuracy(suggestion.apply(copy.deepcopy(model))) > accuracy(model) - 0.03
