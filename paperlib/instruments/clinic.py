"""Clinic: does the report on an untrained network name what ails it, and does the remedy help?

Twelve small networks, each with a fault that people report of networks that do not train; two of
the faults are not the network's, and there the report must say so. Each is probed before its first
step, trained, treated as the report says, probed again, and trained again from the same seed.

Source of the faults: questions that people asked in public; the networks here are our own.
"""

import itertools
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.activations.calls import ProbeError
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.instruments.probe.probe import probe
from paperlib.instruments.probe.verdict import judge
from paperlib.networks.zoo_blocks import Rows
from paperlib.plots import BLUE, ORANGE, paper_style
from paperlib.training import at, train

CODE_VERSION = 2
STATES = ("as reported", "treated")
COLOURS = dict(zip(STATES, (ORANGE, BLUE), strict=True))
LOOKS = 10  # at the test images, after the first one
MARGIN = 0.02  # by which a treated network may fall behind and is not called worse
WHITE = 255.0  # the largest pixel of images that nobody has scaled
HIDDEN = 64
ROWS = 4  # of an image in a token
ACROSS = 4  # panels

Shape = tuple[int, int, int]
Build = Callable[[Shape, int], nn.Module]


class Patient(NamedTuple):
    """A fault, as its owner met it, and what the report should lead to."""

    name: str
    symptom: str
    cause: str  # kind of the diagnosis that names it; "": the network has none
    remedy: str
    build: Build
    treat: Build
    rate: float = 1e-3
    treated_rate: float = 1e-3
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    white: float = 1.0  # the largest pixel; a treated network sees 1
    shuffled: bool = False  # labels, before the treatment


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 20: of the trainings, and of what is probed."""

    patients: int = option(12, low=1, high=12)  # the first so many
    networks: int = option(1, low=1, high=100)  # seeds of each
    steps: int = option(120, low=1, high=100_000)
    batch_size: int = option(32, low=2)
    probed_images: int = option(100, low=20)
    train_images: int = option(6000, low=20)
    test_images: int = option(500, low=10)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return what the reports say of each patient, and how it trains before and after.

    Args:
        settings: of the trainings and probes.
        data: images of at least 16×16; grey ones are made of coloured ones.

    Returns:
        a Dataset along patient, state, network and step; accuracies are of test images.

    Raises:
        ValueError: images that are too small.
    """
    shape = (1, *data.image_shape[1:])
    if min(shape[1:]) < 16:
        raise ValueError(f"the patients need images of at least 16×16, got {data.image_shape}")
    lessons = data.examples("train", settings.train_images)
    test = data.examples("test", settings.test_images)
    steps = np.unique(np.linspace(0, settings.steps, LOOKS + 1).round().astype(int))
    seeds = [settings.seed + number for number in range(settings.networks)]
    patients = PATIENTS[: settings.patients]
    sizes = (len(patients), len(STATES))
    accuracy = np.zeros((*sizes, len(seeds), len(steps)))
    said = np.full((*sizes, 2), "", object)
    kinds, ills = np.full((*sizes, 2), "", object), np.zeros((*sizes, 2), bool)
    probability = np.full(sizes, np.nan)
    for place, patient in enumerate(patients):
        for number, state in enumerate(STATES):
            given = _given(patient, state, lessons, settings.data_seed)
            shown = _given(patient, state, test, settings.data_seed)[0]
            probed = [part[: settings.probed_images] for part in given]
            for column, seed in enumerate(seeds):
                network = _built(patient, state, shape, len(data.classes), seed)
                cell = place, number
                if not column:
                    report = probe(network, *probed, seed=seed)
                    said[(*cell, 0)], kinds[(*cell, 0)], ills[(*cell, 0)] = _first(report)
                    # a trial would take longer than the trainings below
                    verdict = judge(report, network, *probed, seed=seed, trial=False)
                    probability[cell] = verdict.default_probability
                accuracy[(*cell, column)] = _trained(
                    network, patient, state, given, (shown, test[1]), steps, settings, seed
                )
                if not column:
                    told = _after(network, probed[0], seed)
                    said[(*cell, 1)], kinds[(*cell, 1)], ills[(*cell, 1)] = told
    across = ("patient", "state")
    by_moment = (*across, "moment")
    variables: dict[str, Any] = {
        "accuracy": ((*across, "network", "step"), accuracy, {"units": "1"}),
        "probability": (across, probability, {
            "units": "1", "long_name": "of training with Adam at 1e-3, by the verdict"}),
        "first_line": (by_moment, said.astype(str), {"units": ""}),
        "kind": (by_moment, kinds.astype(str), {"units": ""}),
        "ill": (by_moment, ills, {"units": "1", "long_name": "whether the first line is a fault"}),
    }  # fmt: skip
    coordinates: dict[str, Any] = {
        "patient": [p.name for p in patients],
        "state": list(STATES),
        "network": seeds,
        "step": steps,
        "moment": ["before training", "after training"],
        "symptom": ("patient", [p.symptom for p in patients]),
        "cause": ("patient", [p.cause for p in patients]),
        "remedy": ("patient", [p.remedy for p in patients]),
    }
    return xr.Dataset(variables, coordinates)


