"""Signals of models whose answer is known, what they do not depend on, and that nothing changes."""

import copy
import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib import initialise, mlp, probe
from paperlib.activations.tracing import ProbeError
from paperlib.instruments.probe import grams
from paperlib.instruments.probe.lessons import decades, moved, units_of
from paperlib.instruments.probe.signals import Signals, signals

COUNT = 120
OF_OPTIMISERS = ("sgd_decades", "adam_decades", "adam_share")  # what a rescaled layer may change
WITH_LABELS = {
    "chance", "label_features", "label_output", "cosine_within", "cosine_between",
    "tangent_alignment", "tangent_accuracy", "loss", "step_gain", "step_accuracy",
    "trial_accuracy", "trial_loss",
}  # fmt: skip


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed() -> tuple[Tensor, Tensor]:
    """Images of three classes, each around a mean of its own."""
    labels = torch.arange(COUNT) % 3
    return rows(COUNT, 6) + 2 * rows(3, 6, seed=5)[labels], labels


def relu_net(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for below, above in pairwise(sizes):
        layers += [nn.Linear(below, above), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def orthogonal(depth: int, scale: float) -> nn.Sequential:
    """Linear layers that rotate, and stretch by the same factor."""
    layers = [nn.Linear(6, 6) for _ in range(depth)]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            layer.weight.copy_(scale * torch.linalg.qr(rows(6, 6, seed=number))[0])
    return nn.Sequential(*layers).double()


# --- known answers ---


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_layers_that_stretch_by_a_factor_stretch_the_lesson_once_each(scale: float) -> None:
    found = signals(orthogonal(5, scale), rows(COUNT, 6))
    assert found.numbers["gain"] == pytest.approx(scale**4)
    assert found.numbers["gain_norm"] == pytest.approx(scale**4)
    bare = orthogonal(5, scale)
    for layer in bare:
        nn.init.zeros_(layer.bias)
    assert signals(bare, rows(COUNT, 6)).numbers["gain_relative"] == pytest.approx(1)
    slopes = found.stages["slope"].values
    np.testing.assert_allclose(slopes[:-1] / slopes[1:], scale)


def test_a_rotation_keeps_the_image_and_what_a_projection_leaves_can_be_read() -> None:
    images = rows(COUNT, 6)
    whole = signals(orthogonal(3, 1.0), images).numbers
    for name in ("smallest", "end", "features", "output"):
        assert whole[f"r_squared_{name}"] > 0.99
    model = nn.Sequential(*orthogonal(2, 1.0), nn.Linear(6, 3)).double()
    found = signals(model, images).numbers
    assert found["r_squared_features"] > 0.99
    assert found["r_squared_output"] == pytest.approx(0.5, abs=0.1)  # three of six directions


def test_of_the_image_it_says_what_the_probe_does() -> None:
    images, _ = mixed()
    model = relu_net(6, 8, 4, 3)
    report = probe(model, images)
    found = signals(model, images, report=report)
    kept = report.result["r_squared"].values[: report.end]
    assert found.numbers["r_squared_smallest"] == kept.min()
    assert found.numbers["r_squared_end"] == kept[-1]
    np.testing.assert_array_equal(found.stages["r_squared"], report.result["r_squared"])
    assert found.stages.index.tolist() == report.result["layer"].values.tolist()
    assert signals(model, images).numbers == found.numbers


def test_a_label_is_read_where_it_is_and_nowhere_else() -> None:
    images, labels = mixed()
    images[:, 0] = 10.0 * labels
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model[1].weight[:, :] = 0
        model[1].weight[0, 1] = 1.0
        model[0].weight[:] = torch.eye(5, 6)
    found = signals(model, images, labels).numbers
    assert found["label_features"] > 0.95
    assert found["label_output"] < 0.8
    shuffled = labels[torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))]
    assert signals(model, images, shuffled).numbers["label_features"] < 0.6


