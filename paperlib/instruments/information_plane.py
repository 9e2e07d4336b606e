"""Information plane: how many bits layers hold of the input and the label while a network learns.

Information of a layer about its input was seen to rise and then to fall, in tanh networks; the fall
was held responsible for generalisation, and then found to be one of saturation and bins. A network
without noise has no such number of its own: it is that of a resolution, which is the axis here.

Source: Shwartz-Ziv & Tishby, arXiv:1703.00810; Saxe et al., ICLR 2018, OpenReview ry_WPG-A-;
Goldfeld et al., arXiv:1810.05728; Geiger, arXiv:2003.09671; Lorenzen, Igel & Nielsen,
arXiv:2106.12912. Beside it, on untrained networks: the depth where information at noise λ is gone,
and the depth where the image is, by our cascade with the same λ.
"""

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.activations.looking import features, look
from paperlib.cascade import Cascade
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.meanfield import critical_sigma_w2, propagate
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.measures.information import (
    OUTSIDE,
    edges,
    gaussian_channel,
    information,
    mean_field_information,
    minimal_model,
    noisy,
    patterns,
    quantiles,
    ranges,
    share_outside,
    widths,
)
from paperlib.networks import activation_module, initialise, mlp
from paperlib.plots import BLUE, COLLAPSE_COLOUR, GREEN, ORANGE, PALETTE, VARIANCE, paper_style
from paperlib.plots import edges as edges_of
from paperlib.training import at, batches, train

CODE_VERSION = 1
FORETELLS = ("information",)
BITS = 12  # of an input
ESTIMATORS = (
    "fixed", "width", "range", "quantile", "noise", "noise_low", "gaussian", "float32", "exact",
)  # fmt: skip
DEAD = 0.1  # bits of the last hidden layer in float32, below which a network has died
GONE = {
    "bits": "one bit at noise λ",
    "mean_field": "by mean field",
    "read": "R², read straight",
    "added": "one bit, λ at every stage",
    "r_squared": "R², by cascade",
}
GREYED = 0.95  # of log2 N, or more than half of the inputs alone: an estimate says nothing there


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 11: of small networks that learn, and of untrained ones."""

    activations: tuple[str, ...] = option(("tanh", "relu"), choices=("tanh", "erf", "relu", "gelu"))
    hidden: tuple[int, ...] = option((10, 7, 5, 4, 3), low=1, high=1000)
    networks: int = option(5, low=1, high=100)  # seeds of each
    epochs: int = option(700, low=1)
    looks: int = option(12, low=2, high=1000)
    learning_rate: float = option(4e-3, above=0.0)  # of Adam
    weight_decay: float = option(0.0, low=0.0)
    batch_size: int = option(512, low=1)
    train_share: float = option(0.8, above=0.0, high=0.99)
    labels: str = option("rule", choices=("rule", "random"))
    init: str = option("fan-in", choices=("fan-in", "own width"))
    bins: int = option(29, low=2, high=10_000)
    width: float = option(0.07, above=0.0)
    widths: tuple[float, ...] = option((1e-3, 0.01, 0.03, 0.07, 0.15, 0.5, 1.0, 2.0), above=0.0)
    bits: int = option(8, low=1, high=16)  # that activations are rounded to inside the networks
    pairs: int = option(1024, low=2, high=2**BITS)  # inputs of the pairwise bounds
    resolution: float = option(1e-3, above=0.0)  # λ, and the variance of the noise
    variances: tuple[float, ...] = option(
        (0.4, 0.6, 0.8, 1.0, 1.1, 1.4, 1.8, 3.0), above=0.0
    )  # σ_w²
    sigma_b2: float = option(0.05, low=0.0)  # untrained
    untrained_depth: int = option(40, low=1, high=1000)
    untrained_width: int = option(300, low=1, high=10_000)
    untrained_networks: int = option(1, low=1, high=100)
    train_images: int = option(1000, low=2)  # that inverses are fitted to
    test_images: int = option(500, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)


# --- the inputs


def icosahedron() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return all inputs of 12 bits (4096, 12) and their published labels (4096,).

    The bits are the vertices of an icosahedron. An input is of class 1 where 23 for each bit that
    is set, 1 for each adjacent pair of them, −5 for each pair of second neighbours and −8 for each
    opposite pair sum to at least 99.

    Source: the data set of arXiv:1703.00810, whose labels this rule gives for every input.
    """
    golden = (1 + math.sqrt(5)) / 2
    signs = itertools.product((1, -1), (golden, -golden))
    vertices = np.array([np.roll((0, a, b), turn) for a, b in signs for turn in range(3)])
    cosines = vertices @ vertices.T / (1 + golden**2)
    weights = np.select([cosines > 0.9, cosines > 0, cosines > -0.9], [46, 1, -5], -8)
    inputs = np.arange(2**BITS)[:, None] >> np.arange(BITS) & 1
    score = np.einsum("ni,ij,nj->n", inputs, weights, inputs) // 2
    return inputs.astype(np.float32), (score >= 99).astype(np.int64)


