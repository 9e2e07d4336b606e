"""Spectrum alignment: how the tangent kernel of a network turns towards what the network learns.

The tangent kernel G holds the products of two samples' gradients of the output. To first order a
step of gradient descent shrinks the error along an eigenvector of eigenvalue λ by 1 − ηλ/n, so that
what lies in the first eigenvectors is learnt first. In a network of finite width G moves: the
target's energy gathers in few eigenvectors, and the largest eigenvalue rises to 2n/η, at which
gradient descent is no longer stable. Shuffled labels stand beside the true ones, and a small rate.

Untrained networks of infinite width say the same numbers in closed form, without a training.

Source: Kopitkov & Indelman, arXiv:1910.08720. Alignment: Cristianini et al., NIPS 2001; centred:
Cortes et al., arXiv:1203.0550. Energy above the resolution is ours.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.activations import per_sample_gradients
from paperlib.activations.kernels import trace_gram
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.datasets.photographs import read_photograph
from paperlib.kernels import mlp_kernels
from paperlib.measures.alignment import alignment, centred, energy, energy_above, spectrum
from paperlib.networks import initialise
from paperlib.plots import BLUE, GREEN, ORANGE, SEQUENTIAL, paper_style
from paperlib.training import StopTraining, at, squared_error, train

Array = NDArray[np.float64]

CODE_VERSION = 1
FORETELLS = ("alignment above the resolution",)
TASKS = ("photograph", "parity")
WAYS = ("true", "shuffled", "small rate")
SIGNALS = ("target", "output", "residual")
ALIGNMENTS = ("plain", "centred", "unscaled")
ON = ("learnt", "unseen")
UNTRAINED = ("energy", "energy, centred", "alignment", "alignment, centred", "above the resolution")
TARGETS = ("classes", "parity")
COUNTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 5000)
WIDE = 50  # eigenvectors, of the wider span
LEADING = 20  # eigenvalues that are held
PICTURES = 4  # eigenvectors that are drawn
PHOTOGRAPH = 64  # pixels a side, of which points are taken
LEAK = 0.01  # of the photograph's leaky ReLU
READ, OUTPUTS = 100, 3  # images and outputs that are read of any one model, at most
COLOURS = dict(zip(WAYS, (BLUE, ORANGE, GREEN), strict=True))


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 17: of two regressions, and of untrained networks."""

    photograph: str = "camera"  # scikit-image's name for it, or a file
    side: int = option(16, low=8, high=200)  # points a side
    photograph_depth: int = option(4, low=1, high=100)
    photograph_width: int = option(64, low=1, high=10_000)
    photograph_sigma_w2: float = option(2.0, above=0.0)
    parity_images: int = option(200, low=WIDE)
    depth: int = option(3, low=1, high=100)
    width: int = option(100, low=1, high=10_000)
    sigma_w2: float = option(1.7, above=0.0)
    sigma_b2: float = option(0.05, low=0.0)
    relative_rate: float = option(1.3, above=0.0)  # in n/λ_1 of the untrained network
    drop: float = option(4.0, low=1.0)  # by which the rate is divided
    steps: int = option(1200, low=3)
    times: tuple[int, ...] = option((0, 10, 30, 100, 200, 300, 500, 900), low=0)
    k: int = option(10, low=1, high=WIDE)
    networks: int = option(3, low=1, high=100)
    variances: tuple[float, ...] = option((0.6, 1.1, 1.76, 3.0), above=0.0)  # untrained, σ_w²
    untrained_depth: int = option(20, low=1, high=1000)
    untrained_images: int = option(300, low=20)
    resolution: float = option(1e-3, above=0.0)
    train_images: int = option(2000, low=WIDE)  # from which those of every network are drawn
    test_images: int = option(1000, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("times", "variances"):  # axes
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    @property
    def drops_at(self) -> int:
        """After how many steps the rate drops: the last third is left."""
        return 2 * self.steps // 3

    def looks(self) -> list[int]:
        """After how many steps the kernel is taken."""
        chosen = {step for step in self.times if step <= self.steps}
        return sorted(chosen | {0, self.drops_at, self.steps})


class Task(NamedTuple):
    """A regression: inputs (n, …) and centred targets (n, 1) of variance 1, and others, unseen."""

    inputs: Tensor
    targets: Tensor
    unseen: Tensor
    truth: Tensor


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return the spectrum of the tangent kernel along trainings, and of untrained networks.

    Args:
        settings: of the trainings and of the untrained networks.
        data: its images are learnt by whether their class is odd; the photograph needs none.

    Returns:
        a Dataset along task, way (of learning), network and step, with k (the number of
        eigenvectors that count) and rank (of an eigenvalue); pictures along moment; and along
        measure, target, sigma_w2 and depth of untrained networks.

    Raises:
        ValueError: images whose classes are all odd or all even.
    """
    seeds = [settings.seed + number for number in range(settings.networks)]
    tasks = [[_photograph(settings)] * len(seeds), [_parity(settings, data, s) for s in seeds]]
    samples = [len(row[0].targets) for row in tasks]
    counts = sorted({k for k in COUNTS if k <= max(samples)} | {settings.k})
    shape = (len(TASKS), len(WAYS), len(seeds))
    runs = {place: _learnt(settings, tasks[place[0]][place[2]], place, seeds[place[2]], counts)
            for place in np.ndindex(shape)}  # fmt: skip
    of, one = ("task", "way", "network"), {"units": "1"}
    dims: dict[str, tuple[str, ...]] = {
        "energy": ("signal", "k"), "eigenvalues": ("rank",), "alignment": ("kind",),
        "error": ("on",),
    }  # fmt: skip
    variables: dict[str, Any] = {
        name: ((*of, "step", *more), _gathered(runs, (*shape, len(settings.looks())), name), one)
        for name, more in dims.items()
    }
    variables["rate"] = (of, _gathered(runs, (*shape, len(settings.looks())), "rate")[..., 0], one)
    variables["samples"] = (("task",), samples, one)
    variables["time"] = (("way", "step"), [_clock(settings, way) for way in WAYS],
                         {"units": "n/λ₁ of the untrained network"})  # fmt: skip
    variables |= _pictures(settings, tasks[0][0], runs[0, 0, 0]) | _untrained(settings, data)
    return xr.Dataset(variables, {
        "task": list(TASKS), "way": list(WAYS), "network": seeds, "step": settings.looks(),
        "signal": list(SIGNALS), "k": counts, "rank": np.arange(1, LEADING + 1),
        "kind": list(ALIGNMENTS), "on": list(ON),
        "measure": list(UNTRAINED), "target": list(TARGETS),
        "sigma_w2": list(settings.variances), "depth": np.arange(1, settings.untrained_depth + 1),
    }, {name: getattr(settings, name) for name in
        ("photograph", "side", "width", "photograph_width", "drops_at", "drop", "relative_rate",
         "resolution", "untrained_images")} | {"counted": settings.k})  # fmt: skip


def tangent_kernel(network: nn.Module, inputs: Tensor) -> Array:
    """Return the products of all samples' gradients, (n, n), of a network's only output.

    Computed in float64: eigenvalues far below the largest are lost in the rounding of float32.
    """
    exact = copy.deepcopy(network).double()
    found = per_sample_gradients(exact, inputs.double(), cotangent=torch.ones(1), chunk=len(inputs))
    return found.gram().numpy()


def edge(result: xr.Dataset) -> xr.DataArray:
    """Return λ₁ of the kernel in units of n/η by step: gradient descent is stable below 2.

    η is the rate of the steps before; at the step where it drops, the larger one.
    """
    late = (result["step"] > result.attrs["drops_at"]) & (result["way"] != WAYS[2])
    rate = result["rate"] / xr.where(late, result.attrs["drop"], 1.0)
    return result["eigenvalues"].sel(rank=1, drop=True) * rate / result["samples"]


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what untrained networks of infinite width say of "will it train", (sigma_w2, depth),
    by the classes of images."""
    own = result["untrained"].sel(target="classes", drop=True)
    k = result.attrs["counted"]
    names = (f"E_{k}", f"E_{k}, centred", "kernel alignment", "kernel alignment, centred",
             f"E_{k} above the resolution")  # fmt: skip
    return {name: own.sel(measure=each, drop=True)
            for name, each in zip(names, UNTRAINED, strict=True)}  # fmt: skip


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what the tangent kernel says of "will it train" about one untrained model.

    Higher is better.

    Args:
        network: any module; it is left as it was.
        images: (n, *shape), of which at most 100 are read.
        labels: (n,), whole numbers.
        seed: of the choice of images and the model's random numbers.

    Returns:
        the scores of `FORETELLS`, NaN where the model overflows, has no output for a class, or all
        images are of one. `alignment above the resolution`: the share of the centred classes in the
        first ten eigenvectors of the centred kernel, above a floor of n λ/N, λ = 0.001, N the
        numbers in an image, in units of the kernel's mean diagonal. The kernel is that of three
        outputs: before training all are alike.
    """
    order = torch.randperm(len(labels), generator=random_numbers("foretell, kernel", seed))[:READ]
    chosen = labels.cpu()[order]
    classes = chosen.unique()
    if len(classes) < 2:
        return dict.fromkeys(FORETELLS, math.nan)
    read = images[order.to(images.device)]
    gram = trace_gram(network, read, classes[:OUTPUTS].tolist(), seed=seed)
    if gram is None:
        return dict.fromkeys(FORETELLS, math.nan)
    kernel = gram.cpu().numpy()
    floor = float(np.trace(kernel)) * Settings.resolution / read[0].numel()
    found = energy_above(centred(kernel), _one_hot(chosen), Settings.k, max(floor, 1e-300))
    return dict.fromkeys(FORETELLS, found)


# --- measuring


def _standard(targets: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Both as columns, in units in which the first have mean 0 and variance 1."""
    centre = targets.float().mean()
    size = (targets - centre).square().mean().sqrt()
    return (targets - centre)[:, None] / size, (others - centre)[:, None] / size


def _one_hot(labels: Tensor) -> Array:
    """(n, classes) less the mean."""
    found = (labels[:, None] == labels.unique()).double().numpy()
    return found - found.mean(0)


def _photograph(settings: Settings) -> Task:
    """The grey value at a grid of points of the unit square, row by row; unseen are those between.

    Coordinates are centred, from −1 to 1, because a common mean of the inputs makes λ₁ larger and
    all rates smaller.
    """
    picture = read_photograph(settings.photograph, side=max(PHOTOGRAPH, settings.side)).mean(0)

    def points(begin: float) -> tuple[Tensor, Tensor]:
        places = (torch.arange(settings.side) + begin) / settings.side
        rows = (places * len(picture)).long()
        down, right = torch.meshgrid(2 * places - 1, 2 * places - 1, indexing="ij")
        return torch.stack([right.flatten(), down.flatten()], 1), picture[rows][:, rows].flatten()

    (inputs, grey), (unseen, others) = points(0.5), points(0.0)
    targets, truth = _standard(grey, others)
    return Task(inputs, targets, unseen, truth)


def _parity(settings: Settings, data: Dataset, seed: int) -> Task:
    """Whether the class is odd, of images that are drawn anew for every network."""
    labels = data.labels("train")[: settings.train_images]
    order = torch.randperm(len(labels), generator=random_numbers("images of parity", seed))
    order = order[: settings.parity_images].sort().values
    odd, others = labels[order] % 2, data.labels("test")[: settings.test_images] % 2
    if len(odd.unique()) < 2:
        raise ValueError(
            f"parity needs images of odd and of even classes; the {len(odd)} of {data.name} are "
            "all of one kind: take more parity_images, or another data set"
        )
    targets, truth = _standard(odd.float(), others.float())
    return Task(data.floats("train")[order], targets, data.floats("test")[: len(truth)], truth)


def _network(settings: Settings, task: str, inputs: Tensor, seed: int) -> nn.Sequential:
    """Layers of equal width and one linear output."""
    photograph = task == TASKS[0]
    depth, width, sigma_w2 = (
        (settings.photograph_depth, settings.photograph_width, settings.photograph_sigma_w2)
        if photograph
        else (settings.depth, settings.width, settings.sigma_w2)
    )
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
        for number in range(depth):
            layers.append(nn.Linear(width if number else inputs[0].numel(), width))
            layers.append(nn.LeakyReLU(LEAK) if photograph else nn.Tanh())
        network = nn.Sequential(*layers, nn.Linear(width, 1))
    initialise(network, sigma_w2=sigma_w2, sigma_b2=settings.sigma_b2, seed=seed)
    return network


def _clock(settings: Settings, way: str) -> list[float]:
    """Σ η over the steps until every look, in units of n/λ₁ of the untrained network."""
    late = settings.drops_at if way != WAYS[2] else 0
    return [settings.relative_rate * (min(step, late) + max(step - late, 0) / settings.drop)
            for step in settings.looks()]  # fmt: skip


Run = list[dict[str, Any]]  # what is seen, by step


def _learnt(
    settings: Settings, task: Task, place: Sequence[int], seed: int, counts: Sequence[int]
) -> Run:
    """What the looks at one training see; fewer if it diverged."""
    way, count = WAYS[place[1]], len(task.targets)
    if way == "shuffled":
        order = torch.randperm(count, generator=random_numbers("shuffled targets", seed))
        task = task._replace(targets=task.targets[order])
    network = _network(settings, TASKS[place[0]], task.inputs, seed)
    largest = float(spectrum(tangent_kernel(network, task.inputs))[0][0])
    rate = settings.relative_rate * count / largest
    rate /= settings.drop if way == "small rate" else 1.0
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    drop = torch.optim.lr_scheduler.MultiStepLR(optimiser, [settings.drops_at], 1 / settings.drop)
    found: Run = []

    def observe(step: int, network: nn.Module) -> None:
        seen = _seen(network, task, settings.k, counts)
        if not seen:
            raise StopTraining
        found.append({"rate": rate, **seen})

    train(network, itertools.repeat((task.inputs, task.targets)), optimiser=optimiser,
          steps=settings.steps, schedule=None if way == "small rate" else drop, rule=squared_error,
          observers=[at(settings.looks(), observe)])  # fmt: skip
    return found


@torch.no_grad()
def _seen(network: nn.Module, task: Task, k: int, counts: Sequence[int]) -> dict[str, Any]:
    """What the kernel of a network as it is says of the target; nothing once it has overflowed."""
    target = task.targets[:, 0].double().numpy()
    beside = (network(task.unseen) - task.truth).double().square().mean()
    output = network(task.inputs)[:, 0].double().numpy()
    kernel = tangent_kernel(network, task.inputs)
    if not np.isfinite(kernel).all() or not np.isfinite(output).all():
        return {}
    values, vectors = spectrum(kernel)
    signals = (target, output - output.mean(), target - output)
    own = float(target @ kernel @ target / (target @ target))
    shown = vectors[:, :PICTURES] * np.where(target @ vectors[:, :PICTURES] < 0, -1, 1)
    return {
        "energy": [energy(vectors, signal, counts) for signal in signals],
        "eigenvalues": values[:LEADING],
        "alignment": [alignment(kernel, target), alignment(centred(kernel), target), own],
        "error": [float(np.square(target - output).mean()), float(beside)],
        "pictures": [*shown.T, vectors[:, :k] @ (vectors[:, :k].T @ target), output],
    }


def _gathered(runs: dict[tuple[int, ...], Run], shape: tuple[int, ...], name: str) -> Array:
    """One number or array of all runs, (task, way, network, step, …); NaN after one diverged."""
    found = np.full((*shape, *np.shape(runs[0, 0, 0][0][name])), math.nan)
    for place, run in runs.items():
        found[place][: len(run)] = [seen[name] for seen in run]
    return found


def _pictures(settings: Settings, task: Task, run: Run) -> dict[str, Any]:
    """The first eigenvectors on the unit square, the target within the first k, and the output,
    before and after the training."""
    side, names = settings.side, [*(f"v{n + 1}" for n in range(PICTURES)), "span", "output"]
    rows = np.array([seen["pictures"] for seen in (run[0], run[-1])], np.float32)
    target = task.targets.numpy().reshape(side, side)
    dims, one = ("moment", "picture", "row", "column"), {"units": "1"}
    return {
        "pictures": (dims, rows.reshape(2, len(names), side, side), one),
        "photograph": (dims[2:], target, one),
        "moment": (("moment",), ["start", "end"], one),
        "picture": (("picture",), names, one),
    }


def _untrained(settings: Settings, data: Dataset) -> dict[str, Any]:
    """The measures of `UNTRAINED` of tangent kernels of infinite width."""
    images, labels = data.examples("train", settings.untrained_images)
    targets = _one_hot(labels), _one_hot(labels % 2)
    pixels = images.flatten(1).double().numpy()
    floor = len(pixels) * settings.resolution / pixels.shape[1]
    found = np.zeros((len(UNTRAINED), 2, len(settings.variances), settings.untrained_depth))
    for row, sigma_w2 in enumerate(settings.variances):
        levels = mlp_kernels(pixels, depth=settings.untrained_depth, sigma_w2=sigma_w2,
                             sigma_b2=settings.sigma_b2)  # fmt: skip
        for column, level in enumerate(itertools.islice(levels, 1, None)):
            assert level.ntk is not None
            found[:, :, row, column] = _said(level.ntk, targets, settings.k, floor)
    return {"untrained": (("measure", "target", "sigma_w2", "depth"), found, {"units": "1"})}


def _said(kernel: Array, targets: Sequence[Array], k: int, floor: float) -> Array:
    """The measures of `UNTRAINED` by target, of one kernel."""
    less = centred(kernel)
    (_, plain), (_, without) = spectrum(kernel), spectrum(less)
    rows = [
        (energy(plain, y, [k])[0], energy(without, y, [k])[0], alignment(kernel, y),
         alignment(less, y), energy_above(less, y, k, floor))
        for y in targets
    ]  # fmt: skip
    return np.transpose(rows)


# --- drawing and saying


def figure(result: xr.Dataset) -> Figure:
    """Draw the energy of targets, their alignment and the eigenvalues while networks learn, the
    first eigenvectors of the photograph, and what untrained networks say."""
    with paper_style():
        drawn = Figure(figsize=(10.5, 11.2), layout="constrained")
        parts: Any = drawn.subfigures(3, 1, height_ratios=(5.3, 3.4, 2.5))
        axes: Any = parts[0].subplots(2, 4)
        for row, task in zip(axes, TASKS, strict=True):
            here = result.sel(task=task)
            _draw_fan(row[0], here)
            _draw_course(row[1:3], here)
            _draw_eigenvalues(row[3], here)
        _draw_pictures(parts[1], result)
        _draw_untrained(parts[2].subplots(1, 3), result)
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    k, at_edge = result.attrs["counted"], edge(result)
    said = []
    for task in TASKS:
        start, end = _ends(result, task, "true", k)
        reached = at_edge.sel(task=task, way="true", step=result.attrs["drops_at"])
        said.append(f"{task} {start} → {end}, λ₁η/n {_spelt(reached)} before the rate drops")
    true, shuffled = (_gain(result, "parity", way) for way in WAYS[:2])
    text = (
        f"**In short.** The target's energy in the kernel's first {k} eigenvectors, from the start "
        f"to the end: {'; '.join(said)}. That of parity in the first {WIDE} changes by "
        f"{true:+.2f}, with shuffled labels by {shuffled:+.2f}"
    )
    if shuffled <= true:
        return f"{text}."
    return (
        f"{text}: a kernel turns towards whatever is learnt, by heart or not, so that alignment is "
        "no sign of generalisation."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    about, k = result.attrs, result.attrs["counted"]
    count = " and ".join(f"{int(n):,}" for n in result["samples"].values)
    return "\n\n".join([
        f"**This run.** {count} samples of {about['photograph']} and of the parity of "
        f"{data_name(result)}; {result.sizes['network']} networks of each, "
        f"{about['photograph_width']} and {about['width']} wide; {int(result['step'][-1]):,} steps "
        f"of full-batch gradient descent at {about['relative_rate']:g} n/λ₁, divided by "
        f"{about['drop']:g} after {about['drops_at']:,}. Mean ± standard deviation over networks.",
        f"**Alignment**, from the start to the end. A random basis has E_{k} = "
        + " and ".join(f"{k / int(n):.3f}" for n in result["samples"].values)
        + f", E_{WIDE} = "
        + " and ".join(f"{WIDE / int(n):.3f}" for n in result["samples"].values) + ":",
        _alignment_table(result),
        _control(result),
        "**The edge.** λ₁η/n, which stability bounds by 2:",
        _edge_table(result),
        "**Untrained networks of infinite width**, by the classes of "
        f"{about['untrained_images']} images, depth 1 → {result.sizes['depth']}:",
        _untrained_table(result),
        "**Against the paper:** its regression is of another picture, with 10,000 points and about "
        "600,000 steps, so no number is compared. It says that the target's energy in the first "
        "eigenvectors rises, that the output stays in their span, and that the largest eigenvalue "
        f"stands near 2n/η and grows when the rate falls. {_verdict(result)}",
    ])  # fmt: skip


def _at(result: xr.Dataset, task: str, way: str, k: int, signal: str = "target") -> xr.DataArray:
    """E_k by network and step."""
    return result["energy"].sel(task=task, way=way, signal=signal, k=k)


def _ends(result: xr.Dataset, task: str, way: str, k: int, signal: str = "target") -> list[str]:
    both = _at(result, task, way, k, signal)
    return [_spelt(both.isel(step=step)) for step in (0, -1)]


def _gain(result: xr.Dataset, task: str, way: str) -> float:
    """By how much E of the wider span rises, mean over networks."""
    both = _at(result, task, way, WIDE).mean("network")
    return float(both[-1] - both[0])


def _spelt(values: xr.DataArray, digits: int = 2) -> str:
    """Mean ± standard deviation over networks that have not diverged."""
    each = values.values[np.isfinite(values.values)]
    if not len(each):
        return "diverged"
    spread = f" ± {each.std(ddof=1):.{digits}f}" if len(each) > 1 else ""
    return f"{each.mean():.{digits}f}{spread}"


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])


