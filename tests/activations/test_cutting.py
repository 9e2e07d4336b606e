"""Places between operations, and inside of stages that no cut divides: by hand-made graphs."""

import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.arguments import runner
from paperlib.activations.looking import visit
from paperlib.activations.tracing import Stage, stages_of


def found(model: nn.Module, *shape: int, **options: object) -> list[Stage]:
    numbers = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    two, three, changed = numbers[:2].clone(), numbers[:3], numbers[[0, 3, 2]]
    return stages_of(
        model.eval(), model, (two, three), two, "auto", operations=True, changed=changed, **options
    )  # type: ignore[arg-type]


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


class Summed(nn.Module):
    """Residual sums that the outer forward() takes."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(depth))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).tanh()
        return self.head(x)


def test_sums_in_forward_are_stages_as_those_in_blocks_are() -> None:
    stages = found(Summed(5), 6)
    assert names(stages) == [*(f"layers.{k} (add)" for k in range(5)), "head"]
    assert all(stage.cut for stage in stages)
    assert [stage.bounded for stage in stages] == [True] * 5 + [False]
    assert [stage.weights for stage in stages] == [1] * 6


def test_layers_without_modules_are_stages() -> None:
    class Functions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(nn.Parameter(torch.eye(6)) for _ in range(8))

        def forward(self, x: Tensor) -> Tensor:
            for weight in self.weights:
                x = torch.tanh(nn.functional.linear(x, weight))
            return x

    assert names(found(Functions(), 6)) == [
        "forward (tanh)", *(f"forward (tanh)#{k}" for k in range(2, 8)), "output",
    ]  # fmt: skip


def test_what_is_made_between_operations_is_read_for_any_number_of_samples() -> None:
    torch.manual_seed(0)
    model = Summed(4)
    stages = found(model, 6)
    images = torch.randn(11, 6)
    values: dict[int, Tensor] = {}

    def take(number: int, value: Tensor) -> None:
        values[number] = value.clone() @ torch.eye(value.shape[1])  # a hook's own operations

    visit(model, images, dict(enumerate(stages)), take)
    expected = images
    for number, layer in enumerate(model.layers):
        expected = expected + layer(expected).tanh()
        torch.testing.assert_close(values[number], expected.detach())


def test_a_block_of_a_few_weights_stays_whole() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layers(x)

    assert names(found(nn.Sequential(Block(), Block(), nn.Linear(6, 2)), 6)) == ["0", "1", "2"]


class Decoder(nn.Module):
    """Layers that all look back at the input, so that none of them is a cut."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12, 6) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            y = layer(torch.cat([x, y], 1)).relu()
        return y


def test_layers_past_which_paths_lead_are_looked_at_beside_the_main_one() -> None:
    stages = found(Decoder(12), 6)
    inside, joined, end = stages[:3], stages[3], stages[4]
    assert names(inside) == ["layers.2", "layers.5", "layers.8"]
    assert not any(stage.cut for stage in inside)
    assert (joined.name, joined.cut, end.name, end.cut) == ("layers.10 (cat)", True, "output", True)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_each_of_several_recurrent_layers_is_a_stage(
    kind: type[nn.RNNBase], fast: bool, both: bool
) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(5, 4, 3, batch_first=True, bidirectional=both)
            self.head = nn.Linear(8 if both else 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0][:, -1])

    with torch.backends.mkldnn.flags(enabled=fast):
        stages = found(Reads(), 7, 5)
    assert names(stages) == [
        "cell (layer 1 of 3)", "cell (layer 2 of 3)", "cell", "cell (select)", "head",
    ]  # fmt: skip
    size = 8 if both else 4
    assert [stage.shape for stage in stages] == [(7, size)] * 3 + [(size,), (2,)]


def test_one_recurrent_layer_is_one_stage() -> None:
    model = nn.Sequential(nn.GRU(5, 4, batch_first=True))
    assert len(found(model, 7, 5)) == 1