# --- networks side by side


class _Layer(nn.Module):
    """A linear layer of each of k networks, (k, in, n) to (k, out, n): inputs last, for speed."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights)
        self.bias = nn.Parameter(torch.zeros(*weights.shape[:2], 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, self.weight, x)


class _Activation(nn.Module):
    """An activation for each block of networks."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.functions = nn.ModuleList(map(activation_module, names))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.functions))
        return torch.cat([f(part) for f, part in zip(self.functions, parts, strict=True)])


class _Rounded(nn.Module):
    """The second half of the networks rounded to 2^bits values between the least and the largest
    of all inputs; its gradient is that without rounding."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.steps = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        plain, inside = x.chunk(2)
        with torch.no_grad():
            low, high = inside.amin((1, 2), keepdim=True), inside.amax((1, 2), keepdim=True)
            step = ((high - low) / self.steps).clamp(min=torch.finfo(x.dtype).tiny)
            rounded = low + ((inside - low) / step).round() * step
        # while it learns; else exactly the rounded values, so that equal ones stay equal
        rounded = inside + (rounded - inside).detach() if self.training else rounded
        return torch.cat([plain, rounded])


class _Noisy(nn.Module):
    """A stage, and noise on what it returns."""

    def __init__(self, stage: nn.Module, variance: float) -> None:
        super().__init__()
        self.stage, self.deviation = stage, math.sqrt(variance)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stage(x)
        return out + self.deviation * torch.randn_like(out)


class Stack(nn.Module):
    """Small networks side by side, from (n, in) or (k, in, n) to logits (k, 2, n)."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        seeds = [settings.seed + number for number in range(settings.networks)]
        numbers = [random_numbers("information plane", seed) for seed in seeds]
        copies = 2 * len(settings.activations)
        self.count = copies * len(seeds)
        sizes = (BITS, *settings.hidden, 2)
        self.layers = nn.Sequential()
        for size, out in itertools.pairwise(sizes):
            fan = size if settings.init == "fan-in" else out
            weights = [_truncated(out, size, fan, generator) for generator in numbers]
            parts: list[nn.Module] = [_Layer(torch.stack(weights).repeat(copies, 1, 1))]
            if len(self.layers) < len(settings.hidden):
                parts.append(_Activation(2 * settings.activations))
            self.layers.append(nn.Sequential(*parts, _Rounded(settings.bits)))
        self.stage_names = [f"layers.{number}" for number in range(len(self.layers))]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x if x.ndim == 3 else x.T.expand(self.count, *x.T.shape))


def _truncated(out: int, size: int, fan: int, generator: torch.Generator) -> Tensor:
    deviation = 1 / math.sqrt(fan)
    empty = torch.empty(out, size)
    return nn.init.trunc_normal_(
        empty, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator
    )