def _alignment_table(result: xr.Dataset) -> str:
    k, rows = result.attrs["counted"], []
    for task, way in itertools.product(TASKS, WAYS):
        one = result.sel(task=task, way=way)
        ends = [_ends(result, task, way, each, signal) for each, signal in
                ((k, "target"), (WIDE, "target"), (WIDE, "output"))]  # fmt: skip
        ends += [[_spelt(one["alignment"].sel(kind=kind).isel(step=step), 3) for step in (0, -1)]
                 for kind in ALIGNMENTS[:2]]  # fmt: skip
        ends += [[_spelt(one["error"].sel(on=on).isel(step=step)) for step in (0, -1)] for on in ON]
        rows.append([task, way, *(" → ".join(pair) for pair in ends)])
    head = f"task | learnt | E_{k} of the target | E_{WIDE} of the target | E_{WIDE} of the output "
    return _table(head + "| alignment | centred | squared error | on unseen samples", rows)


def _control(result: xr.Dataset) -> str:
    """What shuffled targets say of alignment."""
    gains = {way: [_gain(result, task, way) for task in TASKS] for way in WAYS[:2]}
    true, shuffled = (" and ".join(f"{gain:+.2f}" for gain in gains[way]) for way in WAYS[:2])
    errors = result["error"].sel(way="shuffled").isel(step=-1)
    left = [" and ".join(_spelt(errors.sel(on=on, task=task)) for task in TASKS) for on in ON]
    more = sum(b > a for a, b in zip(*gains.values(), strict=True))
    return (
        f"**The control.** From the start to the end E_{WIDE} of the target changes by {true} "
        f"({' and '.join(TASKS)}) with true targets, and by {shuffled} with shuffled ones, whose "
        f"error is then {left[0]} on learnt samples and {left[1]} on unseen ones, where the mean "
        f"has about 1. In {more} of {len(TASKS)} tasks targets that can only be learnt by heart "
        "gather more energy than true ones."
        + (" So alignment says that something is learnt, and not that it generalises; what knows "
           "the true target is its energy before training." if more else "")
    )  # fmt: skip


