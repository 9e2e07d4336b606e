"""Where models are cut: against graphs whose answer is known by hand."""

import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.tracing import Layers, ProbeError, Stage, stages_of


def found(model: nn.Module, *shape: int, layers: Layers = "auto") -> list[Stage]:
    numbers = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    two, three = numbers[:2].clone(), numbers
    return stages_of(model.eval(), model, (two, three), two, layers)


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


class Block(nn.Module):
    """x + body(x), by a function or by writing into x."""

    def __init__(self, *, in_place: bool = False) -> None:
        super().__init__()
        self.body, self.inner, self.in_place = nn.Linear(8, 8), nn.Tanh(), in_place

    def forward(self, x: Tensor) -> Tensor:
        change = self.inner(self.body(x))
        return x.add_(change) if self.in_place else x + change


def test_a_chain_is_cut_before_every_layer_that_mixes_numbers() -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(),
        nn.Linear(8, 8),
        nn.ReLU(inplace=True),
        nn.Linear(8, 2),
    )
    stages = found(model, 3, 4)
    assert names(stages) == ["3", "6", "7"]
    assert [stage.shape for stage in stages] == [(8,), (8,), (2,)]
    assert [stage.bounded for stage in stages] == [True, False, False]
    assert all(stage.cut for stage in stages)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_skip_connection_is_cut_only_where_its_paths_meet(in_place: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), Block(in_place=in_place), Block(), nn.Linear(8, 3))
    stages = found(model, 8)
    assert names(stages) == ["0", "1", "2", "3"]
    assert [stage.bounded for stage in stages] == [False, True, True, False]


def test_a_layer_that_a_path_leads_past_is_no_cut_but_can_be_asked_for() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Block(), nn.Linear(8, 3))
    inner, outer = found(model, 8, layers=["1.body", "1"])
    assert (inner.name, inner.cut) == ("1.body", False)
    assert (outer.name, outer.cut) == ("1", True)


def test_concatenation_is_a_skip_connection_too() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(8, 4)
            self.end = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            once = torch.cat([x, self.first(x)], 1)
            return self.end(torch.cat([once, self.second(once)], 1))

    assert names(found(Dense(), 4)) == ["end"]


def test_each_call_of_one_layer_is_a_stage_with_a_number() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = self.relu(layer(x))
            return x

    assert names(found(Repeated(), 6)) == ["relu", "relu#2", "relu#3"]
    assert names(found(Repeated(), 6, layers=["relu#2"])) == ["relu#2"]
    assert names(found(Repeated(), 6, layers="relu")) == ["relu", "relu#2", "relu#3"]


def test_functions_in_forward_count_as_layers_do() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.first(x))
            return nn.functional.layer_norm(x, (6,)) + self.second(x)

    stages = found(Functional(), 6)
    assert names(stages) == ["first", "output"]
    assert [stage.cut for stage in stages] == [True, True]


def test_tuples_and_dicts_that_layers_return_are_looked_into() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.LSTM(5, 8, batch_first=True)
            self.second = nn.GRU(8, 8, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x, _ = self.first(x)
            x, state = self.second(x)
            return {"logits": self.head(x[:, -1]), "state": state}

    stages = found(Recurrent(), 7, 5)
    assert names(stages) == ["first", "second", "head"]
    assert [stage.shape for stage in stages] == [(7, 8), (7, 8), (2,)]
    assert [stage.bounded for stage in stages] == [True, True, False]


def test_the_axis_of_the_batch_is_found_wherever_it_is() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.fold = nn.Linear(5, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            mixed = self.mix(x.transpose(0, 1))  # (time, batch, features)
            return self.fold(mixed.transpose(0, 1).flatten(0, 1)).unflatten(0, (len(x), -1))

    stages = found(TimeFirst(), 4, 5, layers=["mix", "fold"])
    assert [(s.axis, s.rows, s.shape) for s in stages] == [(1, 1, (4, 6)), (0, 4, (4, 6))]
    value = torch.arange(4 * 2 * 6.0).view(4, 2, 6)
    assert torch.equal(stages[0].samples(value), value.transpose(0, 1))
    assert stages[1].samples(torch.zeros(8, 6)).shape == (2, 4, 6)


def test_layers_can_be_picked_by_a_rule() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    stages = found(model, 8, layers=lambda name, module: isinstance(module, nn.Linear))
    assert names(stages) == ["0", "2"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["1", "nine"], "no layer 'nine'; its layers are 0, 1, 2"),
        (lambda name, module: False, "no layer matched"),
        (["1#3"], "no layer matched"),
        ([], "no layer matched"),
    ],
)
def test_layers_that_are_not_there_are_told(layers: Layers, message: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    with pytest.raises(ProbeError, match=message):
        found(model, 8, layers=layers)


def test_a_model_that_stops_names_the_layer_and_the_shape_it_was_given() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(12, 8)))
    with pytest.raises(ProbeError, match=r"layer '1.0', which was given \(2, 15\)"):
        found(model, 3, 5)


def test_a_model_whose_output_does_not_depend_on_the_input_is_told() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2)

    with pytest.raises(ProbeError, match="no floating-point tensor that depends on the images"):
        found(Constant(), 4)


def test_no_hook_is_left_behind_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    found(model, 8)
    with pytest.raises(ProbeError):
        found(model, 9)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
