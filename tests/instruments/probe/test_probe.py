"""Probes of models whose answer is known, and that nothing about a model changes."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib import Cascade, cnn, initialise, load_dataset, mlp, probe, r_squared
from paperlib.activations import looking
from paperlib.activations.tracing import ProbeError
from paperlib.core.seeds import random_numbers
from paperlib.networks import Network


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return load_dataset("digits").floats("train")[:400]


def small(digits: Tensor, side: int = 8) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(digits, side)


def chain(pixels: int, depth: int, sigma_w2: float, activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(pixels, pixels), activation()]
    model = nn.Sequential(*layers)
    initialise(model, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    return model


def split(images: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(images), generator=random_numbers("held out", 0))
    held_out = len(images) // 5
    return images[order[:-held_out]], images[order[-held_out:]]


# -- agreement with the cascade


@pytest.mark.parametrize("build", [mlp, cnn])
def test_of_this_packages_networks_a_probe_measures_what_their_cascade_does(
    build: Callable[..., Network], digits: Tensor
) -> None:
    images = small(digits, 6)
    network = build((1, 6, 6), depth=4, **({"channels": 8} if build is cnn else {}))
    initialise(network, sigma_w2=1.5, sigma_b2=0.05 if build is mlp else 2e-5, seed=0)
    train, test = split(images)
    cascade = Cascade.for_network(network, train[:1]).fit(train)
    expected = r_squared(test, cascade.reconstruct(test), mean=train.mean(0))
    report = probe(network, images)
    np.testing.assert_allclose(report.result["r_squared"], expected, atol=1e-9)
    assert report.result["layer"].values.tolist() == [
        f"stages.{number}" for number in range(len(network.stages))
    ]


def test_of_the_same_layers_in_a_plain_sequence_it_finds_the_same(digits: Tensor) -> None:
    images = small(digits, 6)
    network = mlp((1, 6, 6), depth=5)
    initialise(network, sigma_w2=1.5, sigma_b2=0.05, seed=0)
    own = probe(network, images).result["r_squared"].values
    plain = probe(nn.Sequential(*network.stages), images).result["r_squared"].values
    np.testing.assert_allclose(plain, own, atol=2e-3)


def test_a_network_whose_stages_have_no_inverses_is_read_as_any_model(digits: Tensor) -> None:
    """The cascade knows stages of one Linear layer; here are two, and an activation in between."""
    images = small(digits, 6)
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(36, 36), nn.Softsign(), nn.Linear(36, 36)]
    stages = nn.Sequential(nn.Sequential(*layers), nn.Sequential(nn.Linear(36, 36), nn.Softsign()))
    network = Network(stages, nn.Linear(36, 10), image_shape=(1, 6, 6))
    report = probe(network, images)
    assert report.result["layer"].values.tolist() == network.stage_names
    plain = probe(nn.Sequential(*stages), images, layers=["0", "1"])
    np.testing.assert_allclose(report.result["r_squared"], plain.result["r_squared"], atol=1e-6)


@pytest.mark.filterwarnings("ignore:only 20 images")
def test_a_large_image_is_whole_for_the_cascade_of_a_network_and_the_report_says_so() -> None:
    images = torch.rand(20, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    network = cnn((1, 40, 40), depth=2, channels=2)
    initialise(network, sigma_w2=1.5, sigma_b2=2e-5, seed=0)
    report = probe(network, images)
    assert report.result["original"].shape == (1, 40, 40)
    assert report.result["read"].values.tolist() == ["cascade"] * len(network.stages)
    assert "inputs of 1×40×40; 16 fitted" in report.summary()
    chained = probe(nn.Sequential(*network.stages), images)
    assert chained.result["original"].shape == (1, 20, 20)
    assert "inputs of 1×40×40, kept as 1×20×20; 16 fitted" in chained.summary()


@pytest.mark.filterwarnings("ignore:only 20 images")
def test_stages_asked_for_by_name_are_read_in_part_as_those_of_a_plain_sequence() -> None:
    images = torch.rand(20, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    network = cnn((1, 40, 40), depth=2, channels=2)
    numbers = range(len(network.stages))
    own = probe(network, images, layers=[f"stages.{number}" for number in numbers])
    plain = probe(nn.Sequential(*network.stages), images, layers=[f"{n}" for n in numbers])
    read = own.result["read"].values.tolist()
    assert read[0] == "cascade, in part"
    assert read == plain.result["read"].values.tolist()
    assert "kept as 1×20×20" in own.summary()


# -- known answers


def test_a_rotation_loses_nothing_and_a_projection_what_it_projects_away() -> None:
    images = torch.randn(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))[0]
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    with torch.no_grad():
        for layer, weight in zip(model[1:], (rotation, rotation, rotation[:4]), strict=True):
            layer.weight.copy_(weight)
    report = probe(model, images)
    np.testing.assert_allclose(report.result["r_squared"], [1, 1, 0.25], atol=0.03)
    np.testing.assert_allclose(report.result["separation"][:2], 1, atol=0.05)


def test_white_images_through_a_linear_model_keep_the_mean_cosine_of_their_own() -> None:
    images = 1 + torch.randn(60, 32, generator=torch.Generator().manual_seed(0))
    report = probe(nn.Sequential(nn.Linear(32, 32, bias=False)), images)
    rows = nn.functional.normalize(split(images)[0][:16] @ torch.eye(32), dim=1)
    assert -1 <= float(report.result["correlation"][0]) <= 1
    cosines = rows @ rows.T
    assert float((cosines.sum() - 16) / 240) == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma_w2", "phase", "lost"), [(0.4, "ordered", True), (1.7, "critical", False)]
)
def test_the_phase_is_that_of_mean_field(
    sigma_w2: float, phase: str, lost: bool, digits: Tensor
) -> None:
    report = probe(chain(196, 12, sigma_w2, nn.Tanh), small(digits, 14))
    assert report.phase == phase
    assert (report.cutoff is not None) == lost


@pytest.mark.slow
def test_deep_in_the_chaotic_phase_neighbours_separate(digits: Tensor) -> None:
    report = probe(chain(196, 20, 6.0, nn.Tanh), small(digits, 14))
    assert report.phase == "chaotic"
    assert report.phase_numbers["separation"] > 25


def test_rescaling_a_layer_of_a_relu_model_changes_no_number(digits: Tensor) -> None:
    images, model = small(digits), chain(64, 4, 2.0, nn.ReLU)
    before = probe(model, images).result
    with torch.no_grad():
        for number, factor in ((3, 8.0), (5, 1 / 32)):
            model[number].weight.mul_(factor)
        scale = 8.0
        model[3].bias.mul_(8.0)
        model[5].bias.mul_(scale / 32)
        model[7].bias.mul_(scale / 32)
    after = probe(model, images).result
    for name in ("r_squared", "correlation", "separation"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-3)


# -- kinds of models


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x)
        return self.head(states[:, -1])


class Attention(nn.Module):
    """A Transformer on squares of an image, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.squares = nn.Conv2d(1, 32, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = self.squares(x).flatten(2).transpose(1, 2)
        tokens = self.encoder(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return {"logits": self.head(tokens[:, 0])}


class Times(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(8, 16, 3, padding=1), nn.Tanh(), nn.Flatten())

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.layers(x), None


def models(digits: Tensor) -> dict[str, tuple[nn.Module, Any]]:
    torch.manual_seed(0)
    images = small(digits)
    return {
        "lstm": (Recurrent(), images[:, 0]),
        "attention": (Attention(), images),
        "times": (Times(), images[:, 0]),
        "norms": (
            nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Dropout(),
                nn.Linear(128, 5),
            ),
            images,
        ),
    }


@pytest.mark.parametrize("name", ["lstm", "attention", "times", "norms"])
def test_every_kind_of_model_gives_finite_numbers_that_start_high(
    name: str, digits: Tensor
) -> None:
    model, images = models(digits)[name]
    report = probe(model, images)
    for measure in ("r_squared", "correlation", "separation"):
        assert np.isfinite(report.result[measure]).all()
    assert float(report.result["r_squared"][0]) > 0.8
    assert str(report).count("\n") > len(report.result.stage)


def test_a_layer_beside_the_main_path_is_read_directly_and_says_so(digits: Tensor) -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.end = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.end(x + self.inner(x))

    report = probe(Beside(), small(digits), layers=["inner", "end"])
    assert report.result["read"].values.tolist() == ["direct", "cascade"]
    assert (report.result["r_squared"] > 0.9).all()


@dataclass
class Hidden:
    states: Tensor
    scores: Tensor | None = None


class Named(NamedTuple):
    states: Tensor
    scores: Tensor | None = None


class Ordered(OrderedDict[str, Any]):
    """As the outputs of Hugging Face's models."""

    def __init__(self, states: Tensor) -> None:
        super().__init__(states=states)

    @property
    def states(self) -> Tensor:
        return self["states"]


@pytest.mark.parametrize("kind", [Hidden, Named, Ordered])
@pytest.mark.parametrize("whole", [False, True])
def test_layers_and_models_may_return_structures_of_tensors(
    kind: Callable[..., Any], whole: bool, digits: Tensor
) -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(64))

        def forward(self, x: Tensor) -> Any:
            return kind(torch.tanh(x.flatten(1) @ self.weight))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = Inner(), nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Any:
            logits = self.head(self.inner(x).states)
            return kind(logits) if whole else logits

    found = probe(Outer(), small(digits)).result
    assert found["layer"].values.tolist() == ["inner", "head"]
    assert float(found["r_squared"][0]) > 0.95