def explicit_slopes(model: nn.Module, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of a model with one output, and every sample's gradient of it."""
    for name, parameter in model.named_parameters():

        def scalar(value: Tensor, name: str = name) -> Tensor:
            return torch.func.functional_call(model, {name: value}, (images,))[:, 0]

        jacobian = torch.autograd.functional.jacobian(scalar, parameter.detach())
        yield parameter.detach(), jacobian.flatten(1)


def explicit_kernel(model: nn.Module, images: Tensor) -> Tensor:
    """The tangent kernel of a model with one output, in units of each parameter's length."""
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    for parameter, slopes in explicit_slopes(model, images):
        kernel += parameter.square().sum() * slopes @ slopes.T
    return kernel


def test_the_tangent_kernel_is_that_of_explicit_jacobians() -> None:
    images, _ = mixed()
    model = relu_net(6, 5, 4, 1)
    kernel = explicit_kernel(model, images)
    found = signals(model, images).numbers
    assert found["cosine"] == pytest.approx(grams.mean_cosine(kernel))
    assert found["tangent_rank"] == pytest.approx(grams.effective_rank(kernel) / (COUNT - 1))
    values = torch.linalg.eigvalsh(kernel)
    assert found["tangent_top"] == pytest.approx(float(values[-1] / values.sum()))


def left_out_one_by_one(kernel: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """What ridges with an intercept, each fitted to all samples but one, say of that one."""
    found = []
    for one in range(len(kernel)):
        rest = torch.arange(len(kernel)) != one
        size = int(rest.sum())
        equations = torch.ones(size + 1, size + 1, dtype=torch.float64)
        equations[:size, :size] = kernel[rest][:, rest] + penalty * torch.eye(size)
        equations[size, size] = 0
        right = torch.cat([targets[rest], torch.zeros(1, targets.shape[1])])
        solved = torch.linalg.solve(equations, right)
        found.append(kernel[one, rest] @ solved[:size] + solved[size])
    return torch.stack(found)


def test_what_steps_of_equal_shares_learn_is_what_ridges_on_explicit_jacobians_say() -> None:
    images, _ = mixed()
    one = relu_net(6, 5, 4, 1)  # of one output a random readout is a factor
    steps = sum(
        parameter.norm() / slopes.square().sum(1).mean().sqrt() * slopes @ slopes.T
        for parameter, slopes in explicit_slopes(one, images)
        if float(slopes.norm())
    )
    penalty = float(torch.linalg.eigvalsh(steps)[-1]) / 100
    found = signals(one, images, samples=COUNT).numbers
    said = left_out_one_by_one(steps, images, penalty)
    spread = (images - images.mean(0)).square().sum() * (COUNT / (COUNT - 1)) ** 2
    expected = 1 - float((said - images).square().sum() / spread)
    assert found["step_r_squared"] == pytest.approx(expected, abs=1e-9)


def test_gradients_by_layer_are_those_of_the_mean_loss() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 3)
    found = signals(model, images, labels, samples=COUNT).layers
    assert found.index.tolist() == ["0", "2"]
    order = torch.randperm(COUNT, generator=chosen())[: COUNT // 2]
    loss = nn.functional.cross_entropy(model(images[order]), labels[order])
    for layer in ("0", "2"):
        weight = model[int(layer)].weight
        (slope,) = torch.autograd.grad(loss, weight, retain_graph=True)
        row = found.loc[layer]
        assert row["gradient"] == pytest.approx(float(slope.square().mean().sqrt()))
        assert row["sensitivity"] == pytest.approx((slope.norm() * weight.norm()).item())
        assert row["update_sgd"] == pytest.approx((slope.norm() / weight.norm()).item())
        adam = (slope.abs() / (slope.abs() + 1e-8)).mean() / weight.square().mean().sqrt()
        assert row["update_adam"] == pytest.approx(adam.item())


def chosen() -> torch.Generator:
    from paperlib.core.seeds import random_numbers

    return random_numbers("signals", 0)


def test_cosines_of_layers_are_those_of_gradients_in_turn() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 3)
    gradients = []
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(model(image[None]), label[None])
        gradients.append(torch.autograd.grad(loss, model[0].weight)[0].flatten())
    stacked = torch.stack(gradients)
    same = labels[:, None] == labels
    found = signals(model, images, labels).layers.loc["0"]
    assert found["cosine_within"] == pytest.approx(grams.mean_cosine(stacked @ stacked.T, same))
    assert found["cosine_between"] == pytest.approx(grams.mean_cosine(stacked @ stacked.T, ~same))


def test_a_step_on_a_linear_loss_takes_away_a_tenth() -> None:
    model = nn.Linear(6, 3).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    gradient = {name: torch.randn_like(p) for name, p in parameters.items()}
    after = moved(parameters, gradient, units_of(model), loss=1e-3)
    change = sum(float((gradient[n] * (after[n] - parameters[n])).sum()) for n in parameters)
    assert change == pytest.approx(-1e-4)
    lengths = [float((after[n] - p).norm() / p.norm()) for n, p in parameters.items()]
    assert lengths[0] == pytest.approx(lengths[1])
    far = moved(parameters, gradient, units_of(model), loss=1e9)  # a tenth would be too far
    assert float((far["weight"] - parameters["weight"]).norm()) == pytest.approx(
        0.1 * float(parameters["weight"].norm())
    )


def test_one_step_helps_on_images_it_has_not_seen_only_if_labels_mean_something() -> None:
    images, labels = mixed()
    model = relu_net(6, 30, 3)
    shuffled = labels[torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))]
    assert signals(model, images, labels).numbers["step_gain"] > 0.03
    assert signals(model, images, shuffled).numbers["step_gain"] < 0.03