def _edge_table(result: xr.Dataset) -> str:
    found, drop = edge(result), result.attrs["drops_at"]
    rows = []
    for task, way in itertools.product(TASKS, WAYS):
        one = found.sel(task=task, way=way)
        high = one.where(one["step"] <= drop).max("step")
        last = result["eigenvalues"].sel(task=task, way=way, rank=1)
        grown = 100 * (last.isel(step=-1) / last.sel(step=drop) - 1)
        rows.append([task, way, _spelt(one.isel(step=0)), _spelt(one.sel(step=drop)),
                     _spelt(high), _spelt(one.isel(step=-1)), f"{_spelt(grown, 1)}%"])  # fmt: skip
    return _table(f"task | learnt | start | step {drop:,} | largest until then | end "
                  f"| growth of λ₁ after step {drop:,}", rows)  # fmt: skip


def _untrained_table(result: xr.Dataset) -> str:
    rows = []
    for sigma_w2 in result["sigma_w2"].values:
        one = result["untrained"].sel(target="classes", sigma_w2=sigma_w2)
        rows.append([f"{sigma_w2:g}", *(
            f"{float(one.sel(measure=name)[0]):z.3f} → {float(one.sel(measure=name)[-1]):z.3f}"
            for name in UNTRAINED
        )])  # fmt: skip
    k = result.attrs["counted"]
    return _table(f"σ_w² | E_{k} | E_{k}, centred | alignment | alignment, centred "
                  f"| E_{k} above the resolution", rows)  # fmt: skip


