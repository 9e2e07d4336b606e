"""Rivals on any module: each against its paper's formula, written down plainly."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from paperlib import cnn, initialise, mlp
from paperlib.instruments.prediction import baselines, rivals
from paperlib.instruments.prediction.rivals import (
    RIVALS,
    Judged,
    Subject,
    rival_scores,
    smallest_of_three,
)

COUNT, CLASSES = 24, 3


class Mine(nn.Module):
    """A skip, a norm, and an activation that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.last(x + self.norm(self.body(x)))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))


def images() -> Tensor:
    return torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = torch.arange(COUNT) % CLASSES


def subject(build: Callable[[], nn.Module] = Mine) -> Subject:
    torch.manual_seed(0)
    return Subject(build().double().eval(), images(), LABELS)


def flat(model: nn.Module, loss: Tensor, names: set[str] | None = None) -> Tensor:
    chosen = [p for name, p in model.named_parameters() if names is None or name in names]
    found = torch.autograd.grad(loss, chosen, create_graph=True)
    return torch.cat([slope.flatten() for slope in found])


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


MATRICES = {"first.weight", "body.weight", "last.weight"}


def test_grad_cosine_is_the_mean_over_all_pairs_of_sample_gradients() -> None:
    found = subject()
    pairs = zip(found.images, LABELS, strict=True)
    stacked = torch.stack([
        flat(found.model, cross_entropy(found.model, x[None], y[None])) for x, y in pairs
    ])  # fmt: skip
    unit = nn.functional.normalize(stacked.detach(), dim=1)
    assert rivals.grad_cosine(found) == pytest.approx(float((unit @ unit.T).mean()))


def test_the_gradient_quotient_is_metainits() -> None:
    found = subject()
    g = flat(found.model, cross_entropy(found.model, found.images, LABELS))
    where = torch.cat([
        torch.full((p.numel(),), name in MATRICES) for name, p in found.model.named_parameters()
    ])  # fmt: skip
    product = flat(found.model, g.square().sum() / 2)
    epsilon = 1e-5 * torch.where(g >= 0, 1.0, -1.0)
    expected = ((g - product) / (g + epsilon) - 1).abs()[where].mean()
    assert rivals.gradient_quotient(found) == pytest.approx(-expected.item())


def test_the_quotient_of_a_linear_loss_is_zero_but_for_epsilon() -> None:
    """With one class the cross-entropy is flat: no gradient, no curvature."""
    model = nn.Linear(6, 1).double()
    found = Subject(model, images(), torch.zeros(COUNT, dtype=torch.int64))
    assert rivals.gradient_quotient(found) == pytest.approx(-1)  # |0/ε − 1|


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.1), ("adam", 1e-3)])
def test_gradinit_is_the_loss_after_one_step_on_half_other_images(
    optimiser: str, rate: float
) -> None:
    found = subject()
    batch = found.batch(COUNT)
    third = COUNT // 3
    model = copy.deepcopy(found.model)
    cross_entropy(model, batch.images[: 2 * third], batch.labels[: 2 * third]).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            step = parameter.grad if optimiser == "sgd" else parameter.grad.sign()
            parameter.sub_(rate * step)
    expected = cross_entropy(model, batch.images[third:], batch.labels[third:]).item()
    assert rivals.gradinit(found, optimiser=optimiser) == pytest.approx(-expected)


def test_the_tangent_kernel_of_a_linear_model_is_that_of_its_inputs() -> None:
    model = nn.Linear(30, CLASSES).double()
    inputs = torch.randn(COUNT, 30, generator=torch.Generator().manual_seed(1)).double()
    values = torch.linalg.svdvals(torch.cat([inputs, torch.ones(COUNT, 1)], 1)) ** 2
    found = Subject(model, inputs, LABELS)
    expected = -math.log(values[0] / values[-1])
    assert rivals.tangent_condition(found) == pytest.approx(expected)


def test_the_mean_predictor_of_a_linear_model_is_least_squares() -> None:
    inputs = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)).double()
    labels = (inputs @ torch.randn(5, CLASSES, dtype=torch.float64)).argmax(1)
    found = Subject(nn.Linear(5, CLASSES).double(), inputs, labels).batch(200)
    score = rivals.mean_predictor(found)
    batch = found.batch(256)
    rows = torch.cat([batch.images, torch.ones(200, 1)], 1)
    targets = nn.functional.one_hot(batch.labels[:150], CLASSES).double()
    fitted = torch.linalg.lstsq(rows[:150], targets - targets.mean(0)).solution
    said = (rows[150:] @ fitted).argmax(1)
    assert score == pytest.approx(float((said == batch.labels[150:]).double().mean()))
    assert score > 0.6