class Loop(nn.Module):
    """A linear recurrent net, whose cell multiplies its state by a factor for each row."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.cell, self.read = nn.Linear(6, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.cell.weight[:, 3:] = factor * torch.eye(3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 3)
        for row in x.unbind(1):
            state = self.cell(torch.cat([row, state], 1))
        return self.read(state)


def test_of_a_recurrent_net_the_gain_is_that_along_time() -> None:
    found = signals(Loop(0.5).double(), rows(COUNT, 7, 3)).numbers
    assert found["gain"] == pytest.approx(0.5**6)


class Fused(nn.Module):
    """A linear cell of one layer that reads rows of an image, all calls in one."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.embed, self.recur, self.read = nn.Linear(3, 4), nn.RNN(4, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.recur.weight_hh_l0.copy_(factor * torch.eye(4))
            self.recur.weight_ih_l0.copy_(torch.eye(4))
            for bias in (self.recur.bias_hh_l0, self.recur.bias_ih_l0):
                bias.zero_()
            for parameter in self.embed.parameters():
                parameter.mul_(1e-4)  # so small that tanh is linear

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.recur(self.embed(x).transpose(0, 1))[0][-1])


def test_of_a_recurrent_layer_the_gain_is_that_along_its_tokens() -> None:
    images = rows(COUNT, 7, 3)
    images[:, 0] = 0  # a black row has the unit of the others
    model = Fused(0.5).double()
    nn.init.zeros_(model.embed.bias)
    found = signals(model, images).numbers
    assert found["gain"] == pytest.approx(0.5**6, rel=1e-3)
    assert found["gain_relative"] == pytest.approx(0.5**6, rel=1e-3)


def test_decades_lie_between_the_largest_and_the_smallest() -> None:
    assert decades([1.0, 1e-3, 1e-2]) == pytest.approx(3)
    assert decades([1.0, 0.0]) == 40
    assert decades([]) == 0


# --- what they do not depend on ---


def agree(found: Signals, expected: Signals, *, but: tuple[str, ...] = ()) -> None:
    assert found.numbers.keys() == expected.numbers.keys()
    for name, value in expected.numbers.items():
        if name not in but:
            assert found.numbers[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_rescaling_a_relu_layer_and_its_successor_changes_only_what_optimisers_see() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 7, 3)
    expected = signals(model, images, labels)
    with torch.no_grad():
        for parameter in model[2].parameters():
            parameter.mul_(50.0)
        model[4].weight.div_(50.0)
    found = signals(model, images, labels)
    agree(found, expected, but=(*OF_OPTIMISERS, "gain", "gain_norm"))
    assert found.numbers["gain"] == pytest.approx(50 * expected.numbers["gain"])
    assert found.numbers["sgd_decades"] > expected.numbers["sgd_decades"] + 1
    assert found.numbers["adam_decades"] > expected.numbers["adam_decades"] + 1


def test_permuting_neurons_changes_nothing() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 7, 3)
    expected = signals(model, images, labels)
    order = torch.randperm(8)
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[order])
        model[0].bias.copy_(model[0].bias[order])
        model[2].weight.copy_(model[2].weight[:, order])
    agree(signals(model, images, labels), expected)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


def test_a_constant_added_to_the_images_of_a_net_that_centres_changes_nothing() -> None:
    images, labels = mixed()
    model = nn.Sequential(Centre(), *relu_net(6, 8, 3))
    agree(signals(model, images + 7.0, labels), signals(model, images, labels))


