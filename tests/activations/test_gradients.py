"""Gradients per sample: finite differences, autograd in turn, and closed forms."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from paperlib import cnn, initialise, mlp
from paperlib.activations import factors, gradients, per_sample_gradients
from paperlib.activations.tracing import ProbeError

COUNT = 5


def made(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


class Twice(nn.Module):
    """One layer called twice, one never, and a number that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(6, 6), nn.Linear(2, 2)
        self.factor = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.factor * self.layer(self.layer(x).tanh())


class Tied(nn.Module):
    """Two layers with one weight, and one whose weight is used without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x.flatten(1)).tanh())
        return self.other(x) + nn.functional.linear(x, self.other.weight).tanh()


class Attention(nn.Module):
    """Tokens first, then samples: an axis that is not the first, and products of activations."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, batch_first=not first)
        self.read, self.first = nn.Linear(6, 3), first

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)  # (n, tokens, 6)
        x = x.transpose(0, 1) if self.first else x
        x, _ = self.attend(x, x, x)
        return self.read(x).mean(0 if self.first else 1)


class Unruled(torch.autograd.Function):
    """Doubles, without a rule for vmap."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * slope


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return Unruled.apply(self.norm(x.flatten(1)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (lambda: mlp((1, 2, 3), depth=2, classes=3), (1, 2, 3)),
    "CNN": (lambda: cnn((1, 5, 5), depth=2, channels=4, classes=3), (1, 5, 5)),
    "stride, padding, dilation and groups": (
        lambda: made(
            nn.Conv2d(2, 4, 3, stride=2, padding=(1, 2), dilation=(2, 1)), nn.Tanh(),
            nn.Conv2d(4, 6, (2, 1), groups=2, bias=False), nn.Flatten(), nn.LazyLinear(3),
        ),
        (2, 8, 7),
    ),
    "padding by name and around the edge": (
        lambda: made(
            nn.Conv2d(2, 3, (2, 3), padding="same", padding_mode="circular"), nn.ReLU(inplace=True),
            nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.LazyLinear(2),
        ),
        (2, 4, 5),
    ),
    "one axis": (
        lambda: made(nn.Conv1d(2, 4, 3, padding="same"), nn.Tanh(), nn.Conv1d(4, 3, 5)), (2, 5)
    ),
    "three axes": (lambda: made(nn.Conv3d(1, 3, 2, stride=2), nn.Flatten()), (1, 4, 4, 2)),
    "features of one position": (
        lambda: made(nn.Conv2d(8, 8, 2, groups=2), nn.Flatten(), nn.Linear(8, 3)), (8, 2, 2)
    ),
    "norms": (
        lambda: made(
            nn.Linear(6, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 4),
            nn.BatchNorm1d(4).eval(), nn.Linear(4, 3),
        ).eval(),
        (6,),
    ),
    "norms of fields and of tokens": (
        lambda: made(
            nn.BatchNorm2d(4).eval(), nn.ReLU(inplace=True), nn.GroupNorm(2, 4), nn.Tanh(),
            nn.LayerNorm((3, 2)), nn.Tanh(), nn.LayerNorm(2, bias=False), nn.Flatten(),
        ),
        (4, 3, 2),
    ),
    "tokens": (lambda: made(nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 2), nn.Flatten()), (3, 4)),
    "a layer twice, one unused": (Twice, (6,)),
    "tied weights": (Tied, (6,)),
    "attention": (lambda: Attention(first=False), (COUNT, 2, 3)),
    "tokens first": (lambda: Attention(first=True), (COUNT, 2, 3)),
    "no rule for vmap": (Doubled, (6,)),
}  # fmt: skip


def model_and_images(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model, images = build(), torch.randn(COUNT, *shape, dtype=torch.float64)
    model.double()(images)  # for layers that wait for their first input
    return model.double(), images


def in_turn(model: nn.Module, images: Tensor, total: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The gradients of total(outputs of a sample, its number), row by row."""
    rows = []
    for number in range(len(images)):
        model.zero_grad(set_to_none=True)
        total(model(images[number : number + 1].clone()), number).backward()
        rows.append(
            torch.cat([
                torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                for p in model.parameters()
            ])
        )  # fmt: skip
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [2, 64])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_gram_and_norms_are_those_of_autograd_in_turn(name: str, chunk: int) -> None:
    model, images = model_and_images(name)
    cotangent = torch.randn(model(images).shape, dtype=torch.float64)
    found = per_sample_gradients(model, images, cotangent=cotangent, chunk=chunk)
    expected = in_turn(model, images, lambda outputs, n: (outputs[0] * cotangent[n]).sum())
    close = {"rtol": 1e-10, "atol": 1e-10}
    assert found.names == [name for name, _ in model.named_parameters()]
    torch.testing.assert_close(found.matrix(), expected, **close)
    torch.testing.assert_close(found.gram(), expected @ expected.T, **close)
    total = torch.stack(list(found.squared_norms().values())).sum(0)
    torch.testing.assert_close(total, expected.square().sum(1), **close)