def _verdict(result: xr.Dataset) -> str:
    """Which of the published statements this run shows, on the photograph."""
    k, drop = result.attrs["counted"], result.attrs["drops_at"]
    rise = _at(result, TASKS[0], "true", k).mean("network")
    span = float(_at(result, TASKS[0], "true", WIDE, "output").mean("network").min())
    one = edge(result).sel(task=TASKS[0], way="true", step=drop)
    top = result["eigenvalues"].sel(task=TASKS[0], way="true", rank=1).mean("network")
    near = abs(float(one.mean()) - 2) < 0.2
    return (
        f"Here, on the photograph, E_{k} {'rises' if rise[-1] > rise[0] else 'does not rise'}; the "
        f"first {WIDE} eigenvectors hold at least {span:.2f} of the output; λ₁η/n "
        f"{'stands within 0.2 of' if near else 'is not within 0.2 of'} 2 before the drop; and λ₁ "
        f"{'grows' if top[-1] > top.sel(step=drop) else 'does not grow'} after it."
    )


def _draw_fan(axis: Any, here: xr.Dataset) -> None:
    """E_k of the target over k, from the start to the end, and that of a random basis."""
    n = int(here["samples"])
    counts = here["k"].values[here["k"].values <= n]
    shown = sorted({0, 100, 1000, int(here["step"][-1])} & set(here["step"].values.tolist()))
    for way, style in zip(WAYS[:2], ("-", "--"), strict=True):
        curves = here["energy"].sel(way=way, signal="target", k=counts).mean("network")
        for step, shade in zip(shown, np.linspace(0.25, 1.0, len(shown)), strict=True):
            axis.plot(counts, curves.sel(step=step), style, color=COLOURS[way], alpha=shade, lw=1.2)
        axis.plot([], [], style, color=COLOURS[way], label=way)
    axis.plot(counts, counts / n, ":", color="0.3", label="random basis")
    axis.set(xscale="log", ylim=(0, 1), xlabel="eigenvectors k", ylabel="$E_k$ of the target")
    axis.set_title(f"{str(here['task'].values).capitalize()}, {n:,} samples")
    axis.legend(loc="upper left", fontsize=6)


