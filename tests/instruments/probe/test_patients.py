"""Models and inputs on which a probe once went wrong: of each kind one, whose answer is known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from paperlib import initialise, mlp, probe
from paperlib.activations.tracing import ProbeError
from paperlib.instruments.probe.report import Report

MEASURES = ("r_squared", "correlation", "separation")


def low_rank(count: int, *shape: int, rank: int = 5, seed: int = 0) -> Tensor:
    """Samples of mean zero that vary along a few directions."""
    generator = torch.Generator().manual_seed(seed)
    numbers = int(np.prod(shape))
    weights = torch.randn(rank, numbers, generator=generator) / rank**0.5
    return (torch.randn(count, rank, generator=generator) @ weights).view(count, *shape)


def kept(report: Report) -> np.ndarray:
    return np.asarray(report.result["r_squared"].values)


def words(report: Report) -> tuple[str, str | None]:
    return report.phase, report.cutoff


def assert_equal(one: Report, other: Report, *, atol: float) -> None:
    assert words(one) == words(other)
    for name in MEASURES:
        np.testing.assert_allclose(one.result[name], other.result[name], atol=atol)


# -- what a direct reading finds is not lost


class Near(nn.Module):
    """A residual block near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.tanh(self.layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("shape", [(24,), (6, 24)])
def test_a_deep_residual_chain_agrees_with_the_direct_reading(
    shape: tuple[int, ...], resolution: float
) -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(*[Near(24) for _ in range(80)]), low_rank(80, *shape)
    chained = probe(model, images, resolution=resolution)
    direct = probe(model, images, layers=["79"], resolution=resolution)
    assert chained.cutoff is None
    assert kept(chained).min() > 0.9
    assert kept(chained)[-1] > kept(direct)[-1] - 0.03


@pytest.mark.slow
def test_a_stage_that_is_read_directly_says_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[Near(24) for _ in range(80)])
    read = probe(model, low_rank(80, 6, 24), resolution=1e-2).result["read"].values
    assert read[0] == "cascade"
    assert "direct" in read


@pytest.mark.parametrize("late", [True, False])
def test_an_activation_that_is_not_on_the_way_changes_no_resolution(late: bool) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.head = nn.Conv2d(1, 12, 4, 4), nn.Linear(12, 4)
            self.pooler: nn.Module | None = None

        def forward(self, x: Tensor) -> Tensor:
            x = self.head(nn.functional.gelu(self.patch(x)).mean((2, 3)))
            return self.pooler(x) if late and self.pooler else x

    torch.manual_seed(0)
    model, images = Patches(), low_rank(100, 1, 12, 12)
    before = kept(probe(model, images))
    model.pooler = nn.Tanh()
    after = kept(probe(model, images))
    places = slice(None, -1) if late else slice(None)
    np.testing.assert_allclose(after[places], before[places], atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 3.0, 30.0])
def test_an_offset_of_all_activations_is_no_unit_of_what_is_lost(offset: float) -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + offset

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), Shifted(), nn.Linear(20, 20), Shifted())
    assert kept(probe(model, low_rank(100, 20)))[0] > 0.99


class Grows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e4


def test_an_overflow_is_a_verdict() -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(8, 8), Grows()) for _ in range(12)]
    report = probe(nn.Sequential(*blocks, nn.Linear(8, 3)), low_rank(60, 8))
    assert report.overflow in ("3", "4")
    assert f"explodes at layer {report.overflow!r}" in report.summary()
    assert (report.cutoff, report.phase) == (None, "critical")
    first = int(report.overflow)
    assert kept(report)[:first].min() > 0.9
    assert np.isnan(kept(report)[first:]).all()
    assert report.result["read"].values[-1] == "overflows"
    assert "<img" in report.to_html()


# -- geometry from the activations' own middle


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.BatchNorm2d(2)]
    for channels in (2, 8, 8):
        layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("offset", [1.0, 10.0])
def test_an_offset_of_images_that_a_first_norm_removes_changes_no_report(offset: float) -> None:
    images, model = low_rank(80, 2, 8, 8), normed()
    assert_equal(probe(model, images + offset), probe(model, images), atol=0.02)


