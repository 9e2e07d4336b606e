"""What is said of models whose fault is known, and which layers it names."""

from typing import Any

import pandas as pd
import pytest
import torch
from test_report import report
from torch import Tensor, nn

from paperlib import initialise, mlp, probe
from paperlib.instruments.probe.reasons import fold, longest_run, reasons_of
from paperlib.instruments.probe.signals import Signals, signals

COUNT = 200


def mixed() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 3
    means = torch.rand(3, 1, 4, 4, generator=generator)
    return 0.3 * torch.rand(COUNT, 1, 4, 4, generator=generator) + means[labels], labels


def reasons(model: nn.Module) -> tuple[str, ...]:
    images, labels = mixed()
    found = probe(model, images)
    return reasons_of(found, signals(model, images, labels, report=found))


def network(sigma_w2: float, *, depth: int = 30, activation: str = "tanh") -> nn.Module:
    made = mlp((1, 4, 4), depth=depth, width=100, activation=activation, classes=3)
    initialise(made, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    return made


@pytest.mark.slow
def test_of_a_healthy_network_nothing_stands_in_its_way() -> None:
    (only,) = reasons(network(1.5, depth=5))
    assert only.startswith("the image arrives (R² 0.")
    assert "the lesson comes back (gradients change 1." in only


@pytest.mark.slow
def test_of_an_ordered_network_it_says_where_the_image_is_lost_and_the_lesson_shrinks() -> None:
    found = reasons(network(0.3))
    said = "\n".join(found)
    assert "the image is lost from layer stages." in said
    assert (
        "-fold from layer stages.29 to layer stages.0: SGD will not move the first layers" in said
    )
    assert "gradients of different images are parallel: layer stages." in said


@pytest.mark.slow
def test_of_a_chaotic_network_it_says_that_images_pull_different_ways() -> None:
    found = reasons(network(8.0))
    said = "\n".join(found)
    assert "the image is lost from layer stages." in said
    assert "unrelated: every image pulls another way, even one of the same class" in said
    assert "gradients grow 10" in said


@pytest.mark.slow
def test_where_a_trial_learns_nothing_it_says_so() -> None:
    dead = network(2.0, depth=3, activation="relu")
    with torch.no_grad():
        dead.stages[0][-2].weight.zero_()  # type: ignore[index, union-attr]
        dead.stages[0][-2].bias.fill_(-1.0)  # type: ignore[index, union-attr]
    said = "\n".join(reasons(dead))
    assert "short trainings, of steps in units of the weights, learn nothing: " in said
    assert "learn nothing" not in "\n".join(reasons(network(2.0, depth=3, activation="relu")))


@pytest.mark.slow
def test_a_head_of_zeros_is_fine_and_comes_last() -> None:
    model = network(1.5, depth=5)
    with torch.no_grad():
        model.head[2].weight.zero_()  # type: ignore[index, union-attr]
    found = reasons(model)
    assert found[-1] == "the last layer, head.2, is all zeros: fine, it moves first"
    assert found[0].startswith("the image arrives")


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x).tanh()


def test_a_branch_of_zeros_is_fine_and_a_chain_through_zeros_is_not() -> None:
    torch.manual_seed(0)
    residual = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), Skip(), nn.Linear(16, 3))
    nn.init.zeros_(residual[2].body.weight)
    assert "all zeros: 2.body; fine, a path leads past" in reasons(residual)
    chain = nn.Sequential(nn.Flatten(), *(nn.Linear(16, 16) for _ in range(3)), nn.Linear(16, 3))
    nn.init.zeros_(chain[2].weight)
    assert reasons(chain)[0] == "no gradient comes back to layer 1"


def test_what_is_faint_beside_a_common_mean_is_not_called_lost_for_good() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
    )
    with torch.no_grad():
        model[3].bias.fill_(1e3)  # before the head all images look the same
    assert not any("the image is lost" in sentence for sentence in reasons(model))
    numbers = {"r_squared_features": 0.9, "gain_relative": 1.0, "adam_share": 1.0, "cosine": 0.5}
    (said, *_) = reasons_of(report([0.9, 0.0, 0.0]), by_hand(numbers | {"r_squared_end": 0.0}))
    assert "it is still there: R² 0.90" in said


def test_adam_may_move_what_sgd_cannot_unless_epsilon_holds_it_back() -> None:
    def said(share: float) -> str:
        numbers = {
            "r_squared_features": 0.9, "r_squared_end": 0.9, "gain_relative": 1e-6,
            "adam_share": share, "cosine": 0.5,
        }  # fmt: skip
        return reasons_of(report([0.9, 0.9]), by_hand(numbers))[0]

    assert said(0.9) == (
        "gradients shrink 10⁶-fold from layer layer1 to layer layer0: SGD will not move the first "
        "layers, Adam may"
    )
    assert said(0.1).endswith("and they lie below Adam's ε, too")


def by_hand(numbers: dict[str, Any], cosine: float = 0.5) -> Signals:
    layers = pd.DataFrame({"cosine": [cosine] * 4, "zero": [False] * 4}, index=list("abcd"))
    stages = pd.DataFrame({"slope": [1.0, 1.0]})
    return Signals(numbers, stages, layers, way=("layer layer1", "layer layer0"))


def test_the_worst_comes_first() -> None:
    numbers = {
        "r_squared_features": 0.0, "r_squared_end": 0.0, "gain_relative": 0.0, "adam_share": 1.0,
        "cosine": 0.9999, "label_features": 0.11, "chance": 0.1,
    }  # fmt: skip
    found = reasons_of(report([0.9, 0.001]), by_hand(numbers, cosine=0.9999))
    assert [reason.split(":")[0][:30] for reason in found] == [
        "no gradient comes back to laye",
        "the image is lost from layer l",
        "gradients of different images ",
        "no label can be read before th",
    ]
    assert found[2] == "gradients of different images are parallel: layer a to d learn one thing"


@pytest.mark.slow
def test_of_a_recurrent_layer_it_says_that_gradients_change_along_its_tokens() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.recur, self.read = nn.Linear(4, 8), nn.RNN(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(self.recur(self.embed(x[:, 0]).transpose(0, 1))[0][-1])

    torch.manual_seed(0)
    model = Reading()
    with torch.no_grad():
        model.recur.weight_hh_l0.mul_(0.05)
    said = "\n".join(reasons(model))
    assert "gradients shrink 10" in said
    assert "-fold from the last token behind embed to the first: what the first could" in said


@pytest.mark.parametrize(
    ("flags", "run"),
    [([1, 1, 0, 1, 1, 1], [3, 4, 5]), ([0, 0], []), ([1], [0]), ([1, 0, 1], [0]), ([], [])],
)
def test_the_longest_run_is_found(flags: list[bool], run: list[int]) -> None:
    assert list(longest_run(flags)) == run


@pytest.mark.parametrize(
    ("factor", "text"), [(1.44, "1.4"), (250.4, "250"), (3e3, "10³"), (1e12, "10¹²")]
)
def test_factors_are_short(factor: float, text: str) -> None:
    assert fold(factor) == text