def named(result: xr.Dataset) -> NDArray[np.bool_]:
    """Return whether the first line before training names each patient's fault, or, of one without
    a fault of its own, that there is none, (patient,)."""
    first = result.sel(state=STATES[0]).isel(moment=0)
    cause = result["cause"].values
    return np.where(cause == "", ~first["ill"].values, first["kind"].values == cause)


def figure(result: xr.Dataset) -> Figure:
    """Draw every patient's accuracy while it trains, before and after the treatment, under what
    the report said first."""
    count = result.sizes["patient"]
    with paper_style():
        down = math.ceil(count / ACROSS)
        drawn = Figure(figsize=(12.0, 3.0 * down), layout="constrained")
        axes = np.atleast_1d(drawn.subplots(down, ACROSS, sharex=True, sharey=True)).ravel()
        for axis, patient in zip(axes, result["patient"].values, strict=False):
            _draw(axis, result.sel(patient=patient))
        for axis in axes[count:]:
            axis.set_axis_off()
        for axis in axes[::ACROSS]:
            axis.set_ylabel("test accuracy (%)")
        for axis in axes[max(0, count - ACROSS) : count]:
            axis.set_xlabel("steps")
        lines, labels = axes[0].get_legend_handles_labels()
        drawn.legend(lines, labels, loc="outside lower center", ncols=len(STATES))
    return drawn


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: the patients one by one, and who was helped."""
    at_end = result["accuracy"].isel(step=-1)
    before, after = (at_end.sel(state=state).mean("network").values for state in STATES)
    right, own = named(result), result["cause"].values != ""
    rows = [
        f"| {name} | {said} | {a:.0%} | {b:.0%} | {p:.2f} → {q:.2f} |"
        for name, said, a, b, (p, q) in zip(
            result["patient"].values,
            result["first_line"].sel(state=STATES[0]).isel(moment=0).values,
            before,
            after,
            result["probability"].values,
            strict=True,
        )
    ]
    networks = result.sizes["network"]
    wrong = [str(name) for name in result["patient"].values[~right]]
    worse = [str(name) for name in result["patient"].values[after < before - MARGIN]]
    still = result["ill"].sel(state=STATES[1]).isel(moment=0).values
    ill = [str(name) for name in result["patient"].values[still]]
    said = [
        f"**This run.** {data_name(result)}: {networks} network{'s' * (networks > 1)} of each "
        f"patient, {int(result['step'][-1]):,} steps.",
        f"**The first line** names the fault of {int((right & own).sum())} of {int(own.sum())} "
        f"patients, and says of {int((right & ~own).sum())} of {int((~own).sum())} networks "
        f"without one that they have none.{_listed(' Wrong: ', wrong)}",
        f"**The treatment** raises the mean accuracy of the {int(own.sum())} from "
        f"{before[own].mean():.0%} to {after[own].mean():.0%}."
        f"{_listed(' Worse than before: ', worse)}{_listed(' Still called ill: ', ill)}",
        "\n".join(["| patient | the report's first line | as reported | treated | verdict |",
                   "|---|---|---|---|---|", *rows]),
        "The verdict is the probability of training with Adam at 1e-3, before and after the "
        "treatment. It judges networks and their inputs, not the loss that they are given.",
    ]  # fmt: skip
    if DIES_IN_TRAINING in result["patient"].values:
        later = result["first_line"].sel(patient=DIES_IN_TRAINING, state=STATES[0]).isel(moment=1)
        said.append(f"**{DIES_IN_TRAINING.capitalize()}**: after its training the report says: "
                    f"{later.item()}.")  # fmt: skip
    said.append("**Against the paper: nothing is compared.** The publication treats no networks.")
    return "\n\n".join(said)


# --- measuring


def _first(report: Any) -> tuple[str, str, bool]:
    """The first line of a report, the kind of that diagnosis, and whether it is a fault."""
    diagnosis = report.diagnoses[0]
    return str(report.summary().splitlines()[0]), diagnosis.kind, diagnosis.ill


def _after(network: nn.Module, images: Tensor, seed: int) -> tuple[str, str, bool]:
    """The same of a network that has been trained, and may have blown up."""
    try:
        return _first(probe(network, images, seed=seed))
    except ProbeError as error:
        return str(error), "overflow", True


def _built(patient: Patient, state: str, shape: Shape, classes: int, seed: int) -> nn.Module:
    make = patient.build if state == STATES[0] else patient.treat
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(shape, classes)


def _given(
    patient: Patient, state: str, examples: tuple[Tensor, Tensor], seed: int
) -> tuple[Tensor, Tensor]:
    """Images and labels as the patient gets them."""
    images, labels = examples
    if state != STATES[0]:
        return images, labels
    if patient.shuffled:
        order = torch.randperm(len(labels), generator=random_numbers("clinic labels", seed))
        labels = labels[order]
    return images * patient.white, labels


def _trained(
    network: nn.Module,
    patient: Patient,
    state: str,
    lessons: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    steps: NDArray[np.int64],
    settings: Settings,
    seed: int,
) -> NDArray[np.float64]:
    """Test accuracy at each of the steps; that of the last look from where a loss is not finite."""
    found: dict[int, float] = {}

    @torch.no_grad()
    def look(step: int, learning: nn.Module) -> None:
        learning.eval()
        guesses = torch.cat([learning(part).argmax(1) for part in test[0].split(100)])
        learning.train()
        found[step] = float((guesses == test[1]).float().mean())

    rate = patient.rate if state == STATES[0] else patient.treated_rate
    train(
        network,
        lessons,
        optimiser=patient.optimiser(network.parameters(), lr=rate),
        steps=int(steps[-1]),
        batch_size=min(settings.batch_size, len(lessons[1])),
        observers=[at(steps.tolist(), look)],
        seed=seed,
    )
    network.eval()
    last = list(found.values())[-1]
    return np.array([found.get(int(step), last) for step in steps])


# --- the patients


def _plain_convolutions(he: bool) -> Build:
    """Fourteen convolutions without norms, pooled early."""

    def build(shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels = shape[0]
        for number in range(14):
            convolution = nn.Conv2d(channels, 12, 3, padding=1)
            if he:
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                nn.init.zeros_(_bias(convolution))
            pooled = [nn.MaxPool2d(2)] if number in (0, 2, 4) else []
            layers += [convolution, nn.ReLU(), *pooled]
            channels = 12
        left = 12 * (shape[1] // 8) * (shape[2] // 8)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(left, classes))

    return build


class _Encoder(nn.Module):
    """A transformer over rows of an image, that reads their mean."""

    def __init__(self, shape: Shape, classes: int, *, depth: int, norm_first: bool) -> None:
        super().__init__()
        self.rows = Rows(ROWS)
        self.embedding = nn.Linear(ROWS * shape[2], 32)
        self.position = nn.Parameter(0.02 * torch.randn(1, -(-shape[1] // ROWS), 32))
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, dropout=0.0, batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(32, classes)
        for weights in self.encoder.parameters():
            if weights.dim() > 1:
                nn.init.xavier_uniform_(weights)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embedding(self.rows(images)) + self.position
        return self.head(self.encoder(tokens).mean(1))


class _Attending(nn.Module):
    """Attention and an MLP, with norms before both."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(tokens)