@pytest.mark.parametrize("name", ["MLP", "CNN", "norms"])
def test_with_labels_they_are_those_of_the_cross_entropy(name: str) -> None:
    model, images = model_and_images(name)
    labels = torch.arange(COUNT) % 3
    found = per_sample_gradients(model, images, labels)
    expected = in_turn(
        model, images, lambda o, n: nn.functional.cross_entropy(o, labels[n : n + 1])
    )
    torch.testing.assert_close(found.matrix(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_they_are_finite_differences_of_the_loss(name: str) -> None:
    model, images = model_and_images(name)
    labels, step = torch.arange(COUNT) % 3, 1e-5
    found = per_sample_gradients(model, images, labels).matrix()
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()

    def losses(number: int, change: float) -> Tensor:
        moved = flat.clone()
        moved[number] += change
        nn.utils.vector_to_parameters(moved, model.parameters())
        with torch.no_grad():
            return nn.functional.cross_entropy(model(images), labels, reduction="none")

    for number in range(0, len(flat), 5):
        slope = (losses(number, step) - losses(number, -step)) / (2 * step)
        torch.testing.assert_close(found[:, number], slope, rtol=1e-6, atol=1e-8)


def test_the_kernel_of_a_linear_model_is_that_of_its_inputs() -> None:
    inputs = torch.randn(20, 7, dtype=torch.float64)
    found = per_sample_gradients(nn.Linear(7, 1).double(), inputs, cotangent=torch.ones(1)).gram()
    torch.testing.assert_close(found, inputs @ inputs.T + 1, rtol=1e-12, atol=1e-12)


def test_the_kernel_of_a_wide_network_is_that_of_the_infinite_one() -> None:
    """One hidden ReLU layer with N(0, 2/fan-in) weights: arc-cosine kernels of order 1 and 0."""
    torch.manual_seed(0)
    width, images = 20_000, nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64))
    model = nn.Sequential(
        nn.Linear(3, width, bias=False), nn.ReLU(), nn.Linear(width, 1, bias=False)
    )
    model.double()
    for layer in (model[0], model[2]):
        nn.init.normal_(layer.weight, std=1.0)
    model[2].register_forward_pre_hook(lambda _, x: (x[0] * (2 / width) ** 0.5,))
    found = per_sample_gradients(model, images, cotangent=torch.ones(1)).gram()
    cosine = (images @ images.T).clamp(-1, 1)
    angle = torch.acos(cosine)
    first = (torch.sin(angle) + (torch.pi - angle) * cosine) / torch.pi
    expected = first + cosine * (torch.pi - angle) / torch.pi
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["MLP", "stride, padding, dilation and groups", "tokens"])
def test_memory_that_is_bounded_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = model_and_images(name)
    whole = per_sample_gradients(model, images)
    monkeypatch.setattr(factors, "AT_ONCE", 7)
    parts = per_sample_gradients(model, images)
    torch.testing.assert_close(parts.matrix(), whole.matrix(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.gram(), whole.gram(), rtol=1e-12, atol=1e-12)


def test_layers_are_taken_by_their_factors_wherever_those_are_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else torch.func would do all the work, and no one would see it."""
    seen: list[str] = []

    def spy(work: object, parameters: dict[str, Tensor], *given: object) -> object:
        seen.extend(sorted(parameters))
        return rest(work, parameters, *given)  # type: ignore[arg-type]

    rest = gradients.Differentiated._rest
    monkeypatch.setattr(gradients.Differentiated, "_rest", spy)
    expected = {
        "CNN": [],
        "norms": [],
        "norms of fields and of tokens": [],
        "padding by name and around the edge": [],
        "a layer twice, one unused": ["factor"],
        "tied weights": ["first.bias", "first.weight", "other.bias", "other.weight", "second.bias"],
    }
    for name, others in expected.items():
        seen.clear()
        per_sample_gradients(*model_and_images(name))
        assert (name, seen) == (name, others)


def test_each_layer_has_its_own_norms() -> None:
    model, images = model_and_images("norms")
    found = per_sample_gradients(model, images)
    assert list(found.squared_norms()) == ["0", "1", "3", "4", "5"]
    last = found.matrix()[:, -15:]
    torch.testing.assert_close(found.squared_norms()["5"], last.square().sum(1))


def test_without_labels_one_cotangent_is_drawn_from_the_seed() -> None:
    model, images = model_and_images("MLP")
    first, again, other = (per_sample_gradients(model, images, seed=s).gram() for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_parameters_that_do_not_learn_are_left_out() -> None:
    model, images = model_and_images("norms")
    whole = per_sample_gradients(model, images).matrix()
    model[0].requires_grad_(False)
    model[3].bias.requires_grad_(False)
    found = per_sample_gradients(model, images)
    assert not {"0.weight", "0.bias", "3.bias"} & set(found.names)
    kept = torch.cat([whole[:, 28:52], whole[:, 56:]], 1)
    torch.testing.assert_close(found.matrix(), kept)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_several_arguments_go_in_by_name_or_in_order() -> None:
    model = nn.Bilinear(3, 4, 2).double()
    inputs = torch.randn(COUNT, 3).double(), torch.randn(COUNT, 4).double()
    expected = torch.einsum("ni,nj->nij", *inputs).repeat(1, 2, 1).flatten(1)
    names = {"input1": inputs[0], "input2": inputs[1]}
    for given in (inputs, names):
        found = per_sample_gradients(model, given, cotangent=torch.ones(2)).matrix()
        torch.testing.assert_close(found[:, :24], expected)


# --- what it leaves ---


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    model, images = model_and_images("norms")
    wrong = nn.Linear(5, 5).double()
    model[0].train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    generator = torch.get_rng_state()
    per_sample_gradients(model, images)
    with pytest.raises(ProbeError, match="labels must lie in 0 … 2, got 0 … 7"):
        per_sample_gradients(model, images, torch.tensor([0, 1, 2, 7, 0]))
    model.append(wrong)
    with pytest.raises(ProbeError, match="stopped in layer '6'"):
        per_sample_gradients(model, images)
    del model[6]
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [p.grad is None for p in model.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), generator)


def stop_among_calls(layer: nn.Module) -> None:
    with factors.recorded_calls([layer]) as calls:
        layer(torch.ones(1, 2))
        assert len(calls) == 1
        raise ZeroDivisionError


def test_no_hook_is_left_when_the_model_stops_among_recorded_calls() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError):
        stop_among_calls(layer)
    assert not layer._forward_hooks


# --- what it refuses ---


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False).eval()]
)
def test_a_batch_norm_that_averages_over_samples_is_refused(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 4), norm)
    with pytest.raises(ValueError, match=r"batch norm '1' averages .* call model\.eval\(\) first"):
        per_sample_gradients(model, torch.rand(3, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"tensor of 5 whole numbers.* got \(4,\)"),
        ({"labels": torch.zeros(5)}, r"got \(5,\) of torch.float32"),
        ({"labels": [0] * 5}, "got list"),
        ({"cotangent": torch.ones(2)}, r"shape \(3,\) of a sample.*got \(2,\)"),
        ({"labels": torch.zeros(5).long(), "cotangent": torch.ones(3)}, "not both"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
    ],
)
def test_what_it_cannot_take_is_named(options: dict[str, object], message: str) -> None:
    model, images = model_and_images("MLP")
    with pytest.raises(ValueError, match=message):
        per_sample_gradients(model, images, **options)  # type: ignore[arg-type]


def test_a_model_that_does_not_learn_is_refused() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model learns"):
        per_sample_gradients(model, torch.rand(3, 2))


def test_torch_does_not_advertise_faster_rules() -> None:
    model = nn.LSTM(6, 4, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        per_sample_gradients(model, torch.rand(8, 5, 6))


def test_networks_in_float32_agree_with_float64() -> None:
    network = mlp((1, 3, 3), depth=20)
    initialise(network, sigma_w2=1.5, sigma_b2=0.05, seed=0)
    images = torch.rand(6, 1, 3, 3)
    single = per_sample_gradients(network, images).gram()
    double = per_sample_gradients(copy.deepcopy(network).double(), images).gram()
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-3 * float(double.max()))