# --- measuring


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return the information of networks that learn, and of untrained ones beside R².

    Args:
        settings: of both.
        data: its images go through the untrained networks; what is learnt is `icosahedron`.

    Returns:
        a Dataset along estimator, activation, network, epoch and layer, the last of which is the
        softmax; along bin_width; and along sigma_w2, untrained and level. Information is in bits.
    """
    epochs = np.unique([0, *np.geomspace(1, settings.epochs, settings.looks).round().astype(int)])
    inputs, labels = _lesson(settings)
    kept, accuracy = _learnt(settings, inputs, labels, epochs)
    found = _along_training(settings, kept, inputs, labels)
    runs = ("activation", "network", "epoch")
    every, unit, bit = ("estimator", *runs, "layer"), {"units": "1"}, {"units": "bit"}
    outside = f"share beyond [−1, 1]; bins there are refused above {OUTSIDE:g}"
    variables: dict[str, Any] = {
        "information": (every, found["information"], {**bit, "long_name": "I(X;T)"}),
        "label": (every, found["label"], {**bit, "long_name": "I(T;Y)"}),
        "alone": (every, found["alone"], {**unit, "long_name": "inputs of a symbol of their own"}),
        "resolved": ((*runs, "bin_width"), found["resolved"], bit),
        "outside": ((*runs, "layer"), found["outside"], {**unit, "long_name": outside}),
        "accuracy": (("inside", *runs, "part"), accuracy, unit),
        "entropy": ((), float(information(labels[:, None], labels)[1]), bit),
        "ones": ((), int(labels.sum()), {"units": "inputs"}),
    }
    level, per_level = _diagram(settings, data), ("sigma_w2", "untrained", "level")
    for name, values in level.items():
        dims = per_level if values.ndim == 3 else ("sigma_w2", "level")
        variables[name] = (dims, values, unit if name in ("r_squared", "read") else bit)
    coordinates = {
        "estimator": list(ESTIMATORS), "activation": list(settings.activations), "epoch": epochs,
        "network": [settings.seed + number for number in range(settings.networks)],
        "layer": np.arange(1, len(settings.hidden) + 2), "bin_width": list(settings.widths),
        "inside": [False, True], "part": ["train", "test"],
        "sigma_w2": list(settings.variances),
        "untrained": [settings.seed + number for number in range(settings.untrained_networks)],
        "level": np.arange(1, settings.untrained_depth + 1),
    }  # fmt: skip
    named = ("bins", "width", "bits", "pairs", "resolution", "labels", "sigma_b2", "test_images")
    about = {name: getattr(settings, name) for name in (*named, "untrained_width", "hidden")}
    return xr.Dataset(variables, coordinates, about)


def _lesson(settings: Settings) -> tuple[Tensor, NDArray[Any]]:
    """All inputs and their labels; random ones are the same numbers in another order."""
    inputs, labels = icosahedron()
    if settings.labels == "random":
        order = torch.randperm(len(labels), generator=random_numbers("labels", settings.seed))
        labels = labels[order.numpy()]
    return torch.from_numpy(inputs), labels


def _learnt(
    settings: Settings, inputs: Tensor, labels: NDArray[Any], epochs: NDArray[Any]
) -> tuple[list[nn.Module], NDArray[Any]]:
    """The networks after each of some epochs, and their accuracies on what is learnt and the rest,
    (inside, activation, network, epoch, part)."""
    stack, truth = Stack(settings), torch.from_numpy(labels)
    seeds = [settings.seed + number for number in range(settings.networks)]
    count = round(settings.train_share * len(labels))
    orders = [torch.randperm(len(labels), generator=random_numbers("split", s)) for s in seeds]
    split = torch.stack(orders).repeat(stack.count // len(seeds), 1)
    kept: list[nn.Module] = []
    scores: list[Tensor] = []

    def keep(step: int, network: nn.Module) -> None:
        kept.append(copy.deepcopy(network).eval())
        with torch.no_grad():
            right = (kept[-1](inputs).argmax(1) == truth).double().gather(1, split)
        scores.append(torch.stack([right[:, :count].mean(1), right[:, count:].mean(1)], -1))

    def learn(network: nn.Module, chosen: Tensor, labels: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(network(chosen), labels, reduction="none").mean(1)
        losses.sum().backward()
        return losses.detach()

    steps = max(1, count // min(settings.batch_size, count))
    lessons = (batches(count, settings.batch_size, seed) for seed in seeds)
    chosen = (split.gather(1, torch.stack(each).repeat(len(split) // len(seeds), 1))
              for each in zip(*lessons, strict=True))  # fmt: skip
    rates: Any = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    train(stack, ((inputs[each].mT, truth[each]) for each in chosen), rule=learn,
          steps=settings.epochs * steps, observers=[at((epochs * steps).tolist(), keep)],
          optimiser=torch.optim.Adam(stack.parameters(), **rates, fused=True))  # fmt: skip
    for _ in epochs[len(kept) :]:  # where no loss was finite any more
        keep(0, stack)
    by_network = torch.stack(scores, 1).numpy()
    shape = (2, len(settings.activations), len(seeds), *by_network.shape[1:])
    return kept, by_network.reshape(shape)


def _seen(network: nn.Module, inputs: Tensor) -> list[NDArray[Any]]:
    """What each layer makes of all inputs, (k, n, neurons); of the last one the softmax. What has
    diverged is 0 everywhere."""
    values = [each.transpose(0, 1) for _, each in look(network, inputs, batch_size=len(inputs))]
    values = [*values[:-1], values[-1].softmax(-1)]
    return [each.contiguous().nan_to_num(0, 0, 0).numpy() for each in values]


def _along_training(
    settings: Settings, kept: list[nn.Module], inputs: Tensor, labels: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """What estimators say of every network, epoch and layer."""
    kinds, seeds, layers = len(settings.activations), settings.networks, len(settings.hidden) + 1
    one = (kinds, seeds, len(kept), layers)
    found = {name: np.full((len(ESTIMATORS), *one), np.nan)
             for name in ("information", "label", "alone")}  # fmt: skip
    found["outside"] = np.zeros(one)
    found["resolved"] = np.zeros((*one[:-1], len(settings.widths)))
    least, most = np.full((2, kinds * seeds, 1, 1), np.inf)
    most = -most
    for number, network in enumerate(kept):  # first the range of all layers and epochs
        for layer, values in enumerate(_seen(network, inputs)):
            plain = values[: kinds * seeds]
            least = np.minimum(least, plain.min((1, 2), keepdims=True))
            most = np.maximum(most, plain.max((1, 2), keepdims=True))
            for which, part in enumerate(np.split(plain, kinds)):
                found["outside"][which, :, number, layer] = share_outside(part, np.array([-1, 1]))
    fits = found["outside"].max((1, 2, 3)) <= OUTSIDE
    for number, network in enumerate(kept):
        for layer, values in enumerate(_seen(network, inputs)):
            rows = _estimates(settings, values, labels, (least, most), fits)
            for estimator, row in rows.items():
                which = ESTIMATORS.index(estimator)
                for name, each in zip(("information", "label", "alone"), row, strict=False):
                    found[name][which, ..., number, layer] = each.reshape(kinds, seeds)
            if layer == layers - 2:
                for which, width in enumerate(settings.widths):
                    bits, _, _ = information(widths(values[: kinds * seeds], width), labels)
                    found["resolved"][..., number, which] = bits.reshape(kinds, seeds)
    return found


def _estimates(
    settings: Settings, values: NDArray[Any], labels: NDArray[Any], limits: Any, fits: Any
) -> dict[str, tuple[NDArray[Any], ...]]:
    """I(X;T), I(T;Y) and the share of inputs alone by each estimator, of networks (k, …)."""
    plain, inside = np.split(values, 2)
    truth = torch.from_numpy(labels)
    fixed = [
        information(edges(part, np.linspace(-1, 1, settings.bins + 1)), labels) if fit
        else np.full((3, settings.networks), np.nan)
        for part, fit in zip(np.split(plain, len(fits)), fits, strict=True)
    ]  # fmt: skip
    chosen = torch.randperm(len(labels), generator=random_numbers("pairs", settings.seed))
    chosen = chosen[: settings.pairs]
    few = torch.from_numpy(plain)[:, chosen]
    lower, upper, label = noisy(few, truth[chosen], settings.resolution)
    gaussian = gaussian_channel(torch.from_numpy(plain), settings.resolution)
    return {
        "fixed": tuple(np.concatenate(rows) for rows in zip(*fixed, strict=True)),
        "width": information(widths(plain, settings.width), labels),
        "range": information(ranges(plain, settings.bins, *limits), labels),
        "quantile": information(quantiles(plain, settings.bins), labels),
        "noise": (np.minimum(upper, gaussian), label),
        "noise_low": (lower,),
        "gaussian": (gaussian,),
        "float32": information(patterns(plain), labels),
        "exact": information(patterns(inside), labels),
    }


def _diagram(settings: Settings, data: Dataset) -> dict[str, NDArray[Any]]:
    """Untrained networks by σ_w², network and level: bits at noise λ on the level, by mean field
    too, or on every stage before it as well (`added`), and R² as one regression straight from the
    level and as a cascade, which has one at every stage, read it, with the same λ."""
    fitted = data.floats("train", limit=settings.train_images)
    test = data.floats("test", limit=settings.test_images)
    square, signal = float(test.square().mean()), float(test.double().var(0).mean())
    sizes: Any = {"depth": settings.untrained_depth, "width": settings.untrained_width}
    shape = (len(settings.variances), settings.untrained_networks, settings.untrained_depth)
    names = ("bits", "added", "channel", "r_squared", "read")
    found = {name: np.zeros(shape) for name in names}
    found["mean_field"] = np.zeros(shape[::2])
    for row, sigma_w2 in enumerate(settings.variances):
        given: Any = {"sigma_w2": sigma_w2, "sigma_b2": settings.sigma_b2}
        _, signals = propagate(**given, depth=shape[-1], mean_square=square, signal=signal)
        apart = 2 * settings.untrained_width * signals[1:]
        found["mean_field"][row] = mean_field_information(apart, len(test), settings.resolution)
        for number in range(settings.untrained_networks):
            with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
                network = mlp((1, *data.image_shape[1:]), **sizes)
            initialise(network, **given, seed=settings.seed + number)
            for name, values in _down(settings, network, fitted, test).items():
                found[name][row, number] = values
            found["added"][row, number] = added_information(
                network, test, settings.resolution, seed=settings.seed + number
            )
    return found


def _down(settings: Settings, network: Any, fitted: Tensor, test: Tensor) -> dict[str, list[float]]:
    """The numbers of `_diagram` at each level of one network."""
    mean, noise = fitted.mean(0), settings.resolution
    cascade = Cascade.for_network(network, fitted[:1]).fit(fitted, resolution=noise)
    kept = r_squared(test, cascade.reconstruct(test), mean=mean).tolist()
    found: dict[str, list[float]] = {"bits": [], "channel": [], "read": [], "r_squared": kept}
    nobody = torch.zeros(len(test), dtype=torch.int64)  # no labels are compared
    targets = (fitted - mean).flatten(1)
    levels = (look(network, images, batch_size=500) for images in (fitted, test))
    for (_, learnt), (_, values) in zip(*levels, strict=True):
        found["bits"].append(float(noisy(values, nobody, noise)[1]))
        found["channel"].append(float(gaussian_channel(values, noise)))
        centre = learnt.mean(0)
        inside = learnt - centre
        spread = inside.T @ inside / len(inside) + noise * torch.eye(inside.shape[1])
        gain = torch.linalg.solve(spread, inside.T @ targets / len(inside))
        back = ((values - centre) @ gain).view_as(test) + mean
        found["read"].append(float(r_squared(test, back, mean=mean)))
    return found


def added_information(network: Any, images: Tensor, noise: float, *, seed: int) -> list[float]:
    """Return the bits that each level of a network holds of images where every stage adds noise.

    The network of arXiv:1810.05728. Its noise reaches a level through the stages between, and is
    taken as Gaussian there, of the variance that it has; other than that, as `noisy`.

    Args:
        network: with stages; it stays as it was.
        images: (n, *image_shape).
        noise: variance that each stage adds.
        seed: of the noise.
    """
    disturbed = copy.deepcopy(network)
    disturbed.stages = nn.Sequential(*(_Noisy(stage, noise) for stage in disturbed.stages))
    nobody = torch.zeros(len(images), dtype=torch.int64)  # no labels are compared
    pairs = zip(features(network, images), features(disturbed, images, seed=seed), strict=True)
    spread = ((clean, float((there - clean).double().square().mean())) for clean, there in pairs)
    return [float(noisy(clean, nobody, variance)[1]) for clean, variance in spread]


def falls(result: xr.Dataset) -> xr.DataArray:
    """Return by how much the information of each network's layers ends below its largest value, in
    bits, (estimator, activation, network, layer)."""
    values = result["information"]
    return values.max("epoch", skipna=False) - values.isel(epoch=-1)


def dead(result: xr.Dataset) -> xr.DataArray:
    """Return which networks (activation, network) have died: their last hidden layer ends with
    next to no bits even in float32. A mean over dead and living ones looks like compression."""
    last = result["information"].sel(estimator="float32").isel(epoch=-1, layer=-2)
    return last.drop_vars(["estimator", "epoch", "layer"]) < DEAD


def violations(result: xr.Dataset) -> xr.DataArray:
    """Return how often a layer holds more than the layer before it, (estimator, activation), which
    no information of a network can."""
    return (result["information"].diff("layer") > 1e-9).sum(["network", "epoch", "layer"])


def depths(result: xr.Dataset) -> xr.Dataset:
    """Return the first depths (sigma_w2, untrained) from which less than one bit is left at noise
    λ, in networks (`bits`), by mean field, and with that noise at every stage (`added`); and from
    which the image is lost, to a regression straight from the level (`read`) and to a cascade
    (`r_squared`). One more than the depth of the networks where it never is; `added` is missing
    where it was not measured yet."""

    def first(name: str) -> xr.DataArray:
        least = LOST if name in ("read", "r_squared") else 1.0
        return xr.apply_ufunc(lambda curve: collapse_depth(curve, threshold=least), result[name],
                              input_core_dims=[["level"]], vectorize=True)  # fmt: skip

    return xr.Dataset({name: first(name) for name in GONE if name in result})


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what untrained networks say of "will it train", (sigma_w2, untrained): the first depth
    from which less than one bit is left at noise λ. It sees the ordered side only: in chaos every
    bit is left, and nobody can read them."""
    return {"information": depths(result)["bits"].astype(float)}


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what bits say of "will it train" about one untrained model; higher is better.

    Args:
        network: any module; it is left as it was.
        images: (n, *shape).
        labels: (n,), not read.
        seed: of the model's random numbers.

    Returns:
        the scores of `FORETELLS`, NaN where the model overflows. `information`: the least that a
        stage holds of the image through noise of variance λ = 0.001, in bits, log2 n at most.
    """
    seen = features(network, images, seed=seed)
    if not all(values.isfinite().all() for values in seen):
        return dict.fromkeys(FORETELLS, math.nan)
    nobody = torch.zeros(len(images), dtype=torch.int64)  # no labels are compared
    noise = Settings.resolution
    return {"information": min(float(noisy(v.cpu(), nobody, noise)[1]) for v in seen)}


# --- drawing and saying

COLUMNS = ("fixed", "width", "noise", "exact", "float32")


def figure(result: xr.Dataset) -> Figure:
    """Draw the solved model, the plane, information along training, resolution, and depth."""
    kinds = result["activation"].values
    with paper_style():
        drawn = Figure(figsize=(10.5, 8.6 + 1.8 * len(kinds)), layout="constrained")
        heights = (2.9, 1.8 * len(kinds) + 0.3, 2.5, 2.7)
        parts: Any = drawn.subfigures(4, 1, height_ratios=heights)
        plane, along, resolved, deep = parts
        solved, *planes = plane.subplots(1, 1 + len(kinds))
        _draw_solved(solved)
        axes = along.subplots(len(kinds), len(COLUMNS), sharex=True, sharey=True, squeeze=False)
        maps = np.atleast_1d(resolved.subplots(1, len(kinds), sharey=True))
        for number, kind in enumerate(kinds):
            one = result.sel(activation=kind).assign_attrs(gone=dead(result).sel(activation=kind))
            _draw_plane(planes[number], one, str(kind))
            for axis, estimator in zip(axes[number], COLUMNS, strict=True):
                _draw_along(axis, one, estimator)
            axes[number, 0].set_ylabel(f"{kind}: I(X;T), bits")
            _draw_resolved(maps[number], one, str(kind))
        maps[0].set_ylabel("width of bins")
        for axis, estimator in zip(axes[0], COLUMNS, strict=True):
            axis.set_title(_name(result, estimator))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        along.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        _draw_depth(deep, result)
    return drawn


def _name(result: xr.Dataset, estimator: str) -> str:
    about = result.attrs
    return {
        "fixed": f"{about['bins']} bins in [−1, 1]",
        "width": f"bins of {about['width']:g}",
        "range": f"{about['bins']} bins of the range",
        "quantile": f"{about['bins']} quantiles",
        "noise": f"noise {about['resolution']:g}, upper",
        "noise_low": f"noise {about['resolution']:g}, lower",
        "gaussian": "Gaussian channel",
        "float32": "float32",
        "exact": f"exact, {about['bits']} bits",
    }[estimator]


def _draw_solved(axis: Any) -> None:
    weights = np.geomspace(0.1, 100, 61)
    curves = [minimal_model(weight) for weight in weights]
    for name, colour in zip(curves[0], PALETTE, strict=False):
        axis.plot(weights, [curve[name] for curve in curves], color=colour, label=name)
    axis.set(xscale="log", ylim=(0, 12), xlabel="weight w", ylabel="I(X;T), bits")
    axis.set_title("One unit f(w x), solved")
    axis.legend()


def _draw_plane(axis: Any, one: xr.Dataset, kind: str) -> None:
    """One network's layers and epochs; the last hidden layer of the others as thin lines."""
    estimator = "width" if one["information"].sel(estimator="fixed").isnull().any() else "fixed"
    seen = one[["information", "label"]].sel(estimator=estimator)
    living = np.flatnonzero(~one.attrs["gone"].values)
    for number in living[1:]:
        other = seen.isel(network=number, layer=-2)
        axis.plot(other["information"], other["label"], color="0.6", lw=0.6)
    shown = seen.isel(network=living[0] if len(living) else 0).transpose("epoch", "layer")
    for x, y in zip(shown["information"].values, shown["label"].values, strict=True):
        axis.plot(x, y, color="0.85", lw=0.6, zorder=1)
    steps = np.broadcast_to(one["epoch"].values[:, None] + 1, shown["label"].shape)
    points = axis.scatter(shown["information"], shown["label"], c=steps, s=10, cmap="plasma",
                          norm="log", zorder=2)  # fmt: skip
    axis.figure.colorbar(points, ax=axis, label="epoch + 1", pad=0.02)
    axis.set(xlim=(0, BITS + 0.3), ylim=(0, 1.04), xlabel="I(X;T), bits", ylabel="I(T;Y), bits")
    axis.set_title(f"{kind}, {_name(one, estimator)}")