class _ClassToken(nn.Module):
    """A vision transformer over rows, that reads a class token."""

    def __init__(self, shape: Shape, classes: int, *, batch_first: bool) -> None:
        super().__init__()
        self.rows = Rows(ROWS)
        self.embedding = nn.Linear(ROWS * shape[2], 32)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, -(-shape[1] // ROWS) + 1, 32))
        self.blocks = nn.Sequential(*(_Attending(batch_first) for _ in range(4)))
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, classes))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embedding(self.rows(images))
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], 1) + self.position
        return self.head(self.blocks(tokens)[:, 0])


class _Recurrent(nn.Module):
    """An LSTM that reads an image by its rows."""

    def __init__(self, shape: Shape, classes: int, *, layers: int, hidden: int) -> None:
        super().__init__()
        self.rows = Rows(ROWS)
        self.lstm = nn.LSTM(ROWS * shape[2], hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.lstm(self.rows(images))[0][:, -1])


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _perceptron(shape: Shape, classes: int, widths: tuple[int, ...], kind: Any) -> nn.Sequential:
    sizes = (math.prod(shape), *widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), kind()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def _linear(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def _relu(shape: Shape, classes: int) -> nn.Module:
    return _perceptron(shape, classes, (HIDDEN,) * 3, nn.ReLU)


def _dead(shape: Shape, classes: int) -> nn.Module:
    """Biases so far below zero that a whole layer is off."""
    network = _relu(shape, classes)
    nn.init.constant_(_bias(_linear(network)[1]), -5.0)
    return network


def _equal(shape: Shape, classes: int) -> nn.Module:
    network = _small_convolutions(shape, classes)
    for weights in network.parameters():
        nn.init.constant_(weights, 0.01 if weights.dim() > 1 else 0.0)
    return network


def _selu(lecun: bool) -> Build:
    def build(shape: Shape, classes: int) -> nn.Module:
        network = _perceptron(shape, classes, (HIDDEN,) * 30, nn.SELU)
        for layer in _linear(network) if lecun else ():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(_bias(layer))
        return network

    return build


def _sigmoids(shape: Shape, classes: int) -> nn.Module:
    """Weights and biases of variance 1, and layers of three and four units."""
    network = _perceptron(shape, classes, (3, 4), nn.Sigmoid)
    for weights in network.parameters():
        nn.init.normal_(weights)
    return network


def _wide_sigmoids(shape: Shape, classes: int) -> nn.Module:
    return _perceptron(shape, classes, (HIDDEN, HIDDEN), nn.Sigmoid)


def _small_convolutions(shape: Shape, classes: int) -> nn.Sequential:
    left = 16 * (shape[1] // 4) * (shape[2] // 4)
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(left, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes),
    )  # fmt: skip


def _softmax(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(*_small_convolutions(shape, classes), nn.Softmax(1))


DIES_IN_TRAINING = "rate too large"
PATIENTS = (
    Patient("dead layer", "one answer for all images", "dead units", "biases of 0", _dead, _relu),
    Patient(
        "pixels to 255", "the first loss is far above ln(classes)", "inputs of the wrong size",
        "pixels to 1", _relu, _relu, white=WHITE, rate=0.1, treated_rate=0.1,
        optimiser=torch.optim.SGD,
    ),
    Patient(
        "three sigmoids", "learns almost nothing", "bottleneck", "64 units, PyTorch's weights",
        _sigmoids, _wide_sigmoids, rate=1e-2, treated_rate=1e-2,
    ),
    Patient(
        "equal weights", "rests at ln(classes)", "copies", "random weights",
        _equal, _small_convolutions,
    ),
    Patient(
        "SELU by default", "does not learn", "size of weights", "LeCun's initialisation",
        _selu(lecun=False), _selu(lecun=True),
    ),
    Patient(
        "softmax before the loss", "learns slowly", "softmax before the loss", "no softmax",
        _softmax, _small_convolutions,
    ),
    Patient(
        "plain convolutions", "stays at chance", "size of weights", "He's initialisation",
        _plain_convolutions(he=False), _plain_convolutions(he=True),
    ),
    Patient(
        "narrow deep LSTM", "one answer for all images", "recurrent bottleneck",
        "two layers of 32 units",
        lambda *given: _Recurrent(*given, layers=8, hidden=2),
        lambda *given: _Recurrent(*given, layers=2, hidden=32),
    ),
    Patient(
        "attention without batch_first", "the same answer for every image",
        "samples influence each other", "batch_first=True",
        lambda *given: _ClassToken(*given, batch_first=False),
        lambda *given: _ClassToken(*given, batch_first=True),
    ),
    Patient(
        "post-norm transformer", "does not train", "post-norm", "norms before the branches",
        lambda *given: _Encoder(*given, depth=18, norm_first=False),
        lambda *given: _Encoder(*given, depth=18, norm_first=True),
    ),
    Patient(
        "labels of other images", "as good as guessing", "", "the right labels",
        _small_convolutions, _small_convolutions, shuffled=True,
    ),
    Patient(
        DIES_IN_TRAINING, "falls to chance", "", "Adam at 1e-3",
        _small_convolutions, _small_convolutions, rate=0.1,
    ),
)  # fmt: skip


# --- drawing


def _draw(axis: Any, patient: xr.Dataset) -> None:
    for state in STATES:
        curves = 100 * patient["accuracy"].sel(state=state)
        for network in curves["network"].values if curves.sizes["network"] > 1 else ():
            axis.plot(curves["step"], curves.sel(network=network), color=COLOURS[state], lw=0.6)
        axis.plot(curves["step"], curves.mean("network"), color=COLOURS[state], lw=2, label=state)
    said = str(patient["first_line"].sel(state=STATES[0]).isel(moment=0).item())
    lines = textwrap.wrap(said, 46, max_lines=4, placeholder=" …")
    axis.set_title(str(patient["patient"].item()), loc="left", pad=12 + 9 * len(lines))
    axis.annotate("\n".join(lines), (0, 1), (0, 4), "axes fraction", "offset points",
                  fontsize=7.5, va="bottom", color="0.3")  # fmt: skip
    axis.set_ylim(0, 102)


def _listed(before: str, names: list[str]) -> str:
    return f"{before}{', '.join(names)}." if names else ""
