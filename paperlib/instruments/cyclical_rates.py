"""Loss between solutions with cyclical learning rates, and whether another rate would have trained.

Rates that rise and fall leave weights behind at the end of every cycle. As published, the loss on
the straight line between two of them has a ridge, which ordinary training does not show. Here it is
a number, the *barrier*, with seeds, beside how far the weights went and how far they jumped.

Source: Smith & Topin, arXiv:1702.04283; Smith, arXiv:1506.01186; Frankle et al., arXiv:1912.05671.
Beside it, for networks that are deep: the largest rate at which each trains, if any does, and R² of
the image in the same network before it learns.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.cascade import Cascade
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset, load_dataset
from paperlib.meanfield import critical_sigma_w2
from paperlib.measures import LOST, r_squared
from paperlib.networks import initialise, mlp, untrained
from paperlib.networks.kinds import OPTIMISERS
from paperlib.plots import BLUE, COLLAPSE_COLOUR, ORANGE, PALETTE, VARIANCE, hatch, paper_style
from paperlib.training import TrainingPoint, train_point
from paperlib.training.between import barrier, between, distance, matched, sharpness
from paperlib.training.cycles import PER_HALF, Log, learn_in_cycles
from paperlib.training.range_test import rate_range as rate_range
from paperlib.training.schedules import FINDERS, SCHEDULES, suggestions
from paperlib.training.side_by_side import State, state_of

CODE_VERSION = 1
FORETELLS = ("range-test loss", "range-test accuracy")
LEARNT = 0.4  # accuracy from which a network of the map counts as trained
STEEPEST, WIDTH = 1e-2, 0.25  # of the made-up curve that finders are tried on: rate, decades
NOISES = (0.0, 0.02, 0.1)  # in its loss
OTHERS = 2  # networks of each schedule that is only shown
SHARP = 500  # images that sharpness is of
RIDGE, RIDGES = 0.02, 0.2  # nats: a barrier up to the first is none, one from the second a ridge
KNOWN = 1000  # images on which a line of the residual network is judged
KEPT = 100  # images whose R² is taken
ASKED = 300  # images that the accuracies of the map are of
CHEAP = tuple(np.geomspace(1e-4, 3e-2, 6).tolist())  # rates of Adam that `foretell` tries
MOMENTUM, DECAY = 0.9, 1e-4  # of networks with batch norm, as published
STATISTICS = ("recomputed", "interpolated")  # of batch norm, on a line
RESIDUAL = {"cyclical": (0.02, 1.0), "constant": (0.1, 0.1)}  # its rates


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 14: of networks in cycles, and of the map of deep ones."""

    depth: int = option(3, low=1, high=100)
    width: int = option(100, low=1, high=10_000)
    lows: tuple[float, ...] = option((0.02,), above=0.0)
    highs: tuple[float, ...] = option((0.2, 0.5), above=0.0)
    shown_high: float = option(0.5, above=0.0)
    constant: float = option(0.05, above=0.0)
    half_cycle: int = option(200, low=2)
    cycles: int = option(2, low=2, high=100)
    normed_highs: tuple[float, ...] = option((0.5, 2.0), above=0.0)
    others: tuple[str, ...] = option(("triangular2", "one_cycle"), choices=SCHEDULES[1:])
    networks: int = option(2, low=2, high=100)
    batch_size: int = option(64, low=1)
    alphas: int = option(17, low=3, high=1000)
    judged: int = option(1000, low=2)
    rates: int = option(10, low=2, high=1000)
    lowest_rate: float = option(3e-3, above=0.0)
    highest_rate: float = option(3.0, above=0.0)
    range_steps: int = option(60, low=1)
    ramp_steps: int = option(100, low=18)
    draws: int = option(200, low=1, high=100_000)
    variances: tuple[float, ...] = option((0.6, 1.1, 1.75, 2.7, 4.0), above=0.0)
    depths: tuple[int, ...] = option((5, 15, 30), low=1, high=10_000)
    map_width: int = option(100, low=1, high=10_000)
    map_networks: int = option(1, low=1, high=100)
    sigma_b2: float = option(0.05, low=0.0)
    optimisers: tuple[str, ...] = option(("sgd",), choices=OPTIMISERS)
    sgd_rates: tuple[float, ...] = option((1.0, 0.3, 0.1, 0.03, 0.01), above=0.0)
    adam_rates: tuple[float, ...] = option((3e-3, 1e-3, 3e-4, 1e-4, 3e-5), above=0.0)
    map_steps: int = option(60, low=10)
    fitted: int = option(1000, low=2)
    residual_steps: int = option(0, low=0)
    residual_dataset: str = "cifar10"
    train_images: int = option(20_000, low=2)
    test_images: int = option(1000, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shown_high not in self.highs:
            raise ValueError(
                f"shown_high must be one of highs {list(self.highs)}, got {self.shown_high}"
            )


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return the loss along cycles and between their ends, and the rates at which networks train.

    Args:
        settings: of all trainings.
        data: its training images are learnt, accuracies are of its test images.

    Returns:
        a Dataset along network, in which part its variables are named after: rate and ramp (range
        test), finder, noise and draw (a made-up curve), run and look (along training), line and
        alpha (between weights), optimiser, sigma_w2 and map_depth (the map), and, if there was a
        residual network, residual_run, residual_look, residual_line and statistics.
    """
    lessons, test = (_images(settings, data, split) for split in ("train", "test"))
    parts = [
        _range_test(settings, lessons, test),
        _finders(settings),
        _cycles(settings, lessons, test),
        _normed(settings, lessons, test),
        _map(settings, data),
    ]
    if settings.residual_steps:
        parts.append(_residual(settings))
    found = xr.merge(parts, combine_attrs="no_conflicts")
    for variable in found.data_vars.values():
        variable.attrs.setdefault("units", "1")
    seeds = [settings.seed + number for number in range(settings.networks)]
    named = ("shown_high", "constant", "half_cycle", "cycles", "judged", "range_steps", "map_steps",
             "map_width", "sigma_b2", "test_images")  # fmt: skip
    about = {name: getattr(settings, name) for name in named}
    return found.assign_coords(network=seeds).assign_attrs(about, shown_low=settings.lows[0])


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what a cheap range test says of "will it train": six short trainings by Adam.

    Args:
        network: an untrained classifier of any kind; it stays as it was.
        images: (n, …), that it would learn.
        labels: (n,), numbering the classes.
        seed: of the order of the images.

    Returns:
        the scores of `FORETELLS`, NaN where no loss is finite. `range-test loss`: minus the lowest
        that any of them reaches; `range-test accuracy`: the best on the images.
    """
    found = rate_range(network, images, labels, rates=CHEAP, steps=30, orders=1, ramp=0,
                       optimiser="adam", batch_size=32, seed=seed)  # fmt: skip
    lowest = float(found["loss"].min())
    if not math.isfinite(lowest):
        return dict.fromkeys(FORETELLS, math.nan)
    accuracy = float(found["accuracy"].max())
    return {"range-test loss": -lowest, "range-test accuracy": accuracy}


# --- measuring


def _images(settings: Settings, data: Dataset, split: str) -> tuple[Tensor, Tensor]:
    limit = settings.train_images if split == "train" else settings.test_images
    return data.examples(split, limit)


def _network(settings: Settings, lessons: Any, seed: int) -> nn.Module:
    """ReLU layers and one linear layer to the classes, as He et al. initialise them."""
    classes = int(lessons[1].max()) + 1
    with torch.random.fork_rng(devices=[]):
        network = mlp(lessons[0].shape[1:], depth=settings.depth, width=settings.width,
                      activation="relu", classes=classes)  # fmt: skip
        network.head = nn.Linear(settings.width, classes)
    initialise(network, sigma_w2=2.0, sigma_b2=0.0, seed=seed)
    return network


def _seeds(settings: Settings) -> list[int]:
    return [settings.seed + number for number in range(settings.networks)]


def _range_test(settings: Settings, lessons: Any, test: Any) -> xr.Dataset:
    """The range test of each network, and what the rules suggest."""
    rates = np.geomspace(settings.lowest_rate, settings.highest_rate, settings.rates)
    each = [
        rate_range(
            _network(settings, lessons, seed), *lessons, rates=rates.tolist(), test=test,
            steps=settings.range_steps, orders=1, ramp=settings.ramp_steps,
            batch_size=settings.batch_size, seed=seed,
        ).isel(order=0).drop_vars("curve")
        for seed in _seeds(settings)
    ]  # fmt: skip
    own: Any = ["loss", "accuracy", "start", "edge", "suggestion", "ramp_loss"]
    found = xr.concat(each, "network", data_vars=own, coords="minimal", compat="override")
    names = {"loss": "range_loss", "accuracy": "range_accuracy", "start": "range_start"}
    return found.rename(names).drop_attrs(deep=False)


def _finders(settings: Settings) -> xr.Dataset:
    """What each rule suggests from a made-up curve whose steepest descent is known, by noise."""
    rates = np.geomspace(1e-8, 1, 100)
    apart = np.log10(rates / STEEPEST)
    curve = 2.3 - 1.8 / (1 + np.exp(-apart / WIDTH)) + np.exp((apart - 1.5) / 0.15)
    numbers = np.random.default_rng(settings.seed).normal(size=(settings.draws, len(rates)))
    found = [list(suggestions(rates, curve + noise * numbers).values()) for noise in NOISES]
    values = (("noise", "rule", "draw"), np.array(found), {"long_name": "learning rate"})
    return xr.Dataset({"made_up": values}, {"noise": list(NOISES), "rule": list(FINDERS)})


Pairs = list[tuple[State, State]]  # weights that a line joins, of each network


class _Run(NamedTuple):
    """A way of training, by the name that it has in results."""

    name: str
    kind: str
    low: float
    high: float


def _runs(settings: Settings) -> list[_Run]:
    """All of them, by the schedules that they have; that of no cycles is triangular and flat."""
    first, *lower = settings.lows
    cyclical = [(first, high) for high in settings.highs]
    cyclical += [(low, settings.shown_high) for low in lower]
    found = [_Run(f"{low:g} ↔ {high:g}", "triangular", low, high) for low, high in cyclical]
    flat = settings.constant
    found.append(_Run(_flat(flat), "triangular", flat, flat))
    high = settings.shown_high
    return found + [_Run(f"{kind}, {high:g}", kind, first, high) for kind in settings.others]


def _flat(rate: float) -> str:
    return f"constant {rate:g}"


def _cycles(settings: Settings, lessons: Any, test: Any) -> xr.Dataset:
    """Rates, loss and accuracy along training, and the lines between weights."""
    seeds = _seeds(settings)
    networks = [_network(settings, lessons, seed) for seed in seeds]
    logs = _logs(settings, networks, lessons, test)
    shown = _runs(settings)[settings.highs.index(settings.shown_high)]
    branches = _branches(settings, networks[0], logs[shown.name], shown, lessons, test)
    lines = _lines(settings, networks[0], logs, shown.name, branches)
    stable = [
        np.array([[2 / _sharpness_at(networks[0], end, lessons, seed)
                   for end, seed in zip(log.ends[1], seeds, strict=False)]])
        for log in logs.values()
    ]  # fmt: skip
    found = _seen(settings, logs)
    found["stable"] = (
        ("run", "network"), np.concatenate([_padded(one, len(seeds)) for one in stable]),
        {"long_name": "2 / sharpness after cycle 1"},
    )  # fmt: skip
    return found.merge(_along(settings, networks[0], lines, lessons, test))


def _logs(settings: Settings, networks: list[nn.Module], lessons: Any, test: Any) -> dict[str, Log]:
    """What was seen of the networks of every run; those of one schedule learn side by side."""
    seeds, runs = _seeds(settings), _runs(settings)
    begin = [state_of(network) for network in networks]
    logs: dict[str, Log] = {}
    for kind in dict.fromkeys(run.kind for run in runs):
        alike = [run for run in runs if run.kind == kind]
        count = OTHERS if kind in settings.others else len(seeds)
        log = learn_in_cycles(
            networks[0], begin[:count] * len(alike), lessons, test, kind=kind,
            lows=[run.low for run in alike for _ in range(count)],
            highs=[run.high for run in alike for _ in range(count)],
            orders=seeds[:count] * len(alike), cycles=settings.cycles, half=settings.half_cycle,
            batch_size=settings.batch_size,
        )  # fmt: skip
        for number, run in enumerate(alike):
            logs[run.name] = log.of(slice(number * count, (number + 1) * count))
    return logs


def _seen(settings: Settings, logs: dict[str, Log]) -> xr.Dataset:
    """Rates, losses, accuracies and ways of all runs, at every look."""
    parts = ("rates", "losses", "accuracies", "moved")
    names = ("learning_rate", "training_loss", "test_accuracy", "moved")
    stacked = {
        name: (
            ("run", "network", "look"),
            np.stack([_padded(getattr(log, part), settings.networks).T for log in logs.values()]),
        )
        for name, part in zip(names, parts, strict=True)
    }
    looks = stacked["moved"][1].shape[-1]
    apart = max(1, settings.half_cycle // PER_HALF)
    found = xr.Dataset(stacked, {"run": list(logs), "look": np.arange(looks) * apart})
    found["training_loss"].attrs["units"] = "nats"
    found["moved"].attrs["long_name"] = "way since the look before, by the length of the weights"
    return found


def _normed_network(settings: Settings, lessons: Any, seed: int) -> nn.Module:
    """The network of `_network` with batch norm before each activation."""
    plain: Any = _network(settings, lessons, seed)
    with torch.random.fork_rng(devices=[]):
        layers: list[nn.Module] = [nn.Flatten()]
        for stage in plain.stages:
            layers += [stage.linear, nn.BatchNorm1d(settings.width), nn.ReLU()]
        return nn.Sequential(*layers, plain.head)


def _normed(settings: Settings, lessons: Any, test: Any) -> xr.Dataset:
    """Two cycles of networks with batch norm and momentum, and the line between their ends."""
    seeds, low = _seeds(settings), settings.lows[0]
    runs = {f"{low:g} ↔ {high:g}": (low, high) for high in settings.normed_highs}
    runs[_flat(settings.constant)] = (settings.constant, settings.constant)
    networks = [_normed_network(settings, lessons, seed) for seed in seeds]
    log = learn_in_cycles(
        networks[0], [state_of(n) for n in networks] * len(runs), lessons, test,
        lows=[low for low, _ in runs.values() for _ in seeds],
        highs=[high for _, high in runs.values() for _ in seeds],
        orders=seeds * len(runs), cycles=2,
        half=max(1, settings.half_cycle // 2), batch_size=settings.batch_size, momentum=MOMENTUM,
        decay=DECAY,
    )  # fmt: skip
    pairs = list(zip(log.ends[1], log.ends[2], strict=True))
    few, alphas = [part[: settings.judged] for part in lessons], _alphas(settings.alphas)
    values = _both_statistics(networks[0], pairs, alphas, few)[:, :, 0]
    shape, of = (len(runs), len(seeds)), ("normed_run", "network")
    last = len(log.rates) // 2 + 1  # looks of the second cycle
    return xr.Dataset(
        {
            "normed_line": ((*of, "statistics", "alpha"), values.reshape(*shape, 2, -1),
                            {"units": "nats", "long_name": "training loss on the line"}),
            "normed_barrier": ((*of, "statistics"), barrier(alphas, values).reshape(*shape, 2),
                               {"units": "nats"}),
            "normed_distance": (of, np.reshape([distance(networks[0], *p) for p in pairs], shape)),
            "normed_jump": (of, log.moved[last:].max(0).reshape(shape)),
            "normed_accuracy": (("cycle", *of), np.reshape(
                [log.accuracies[last - 1], log.accuracies[-1]], (2, *shape))),
        },
        {"normed_run": list(runs), "statistics": list(STATISTICS), "alpha": alphas,
         "cycle": [1, 2]},
    )  # fmt: skip


def _both_statistics(
    module: nn.Module, pairs: Pairs, alphas: NDArray[Any], few: Any
) -> NDArray[np.float64]:
    """Loss and accuracy on lines, with batch norm's statistics recomputed and interpolated, (pair,
    statistics, loss or accuracy, alpha)."""
    return np.array([
        [between(module, *pair, alphas.tolist(), *few, statistics=given)
         for given in (few[0], None)] for pair in pairs
    ])  # fmt: skip


def _padded(values: NDArray[Any], count: int) -> NDArray[Any]:
    """Values (…, network) with NaN for networks that were not trained."""
    return np.pad(values, ((0, 0), (0, count - values.shape[1])), constant_values=math.nan)


def _sharpness_at(module: nn.Module, state: State, lessons: Any, seed: int) -> float:
    """The sharpness at these weights, on a few images."""
    network = copy.deepcopy(module)
    network.load_state_dict(state)
    found = sharpness(network, *(part[:SHARP] for part in lessons), seed=seed)
    return abs(found) or math.nan


def _branches(
    settings: Settings, module: nn.Module, log: Log, run: _Run, lessons: Any, test: Any
) -> list[list[State]]:
    """For each cycle of a run: the networks after it, had they seen it in another order."""
    seeds = [LARGEST_SEED - seed for seed in _seeds(settings)]
    found = []
    for begin in log.ends[:-1]:
        again = learn_in_cycles(module, begin, lessons, test, lows=[run.low] * len(seeds),
                       highs=[run.high] * len(seeds), orders=seeds, cycles=1,
                       half=settings.half_cycle, batch_size=settings.batch_size)  # fmt: skip
        found.append(again.ends[-1])
    return found


def _lines(
    settings: Settings,
    module: nn.Module,
    logs: dict[str, Log],
    shown: str,
    branches: list[list[State]],
) -> dict[str, Pairs]:
    """Which weights are joined, by a name."""
    found: dict[str, Pairs] = {}
    for name, log in logs.items():
        if name.split(",")[0] in SCHEDULES:
            continue  # only rates that come back to the same have ends to compare
        for cycle in range(1, settings.cycles):
            pairs = list(zip(log.ends[cycle], log.ends[cycle + 1], strict=True))
            found[f"{name}, ends of cycles {cycle} and {cycle + 1}"] = pairs
    firsts = logs[shown].ends[1]
    around = list(zip(firsts, firsts[1:] + firsts[:1], strict=True))
    found["other weights at the start"] = around
    found["other weights at the start, matched"] = [
        (one, matched(module, one, other)) for one, other in around
    ]
    for cycle, other in enumerate(branches):
        name = f"other order from cycle {cycle + 1} on"
        found[name] = list(zip(logs[shown].ends[cycle + 1], other, strict=True))
    return found


def _along(
    settings: Settings, module: nn.Module, lines: dict[str, Pairs], lessons: Any, test: Any
) -> xr.Dataset:
    """Loss and accuracy on every line, how high it rises between its ends, and how far they are."""
    alphas = _alphas(settings.alphas)
    few = [tuple(part[: settings.judged] for part in examples) for examples in (lessons, test)]
    values = np.array([[[between(module, *pair, alphas.tolist(), *examples) for examples in few]
                        for pair in pairs] for pairs in lines.values()])  # fmt: skip
    # (line, network, part, loss or accuracy, alpha)
    of, nats = ("line", "network", "alpha"), {"units": "nats"}
    far = [[distance(module, *pair) for pair in pairs] for pairs in lines.values()]
    return xr.Dataset(
        {
            "line_loss": (of, values[:, :, 0, 0], nats),
            "line_test_loss": (of, values[:, :, 1, 0], nats),
            "line_accuracy": (of, values[:, :, 1, 1]),
            "barrier": (of[:2], barrier(alphas, values[:, :, 0, 0]), nats),
            "barrier_error": (of[:2], barrier(alphas, 1 - values[:, :, 0, 1])),
            "distance": (of[:2], far, {"long_name": "by the length of the first weights"}),
        },
        {"line": list(lines), "alpha": alphas},
    )


def _alphas(count: int) -> NDArray[np.float64]:
    """Places from −0.5 to 1.5, those nearest to the ends moved there."""
    found = np.linspace(-0.5, 1.5, count)
    for end in (0.0, 1.0):
        found[np.abs(found - end).argmin()] = end
    return found


def _map(settings: Settings, data: Dataset) -> xr.Dataset:
    """The largest rate at which each deep network trains, and R² of the image before."""
    names = ("train_images", "train_labels")  # fewer images are made floats more quickly
    few = replace(data, **{name: getattr(data, name)[: settings.train_images] for name in names})
    axes = (settings.optimisers, settings.variances, settings.depths, range(settings.map_networks))
    rate, best = np.full((2, *map(len, axes)), np.nan)
    for place in np.ndindex(rate.shape):
        kind, sigma_w2, depth, number = (axis[i] for axis, i in zip(axes, place, strict=True))
        point = _point(settings, data, kind, sigma_w2, depth, settings.seed + number)
        rate[place], best[place] = _largest_rate(settings, point, few)
    fitted, test = data.floats("train", limit=settings.fitted), data.floats("test", limit=KEPT)
    kept = np.zeros((len(settings.variances), len(settings.depths), settings.map_networks))
    for row, sigma_w2 in enumerate(settings.variances):
        for number in range(settings.map_networks):
            point = _point(settings, data, "sgd", sigma_w2, max(settings.depths),
                           settings.seed + number)  # fmt: skip
            levels = _kept(point, data, fitted, test)
            kept[row, :, number] = [levels[depth - 1] for depth in settings.depths]
    of = ("sigma_w2", "map_depth", "map_network")
    tried = [sorted(_rates(settings, kind)) for kind in settings.optimisers]
    most = max(map(len, tried))
    padded = [row + [math.nan] * (most - len(row)) for row in tried]
    return xr.Dataset(
        {
            "tried": (("optimiser", "place"), padded, {"long_name": "learning rate"}),
            "largest_rate": (("optimiser", *of), rate, {"long_name": "NaN: none of them"}),
            "best_accuracy": (("optimiser", *of), best, {"long_name": "of the rates tried"}),
            "kept": (of, kept, {"long_name": "R² of the image, untrained"}),
        },
        {"optimiser": list(settings.optimisers), "sigma_w2": list(settings.variances),
         "map_depth": list(settings.depths),
         "map_network": [settings.seed + number for number in range(settings.map_networks)]},
    )  # fmt: skip


def _rates(settings: Settings, kind: str) -> tuple[float, ...]:
    return settings.sgd_rates if kind == "sgd" else settings.adam_rates


def _point(
    settings: Settings, data: Dataset, kind: str, sigma_w2: float, depth: int, seed: int
) -> TrainingPoint:
    """A network of the map; at one variance and seed all have the same weights, as deep as each."""
    return TrainingPoint(
        depth=depth, width=settings.map_width, sigma_w2=sigma_w2, sigma_b2=settings.sigma_b2,
        optimiser=kind, rate_exponent=0.0, steps=settings.map_steps, threshold=LEARNT,
        batch_size=settings.batch_size, train_images=settings.train_images,
        test_images=min(settings.test_images, ASKED), seed=seed,
    )  # fmt: skip


def _largest_rate(settings: Settings, point: TrainingPoint, data: Dataset) -> tuple[float, float]:
    """The largest rate at which a network trains, NaN if none does; and the best accuracy seen from
    the largest rate down to it."""
    best = 0.0
    for rate in sorted(_rates(settings, point.optimiser), reverse=True):
        reached = float(train_point(replace(point, learning_rate=rate), data=data)["accuracy"])
        best = max(best, reached)
        if reached >= LEARNT:
            return rate, best
    return math.nan, best


def _kept(point: TrainingPoint, data: Dataset, fitted: Tensor, test: Tensor) -> list[float]:
    """R² of the image at every depth of an untrained network."""
    network = untrained(point, data.image_shape, len(data.classes))
    cascade = Cascade.for_network(network, fitted[:1]).fit(fitted)
    return r_squared(test, cascade.reconstruct(test), mean=fitted.mean(0)).tolist()


# --- a residual network


class _Block(nn.Module):
    """φ(shortcut + norm, convolution, φ, norm, convolution), as wide as `out`."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        stride = 1 if size == out else 2
        self.body = nn.Sequential(
            nn.Conv2d(size, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.shortcut = nn.Identity() if size == out else nn.Conv2d(size, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.shortcut(x) + self.body(x))


def _residual_network(classes: int, seed: int) -> nn.Module:
    """A ResNet of 8 layers with batch norm, as He et al. initialise it."""
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            _Block(8, 8), _Block(8, 16), _Block(16, 32),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes),
        )  # fmt: skip
    initialise(network, sigma_w2=2.0, sigma_b2=0.0, seed=seed)
    return network


def _residual(settings: Settings) -> xr.Dataset:
    """Cycles and lines of the residual network, on images of half the side."""
    data = load_dataset(settings.residual_dataset)
    lessons, test = (
        (nn.functional.avg_pool2d(images, 2), labels)
        for images, labels in (_images(settings, data, split) for split in ("train", "test"))
    )
    network = _residual_network(len(data.classes), settings.seed)
    lows, highs = zip(*RESIDUAL.values(), strict=True)
    half = max(1, settings.residual_steps // 8)
    log = learn_in_cycles(
        network, [state_of(network)] * len(lows), lessons, test, lows=lows, highs=highs,
        orders=[settings.seed] * len(lows), cycles=4, half=half, momentum=MOMENTUM, decay=DECAY,
        batch_size=settings.batch_size,
    )  # fmt: skip
    alphas, few = _alphas(settings.alphas), [part[:KNOWN] for part in lessons]
    lines = {
        f"{name}, ends of cycles {c} and {c + 1}": (log.ends[c][row], log.ends[c + 1][row])
        for row, name in enumerate(RESIDUAL) for c in (2, 3)
    }  # fmt: skip
    values = _both_statistics(network, list(lines.values()), alphas, few)
    of, line, nats = ("residual_run", "residual_look"), "residual_line", {"units": "nats"}
    return xr.Dataset(
        {
            "residual_rate": (of, log.rates.T, {"long_name": "learning rate"}),
            "residual_loss": (of, log.losses.T, nats),
            "residual_accuracy": (of, log.accuracies.T),
            "residual_line_loss": ((line, "statistics", "alpha"), values[:, :, 0], nats),
            "residual_line_accuracy": ((line, "statistics", "alpha"), values[:, :, 1]),
            "residual_barrier": ((line, "statistics"), barrier(alphas, values[:, :, 0]), nats),
            "residual_distance": ((line,), [distance(network, *p) for p in lines.values()]),
        },
        {
            "residual_run": list(RESIDUAL), "statistics": list(STATISTICS),
            "residual_look": np.arange(len(log.rates)) * max(1, half // PER_HALF),
            line: list(lines),
        },
        {"residual_data": data.name},
    )  # fmt: skip


# --- drawing and saying


def figure(result: xr.Dataset) -> Figure:
    """Draw the range test, cycles, what lies between their ends, and the map."""
    with paper_style():
        drawn = Figure(figsize=(10.5, 6.6), layout="constrained")
        axes: Any = drawn.subplots(2, 3)
        _draw_range(axes[0, 0], result)
        _draw_training(axes[0, 1], result)
        _draw_lines(axes[0, 2], result)
        _draw_jumps(axes[1, 0], result)
        for axis, letter, place in zip(axes[1, 1:], "ef", range(2), strict=True):
            if place < result.sizes["optimiser"]:
                _draw_map(axis, letter, result.isel(optimiser=place))
            else:
                axis.set_axis_off()
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    top, flat = str(result["normed_run"].values[-2]), _flat(result.attrs["constant"])
    normed = result["normed_barrier"].sel(statistics=STATISTICS[0])
    plain = result["barrier"].sel(line=_between(_shown(result), 1))
    return (
        f"**In short.** Between the ends of two cycles of {top} the training loss of networks with "
        f"batch norm rises {_spelt(normed.sel(normed_run=top))} nats above the straight line, at "
        f"the same steps of a {flat} rate {_spelt(normed.sel(normed_run=flat))}; of networks "
        f"without it, by cycles of {_shown(result)}, {_spelt(plain)}. {another_rate(result)}"
    )


def another_rate(result: xr.Dataset) -> str:
    """Return, in one sentence, whether another rate would have trained the networks that have lost
    the image."""
    lost = (result["kept"].mean("map_network") < LOST).values
    total = int(lost.sum()) * result.sizes["map_network"]
    if not total:
        return f"No network of this map has lost the image (R² < {LOST:g}) before it learns."
    parts = []
    for kind in result["optimiser"].values:
        trains = result["largest_rate"].sel(optimiser=kind).notnull().values
        count = int(result["tried"].sel(optimiser=kind).notnull().sum())
        parts.append(f"at one of {count} rates of {NAMES[kind]} "
                     f"{_share(int(trains[lost].sum()), total)}")  # fmt: skip
    return (
        f"Of {total} networks that have lost the image (R² < {LOST:g}) before they learn, these "
        f"reach {LEARNT:.0%} accuracy within {result.attrs['map_steps']} steps: "
        f"{', '.join(parts)}."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    about = result.attrs
    return "\n\n".join([
        f"**This run.** {data_name(result)}; mean ± standard deviation over "
        f"{result.sizes['network']} networks. Losses are in nats.",
        f"**Range test**, {about['range_steps']} steps at each rate. A range test by one training "
        "at a rising rate gives each rule one number; ours has a training for every rate.",
        _range_table(result),
        f"**The rules on a made-up curve**, steepest at the rate {STEEPEST:g}, with noise in the "
        f"loss: median (and the middle nine tenths) of {result.sizes['draw']} draws.",
        _finders_table(result),
        f"**Cycles** of {2 * about['half_cycle']} steps. *Jump* is the longest way within a "
        f"{PER_HALF}th of a half cycle, in cycle 2, by the length of the weights; at the rate "
        "“stable” gradient descent would stop going down after cycle 1 (2 / sharpness).",
        _runs_table(result),
        f"**With batch norm** and momentum, two cycles of {about['half_cycle']} steps from "
        f"{about['shown_low']:g}; statistics recomputed at every α, or interpolated as published:",
        _normed_table(result),
        _edge_of_stability(result),
        "**Lines** between weights; the barrier is how far the loss on the line rises above the "
        "straight one between its ends, in training loss and in error.",
        _lines_table(result),
        f"**Would another rate have trained it?** {another_rate(result)} {_sides(result)} Cells "
        "share weights and images, so the intervals are too narrow.",
        *_map_tables(result),
        *_residual_words(result),
        "**Against the paper:** it shows a residual network of 56 layers on CIFAR10, one seed, as "
        "figures, and interpolates batch norm's statistics; none of its numbers is compared. It "
        f"sees a ridge between ends of cycles and none without cycles. {_contrast(result)}",
    ])  # fmt: skip


NAMES = {"sgd": "SGD", "adam": "Adam"}


def _shown(result: xr.Dataset) -> str:
    return f"{result.attrs['shown_low']:g} ↔ {result.attrs['shown_high']:g}"


def _between(run: str, cycle: int) -> str:
    """The name of the line between the ends of a cycle and the next one."""
    return f"{run}, ends of cycles {cycle} and {cycle + 1}"


def _spelt(values: xr.DataArray, digits: int = 2) -> str:
    """Mean ± standard deviation over networks."""
    whole, values = values.size, values.dropna("network")
    mean, spread = float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan
    if not math.isfinite(mean):
        return "not finite"
    gone = whole - values.size
    return (
        f"{mean:z.{digits}f}"
        + (f" ± {spread:.{digits}f}" if math.isfinite(spread) else "")
        + (f" ({gone} not finite)" if gone else "")
    )


def _share(count: int, total: int) -> str:
    """A share with its 95% interval, as Wilson has it."""
    from scipy.stats import binomtest

    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return f"{count} ({count / total:.0%}, 95% interval {low:.0%} to {high:.0%})"


def _table(head: str, rows: dict[str, list[str]]) -> str:
    lines = (f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])


def _middle(values: NDArray[Any]) -> str:
    """The median and the range of rates over networks; those that are unknown are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return "none"
    return f"{np.median(known):.1e} ({known.min():.1e} to {known.max():.1e})"


def _range_table(result: xr.Dataset) -> str:
    rows = {"largest rate that does not raise the loss": [_middle(result["edge"].values)]}
    for name in result["finder"].values:
        rows[f"{name} suggests"] = [_middle(result["suggestion"].sel(finder=name).values)]
    best = result["range_loss"]["rate"][result["range_loss"].argmin("rate")]
    rows["rate of the lowest loss"] = [_middle(best.values)]
    return _table("range test | median over networks (range)", rows)


def _finders_table(result: xr.Dataset) -> str:
    rows = {}
    for name in result["rule"].values:
        draws = [result["made_up"].sel(rule=name, noise=noise) for noise in result["noise"].values]
        rows[str(name)] = [
            f"{float(d.median()):.0e} ({float(d.quantile(0.05)):.0e} to "
            f"{float(d.quantile(0.95)):.0e})" for d in draws
        ]  # fmt: skip
    return _table("rule | " + " | ".join(f"noise {n:g}" for n in result["noise"].values), rows)


def _jump(result: xr.Dataset, run: str, cycle: int) -> xr.DataArray:
    """The longest way between two looks in a cycle, of each network."""
    if run.endswith(", batch norm"):
        return result["normed_jump"].sel(normed_run=run.removesuffix(", batch norm"))
    length = 2 * result.attrs["half_cycle"]
    look = result["look"]
    inside = (look > (cycle - 1) * length) & (look <= cycle * length)
    return result["moved"].sel(run=run).where(inside).max("look")


def _runs_table(result: xr.Dataset) -> str:
    ends = [2 * result.attrs["half_cycle"] * c for c in range(1, result.attrs["cycles"] + 1)]
    rows = {}
    for run in result["run"].values:
        few = str(run).split(",")[0] in SCHEDULES
        own = result.isel(network=slice(OTHERS)) if few else result
        accuracy = own["test_accuracy"].sel(run=run)
        cells = [
            ", ".join(_spelt(accuracy.sel(look=end, method="nearest"), 3) for end in ends),
            _spelt(_jump(own, run, 2)), _spelt(own["stable"].sel(run=run)),
        ]  # fmt: skip
        lines = [_between(run, cycle) for cycle in range(1, result.attrs["cycles"])]
        known = [line for line in lines if line in result["line"].values]
        cells.append(", ".join(_spelt(result["barrier"].sel(line=n), 3) for n in known) or "–")
        rows[str(run)] = cells
    head = "rates | accuracy at the end of each cycle | jump | stable | barriers between ends"
    return _table(head, rows)


def _heights(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """The barrier between the ends of cycles 1 and 2, by a name of the way of training."""
    names = [run for run in result["run"].values if _between(run, 1) in result["line"].values]
    found = {str(run): result["barrier"].sel(line=_between(run, 1)) for run in names}
    normed = result["normed_barrier"].sel(statistics=STATISTICS[0])
    return found | {f"{run}, batch norm": normed.sel(normed_run=run)
                    for run in result["normed_run"].values}  # fmt: skip


def _contrast(result: xr.Dataset) -> str:
    """Which ways of training leave a ridge, in the mean over networks, and which leave none."""
    means = {name: float(each.mean()) for name, each in _heights(result).items()}
    high = [name for name, mean in means.items() if mean >= RIDGES]
    none = [name for name, mean in means.items() if mean <= RIDGE]
    return (
        f"Here the mean barrier is at least {RIDGES:g} for: {'; '.join(high) or 'none'}; at most "
        f"{RIDGE:g} for: {'; '.join(none) or 'none'}."
    )


def _normed_table(result: xr.Dataset) -> str:
    rows = {}
    for run in result["normed_run"].values:
        one = result.sel(normed_run=run)
        rows[str(run)] = [
            ", ".join(_spelt(one["normed_accuracy"].sel(cycle=cycle), 3) for cycle in (1, 2)),
            _spelt(one["normed_jump"]), _spelt(one["normed_distance"]),
            *(_spelt(one["normed_barrier"].sel(statistics=name), 3) for name in STATISTICS),
        ]  # fmt: skip
    return _table("rates | accuracy at the end of each cycle | jump | distance / length "
                  "| barrier, recomputed | interpolated", rows)  # fmt: skip


def _edge_of_stability(result: xr.Dataset) -> str:
    """Whether tops lie below the edge of stability, and whether barriers and jumps go together."""
    from scipy.stats import spearmanr

    names = [run for run in result["run"].values if _between(run, 1) in result["line"].values]
    own = result.sel(run=names)
    known = own["stable"].notnull()
    below = known & (own["learning_rate"].max("look") < own["stable"])
    said = (
        "After cycle 1 the largest rate lies below the edge of stability in "
        f"{int(below.sum())} of {int(known.sum())} networks without batch norm that are finite."
    )
    jumps, heights = _jumps(result)
    if np.ptp(jumps) == 0 or np.ptp(heights) == 0:
        return said
    return (
        f"{said} Over all runs and networks barrier and jump correlate "
        f"{spearmanr(jumps, heights)[0]:.2f} (Spearman)."
    )


def _jumps(result: xr.Dataset) -> NDArray[Any]:
    """The jump of cycle 2 and the barrier that it leaves, of all runs with ends and networks."""
    found = np.array([
        np.concatenate([_jump(result, name, 2).values for name in _heights(result)]),
        np.concatenate([each.values for each in _heights(result).values()]),
    ])  # fmt: skip
    return found[:, np.isfinite(found).all(0)]


def _lines_table(result: xr.Dataset) -> str:
    rows = {}
    inside = result.sel(alpha=slice(0, 1))
    for line in result["line"].values:
        one = result.sel(line=line)
        lowest = inside["line_accuracy"].sel(line=line).min("alpha")
        rows[str(line)] = [
            _spelt(one["distance"]), _spelt(one["barrier"], 3), _spelt(one["barrier_error"], 3),
            _spelt(lowest, 3),
        ]  # fmt: skip
    return _table("line | distance / length | barrier: loss | error | lowest accuracy", rows)


def _sides(result: xr.Dataset) -> str:
    """How many networks train that have lost the image on each side, and that have kept it."""
    kept = result["kept"].mean("map_network")
    deep = float(critical_sigma_w2(result.attrs["sigma_b2"]))
    trains = result["largest_rate"].notnull().any("optimiser")
    parts = {
        "in the ordered phase": (kept < LOST) & (kept["sigma_w2"] < deep),
        "in the chaotic phase": (kept < LOST) & (kept["sigma_w2"] >= deep),
        "among those that keep it": kept >= LOST,
    }
    count = {
        name: (int((trains & where).sum()), int(where.sum()) * result.sizes["map_network"])
        for name, where in parts.items()
    }
    said = ", ".join(f"{one} of {total} {name}" for name, (one, total) in count.items() if total)
    return f"By any of the rates: {said}."


def _map_tables(result: xr.Dataset) -> list[str]:
    """The largest rate of each cell, the median over networks; what has lost the image is bold."""
    found = []
    kept = result["kept"].mean("map_network")
    for kind in result["optimiser"].values:
        tried = ", ".join(f"{rate:g}" for rate in result["tried"].sel(optimiser=kind).values
                          if not np.isnan(rate))  # fmt: skip
        rows = {}
        for sigma_w2 in result["sigma_w2"].values:
            cells = []
            for depth in result["map_depth"].values:
                at: Any = {"sigma_w2": sigma_w2, "map_depth": depth}
                rates = result["largest_rate"].sel(optimiser=kind).sel(at).values
                known = rates[~np.isnan(rates)]
                cell = f"{np.median(known):g}" if len(known) else "none"
                cells.append(f"**{cell}**" if float(kept.sel(at)) < LOST else cell)
            rows[f"{sigma_w2:g}"] = cells
        head = "σ_w² | " + " | ".join(f"depth {depth}" for depth in result["map_depth"].values)
        text = (f"**The largest rate of {NAMES[kind]} that trains**, of {tried}; width "
                f"{result.attrs['map_width']}. Bold: R² < {LOST:g}.")  # fmt: skip
        found += [text, _table(head, rows)]
    return found


def _residual_words(result: xr.Dataset) -> list[str]:
    """What the residual network says, if there was one."""
    if "residual_run" not in result.dims:
        return []
    rows = {}
    for line in result["residual_line"].values:
        one = result.sel(residual_line=line)
        given = [float(one["residual_barrier"].sel(statistics=s)) for s in ("recomputed",
                 "interpolated")]  # fmt: skip
        broken = int(one["residual_line_loss"].sel(statistics="interpolated").isnull().sum())
        rows[str(line)] = [f"{float(one['residual_distance']):.2f}",
                           *(f"{g:.3f}" for g in given), str(broken)]  # fmt: skip
    ends = result["residual_accuracy"].isel(residual_look=-1)
    steps = int(result["residual_look"][-1])
    said = ", ".join(f"{float(ends.sel(residual_run=n)):.3f} {n}" for n in ends.residual_run.values)
    largest = float(result["residual_barrier"].sel(statistics="recomputed").max())
    return [
        f"**A small residual network** with batch norm, {result.attrs['residual_data']} at half "
        f"the side, {steps} steps, one seed. Accuracy at the end: {said}. The largest barrier with "
        f"statistics recomputed is {largest:.3f}"
        + (": no ridge at this size." if largest < RIDGE else "."),
        _table("line | distance / length | barrier, batch norm recomputed | interpolated "
               "| of its points NaN", rows),
    ]  # fmt: skip


def _draw_range(axis: Any, result: xr.Dataset) -> None:
    rates = result["rate"]
    right = axis.twinx()
    for number in range(result.sizes["network"]):
        one = result.isel(network=number)
        axis.plot(rates, one["range_loss"], color=BLUE, lw=0.8, alpha=0.7)
        right.plot(rates, one["range_accuracy"], color=ORANGE, lw=0.8, alpha=0.7)
    axis.plot([], [], color=BLUE, label="loss")
    axis.plot([], [], color=ORANGE, label="accuracy")
    start = float(result["range_start"].mean())
    axis.set(xscale="log", ylim=(0, 1.4 * start), xlabel="learning rate", ylabel="loss (nats)")
    right.set(ylim=(0, 1.02), ylabel="accuracy")
    marks = zip(result["finder"].values, "ovs^D", strict=False)
    for height, (name, mark) in enumerate(marks):
        found = result["suggestion"].sel(finder=name)
        at = np.full(found.size, (1.35 - 0.05 * height) * start)
        axis.plot(found, at, mark, ms=4, ls="none", color=PALETTE[height], label=name)
    axis.legend(fontsize=5.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.17),
                columnspacing=1.0, handlelength=1.5)  # fmt: skip
    axis.set_title("a  Range test, by trainings of their own")


def _draw_training(axis: Any, result: xr.Dataset) -> None:
    flat = _flat(result.attrs["constant"])
    right = axis.twinx()
    for run, colour in ((_shown(result), BLUE), (flat, ORANGE)):
        loss = result["training_loss"].sel(run=run)
        for number in range(result.sizes["network"]):
            axis.plot(result["look"], loss.isel(network=number), color=colour, lw=0.6, alpha=0.6)
        axis.plot([], [], color=colour, label=run)
        accuracy = result["test_accuracy"].sel(run=run).mean("network")
        right.plot(result["look"], accuracy, ":", color=colour, lw=1.2)
    rate = result["learning_rate"].sel(run=_shown(result)).isel(network=0)
    axis.fill_between(result["look"], 1e-3, 1e-3 * 10 ** (rate / rate.max()), color="0.85", lw=0)
    axis.plot([], [], "s", color="0.85", label="rate")
    axis.plot([], [], ":", color="0.4", label="accuracy")
    axis.set(yscale="log", ylim=(1e-3, 10), xlabel="step", ylabel="training loss (nats)")
    right.set(ylim=(0.5, 1.0), ylabel="test accuracy")
    axis.legend(ncols=2, fontsize=5.5, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    axis.set_title("b  Cycles and a constant rate")


def _draw_lines(axis: Any, result: xr.Dataset) -> None:
    top = str(result["normed_run"].values[-2])
    normed = result["normed_line"].sel(normed_run=top)
    lines = {f"{top}, batch norm": normed.sel(statistics=STATISTICS[0])}
    for name in (_between(_shown(result), 1), "other weights at the start",
                 "other weights at the start, matched", "other order from cycle 1 on"):  # fmt: skip
        lines[name] = result["line_loss"].sel(line=name)
    for (name, losses), colour in zip(lines.items(), PALETTE, strict=False):
        for number in range(result.sizes["network"]):
            axis.plot(result["alpha"], losses.isel(network=number), color=colour, lw=0.7)
        axis.plot([], [], color=colour, label=name)
    stored = normed.sel(statistics=STATISTICS[1]).mean("network", skipna=False)
    axis.plot(result["alpha"], stored, "--", color=PALETTE[0], label="its statistics interpolated")
    for end in (0, 1):
        axis.axvline(end, color="0.7", lw=0.6, zorder=0)
    axis.set(yscale="log", ylim=(1e-2, 3e3), xlabel="α", ylabel="training loss (nats)")
    axis.legend(fontsize=5.5, loc="upper center")
    axis.set_title("c  On the line between weights")


def _draw_jumps(axis: Any, result: xr.Dataset) -> None:
    for (run, heights), colour in zip(_heights(result).items(), PALETTE * 3, strict=False):
        mark = "s" if run.startswith("constant") else "^" if run.endswith("batch norm") else "o"
        axis.plot(_jump(result, run, 2), heights.clip(1e-4), mark, color=colour, ms=4, label=run)
    axis.set(xscale="log", yscale="log", xlabel="jump in cycle 2 (way / length of the weights)")
    axis.set_ylabel("barrier, ends of cycles 1 and 2 (nats)")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend(fontsize=6)
    axis.set_title("d  Barrier and jump")


def _draw_map(axis: Any, letter: str, one: xr.Dataset) -> None:
    rates = one["largest_rate"].median("map_network").transpose("map_depth", "sigma_w2")
    tried = np.log10(one["tried"].values[~np.isnan(one["tried"].values)])
    drawn = axis.imshow(np.log10(rates.values), origin="lower", aspect="auto", cmap="viridis",
                        vmin=tried.min(), vmax=tried.max())  # fmt: skip
    hatch(axis)
    lost = (one["kept"].mean("map_network") < LOST).transpose("map_depth", "sigma_w2").values
    for row, column in zip(*np.nonzero(lost), strict=True):
        axis.plot(column, row, "x", color=COLLAPSE_COLOUR, ms=5)
    axis.plot([], [], "x", color=COLLAPSE_COLOUR, label=f"R² < {LOST:g}")
    axis.plot([], [], "s", color="0.8", label="no rate trains")
    axis.set_xticks(range(one.sizes["sigma_w2"]), [f"{v:g}" for v in one["sigma_w2"].values])
    axis.set_yticks(range(one.sizes["map_depth"]), one["map_depth"].values)
    axis.tick_params(axis="x", labelsize=6)
    axis.set(xlabel=VARIANCE, ylabel="depth")
    axis.figure.colorbar(drawn, ax=axis, label="log₁₀ of the largest rate that trains", pad=0.02)
    axis.legend(fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    axis.set_title(f"{letter}  {NAMES[str(one['optimiser'].item())]}: the largest rate that trains")
