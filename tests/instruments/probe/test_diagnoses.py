"""Networks that people report as not training, each beside a twin that trains."""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperlib import load_dataset, probe
from paperlib.instruments.probe.diagnoses import HEALTHY, RULES, diagnose
from paperlib.instruments.probe.examination import Examination
from paperlib.instruments.probe.report import Report

Build = Callable[[], nn.Module]


@cache
def digits() -> Tensor:
    images = load_dataset("digits").floats("train")[:120]
    return nn.functional.interpolate(images, (14, 14), mode="bilinear", antialias=True)


def examined(build: Build, images: Tensor | None = None) -> Report:
    torch.manual_seed(0)
    return probe(build(), digits() if images is None else images)


def first_line(report: Report) -> str:
    return report.summary().splitlines()[0]


def drawn(sigma_w2: float) -> Callable[[nn.Module], Any]:
    """An initialisation: this variance times fan-in, biases at 0."""

    def draw(layer: nn.Module) -> None:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, 0, (sigma_w2 / layer.weight[0].numel()) ** 0.5)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    return draw


def dense(
    depth: int, *, act: Any = nn.ReLU, width: int = 64, draw: Any = None, outputs: int = 10
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(width if number else 196, width), act()]
    model = nn.Sequential(*layers, nn.Linear(width, outputs))
    return model.apply(draw) if draw else model


def changed(model: nn.Sequential, place: int, weight: float | None, bias: float) -> nn.Sequential:
    if weight is not None:
        nn.init.constant_(model[place].weight, weight)
    nn.init.constant_(model[place].bias, bias)
    return model


class Block(nn.Module):
    """A residual block; `gated` multiplies its branch with a ReLU of the skip."""

    def __init__(self, *, gated: bool, gate: float, norm: Any, last: Any, scale: float = 1) -> None:
        super().__init__()
        self.norm, self.last, self.scale = norm(64), last(64), scale
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)
        self.one.apply(drawn(2.0))
        self.two.apply(drawn(2.0))
        self.gate = nn.Linear(64, 64, bias=False) if gated else None
        if self.gate is not None:
            nn.init.normal_(self.gate.weight, 0, gate)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.two(self.one(self.norm(x)).relu())
        if self.gate is not None:
            branch = self.gate(x).relu() * branch
        return self.last(x + self.scale * branch)


def residual(depth: int, *, norm: Any = nn.LayerNorm, last: Any = nn.Identity, **how: Any) -> Any:
    how = {"gated": False, "gate": 0.0, "norm": norm, "last": last} | how
    blocks = [Block(**how) for _ in range(depth)]
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 64), *blocks, nn.Linear(64, 10))


def seeded(seed: int, build: Build) -> nn.Module:
    torch.manual_seed(seed)
    return build()


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self, body: nn.Module, width: int, *, mean: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.mean = body, nn.Linear(width, 10), mean

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x[:, 0])
        found = found[0] if isinstance(found, tuple) else found
        return self.head(found.mean(1) if self.mean else found[:, -1])


class Attending(nn.Module):
    """Two blocks of attention over rows."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(14, 2, batch_first=batch_first) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.attention:
            x = x + layer(x, x, x)[0]
        return x


class Folded(nn.Module):
    """Turns samples and rows into one axis, by reshape where permute is meant, and back."""

    def __init__(self, *, right: bool) -> None:
        super().__init__()
        self.layer, self.right = nn.Linear(14, 14), right

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(0, 1)
        rows = rows.permute(1, 0, 2) if self.right else rows.reshape(len(x), 14, 14)
        return self.layer(rows)


def encoder(depth: int, *, norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=norm_first)
    stack = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
    for parameter in stack.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    return Rows(nn.Sequential(nn.Linear(14, 32), stack), 32, mean=True)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (30 * x).sin()


def siren(first: float, hidden: float = 1.0) -> nn.Sequential:
    """A network of sines; factors of the weights that its authors prescribe."""
    layers: list[nn.Module] = []
    for number in range(4):
        layer = nn.Linear(64 if number else 2, 64)
        bound = hidden * (6 / 64) ** 0.5 / 30 if number else first / 2
        nn.init.uniform_(layer.weight, -bound, bound)
        layers += [layer, Sine()]
    return nn.Sequential(*layers, nn.Linear(64, 1))


def coordinates() -> Tensor:
    return 2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 1


def normed(*, off: float) -> nn.Sequential:
    """A convolutional net whose running statistics were taken, then moved."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10)
    )
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    for _ in range(60):
        model(digits())
    assert norm.running_mean is not None
    norm.running_mean += off
    return model.eval()