@pytest.mark.slow
def test_the_width_hardly_matters_to_the_lesson() -> None:
    found = []
    for width in (150, 600):
        network = mlp((1, 4, 4), depth=4, width=width, classes=3)
        initialise(network, sigma_w2=1.5, sigma_b2=0.05, seed=0)
        images = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        found.append(signals(network, images).numbers)
    for name in ("gain", "gain_norm", "gain_relative", "cosine", "tangent_top"):
        assert found[1][name] == pytest.approx(found[0][name], rel=0.3)
    spread = [numbers["sensitivity_decades"] for numbers in found]
    assert spread[1] == pytest.approx(spread[0], abs=0.5)  # lengths of weights grow with the width


def test_single_precision_agrees_with_double() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 7, 3)
    double = signals(model, images, labels)
    single = signals(copy.deepcopy(model).float(), images.float(), labels)
    for name, value in double.numbers.items():
        if name.startswith("trial_"):  # at large rates trainings part ways
            assert single.numbers[name] == pytest.approx(value, abs=1.0), name
        elif name != "tangent_condition":  # of eigenvalues that rounding reaches
            assert single.numbers[name] == pytest.approx(value, rel=0.02, abs=2e-3), name


def test_less_memory_changes_nothing_but_the_passes() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 3)
    report = probe(model, images)
    whole = signals(model, images, labels, report=report, samples=32)
    parts = signals(model, images, labels, report=report, samples=32, memory=2**15)
    for name in ("gain", "cosine", "cosine_within", "tangent_accuracy"):
        assert parts.numbers[name] == pytest.approx(whole.numbers[name]), name


# --- models of all kinds ---


def test_a_last_layer_of_zeros_moves_first_and_signals_are_those_behind_it() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 8, 3)
    with torch.no_grad():
        model[4].weight.zero_()
    found = signals(model, images, labels)
    assert found.drawn == ("4",)
    assert found.numbers["gain"] > 0.01
    assert not model[4].weight.any()
    assert signals(relu_net(6, 8, 8, 3), images, labels).drawn == ()


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def test_a_branch_of_zeros_that_is_passed_by_is_left_as_it_is() -> None:
    images, labels = mixed()
    model = nn.Sequential(nn.Linear(6, 6), Skip(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[1].body.weight.zero_()
    found = signals(model, images, labels)
    assert found.drawn == ()
    assert found.layers["zero"].tolist() == [False, True, False]


def test_a_layer_of_zeros_in_the_middle_lets_nothing_through() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 8, 3)
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.fill_(1.0)
    found = signals(model, images, labels).numbers
    assert found["gain"] == 0
    assert found["r_squared_smallest"] < 0.02
    assert all(map(math.isfinite, found.values()))


def test_batch_norms_that_never_saw_a_batch_take_the_images_statistics() -> None:
    images, labels = mixed()
    norm = nn.BatchNorm1d(8)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), norm, nn.ReLU(), nn.Linear(8, 3))
    model.double()
    before = copy.deepcopy(model.state_dict())
    found = signals(model, images, labels, batch_norm="auto")
    raw = signals(model, images, labels, batch_norm="running")
    assert found.numbers["gain"] != pytest.approx(raw.numbers["gain"])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_without_labels_the_rest_is_said() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 3)
    without, with_them = signals(model, images).numbers, signals(model, images, labels).numbers
    assert with_them.keys() - without.keys() == WITH_LABELS
    for name in ("gain", "cosine", "tangent_rank", "r_squared_features"):
        assert without[name] == with_them[name]


@pytest.mark.slow
def test_the_seed_decides_all() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 8, 3)
    assert signals(model, images, labels).numbers == signals(model, images, labels).numbers
    other = signals(model, images, labels, seed=1).numbers
    assert other["gain"] != signals(model, images, labels).numbers["gain"]


# --- what is left, and refused ---


def test_the_model_and_the_images_are_left_as_they_were_also_after_an_error() -> None:
    images, labels = mixed()
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 3)
    ).double()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, kept = copy.deepcopy(model.state_dict()), images.clone()
    generator = torch.get_rng_state()
    signals(model, images, labels)
    with pytest.raises(ProbeError, match="labels must lie in 0 … 2"):
        signals(model, images, labels + 7)
    with pytest.raises(ProbeError, match=r"labels must be a tensor of 120 .* got \(3,\)"):
        signals(model, images, labels[:3])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(images, kept)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [p.grad is None for p in model.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_batch_norm_without_statistics_is_refused_by_name() -> None:
    images, labels = mixed()
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    model = nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 3)).double()
    with pytest.raises(ValueError, match="batch norm '1' averages over the batch"):
        signals(model, images, labels)