def test_a_rotation_of_bright_images_is_not_ordered() -> None:
    images = 0.5 + 0.05 * low_rank(100, 32)
    layer = nn.Linear(32, 32, bias=False)
    nn.init.orthogonal_(layer.weight)
    report = probe(nn.Sequential(layer), images)
    assert report.phase_numbers["correlation"] > 0.98
    assert words(report) == ("critical", None)
    assert words(probe(nn.Sequential(layer), images - images.mean(0))) == ("critical", None)


def chain(activation: nn.Module, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(24, 24), activation)])


def test_a_last_activation_that_is_all_positive_changes_no_word() -> None:
    images, model = low_rank(100, 24), chain(nn.Tanh())
    squashed = nn.Sequential(*model[:-1], nn.Sigmoid())
    assert words(probe(squashed, images)) == words(probe(model, images))


def test_permuted_neurons_change_no_report() -> None:
    images, model = low_rank(100, 24), chain(nn.Tanh())
    before = probe(model, images)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer, after in ((model[0], model[2]), (model[4], model[6])):
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            after.weight.copy_(after.weight[:, order])
    assert_equal(probe(model, images), before, atol=1e-3)


def test_rescaled_pairs_of_relu_layers_change_no_report() -> None:
    images, model = low_rank(100, 24), chain(nn.ReLU())
    before = probe(model, images)
    with torch.no_grad():
        model[2].weight.mul_(16)
        model[2].bias.mul_(16)
        model[4].weight.div_(16)
    assert_equal(probe(model, images), before, atol=1e-3)


def test_float64_and_the_size_of_batches_change_no_report() -> None:
    images, model = low_rank(100, 24), chain(nn.ReLU())
    before = probe(model, images)
    assert_equal(probe(model, images, memory=2**20), before, atol=0.01)
    assert_equal(probe(model.double(), images.double()), before, atol=1e-3)


def test_the_order_of_images_changes_no_word() -> None:
    images, model = low_rank(200, 24), chain(nn.ReLU())
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert_equal(probe(model, images[order]), probe(model, images), atol=0.1)


# -- sequences


class Rows(nn.Module):
    """Reads an image row by row, or column by column."""

    def __init__(self, *, columns: bool) -> None:
        super().__init__()
        self.columns = columns
        self.cell, self.head = nn.RNN(12, 48, batch_first=True), nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(0, 1) if x.ndim == 4 else x
        return self.head(self.cell(x.transpose(1, 2) if self.columns else x)[0].mean(1))


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("channels", [(1,), ()])
def test_time_may_run_along_the_rows_of_an_image_or_its_columns(
    channels: tuple[int, ...], columns: bool
) -> None:
    torch.manual_seed(0)
    report = probe(Rows(columns=columns), low_rank(150, *channels, 12, 12, rank=40))
    assert report.result["layer"].values.tolist() == ["cell", "cell (mean)", "head"]
    assert kept(report)[0] > 0.9


def test_times_in_front_of_the_samples_are_read_as_those_behind() -> None:
    torch.manual_seed(0)
    behind = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.GRU(8, 10, batch_first=True))
    front = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.GRU(8, 10))
    front.load_state_dict(behind.state_dict())
    images = low_rank(80, 7, 6)
    turned = probe(front, images.transpose(0, 1), batch_axis=1)
    assert turned.result["shape"].values.tolist() == ["7×8", "7×10"]
    assert_equal(turned, probe(behind, images), atol=1e-3)


# -- what is given, and what counts


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(16, 16), nn.Tanh()), nn.Linear(16, 4)

    def forward(self, x: Tensor, labels: Tensor | None = None, scale: float = 1.0) -> Any:
        y = self.head(self.body(x.flatten(1) * scale))
        return y if labels is None else (nn.functional.cross_entropy(y, labels), y)


@pytest.mark.parametrize("wrap", [Tensor.numpy, list, lambda x: DataLoader(TensorDataset(x), 32)])
def test_a_report_is_the_same_whatever_images_come_in(wrap: Any) -> None:
    torch.manual_seed(0)
    model, images = Scores(), low_rank(100, 1, 4, 4)
    found = probe(model, wrap(images))
    np.testing.assert_array_equal(kept(found), kept(probe(model, images)))


