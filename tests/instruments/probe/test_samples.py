"""Whether samples see each other, and whether a model draws: models of which both are known."""

import pytest
import torch
from torch import Tensor, nn

from paperlib import probe
from paperlib.activations.guard import untouched
from paperlib.activations.inputs import Inputs
from paperlib.activations.tracing import stages_of
from paperlib.instruments.probe.samples import first_of_all

IMAGES = torch.rand(60, 5, 8, generator=torch.Generator().manual_seed(0))


def said(model: nn.Module, images: Tensor = IMAGES) -> list[str]:
    with untouched(model, 0):
        inputs = Inputs.of(images, model, 0)
        two, three = inputs.few(2), inputs.few(3)
        stages = stages_of(model, model, (two, three), two, "auto", operations=True)
        random, mixed = first_of_all(model, inputs, stages)
    return [*random, *([] if mixed is None else [str(mixed)])]


class Attends(nn.Module):
    """Attention along the tokens, or by mistake along the batch."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return self.head(self.attention(x, x, x)[0].mean(1))


class Reshapes(nn.Module):
    """Times first by a reshape, where a permutation was meant."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.reshape(x.shape[1], len(x), 8).cumsum(0)
        return moved.permute(1, 0, 2).flatten(1)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (Attends(batch_first=False), "attention"),
        (nn.Sequential(nn.Linear(8, 4), nn.GRU(4, 6)), "1"),
    ],
)
def test_samples_that_see_each_other_are_told_with_the_layer(model: nn.Module, layer: str) -> None:
    (sentence,) = said(model)
    assert "of the output depends on sample 4" in sentence
    assert f"influence each other from layer {layer!r} on" in sentence


def test_a_reshape_in_the_place_of_a_permutation_is_told() -> None:
    (sentence,) = said(nn.Sequential(Reshapes(), nn.Linear(40, 3)))
    assert "depends on sample 4" in sentence


def test_a_mistake_inside_is_told_also_where_the_output_does_not_show_it() -> None:
    class Token(nn.Module):
        """Its class token sees those of the other samples alone, which are all the same."""

        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.attention = nn.TransformerEncoderLayer(8, 2, 16)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
            return self.head(self.attention(x)[:, 0])

    (sentence,) = said(Token())
    assert "of layer 'attention" in sentence
    assert "depends on sample 4" in sentence


@pytest.mark.parametrize(
    "model",
    [
        Attends(batch_first=True),
        nn.Sequential(nn.BatchNorm1d(5), nn.Flatten(), nn.Linear(40, 3)),
        nn.Sequential(nn.BatchNorm1d(5, track_running_stats=False), nn.Flatten()),
        nn.Sequential(nn.Linear(8, 4), nn.Dropout(), nn.GRU(4, 6, batch_first=True)),
    ],
)
def test_samples_that_are_seen_one_by_one_are_not(model: nn.Module) -> None:
    assert said(model) == []


class Noisy(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(8, 8), size

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.size * torch.randn(len(x), 1, 8)


def test_a_model_that_draws_numbers_is_told_and_gives_neighbours_the_same() -> None:
    torch.manual_seed(0)
    noisy = Noisy(1.0)
    (sentence,) = said(noisy)
    assert sentence.startswith("forward() draws random numbers: two runs of the same images differ")
    still = Noisy(0.0)
    still.load_state_dict(noisy.state_dict())
    assert said(still) == []
    apart = [float(probe(m, IMAGES).result["separation"][0]) for m in (still, noisy)]
    assert apart[1] < apart[0]  # the noise spreads the images, and moves no neighbour from another


def test_a_report_begins_with_it() -> None:
    torch.manual_seed(0)
    report = probe(Attends(batch_first=False), IMAGES)
    assert report.summary().startswith("row ")
    assert "depends on sample 4" in str(report).splitlines()[0]