def _draw_course(axes: Any, here: xr.Dataset) -> None:
    """E_k of the target and of the output, alignment and error over time."""
    k, (left, right) = here.attrs["counted"], axes
    for way in WAYS:
        one, colour = here.sel(way=way), COLOURS[way]
        target, output = (one["energy"].sel(signal=signal) for signal in SIGNALS[:2])
        _line(left, one["time"], target.sel(k=k), "-", colour)
        _line(left, one["time"], target.sel(k=WIDE), "--", colour)
        _line(left, one["time"], output.sel(k=WIDE), ":", colour)
        _line(right, one["time"], one["alignment"].sel(kind="plain"), "-", colour)
        _line(right, one["time"], one["error"].sel(on=ON[0]), "--", colour)
        right.plot([], [], color=colour, label=way)
    for style, count, name in (("-", k, "target"), ("--", WIDE, "target"), (":", WIDE, "output")):
        left.plot([], [], style, color="0.4", label=f"$E_{{{count}}}$ of the {name}")
    for style, name in (("-", "alignment"), ("--", "squared error")):
        right.plot([], [], style, color="0.4", label=name)
    left.set(ylim=(0, 1.45), yticks=np.linspace(0, 1, 6), title="Energy while it learns")
    left.set_ylabel("share of the energy")
    left.legend(loc="upper left", fontsize=6)
    right.set(yscale="log", title="Alignment and error", ylabel="alignment, squared error")
    right.set_ylim(top=30 * right.get_ylim()[1])  # room for the legend
    right.legend(loc="upper left", fontsize=6, ncols=2)
    for axis in axes:
        _time_axis(axis, here)