def _draw_along(axis: Any, one: xr.Dataset, estimator: str) -> None:
    """I(X;T) of every network, a thin line each, dead ones dotted. An estimate says nothing, and is
    grey, near its ceiling or where most inputs have a symbol of their own."""
    values = one["information"].sel(estimator=estimator)
    layers = values["layer"].values
    ceiling = math.log2(one.attrs["pairs"]) if estimator == "noise" else BITS
    axis.axhspan(GREYED * ceiling, BITS + 0.5, color="0.92", lw=0)
    axis.axhline(ceiling, color="0.6", lw=0.8)
    axis.set(xscale="log", ylim=(0, BITS + 0.5))
    if values.isnull().all():
        share = float(one["outside"].max())
        axis.text(0.5, 0.5, f"refused: up to {share:.0%}\nof a layer outside", ha="center",
                  transform=axis.transAxes)  # fmt: skip
    told = (values <= GREYED * ceiling) & ~(one["alone"].sel(estimator=estimator) > 0.5)
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(layers)))
    for layer, colour in zip(layers, colours, strict=True):
        name = "output" if layer == layers[-1] else f"layer {layer}"
        axis.plot([], [], color=colour, label=name)
        for number, gone in enumerate(one.attrs["gone"].values):
            line = {"network": number, "layer": int(layer) - 1}
            for shown, tint in ((values, "0.7"), (values.where(told), colour)):
                axis.plot(one["epoch"] + 1, shown.isel(line), color=tint, lw=0.7,
                          ls=":" if gone else "-")  # fmt: skip