def test_bytes_are_said_to_have_been_scaled() -> None:
    pixels = (low_rank(100, 1, 4, 4).abs().clamp(0, 1) * 255).byte()
    assert "0 to 255, were divided by 255" in probe(Scores(), pixels).summary()


def test_a_loss_is_no_output_and_numbers_and_none_go_along() -> None:
    torch.manual_seed(0)
    model, images = Scores(), low_rank(100, 1, 4, 4)
    plain = probe(model, images)
    with_loss = probe(model, {"x": images, "labels": torch.arange(100) % 4, "scale": 1.0})
    assert with_loss.result["layer"].values.tolist() == ["body", "head"]
    np.testing.assert_allclose(kept(with_loss), kept(plain), atol=1e-6)
    assert_equal(probe(model, {"x": images, "labels": None}), plain, atol=1e-6)


class Early(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4))
        self.early, self.main = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.body[0](x)
        last = self.body[3](self.body[2](self.body[1](first)))
        return {"early": self.early(first), "logits": self.main(last)}


def test_of_several_outputs_the_report_says_which_and_another_can_be_picked() -> None:
    torch.manual_seed(0)
    model, images = Early(), low_rank(100, 16)
    whole = probe(model, images)
    assert whole.result["layer"].values[-1] == "main"
    assert "of the model's outputs 'early', 'logits', 'logits' is looked at" in whole.summary()
    for output in ("early", lambda result: result["early"]):
        some = probe(model, images, output=output)
        assert some.result["layer"].values.tolist() == ["body.0", "early"]
    with pytest.raises(ProbeError, match=r"no part 'states'; it is a dict of 'early', 'logits'"):
        probe(model, images, output="states")


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 12)
        layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 3)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.table(input_ids)).mean(1))


def test_words_are_probed_by_their_vectors() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 30, (120, 5))
    report = probe(Language(), {"input_ids": ids, "attention_mask": torch.ones(120, 5)})
    assert kept(report)[0] > 0.8
    assert "encoder.layers.0" in report.result["layer"].values[0]
    assert "words; their vectors from 'table' are rebuilt" in report.summary()
    assert kept(probe(Language(), ids))[0] > 0.8


def test_one_number_for_each_sample_is_a_stage_of_one() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(20, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.head(self.layer(x).tanh()).squeeze(-1))

    report = probe(One(), low_rank(100, 20))
    assert report.result["shape"].values.tolist() == ["8", "1"]
    assert np.isfinite(kept(report)).all()


# -- wherever a model comes from


def test_models_and_images_of_inference_mode_are_probed_as_others() -> None:
    torch.manual_seed(0)
    model, images = chain(nn.Tanh()), low_rank(60, 24)
    before = probe(model, images)
    with torch.inference_mode():
        made = chain(nn.Tanh())
        inside = probe(model, images + 0)
    assert_equal(inside, before, atol=1e-6)
    assert_equal(probe(made, images), before, atol=1e-6)
    assert made[0].weight.is_inference()


def test_a_stage_that_cannot_be_opened_says_what_it_holds() -> None:
    class Tangled(nn.Module):
        """Every layer reads all before it, by functions, so that there is nothing to look at."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(nn.Parameter(torch.randn(8, 8)) for _ in range(9))

        def forward(self, x: Tensor) -> Tensor:
            made = x
            for weight in self.weights:
                made = torch.tanh(x + made @ weight)
            return made + x

    report = probe(Tangled(), low_rank(60, 8))
    assert "stage 'output' holds 9 weights; to look inside" in report.summary()


@pytest.mark.slow
def test_an_overflow_of_a_network_of_this_package_is_a_verdict_too() -> None:
    network = mlp((1, 4, 4), depth=40, width=50, activation="relu")
    initialise(network, sigma_w2=20.0, sigma_b2=0.05, seed=0)
    images = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    report = probe(network, images)
    assert report.overflow is not None
    assert "explodes at layer" in report.summary()
    assert report.result["r_squared"].values[0] > 0.5  # read before it explodes
    assert 0 <= report.verdict.probability <= 1
