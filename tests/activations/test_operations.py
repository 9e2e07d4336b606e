"""Operations, gradients and entangled samples of small modules, against what is known of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.guard import untouched
from paperlib.activations.inputs import Inputs
from paperlib.activations.looking import stages_in
from paperlib.activations.operations import (
    Record,
    Step,
    entangled,
    operations_of,
    outline_of,
)
from paperlib.activations.slopes import one_gradient
from paperlib.activations.tracing import stages_of


def images(count: int = 12, *shape: int) -> Tensor:
    return torch.randn(count, *(shape or (6,)), generator=torch.Generator().manual_seed(0))


def seen(model: nn.Module, given: Any) -> tuple[Record, dict[int, tuple[Step, Tensor]]]:
    inputs, found = Inputs.in_order(given, model), {}

    def take(step: Step, value: Tensor, arguments: tuple[Any, ...]) -> None:
        found[step.number] = step, value.clone()

    with untouched(model, 0):
        outline = outline_of(model, inputs)
        values = inputs.part(0, inputs.train)
        return operations_of(model, inputs, values, outline, take), found


def test_functions_in_forward_are_operations_like_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layer(x).relu()

    record, found = seen(Net(), images())
    assert [(step.name, step.layer) for step, _ in found.values()] == [
        ("addmm", "layer"),
        ("relu", ""),
        ("add", ""),
    ]
    assert found[3][0].parents == (0, 2)
    assert record.sink == 3
    assert record.cuts == {3}


def test_writing_in_place_is_an_operation_with_its_own_result() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    _, found = seen(model, images())
    by_layer = {step.layer: value for step, value in found.values()}
    assert float(by_layer["0"].min()) < 0
    assert float(by_layer["1"].min()) == 0


def test_the_axis_of_samples_is_found_wherever_it_is() -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.T * 2).T + 1

    _, found = seen(Turned(), images(12, 6))
    turned = found[1][0]
    assert turned.axis == 1
    samples = turned.samples(found[1][1])
    assert samples is not None
    assert torch.equal(samples, 2 * images(12, 6))


def test_tokens_that_are_folded_into_samples_belong_to_them() -> None:
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.reshape(-1, 3)).reshape(len(x), -1)

    _, found = seen(Folding(), images(12, 4, 3))
    step, value = found[1]
    samples = step.samples(value)
    assert samples is not None
    assert (step.rows, tuple(samples.shape)) == (4, (12, 4, 5))


def test_gradients_are_those_of_autograd_and_none_is_left() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    inputs = Inputs.in_order(images(), model)
    with untouched(model, 0):
        two = inputs.few(2)
        stages = stages_of(model, model, (two, inputs.few(3)), two, ["1", "2"])
        slopes = one_gradient(
            model, inputs.part(0, 12), stages, lambda outputs: outputs.square().sum()
        )
    hidden = model[1](model[0](images())).detach().requires_grad_()
    outputs = model[2](hidden)
    expected = torch.autograd.grad(outputs.square().sum(), [hidden, model[2].weight])
    torch.testing.assert_close(slopes.stages[0], expected[0])
    torch.testing.assert_close(slopes.stages[1], 2 * outputs.detach())
    torch.testing.assert_close(slopes.parameters["2.weight"], expected[1] / 12)
    torch.testing.assert_close(slopes.activations[0], hidden.detach())
    assert slopes.value == pytest.approx(float(outputs.detach().square().sum()) / 12, rel=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_models_have_gradients_of_activations() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).requires_grad_(False)
    inputs = Inputs.in_order(images(), model)
    with untouched(model, 0):
        two = inputs.few(2)
        stages = stages_of(model, model, (two, inputs.few(3)), two, ["0"])
        slopes = one_gradient(model, inputs.part(0, 12), stages, Tensor.sum)
    expected = model[1].weight.sum(0).expand(12, 5)
    torch.testing.assert_close(slopes.stages[0], expected)
    assert slopes.parameters == {}


class Mixing(nn.Module):
    """Mixes samples, if so, in its second layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second, self.kind = nn.Linear(8, 8), nn.Identity(), kind
        self.expert = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.kind == "roll":
            x = x + 0.5 * x.roll(1, 0)
        if self.kind == "mean":
            x = x - x.mean(0)
        if self.kind == "time first":
            x = x.transpose(0, 1).reshape(-1, 8).reshape(x.shape[1], -1, 8).transpose(0, 1)
        if self.kind == "experts":  # tokens of the first one before those of the second
            tokens = x.flatten(0, 1)
            order = (tokens[:, 0] > 0).long().argsort(stable=True)
            x = torch.empty_like(tokens).index_copy(0, order, self.expert(tokens[order])).view_as(x)
        if "side by side" in self.kind:  # the samples' rows in one axis, one beside the other
            rows = x.transpose(0, 1).flatten(0, 1)
            rows = rows + 0.5 * rows.roll(1, 0) if "mixed" in self.kind else rows
            return self.second(rows).unflatten(0, (-1, len(x))).transpose(0, 1)
        return self.second(x)


@pytest.mark.parametrize("tokens", [5, 192])  # few, and so many that not all are compared
@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("none", None),
        ("side by side", None),
        ("side by side, mixed", "second"),
        ("time first", None),
        ("experts", None),
        ("roll", "second"),
        ("mean", "second"),
    ],
)
def test_samples_that_influence_each_other_are_found(
    kind: str, layer: str | None, tokens: int
) -> None:
    model = Mixing(kind)
    with untouched(model, 0):
        assert entangled(model, Inputs.in_order(images(12, tokens, 8), model), 0) == layer


def test_noise_is_not_taken_for_influence() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + torch.randn_like(x))

    model = Noisy()
    with untouched(model, 0):
        assert entangled(model, Inputs.in_order(images(12, 8), model), 0) is None


class Sums(nn.Module):
    """Residual sums that no layer returns, which are written into afterwards."""

    def __init__(self, count: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(count))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).tanh()
            x.mul_(2)
        return self.head(x)


def test_gradients_between_operations_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    model, images = Sums(), torch.randn(10, 6)
    inputs = Inputs.for_looking(images, model)
    with untouched(model, 0):
        stages = stages_in(model, inputs, "auto", operations=True)
        found = one_gradient(model, inputs.few(10), stages, Tensor.sum)
    assert [stage.name for stage in stages][:2] == ["layers.0 (mul)", "layers.1 (mul)"]
    assert stages[0].operation is not None
    x, sums = images, []
    for layer in model.layers:
        x = 2 * (x + layer(x).tanh())
        sums.append(x)
    expected = torch.autograd.grad(model.head(x).sum(), sums)
    for number, (value, slope) in enumerate(zip(sums, expected, strict=True)):
        torch.testing.assert_close(found.activations[number], value.detach())
        torch.testing.assert_close(found.stages[number], slope)