def test_arguments_may_be_a_dict_or_a_tuple(digits: Tensor) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 32)

        def forward(self, label: Tensor, image: Tensor) -> Tensor:
            return self.layer(image.flatten(1)) + label[:, None]

    images, labels = small(digits), torch.arange(len(digits))
    model = Two()
    by_name = probe(model, {"image": images, "label": labels})
    by_place = probe(model, (labels, images))
    np.testing.assert_allclose(by_name.result["r_squared"], by_place.result["r_squared"])
    assert by_name.result["layer"].values.tolist() == ["output"]


@pytest.mark.slow
def test_less_memory_makes_it_coarser_and_never_much_better() -> None:
    images = load_dataset("digits").floats("train")[:100]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
    )
    whole = probe(model, images)
    coarse = probe(model, images, memory=2**23)
    assert whole.result["read"].values.tolist() == ["cascade", "cascade"]
    assert coarse.result["read"].values.tolist() == ["cascade, in part"] * 2
    assert (coarse.result["r_squared"] < whole.result["r_squared"] + 0.02).all()


# -- nothing changes


@pytest.mark.parametrize("name", ["lstm", "attention", "norms"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_afterwards_as_it_was(name: str, fails: bool, digits: Tensor) -> None:
    model, images = models(digits)[name]
    model.train()
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.ones_like(parameter)
    next(model.parameters()).requires_grad_(False)
    handle = model.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(model.state_dict())
    grads = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
    given = images.clone()
    generator = torch.get_rng_state()
    if fails:
        with pytest.raises(ProbeError):
            probe(model, images[..., None])
    else:
        probe(model, images)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(images, given)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()][:2] == [False, True]
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 1
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)
    handle.remove()