@pytest.mark.parametrize(
    ("cut", "name"),
    [
        (lambda x: x[:, -1], "0 (select)"),
        (lambda x: x.mean(1), "0 (mean)"),
        (lambda x: x.amax(1), "0 (amax)"),
        (lambda x: nn.functional.layer_norm(x[:, 0], (4,)), "0 (native_layer_norm)"),
    ],
)
def test_what_forward_cuts_off_before_a_head_is_a_stage(cut: object, name: str) -> None:
    class Cuts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](cut(self.layers[0](x)))  # type: ignore[operator, no-any-return]

    stages = found(Cuts(), 7, 5)
    assert names(stages) == ["layers.0", f"layers.{name}", "layers.1"]
    assert [stage.shape for stage in stages] == [(7, 4), (4,), (2,)]


def test_a_norm_of_what_was_cut_off_is_a_stage_and_the_block_before_stays_one() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.norm, self.head = nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.block(x)[:, 0]))

    assert names(found(Token(), 7, 5)) == ["block", "norm", "head"]


class Folded(nn.Module):
    """Times and samples in one axis, the samples one after the other or side by side."""

    def __init__(self, major: str) -> None:
        super().__init__()
        self.layer, self.major = nn.Linear(5, 3), major

    def forward(self, x: Tensor) -> Tensor:
        n, times = x.shape[:2]
        if self.major == "batch":
            return self.layer(x.flatten(0, 1)).view(n, times, 3)
        return self.layer(x.transpose(0, 1).flatten(0, 1)).view(times, n, 3).transpose(0, 1)


@pytest.mark.parametrize("major", ["batch", "time"])
def test_a_folded_batch_is_unfolded_as_it_was_folded(major: str) -> None:
    torch.manual_seed(0)
    model = Folded(major)
    images = torch.randn(6, 4, 5)
    two, three, changed = images[:2].clone(), images[:3], images[[0, 3, 2]]
    (stage,) = stages_of(model, model, (two, three), two, ["layer"], changed=changed)
    assert (stage.rows, stage.shape) == (4, (4, 3))
    values: list[Tensor] = []
    visit(model, images, {0: stage}, lambda number, value: values.append(value.clone()))
    torch.testing.assert_close(values[0], model.layer(images).detach())


def test_a_number_for_each_sample_has_an_axis_of_its_own() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).tanh().sum(1)

    stages = found(One(), 5)
    assert names(stages) == ["layer", "output"]
    assert [stage.shape for stage in stages] == [(4,), (1,)]
    assert stages[1].samples(torch.zeros(9)).shape == (9, 1)


class Heads(nn.Module):
    """An early head, the main one, and a loss: in any order."""

    def __init__(self, order: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))
        self.early, self.main, self.order = nn.Linear(6, 3), nn.Linear(6, 3), order

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        made = {}
        for number, layer in enumerate(self.layers):
            x = layer(x).relu()
            if number == 1:
                made["early"] = self.early(x)
        made["main"] = self.main(x)
        made["loss"] = made["main"].square().mean() + made["early"].mean()
        return {name: made[name] for name in self.order}


@pytest.mark.parametrize(
    "order", [("early", "main"), ("main", "early"), ("loss", "early", "main"), ("loss", "main")]
)
def test_the_output_that_most_weights_lead_to_is_looked_at_and_no_loss(
    order: tuple[str, ...],
) -> None:
    assert names(found(Heads(order), 6)) == [*(f"layers.{k}" for k in range(6)), "main"]


def test_another_output_can_be_picked() -> None:
    from paperlib.activations.inputs import Inputs

    model = Heads(("main", "early"))
    inputs = Inputs.in_order(torch.randn(12, 6), model, output="early")
    two, three = inputs.few(2), inputs.few(3)
    stages = stages_of(model, runner(model), (two, three), inputs.source_of(two), "auto")
    assert names(stages) == ["layers.0", "layers.1", "early"]