def test_statistics_that_the_probe_took_itself_are_never_stale() -> None:
    """An image that the examination does not look at has its share in them."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
    )
    images = torch.rand(129, 1, 8, 8)
    images[1] *= 1e3
    report = probe(model, images)
    assert "stale batch norms" not in [found.kind for found in report.diagnoses]
    for _ in range(60):
        model(images)  # and so are those of a training stale that saw another image
    report = probe(model, images[torch.arange(129) != 1])
    assert "stale batch norms" in [found.kind for found in report.diagnoses]


def zero_residual() -> nn.Sequential:
    model = residual(4)
    for block in model[2:6]:
        nn.init.zeros_(block.two.weight)
        nn.init.zeros_(block.two.bias)
    return model


def of_one_number(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.constant_(layer.weight, 0.01)
        nn.init.zeros_(layer.bias)


def widths(*sizes: int, act: Any = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for one, other in pairwise(sizes):
        layers += [nn.Linear(one, other), act()]
    return nn.Sequential(*layers[:-1])


def ending(layer: nn.Module, outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(*dense(2, draw=drawn(2.0), outputs=outputs), layer)


def through_one(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(*dense(1, draw=drawn(2.0), outputs=1), norm, nn.Linear(1, 2))


PATIENTS: dict[str, tuple[Build, str, str]] = {  # what the rule and the first line say
    "ReLU, default": (
        lambda: dense(12),
        "size of weights",
        r"2\.4\d times smaller than He's .* ReLU",
    ),
    "ReLU, too large": (
        lambda: dense(12, draw=drawn(20.0)),
        "size of weights",
        "times larger than He's",
    ),
    "SELU, default": (
        lambda: dense(30, act=nn.SELU),
        "size of weights",
        r"1\.7\d times smaller than LeCun's .* SELU",
    ),
    "tanh, default": (
        lambda: dense(20, act=nn.Tanh),
        "size of weights",
        "smaller than LeCun's .* tanh",
    ),
    "tanh, too large": (
        lambda: dense(20, act=nn.Tanh, draw=drawn(9.0)),
        "size of weights",
        r"3(\.\d+)? times larger",
    ),
    "sigmoid, default": (
        lambda: dense(6, act=nn.Sigmoid),
        "size of weights",
        "smaller than Glorot's .* sigmoid",
    ),
    "dead by bias": (
        lambda: changed(dense(3, draw=drawn(2.0)), 3, None, -50),
        "dead units",
        "64 of 64 units of layer '4'",
    ),
    "dead in place": (
        lambda: changed(dense(3, act=lambda: nn.ReLU(True), draw=drawn(2.0)), 3, None, -50),
        "dead units",
        "0 for every image.* gradient",
    ),
    "one number everywhere": (
        lambda: dense(3).apply(of_one_number),
        "copies",
        "copies of each other: rank 1 of 64",
    ),
    "one layer of one number": (lambda: changed(dense(3), 3, 0.05, 0), "copies", "layer '3'"),
    "all zeros": (lambda: dense(3, act=nn.Tanh).apply(drawn(0.0)), "constant", "weights are all 0"),
    "gate of zeros": (
        lambda: residual(3, gated=True, gate=0.0),
        "zero gate",
        "layer '2' is a gate of zeros",
    ),
    "LayerNorm over one": (
        lambda: through_one(nn.LayerNorm(1)),
        "norm over one feature",
        "LayerNorm over one feature",
    ),
    "groups of one": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(196, 8), nn.GroupNorm(8, 8), nn.Linear(8, 10)
        ),
        "norm over one feature",
        "layer '2' is a GroupNorm",
    ),
    "softmax of one": (
        lambda: ending(nn.Softmax(1), 1),
        "norm over one feature",
        r"it is 1\.000 for every image",
    ),
    "softmax before the loss": (
        lambda: ending(nn.Softmax(1)),
        "softmax before the loss",
        "output is a softmax",
    ),
    "saturated sigmoids": (
        lambda: dense(2, act=nn.Sigmoid, draw=drawn(900.0)),
        "saturated",
        "layer '2' are saturated",
    ),
    "bottleneck": (
        lambda: widths(196, 2, 64, 10),
        "bottleneck",
        "layer '1' is a bottleneck: 2 numbers",
    ),
    "many narrow recurrent layers": (
        lambda: Rows(nn.LSTM(14, 2, 8, batch_first=True), 2),
        "recurrent bottleneck",
        "8 layers of 2",
    ),
    "narrow recurrent layers with one answer": (
        lambda: seeded(3, lambda: Rows(nn.LSTM(14, 2, 14, batch_first=True), 2)),
        "recurrent bottleneck",
        "14 layers of 2",
    ),
    "unnormalised residuals": (
        lambda: residual(20, norm=nn.Identity),
        "residual growth",
        "grows .*-fold through 20",
    ),
    "post-norm": (
        lambda: encoder(18, norm_first=False),
        "post-norm",
        "36 norms come after the additions",
    ),
    "post-norm of one's own": (
        lambda: residual(30, norm=nn.Identity, last=nn.LayerNorm),
        "post-norm",
        "from layer '2.last' on",
    ),
    "attention along the batch": (
        lambda: Rows(Attending(batch_first=False), 14),
        "samples influence each other",
        "'body.attention.0'.*another sample changes.*batch_first",
    ),
    "reshape for permute": (
        lambda: Rows(Folded(right=False), 14),
        "samples influence each other",
        "another sample changes",
    ),
    "stale statistics": (lambda: normed(off=9.0), "stale batch norms", "batch norm '1' are stale"),
}

HEALTHY_TWINS: dict[str, Build] = {
    "ReLU, He": lambda: dense(15, draw=drawn(2.0)),
    "ReLU, default, shallow": lambda: dense(3),
    "ReLU, default, normalised": lambda: nn.Sequential(
        nn.Flatten(),
        *[
            m
            for n in range(12)
            for m in (nn.Linear(64 if n else 196, 64), nn.LayerNorm(64), nn.ReLU())
        ],
        nn.Linear(64, 10),
    ),
    "SELU, LeCun": lambda: dense(30, act=nn.SELU, draw=drawn(1.0)),
    "tanh, LeCun": lambda: dense(20, act=nn.Tanh, draw=drawn(1.0)),
    "GELU, He": lambda: dense(12, act=nn.GELU, draw=drawn(2.0)),
    "leaky ReLU, He": lambda: dense(12, act=nn.LeakyReLU, draw=drawn(2.0)),
    "one output": lambda: ending(nn.Sigmoid(), 1),
    "log-softmax": lambda: ending(nn.LogSoftmax(1)),
    "one number on the way": lambda: through_one(nn.Identity()),
    "small gates": lambda: residual(3, gated=True, gate=0.02),
    "pre-norm": lambda: encoder(18, norm_first=True),
    "few post-norms": lambda: encoder(4, norm_first=False),
    "normalised residuals": lambda: residual(20),
    "scaled residuals": lambda: residual(20, norm=nn.Identity, scale=20**-0.5),
    "attention over rows": lambda: Rows(Attending(batch_first=True), 14),
    "permute": lambda: Rows(Folded(right=True), 14),
    "LSTM": lambda: Rows(nn.LSTM(14, 64, 2, batch_first=True), 64),
    "autoencoder": lambda: widths(196, 64, 3, 64, 196),
    "batch norms": lambda: normed(off=0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PATIENTS)
def test_the_first_line_names_the_cause(name: str) -> None:
    build, kind, words = PATIENTS[name]
    report = examined(build)
    assert report.diagnoses[0].kind == kind
    assert report.diagnoses[0].ill
    assert re.search(words, first_line(report)), first_line(report)
    assert HEALTHY not in report.summary()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY_TWINS)
def test_a_healthy_twin_is_not_called_ill(name: str) -> None:
    report = examined(HEALTHY_TWINS[name])
    assert not any(diagnosis.ill for diagnosis in report.diagnoses), report.diagnoses
    assert first_line(report) == HEALTHY
    if name != "one number on the way":  # which holds a hundredth of the images, and is enough
        assert "lost from" not in report.summary()


def test_every_rule_has_a_patient_or_a_test_of_its_own() -> None:
    own = {"inputs of the wrong size", "sines", "input lost", "intended zeros"}
    assert {rule.kind for rule in RULES} == {kind for _, kind, _ in PATIENTS.values()} | own
    assert all(rule.reason and (rule.remedy or not rule.ill) for rule in RULES)


@pytest.mark.parametrize(
    ("factor", "words"), [(255, "reach 25"), (1 / 255**2, "are at most 1.5e-05")]
)
def test_pixels_of_another_size_are_seen(factor: float, words: str) -> None:
    report = examined(lambda: dense(2, draw=drawn(2.0)), factor * digits())
    assert report.diagnoses[0].kind == "inputs of the wrong size"
    assert words in first_line(report)


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_size_of_inputs_does_not_matter_beside_a_first_norm(norm_first: bool) -> None:
    layers = [nn.BatchNorm2d(1), nn.Conv2d(1, 8, 3)]
    if not norm_first:
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10))
    assert first_line(examined(lambda: model, 255 * digits())) == HEALTHY


def test_a_siren_with_low_frequencies_is_told_from_a_good_one() -> None:
    low, good = (examined(lambda f=f: siren(f), coordinates()) for f in (0.1, 1.0))
    assert low.diagnoses[0].kind == "sines"
    assert "periods" in first_line(low)
    assert first_line(good) == HEALTHY


def test_hidden_sines_are_held_against_their_rule() -> None:
    report = examined(lambda: siren(1.0, hidden=8.0), coordinates())
    assert "times larger than SIREN's initialisation" in first_line(report)


def test_sines_behind_weights_of_zero_do_not_stop_the_probe() -> None:
    report = examined(lambda: changed(siren(1.0), 2, 0.0, 0.0), coordinates())
    zeros = [d.sentence for d in report.diagnoses if d.kind == "intended zeros"]
    assert "'2'" in zeros[0]


def test_zeros_that_are_meant_are_named_as_harmless() -> None:
    head = changed(dense(2, draw=drawn(2.0)), 5, 0.0, 0.0)
    for model, layer in ((head, "'5'"), (zero_residual(), "'2.two'")):
        diagnoses = examined(lambda model=model: model).diagnoses
        assert [diagnosis.kind for diagnosis in diagnoses] == ["healthy", "intended zeros"]
        assert layer in diagnoses[1].sentence
        assert "harmless" in diagnoses[1].sentence


def test_a_head_of_zeros_is_harmless_where_it_is_wider_than_the_body_too() -> None:
    torch.manual_seed(0)
    body = [nn.Flatten(), nn.Linear(196, 16), nn.LayerNorm(16)]
    model = changed(nn.Sequential(*body, nn.Linear(16, 40)), 3, 0.0, 0.0)
    kinds = [diagnosis.kind for diagnosis in examined(lambda: model).diagnoses]
    assert kinds == ["healthy", "intended zeros"]
    deaf = changed(nn.Sequential(*body, nn.Linear(16, 40)), 3, 0.0, 1.0)
    deaf.append(nn.Linear(40, 40))
    assert examined(lambda: deaf).diagnoses[0].ill  # weights that stop the image inside


def test_norms_of_residual_branches_that_start_at_zero_are_harmless() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8 * 196, 10)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head((x + self.norm(self.conv(x))).relu().flatten(1))

    diagnoses = examined(Net).diagnoses
    assert [diagnosis.kind for diagnosis in diagnoses] == ["healthy", "intended zeros"]
    assert "'norm'" in diagnoses[1].sentence


def test_a_rate_that_is_too_large_kills_units_that_are_then_found() -> None:
    torch.manual_seed(0)
    model = dense(2, draw=drawn(2.0))
    assert first_line(examined(lambda: model)) == HEALTHY
    optimiser = torch.optim.SGD(model.parameters(), lr=50.0)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(digits()), torch.arange(120) % 10).backward()
        optimiser.step()
    report = examined(lambda: model)
    assert report.diagnoses[0].kind == "dead units"
    assert report.diagnoses[0].layer in ("2", "4")


def test_a_narrower_head_is_no_place_where_an_input_is_lost() -> None:
    report = examined(lambda: dense(1, draw=drawn(2.0), outputs=1))
    assert float(report.result["r_squared"][-1]) < 0.2
    assert report.cutoff is None


def test_the_table_says_where_a_model_is_ill() -> None:
    report = examined(PATIENTS["dead by bias"][0])
    table = report.to_dataframe()
    assert table.loc[table["layer"] == "4", "diagnosis"].tolist() == ["dead units"]
    assert float(table.loc[table["layer"] == "4", "dead"].iloc[0]) == 1
    assert (table["diagnosis"] != "").sum() == 1


@pytest.mark.slow
def test_page_and_text_begin_with_the_diagnosis() -> None:
    report = examined(PATIENTS["softmax of one"][0])
    assert str(report).startswith(report.diagnoses[0].sentence)
    assert "softmax over one feature" in report.to_html()


def test_with_labels_the_loss_stands_beside_that_of_guessing() -> None:
    report = probe(dense(2, draw=drawn(2.0)), digits(), torch.arange(120) % 10)
    assert "guessing gives ln(classes) = 2.30" in report.summary()


def test_a_model_without_operations_is_healthy() -> None:
    found = Examination(nn.Identity())
    assert [diagnosis.sentence for diagnosis in diagnose(found)] == [HEALTHY]