@pytest.mark.slow
def test_the_same_probe_twice_gives_the_same_numbers(digits: Tensor) -> None:
    model, images = models(digits)["attention"]
    first, second = (probe(model, images).result for _ in range(2))
    assert first.drop_attrs().identical(second.drop_attrs())


# -- batch norms


def test_an_untrained_batch_norm_is_probed_with_the_statistics_that_training_sees() -> None:
    """Faint images: with running statistics of 0 and 1 the biases drown them."""
    images = 1e-3 * torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24, bias=False), nn.BatchNorm1d(24), nn.Tanh())
    assert float(probe(model, images).result["r_squared"][0]) > 0.8
    assert float(probe(model, images, batch_norm="running").result["r_squared"][0]) < 0.1


# -- what cannot be probed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_in_other_precisions_are_probed_in_them(dtype: torch.dtype, digits: Tensor) -> None:
    images, model = small(digits), chain(64, 3, 1.7, nn.Tanh)
    single = probe(model, images).result["r_squared"]
    report = probe(copy.deepcopy(model).to(dtype), images)
    np.testing.assert_allclose(report.result["r_squared"], single, atol=0.03)


@pytest.mark.slow
def test_a_compiled_model_is_probed_as_it_was_before(digits: Tensor) -> None:
    images, model = small(digits), chain(64, 3, 1.7, nn.Tanh)
    compiled = torch.compile(model)  # nothing is compiled before it runs
    found = probe(compiled, images).result["r_squared"]
    np.testing.assert_array_equal(found, probe(model, images).result["r_squared"])


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.zeros(())