def _draw_resolved(axis: Any, one: xr.Dataset, kind: str) -> None:
    living = one["resolved"].where(~one.attrs["gone"]).mean("network")
    order = np.argsort(living["bin_width"].values)
    values = living.isel(bin_width=order).transpose("bin_width", "epoch")
    mesh = axis.pcolormesh(values.values, cmap="viridis", vmin=0, vmax=BITS)
    epochs, sizes = values["epoch"].values, values["bin_width"].values
    axis.set_xticks(np.arange(len(epochs))[::3] + 0.5, epochs[::3])
    axis.set_yticks(np.arange(len(sizes)) + 0.5, [f"{size:g}" for size in sizes])
    axis.set(xlabel="epoch", title=f"{kind}: the last hidden layer, by width of bins")
    axis.figure.colorbar(mesh, ax=axis, label="I(X;T), bits", pad=0.01)


def _draw_depth(place: Any, result: xr.Dataset) -> None:
    kept, bits, both = place.subplots(1, 3, sharey=True)
    variances, level = result["sigma_w2"].values, result["level"].values
    ceiling = math.log2(result.attrs["test_images"])
    panels = ((kept, "read", 1.0, "R², read straight"), (bits, "bits", ceiling, "bits at noise λ"))
    for axis, name, top, title in panels:
        values = result[name].mean("untrained").transpose("level", "sigma_w2")
        mesh = axis.pcolormesh(edges_of(variances), np.append(level, level[-1] + 1) - 0.5,
                               values, vmin=0, vmax=top, cmap="viridis")  # fmt: skip
        axis.figure.colorbar(mesh, ax=axis, pad=0.02)
        axis.set(xlabel=VARIANCE, title=title)
    found, last = depths(result), level[-1]
    colours = dict(zip(GONE, (BLUE, "0.3", GREEN, ORANGE, COLLAPSE_COLOUR), strict=True))
    for name in map(str, found):
        label, colour = GONE[name], colours[name]
        curves = found[name].transpose(..., "sigma_w2").values.reshape(-1, len(variances))
        for number, curve in enumerate(np.where(curves <= last, curves, np.nan)):
            both.plot(variances, curve, "--" if name == "mean_field" else "o-", color=colour,
                      lw=0.8, ms=3, label="" if number else label)  # fmt: skip
    both.axvline(critical_sigma_w2(result.attrs["sigma_b2"]), color="0.6", lw=0.8)
    both.set(xlabel=VARIANCE, title="Depth where it is gone", ylim=(0.5, last + 0.5))
    both.set_xlim(kept.get_xlim())
    both.legend()
    kept.set_ylabel("depth, untrained tanh")


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    said = "; ".join(
        f"{kind} {' → '.join(f'{bits:.1f}' for bits in _path(result, str(kind), 'width'))}"
        for kind in result["activation"].values
    )
    found, last = depths(result), result.sizes["level"]
    right = found["sigma_w2"] > critical_sigma_w2(result.attrs["sigma_b2"])
    never = int((found["bits"] > last).all("untrained").sel(sigma_w2=right).sum())
    return (
        f"**In short.** In {_name(result, 'width')}, bits of the last hidden layer at the start, "
        f"at most and at the end, mean over living networks: {said}. In untrained networks left of "
        "criticality, the depth where less than one bit is left at noise λ differs by at most "
        f"{_apart(result, 'bits', 'read')} from the depth where a regression reads no image any "
        f"more, and by {_apart(result, 'bits', 'r_squared')} from that of the cascade, which adds "
        f"up its errors{_added(result)}. "
        f"At {never} of {int(right.sum())} variances right of it, bits are never lost: there the "
        "image is lost, if it is, because it cannot be read."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    weights = np.geomspace(0.1, 10, 2001)
    tanh = [minimal_model(weight)["tanh"] for weight in weights]
    end = result["accuracy"].sel(inside=False).isel(epoch=-1)
    end = end.where(~dead(result)).mean("network")
    ownest = result["information"].sel(estimator="float32").isel(layer=slice(0, 4))
    ownest = ownest.where(~dead(result)).min(["network", "epoch", "layer"])
    deaths = dead(result).sum("network")
    return "\n\n".join([
        f"**This run.** {result.sizes['network']} networks of each activation, "
        f"{int(result['epoch'][-1]):,} epochs; labels: {result.attrs['labels']}, "
        f"{int(result['ones']):,} of {2**BITS:,} are ones, {float(result['entropy']):.5f} bits. "
        "Accuracy at the end on what was learnt and on the rest: "
        + _each(lambda kind: " and ".join(f"{a:.1%}" for a in end.sel(activation=kind).values), end)
        + ". Untrained networks: images of " + data_name(result) + ".",
        "**Dead networks**, in no mean below: "
        + _each(lambda kind: int(deaths.sel(activation=kind)), end) + ".",
        f"**The solved unit:** tanh in 30 bins holds {max(tanh):.3f} bits at most, at w = "
        f"{weights[int(np.argmax(tanh))]:.2f}; bins of its own range do not see the weight.",
        "**The last hidden layer:** bits at the start, at most and at the end, then by how much "
        "each network ends below its own largest value; last, how many pairs of successive layers "
        f"gained bits, which no network can, of {_pairs(result):,}:",
        _table(result),
        "**Float32's own symbols** in layers 1 to 4 never hold less than "
        + _each(lambda kind: f"{float(ownest.sel(activation=kind)):.1f}", end)
        + f" of {BITS} bits. Silent relu units do lose inputs; saturated tanh units do not.",
        "**Depth** from which it is gone in untrained tanh networks (∞: nowhere down to "
        f"{result.sizes['level']}), critical σ_w² = "
        f"{critical_sigma_w2(result.attrs['sigma_b2']):.2f}:",
        _depth_table(result),
        "**Against the paper:** there, hidden layers of tanh networks are compressed after they "
        f"were fitted; later work finds no compression in relu networks. {_verdicts(result)}",
    ])  # fmt: skip


def _each(say: Any, result: Any) -> str:
    return ", ".join(f"{kind} {say(kind)}" for kind in result["activation"].values)


def _path(result: xr.Dataset, kind: str, estimator: str) -> tuple[float, ...]:
    """Start, largest and end of the last hidden layer's mean over living networks."""
    one = result["information"].sel(estimator=estimator).isel(layer=-2)
    mean = one.where(~dead(result)).sel(activation=kind).mean("network").values
    return float(mean[0]), float(mean.max()), float(mean[-1])


def _pairs(result: xr.Dataset) -> int:
    sizes = result.sizes
    return int(sizes["network"] * sizes["epoch"] * (sizes["layer"] - 1))


def _table(result: xr.Dataset) -> str:
    rows = [
        "| networks | resolution | bits | each falls by | layers that gained |",
        "|---" * 5 + "|",
    ]
    lost, gained = falls(result).where(~dead(result)).isel(layer=-2), violations(result)
    for kind in result["activation"].values:
        for estimator in result["estimator"].values:
            each = lost.sel(activation=kind, estimator=estimator).values
            if not np.isnan(each).all():
                path = _path(result, str(kind), str(estimator))
                cells = [
                    str(kind), _name(result, str(estimator)),
                    " → ".join(f"{bits:.1f}" for bits in path),
                    ", ".join("died" if np.isnan(fall) else f"{fall:.1f}" for fall in each),
                    str(int(gained.sel(activation=kind, estimator=estimator))),
                ]  # fmt: skip
                rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _depth_table(result: xr.Dataset) -> str:
    found, last = depths(result), result.sizes["level"]
    names = [GONE[str(name)] for name in found]
    rows = [f"| σ_w² | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for sigma_w2 in result["sigma_w2"].values:
        each = (np.ravel(found[name].sel(sigma_w2=sigma_w2)) for name in found)
        cells = [", ".join("∞" if d > last else str(int(d)) for d in row) for row in each]
        rows.append(f"| {sigma_w2:g} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _apart(result: xr.Dataset, bits: str, name: str) -> str:
    """The largest difference of a depth of one bit from another one, left of criticality."""
    found, last = depths(result).mean("untrained"), result.sizes["level"]
    both = (found[bits] <= last) & (found[name] <= last)
    left = found["sigma_w2"] < critical_sigma_w2(result.attrs["sigma_b2"])
    ratio = (found[bits] / found[name] - 1).where(both & left)
    return f"{float(abs(ratio).max()):.0%}" if ratio.notnull().any() else "nothing that was seen"


def _added(result: xr.Dataset) -> str:
    """How far the depth of one bit is from the cascade's if every stage adds noise."""
    if "added" not in result:
        return ""
    apart = _apart(result, "added", "r_squared")
    return f"; if every stage adds noise λ, as the cascade has λ at every stage, by {apart}"


def _verdicts(result: xr.Dataset) -> str:
    """Which activations rise and fall here, at the width of the bins."""
    said, lost = [], falls(result).sel(estimator="width").where(~dead(result))
    for kind in map(str, result["activation"].values):
        start, largest, end = _path(result, kind, "width")
        hidden = lost.sel(activation=kind).isel(layer=slice(0, -1))
        each = hidden.isel(layer=-1)
        said.append(
            f"{kind} rises by {largest - start:.1f} bits and falls by {largest - end:.1f}; "
            f"{int((each > 0.3).sum())} of {int(each.notnull().sum())} living networks fall by "
            f"more than 0.3 (in any hidden layer: by up to {float(hidden.max()):.1f})"
        )
    return f"Here, in {_name(result, 'width')}, the last hidden layer of {'. Of '.join(said)}."
