"""Weights layer by layer: which look drawn at random, and gains from data."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperlib import load_dataset
from paperlib.activations.guard import untouched
from paperlib.activations.inputs import Inputs
from paperlib.activations.tuning import looks_drawn, unit_variance, weights_of


def images(count: int = 120) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(load_dataset("digits").floats("train")[:count], 8)


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


def test_trained_weights_do_not() -> None:
    from paperlib.training import train

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    data = images(1000), load_dataset("digits").labels("train")[:1000]
    train(model, data, optimiser=torch.optim.Adam(model.parameters(), 3e-3), steps=300)
    assert not looks_drawn(model[1].weight)


def test_layer_by_layer_every_output_gets_variance_one_and_nothing_is_changed() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model, x = nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10)), images()
    before = copy.deepcopy(model.state_dict())
    inputs = Inputs.in_order(x, model)
    found = unit_variance(model, inputs.part(0, 120), list(weights_of(model)))
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


def test_shared_weights_count_once_and_embeddings_not() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.one = nn.Embedding(5, 4), nn.Linear(4, 4)
            self.other = self.one

    assert list(weights_of(Tied())) == ["one.weight"]