ONES = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "images", "options", "message"),
    [
        (nn.Flatten, ONES, {}, r"must be a torch.nn.Module, got type"),
        (nn.Linear(4, 4), ONES[:5], {}, r"at least 10 images .* got 5 .*\(5, 1, 4, 4\)"),
        (
            nn.Linear(4, 4),
            ONES.long(),
            {},
            r"floating-point tensor .* \(20, 1, 4, 4\) of torch.int",
        ),
        (nn.Linear(4, 4), "photo.png", {}, "got str"),
        (nn.Linear(4, 4), {"x": 3}, {}, r"images\['x'\] must be a tensor"),
        (nn.Linear(4, 4), (ONES, ONES[:3]), {}, "as many samples"),
        (nn.Linear(4, 4), ONES * math.nan, {}, "NaN or infinite"),
        (nn.Linear(5, 4), ONES, {}, r"given \(2, 1, 4, 4\)"),
        (nn.Sequential(nn.Linear(4, 4), Breaks()), ONES, {}, r"layer '1' returns NaN .*1, 4, 4\)"),
        (nn.Linear(4, 4), ONES, {"layers": ["conv"]}, "no layer 'conv'"),
        (nn.Linear(4, 4), ONES, {"layers": lambda *_: False}, "no layer matched"),
        (nn.Linear(4, 4), ONES, {"seed": -1}, "seed must be"),
        (nn.Linear(4, 4), ONES, {"resolution": 0.0}, "resolution must be"),
        (nn.Linear(4, 4), ONES, {"memory": 1000}, r"memory must be at least 2\*\*20 bytes"),
        (nn.Linear(4, 4), ONES, {"batch_norm": "new"}, "batch_norm must be one of"),
        (nn.LazyLinear(4), ONES, {}, "weight is not initialised yet"),
    ],
)
@pytest.mark.filterwarnings("ignore:only 20 images")
def test_what_cannot_be_probed_says_why(
    model: Any, images: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe(model, images, **options)


def test_few_images_are_warned_about(digits: Tensor) -> None:
    with pytest.warns(UserWarning, match="only 20 images"):
        probe(nn.Linear(4, 4), ONES)


def test_activations_that_are_all_zero_are_parallel_and_hold_nothing(digits: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(model[3].weight)
    nn.init.zeros_(model[3].bias)
    result = probe(model, small(digits)).result
    assert float(result["correlation"][-1]) == 1
    assert float(result["separation"][-1]) == 0
    assert float(result["r_squared"][-1]) == pytest.approx(0, abs=1e-3)


class Turned(nn.Module):
    """Weights of its own. Of several samples `linear` adds its bias in an operation of its own,
    where its input is transposed; of one sample it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(16, 16) / 4 for _ in range(12))
        self.bias = nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            turned = nn.functional.linear(x.transpose(0, 1), weight, self.bias)
            x = x + torch.tanh(turned).transpose(0, 1)
        return x


@pytest.mark.parametrize("count", [64, 65, 66, 129])
def test_a_sample_that_is_left_over_runs_with_those_before_it(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, samples = Turned(), torch.randn(count, 16, 16)
    in_parts = probe(model, samples).result  # 64 at a time
    monkeypatch.setattr(looking, "BATCH", 200)
    at_once = probe(model, samples).result
    assert at_once.sizes["stage"] > 6
    np.testing.assert_allclose(in_parts["r_squared"], at_once["r_squared"], atol=1e-5)


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_probed_there_and_stays_there(digits: Tensor) -> None:
    images, model = small(digits), chain(64, 3, 1.7, nn.Tanh)
    here = probe(model, images).result["r_squared"]
    model = model.cuda()
    state = torch.cuda.get_rng_state()
    there = probe(model, images).result["r_squared"]
    np.testing.assert_allclose(there, here, atol=0.01)
    assert all(p.is_cuda for p in model.parameters())
    assert torch.equal(torch.cuda.get_rng_state(), state)