def _line(axis: Any, time: xr.DataArray, values: xr.DataArray, style: str, colour: str) -> None:
    """Mean over networks with the standard deviation."""
    middle, spread = values.mean("network"), values.std("network")
    axis.plot(time, middle, style, color=colour)
    axis.fill_between(time, middle - spread, middle + spread, color=colour, alpha=0.15, lw=0)


def _time_axis(axis: Any, here: xr.Dataset) -> None:
    first = float(here["time"].sel(way="true")[1])
    axis.set_xscale("symlog", linthresh=first)
    axis.set(xlabel="ηt in n/λ₁ of the untrained network", xlim=(0, None))
    drop = float(here["time"].sel(way="true", step=here.attrs["drops_at"]))
    axis.axvline(drop, color="0.6", lw=0.8, ls=":")


def _draw_eigenvalues(axis: Any, here: xr.Dataset) -> None:
    """The first eigenvalues over the steps, all in units of n/η of the start of true targets."""
    unit = here["rate"].sel(way="true") / here["samples"]
    values = (here["eigenvalues"].sel(way="true") * unit).mean("network")
    for rank in (2, 3, 5, 10, 20):
        axis.plot(here["step"], values.sel(rank=rank), color="0.7", lw=0.8)
    for way in WAYS:
        _line(axis, here["step"], here["eigenvalues"].sel(way=way, rank=1) * unit, "-",
              COLOURS[way])  # fmt: skip
        axis.plot([], [], color=COLOURS[way], label=f"λ₁, {way}")
    drop, end, higher = here.attrs["drops_at"], int(here["step"][-1]), 2 * here.attrs["drop"]
    axis.plot([0, drop, drop, end], [2, 2, higher, higher], "--", color="0.2", label="2n/η")
    axis.plot([], [], color="0.7", lw=0.8, label="λ₂ … λ₂₀, true")
    axis.set(ylim=(0, max(5.0, 1.2 * higher)), xlim=(0, end), xlabel="step", title="Eigenvalues")
    axis.set_ylabel("λη/n, η at the start")
    axis.legend(loc="upper left", fontsize=6)


