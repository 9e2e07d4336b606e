"""What is remembered comes back as it was, in the same places."""

import random
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.guard import untouched
from paperlib.activations.memory import remember


class Cache:
    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.length = 0


class Holder(nn.Module):
    """A model with something of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.hidden: Tensor | None = None
        self.steps, self.log = 0, [1.0]
        self.table: dict[str, Any] = {"a": [1]}
        self.seen, self.last = {1, 2}, deque([1], 3)
        self.numbers, self.cache = np.arange(3.0), Cache()
        self.generator, self.other = torch.Generator(), random.Random(1)
        self.plain = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.log.append(2.0)
        self.table["a"].append(self.steps)
        self.table["b"] = 3
        self.seen.add(3)
        self.last.append(2)
        self.numbers += 1
        self.cache.keys.append(x)
        self.cache.length += 1
        self.plain += 1
        self.extra = x
        with torch.no_grad():
            self.layer.weight.mul_(2)
        self.hidden = self.layer(x)
        noise = torch.rand(3, generator=self.generator) + self.other.random()
        return self.hidden + noise


def contents(model: Holder) -> list[Any]:
    return [
        model.steps, list(model.log), {k: repr(v) for k, v in model.table.items()},
        set(model.seen), list(model.last), model.numbers.tolist(), len(model.cache.keys),
        model.cache.length, model.hidden, model.generator.get_state().tolist(),
        model.other.getstate(), model.plain.tolist(), model.layer.weight.tolist(),
        sorted(vars(model)),
    ]  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_what_forward_writes_into_its_model_is_put_back_also_after_an_error(fails: bool) -> None:
    model = Holder()
    before, places = contents(model), (id(model.table["a"]), model.layer.weight.data_ptr())
    try:
        with untouched(model, 0):
            model(torch.ones(2, 3))
            assert contents(model) != before
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert contents(model) == before
    assert (id(model.table["a"]), model.layer.weight.data_ptr()) == places


def test_numbers_that_did_not_change_are_not_written() -> None:
    model = nn.Linear(3, 3)
    version = model.weight._version
    put_back = remember(model)
    put_back()
    assert model.weight._version == version


def test_a_parameter_that_got_other_memory_gets_its_own_back() -> None:
    model = nn.Linear(3, 3)
    place, before = model.weight.data_ptr(), model.weight.detach().clone()
    put_back = remember(model)
    model.weight.data = torch.zeros(5, 3)
    model.weight.requires_grad_(False)
    model.bias = nn.Parameter(torch.ones(3))
    put_back()
    assert model.weight.data_ptr() == place
    assert torch.equal(model.weight, before)
    assert model.weight.requires_grad
    assert not torch.equal(model.bias, torch.ones(3))


def test_gradients_hooks_and_layers_come_back() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    model[0].weight.grad = torch.ones(3, 3)
    grad, tanh = model[0].weight.grad, model[1]
    put_back = remember(model)
    grad.add_(1)
    model[0].weight.grad = None
    model[0].register_forward_hook(lambda *_: None)
    model[1] = nn.ReLU()
    model.append(nn.Linear(3, 3))
    put_back()
    assert model[0].weight.grad is grad
    assert torch.equal(grad, torch.ones(3, 3))
    assert not model[0]._forward_hooks
    assert model[1] is tanh
    assert len(model) == 2


def test_objects_far_behind_a_model_are_left_alone() -> None:
    """As a trainer with all its data, which a module may know of."""
    model, trainer, data, source = nn.Linear(2, 2), Cache(), Cache(), Cache()
    model.trainer, trainer.data, data.source = trainer, data, source  # type: ignore[assignment, attr-defined]
    put_back = remember(model)
    for each in (trainer, data, source):
        each.length = 5
    put_back()
    assert [each.length for each in (trainer, data, source)] == [0, 0, 5]


def test_an_ordered_dict_comes_back_in_its_order() -> None:
    model = nn.Linear(2, 2)
    model.order = OrderedDict(a=1, b=2)  # type: ignore[assignment]
    put_back = remember(model)
    model.order.move_to_end("a")  # type: ignore[operator, union-attr]
    put_back()
    assert list(model.order) == ["a", "b"]  # type: ignore[arg-type]