def test_naswot_counts_agreements_of_every_activation_one_by_one() -> None:
    found = subject(plain).batch(8)
    hidden = found.model[:2](found.batch(8).images)
    codes = torch.cat([hidden > 0, found.model[2:4](hidden) > 0], 1)
    agreements = (codes[:, None] == codes[None]).sum(2).double()
    expected = torch.linalg.slogdet(agreements)
    assert expected.sign == 1
    assert rivals.naswot(found) == pytest.approx(expected.logabsdet.item())


def test_the_bit_of_a_sigmoid_is_the_sign_of_what_goes_in() -> None:
    layers = nn.Sequential(nn.Linear(6, 40), nn.Sigmoid(), nn.Linear(40, 3)).double()
    bounded = Subject(layers, images(), LABELS)
    other = Subject(nn.Sequential(layers[0], nn.Tanh(), layers[2]), images(), LABELS)
    assert rivals.naswot(bounded) == rivals.naswot(other)


def test_snip_sums_every_weights_sensitivity() -> None:
    found = subject()
    cross_entropy(found.model, found.images, LABELS).backward()
    named = dict(found.model.named_parameters())
    expected = sum(float((named[n] * named[n].grad).abs().sum().detach()) for n in MATRICES)
    assert rivals.snip(found) == pytest.approx(expected)


def test_synflow_is_the_sum_of_theta_times_its_gradient_without_activations() -> None:
    found = subject(plain)
    one, two, three = (found.model[place].weight.abs() for place in (0, 2, 4))
    flow = (three @ two @ one).sum()  # each of three factors adds it once
    assert rivals.synflow(found) == pytest.approx(math.log(3 * flow.item()))


def test_the_gradient_ratio_is_of_the_first_and_the_last_weights() -> None:
    found = subject()
    cross_entropy(found.model, found.images, LABELS).backward()
    first, last = (getattr(found.model, n).weight.grad.norm() for n in ("first", "last"))
    assert rivals.gradient_ratio(found) == pytest.approx(-abs(math.log(first / last)))


@pytest.mark.parametrize("name", ["snip", "gradient_ratio", "naswot"])
def test_on_a_network_of_ours_they_order_networks_as_those_by_depth_do(name: str) -> None:
    pictures = torch.rand(COUNT, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    ours, theirs = [], []
    for sigma_w2 in (0.05, 0.5, 1.5):
        network = mlp((1, 3, 2), depth=4, width=40, classes=CLASSES)
        initialise(network, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
        ours.append(rival_scores(network, pictures, LABELS, names=[name])[name].score)
        task = baselines.make_task(network, pictures, LABELS, 0)
        theirs.append(float(getattr(baselines, name)(task)[-1]))
    assert sorted(range(3), key=ours.__getitem__) == sorted(range(3), key=theirs.__getitem__)


@pytest.mark.parametrize(
    ("kept", "gain", "expected"),
    [(0.9, 0.5, 0.5), (0.9, 4.0, 0.25), (0.3, 1.1, 0.3), (-0.1, 1.0, -0.1), (0.9, 0.0, 0.0)],
)
def test_the_smallest_of_three_is_the_weakest_link(
    kept: float, gain: float, expected: float
) -> None:
    assert smallest_of_three({"r_squared_smallest": kept, "gain": gain}) == expected


# --- all of them ---


@pytest.mark.parametrize(
    "model",
    [
        Mine(),
        cnn((1, 2, 3), depth=2, channels=4, classes=CLASSES),
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)),
        nn.Sequential(nn.Linear(6, CLASSES), nn.Linear(CLASSES, CLASSES)).requires_grad_(True),
    ],
)
@pytest.mark.filterwarnings("ignore:only 24 images")
def test_every_rival_judges_any_model_and_leaves_it_as_it_was(model: nn.Module) -> None:
    given = images().float()
    given = given.view(COUNT, 1, 2, 3) if hasattr(model, "stages") else given
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = rival_scores(model, given, LABELS)
    assert list(found) == list(RIVALS)
    for judged in found.values():
        assert isinstance(judged, Judged)
        assert math.isfinite(judged.score)
        assert judged.seconds >= 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    again = rival_scores(model, given, LABELS, names=["grad_cosine", "synflow"])
    assert {name: judged.score for name, judged in again.items()} == {
        name: found[name].score for name in again
    }


def test_a_model_in_which_nothing_moves_has_finite_scores() -> None:
    model = plain()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    names = [name for name in RIVALS if name != "smallest_of_three"]
    found = rival_scores(model, images().float(), LABELS, names=names)
    assert all(math.isfinite(judged.score) for judged in found.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["gradcosine"]}, r"names must be one of grad_cosine.*did you mean 'grad_cos"),
        ({"labels": LABELS[:3]}, r"labels must be a tensor of 24 whole numbers, got \(3,\)"),
        ({"labels": LABELS + 9}, "labels must lie in 0 … 2"),
    ],
)
def test_what_they_cannot_take_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rival_scores(plain(), images().float(), **{"labels": LABELS, **options})  # type: ignore[arg-type]