def _draw_pictures(part: Any, result: xr.Dataset) -> None:
    """The first eigenvectors as pictures, before and after, with the target within their span."""
    titles = {"span": f"within first {result.attrs['counted']}", "output": "output"}
    axes: Any = part.subplots(2, 1 + result.sizes["picture"])
    for row, moment in zip(axes, result["moment"].values, strict=True):
        pictures = [("target", result["photograph"])]
        for name in result["picture"].values:
            title = titles.get(name, f"$v_{name[1:]}$")
            values = result["pictures"].sel(moment=moment, picture=name)
            pictures.append((f"{title}, {moment}", values))
        for axis, (title, values) in zip(row, pictures, strict=True):
            axis.imshow(values, cmap="gray")
            axis.set_axis_off()
            axis.set_title(title, fontsize=7)


def _draw_untrained(axes: Any, result: xr.Dataset) -> None:
    """Energy, alignment and energy above the resolution of untrained networks over depth."""
    k, own = result.attrs["counted"], result["untrained"].sel(target="classes")
    shades = colormaps[SEQUENTIAL](np.linspace(0, 0.95, result.sizes["sigma_w2"]))
    shown = (UNTRAINED[1::-1], UNTRAINED[3:1:-1], UNTRAINED[4:])
    for sigma_w2, colour in zip(result["sigma_w2"].values, shades, strict=True):
        one = own.sel(sigma_w2=sigma_w2)
        for axis, names in zip(axes, shown, strict=True):
            for name, style in zip(names, ("-", "--"), strict=False):
                axis.plot(one["depth"], one.sel(measure=name), style, color=colour)
        axes[0].plot([], [], color=colour, label=f"{sigma_w2:g}")
    for style, name in (("-", "centred"), ("--", "not centred")):
        axes[1].plot([], [], style, color="0.4", label=name)
    titles = (f"Untrained, infinitely wide: $E_{{{k}}}$", "Alignment",
              f"$E_{{{k}}}$ above the resolution")  # fmt: skip
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlabel="depth", title=title, ylim=(0, 1.5 * axis.get_ylim()[1]))  # for legends
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(fontsize=6, ncols=4, loc="upper left", title=r"$\sigma_w^2$")
    axes[1].legend(fontsize=6, ncols=2, loc="upper left")
