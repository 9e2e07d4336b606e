"""Infinite width: what theory alone says of an image's way through a network, and what is missing.

In an infinitely wide network the best linear read-out of the image from a level is kernel ridge
regression, with that level's kernel and the pixels as targets: R² by level without a network and
without a seed. Beside it stand drawn networks, whose gap to it is what a finite width costs. And
trained networks stand beside the two kernels that training of all weights and of the last layer
becomes.

Source: Lee et al., arXiv:2007.15801. R² at infinite width is ours.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.activations import look
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.kernels import ACTIVATIONS, descend, mlp_kernels, regress
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.networks import initialise, mlp
from paperlib.plots import (
    BLUE,
    COLLAPSE_COLOUR,
    GREEN,
    ORANGE,
    PALETTE,
    SEQUENTIAL,
    VARIANCE,
    edges,
    legend_below,
    paper_style,
)
from paperlib.training import squared_error, train

Array = NDArray[np.float64]

CODE_VERSION = 1
BOUNDED = ("tanh", "erf")  # activations whose unit is 1, so that λ needs no other
RIDGES = ("noise floor", "relative", "relative, centred")
WAYS = ("all weights", "all weights, centred", "last layer, centred")  # of training
APART = 3  # times the number of images: narrower networks are near the peak of interpolation
SHOWN = 10  # level at which gaps are told; deeper, they are all there is
FITTED = (0.005, 0.3)  # gaps, as fractions of R² at infinite width, that the law is fitted to
COLOURS = dict(zip(WAYS, (GREEN, BLUE, ORANGE), strict=True))


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 16."""

    activation: str = option("tanh", choices=ACTIVATIONS)
    sigma_b2: float = option(0.05, low=0.0)
    sigma_w2: tuple[float, ...] = option((0.6, 1.1, 1.4, 1.76, 2.2, 3.0), above=0.0)
    depth: int = option(20, low=2, high=1000)
    width: int = option(0, low=0, high=100_000, zero="as many neurons as pixels")
    resolution: float = option(1e-3, above=0.0)
    relative_ridge: float = option(1e-4, above=0.0)
    networks: int = option(3, low=2, high=100)
    law_sigma_w2: tuple[float, ...] = option((1.76, 3.0), above=0.0)
    law_widths: tuple[int, ...] = option((400, 800, 1600), low=2, high=100_000)
    trained_sigma_w2: float = option(1.76, above=0.0)
    trained_depth: int = option(3, low=1, high=100)
    trained_widths: tuple[int, ...] = option((32, 100, 300), low=2, high=100_000)
    members: int = option(4, low=2, high=100)
    steps: int = option(100, low=1, high=100_000)
    relative_rate: float = option(1.0, above=0.0, high=1.9)
    train_images: int = option(200, low=20)
    test_images: int = option(200, low=10)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)


class _Task(NamedTuple):
    """The images, those that are learnt first, and what is learnt of them."""

    images: Tensor  # (n + m, 1, height, width)
    fitted: int  # n
    targets: Array  # (n, classes), one-hot less its mean over classes
    labels: NDArray[np.int64]  # of the other m
    shape: tuple[int, ...]

    @property
    def pixels(self) -> Array:
        return self.images.flatten(1).double().numpy()


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return R² and accuracy at infinite width, and what drawn and trained networks lack of it.

    Args:
        settings: of the kernels and of the networks.
        data: its first images are taken, fewer than the settings say where it has fewer.

    Returns:
        a Dataset along sigma_w2 and level for the kernels; network for those that are drawn;
        law_sigma_w2 and law_width for the gap; way, trained_width and member for those that learn.
    """
    task = _task(settings, data)
    width = settings.width or task.images[0].numel()
    infinite, accuracy = _kernels(settings, task, width)
    drawn = [
        [_drawn(settings, task, s, width, n, width) for n in range(settings.networks)]
        for s in settings.sigma_w2
    ]
    wide = [_r2_levels(settings, task, s, width) for s in settings.law_sigma_w2]
    law = [
        [[_drawn(settings, task, s, w, n, width) for n in range(settings.networks)]
         for w in settings.law_widths]
        for s in settings.law_sigma_w2
    ]  # fmt: skip
    one: dict[str, Any] = {"units": "1"}
    variables: dict[str, Any] = {
        "r2_infinite": (("sigma_w2", "level"), infinite, one),
        "r2_drawn": (("sigma_w2", "network", "level"), drawn, one),
        "accuracy_infinite": (("kernel", "ridge", "sigma_w2", "level"), accuracy, one),
        "law_infinite": (("law_sigma_w2", "level"), wide, one),
        "law_drawn": (("law_sigma_w2", "law_width", "network", "level"), law, one),
        "law_images": ((), task.fitted, {"units": "images"}),
        "drawn_width": ((), width, {"units": "neurons"}),
        **_trainings(settings, task),
    }
    coordinates = {
        "sigma_w2": list(settings.sigma_w2),
        "level": np.arange(1, settings.depth + 1),
        "network": [settings.seed + number for number in range(settings.networks)],
        "kernel": ["nngp", "ntk"],
        "ridge": list(RIDGES),
        "law_sigma_w2": list(settings.law_sigma_w2),
        "law_width": list(settings.law_widths),
        "way": list(WAYS),
        "trained_width": list(settings.trained_widths),
        "member": np.arange(settings.members),
    }
    return xr.Dataset(variables, coordinates)


def image_r2(kernel: Array, images: Array, count: int, ridge: float) -> float:
    """Return R² of images that are read from a kernel by ridge regression with an intercept.

    Args:
        kernel: (n + m, n + m), mean products of activations.
        images: (n + m, pixels); the first n are fitted, R² is of the others.
        count: n.
        ridge: of each image, in units of the kernel: λ/width for λ in squared activations.
    """
    centred, mean = _centred(kernel, count), images[:count].mean(0)
    within, across = centred[:count, :count], centred[count:, :count]
    back = mean + regress(within, across, images[:count] - mean, ridge=count * ridge)
    return float(r_squared(images[count:], back, mean=mean))


def law(result: xr.Dataset, sigma_w2: float) -> dict[str, float]:
    """Return the fit a · level^q / width^p to the gap of R² between infinite and finite width.

    By least squares of logarithms, over widths of at least three times the number of fitted images
    and gaps between 0.5% and 30% of R² at infinite width; `points` says how many these are, and
    all else is NaN if they are fewer than three or of one width.
    """
    levels, widths, gaps = np.log(_gaps(result, sigma_w2)[:3])
    if len(gaps) < 3 or len(set(widths)) < 2 or len(set(levels)) < 2:
        return {"a": np.nan, "q": np.nan, "p": np.nan, "points": len(gaps)}
    design = np.column_stack([np.ones_like(levels), levels, -widths])
    (a, q, p), *_ = np.linalg.lstsq(design, gaps, rcond=None)
    return {"a": float(np.exp(a)), "q": float(q), "p": float(p), "points": len(gaps)}


def walls(result: xr.Dataset) -> dict[str, Array]:
    """Return the collapse depth by σ_w² at infinite width, and the mean of the drawn networks'."""
    alone = [collapse_depth(curve) for curve in result["r2_infinite"].values]
    curves = result["r2_drawn"].transpose("sigma_w2", "network", "level").values
    drawn = [np.mean([collapse_depth(curve) for curve in of_one]) for of_one in curves]
    return {"infinite": np.array(alone, float), "drawn": np.array(drawn)}


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what theory alone says of "will it train" by σ_w² and depth; higher is better."""
    accuracy = result["accuracy_infinite"].sel(kernel="nngp", ridge=RIDGES[0], drop=True)
    return {
        "R² at infinite width": result["r2_infinite"],
        "kernel accuracy above the noise floor": accuracy,
    }


def takeaway(result: xr.Dataset) -> str:
    """Return in two sentences where theory alone knows what is lost, and where width decides."""
    smallest, width = float(result["sigma_w2"].min()), int(result["drawn_width"])
    found = walls(result)
    place = int(np.argmin(result["sigma_w2"].values))
    most = result.sizes["level"]
    alone, drawn = (found[which][place] for which in ("infinite", "drawn"))
    wall = (
        f"At σ_w² = {smallest:g} the image is lost from level {alone:.0f} on at infinite width and "
        f"from {drawn:.1f} on in drawn networks: this wall is in the theory."
        if max(alone, drawn) <= most and abs(alone - drawn) <= 0.1 * alone
        else f"At σ_w² = {smallest:g} R² at level {most} is "
        f"{float(result['r2_infinite'].sel(sigma_w2=smallest, level=most)):.2f} at infinite width."
    )
    kept = result["r2_drawn"].mean("network").clip(0)  # below 0 the image is as lost as at 0
    gap = result["r2_infinite"] - kept
    at = gap.stack(place=("sigma_w2", "level")).idxmax("place").item()
    here = {"sigma_w2": at[0], "level": at[1]}
    return (
        f"**In short.** {wall} The two differ most at σ_w² = {at[0]:g}, level {at[1]}: R² is "
        f"{float(result['r2_infinite'].sel(here)):.2f} at infinite width and "
        f"{float(kept.sel(here)):.2f} at {width} neurons."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown, computed from its result."""
    data = data_name(result)
    smallest = float(result["sigma_w2"].min())
    ordered = result["r2_infinite"].sel(sigma_w2=smallest)
    drawn = result["r2_drawn"].sel(sigma_w2=smallest).mean("network")
    shown = sorted({level for level in (1, 10, 14, 20) if level <= ordered.sizes["level"]}
                   | {ordered.sizes["level"]})  # fmt: skip
    rows = [f"| {level} | {float(ordered.sel(level=level)):.3f} "
            f"| {float(drawn.sel(level=level)):.3f} |" for level in shown]  # fmt: skip
    single, ensemble = result["distance"].mean("member"), result["ensemble_distance"]
    rows_of_ways = [
        f"| {way} | " + " | ".join(
            f"{float(single.sel(way=way, trained_width=width)):.2f}, "
            f"{float(ensemble.sel(way=way, trained_width=width)):.2f}"
            for width in result["trained_width"].values) + " |"
        for way in WAYS
    ]  # fmt: skip
    heading = (
        "| trained | " + " | ".join(f"width {w}" for w in result["trained_width"].values) + " |"
    )
    exact = result["kernel_accuracy"]
    return "\n\n".join([
        f"**This run.** {data}, {int(result['law_images'])} images fitted; drawn networks "
        f"{int(result['drawn_width'])} wide, {result.sizes['network']} of each.",
        f"**The wall at σ_w² = {smallest:g}.** R² by level:",
        "\n".join(["| level | infinite width | drawn |", "|---|---|---|", *rows]),
        *(_said_of_law(result, float(s)) for s in result["law_sigma_w2"]),
        "**Trained networks and their kernels.** Distance of the test outputs to the kernel's "
        "prediction, relative to its size: of one network, of the mean of all.",
        "\n".join([heading, "|---" * (1 + result.sizes["trained_width"]) + "|", *rows_of_ways]),
        "Test accuracy of the kernels after as many steps: "
        f"NTK {float(exact.sel(kernel='ntk')):.1%}, NNGP {float(exact.sel(kernel='nngp')):.1%}.",
        _said_of_ridges(result, smallest),
        "**Against the paper:** it has no kernels and no infinite width, so nothing is compared "
        "with it.",
    ])  # fmt: skip


def _said_of_law(result: xr.Dataset, sigma_w2: float) -> str:
    fitted = law(result, sigma_w2)
    gap = result["law_infinite"] - result["law_drawn"].mean("network")
    middle = gap["level"].values[min(gap.sizes["level"] // 2, SHOWN) - 1]
    gap = gap.sel(law_sigma_w2=sigma_w2, level=middle)
    by_width = ", ".join(
        f"{float(gap.sel(law_width=w)):.3f} (width {w})" for w in gap["law_width"].values
    )
    text = (
        f"**The gap at σ_w² = {sigma_w2:g}**, infinite less drawn R² at level {middle}: {by_width}."
    )
    if np.isnan(fitted["p"]):
        return f"{text} Too few gaps are small and wide enough to fit a law."
    return (
        f"{text} Over {fitted['points']} gaps below 30% it is {fitted['a']:.2g} · "
        f"level^{fitted['q']:.2f} / width^{fitted['p']:.2f}."
    )


def _said_of_ridges(result: xr.Dataset, sigma_w2: float) -> str:
    deep = result["accuracy_infinite"].sel(sigma_w2=sigma_w2, kernel="nngp").isel(level=-1)
    found = "; ".join(f"{ridge} {float(deep.sel(ridge=ridge)):.0%}" for ridge in RIDGES)
    return (
        f"**The ridge decides.** NNGP accuracy at σ_w² = {sigma_w2:g}, "
        f"level {int(deep['level'])}: {found}."
    )


# --- measuring


def _task(settings: Settings, data: Dataset) -> _Task:
    fitted, others = (
        data.floats(split, limit=limit)
        for split, limit in (("train", settings.train_images), ("test", settings.test_images))
    )
    classes = len(data.classes)
    targets = np.eye(classes)[data.labels("train")[: len(fitted)].numpy()] - 1 / classes
    labels = data.labels("test")[: len(others)].numpy()
    shape = tuple(fitted.shape[1:])
    return _Task(torch.cat([fitted, others]), len(fitted), targets, labels, shape)


def _centred(kernel: Array, count: int) -> Array:
    """The kernel of activations less their mean over the first images."""
    rows = kernel[:count].mean(0)
    return kernel - rows - rows[:, None] + rows[:count].mean()


def _unit(settings: Settings, kernel: Array, count: int) -> float:
    """What λ is in units of: 1, or the activations' mean square where they are unbounded."""
    return 1.0 if settings.activation in BOUNDED else float(np.diag(kernel)[:count].mean())


def _variances(settings: Settings, sigma_w2: float, depth: int) -> dict[str, Any]:
    return {"sigma_w2": sigma_w2, "sigma_b2": settings.sigma_b2, "depth": depth,
            "activation": settings.activation}  # fmt: skip


def _r2_levels(settings: Settings, task: _Task, sigma_w2: float, width: int) -> list[float]:
    """R² at infinite width by level, from 1."""
    levels = mlp_kernels(task.pixels, ntk=False, **_variances(settings, sigma_w2, settings.depth))
    return [_level_r2(settings, task, level.activations, width) for level in levels][1:]


def _level_r2(settings: Settings, task: _Task, kernel: Array, width: int) -> float:
    ridge = settings.resolution * _unit(settings, kernel, task.fitted) / width
    return image_r2(kernel, task.pixels, task.fitted, ridge)


def _kernels(settings: Settings, task: _Task, width: int) -> tuple[Array, Array]:
    """R² (sigma_w2, level) and accuracy (kernel, ridge, sigma_w2, level) at infinite width."""
    shape = len(settings.sigma_w2), settings.depth
    r2, accuracy = np.zeros(shape), np.zeros((2, len(RIDGES), *shape))
    for row, sigma_w2 in enumerate(settings.sigma_w2):
        levels = mlp_kernels(task.pixels, **_variances(settings, sigma_w2, settings.depth))
        next(levels)  # the pixels
        for column, level in enumerate(levels):
            r2[row, column] = _level_r2(settings, task, level.activations, width)
            noise = settings.resolution * _unit(settings, level.activations, task.fitted) / width
            for number, kernel in enumerate((level.nngp, level.ntk)):
                accuracy[number, :, row, column] = _accuracies(
                    settings, task, kernel, sigma_w2 * noise
                )
    return r2, accuracy


def _accuracies(settings: Settings, task: _Task, kernel: Any, noise: float) -> list[float]:
    """Test accuracy of kernel regression with each ridge: of outputs, λ is noise."""
    n = task.fitted
    centred = _centred(kernel, n)
    ridges = (
        (centred, n * noise),
        (kernel, settings.relative_ridge * float(np.diag(kernel)[:n].mean())),
        (centred, settings.relative_ridge * float(np.diag(centred)[:n].mean())),
    )
    found = []
    for which, ridge in ridges:
        # never below rounding: without it a deep ordered kernel cannot be factorised
        least = 1e-14 * float(np.diag(kernel)[:n].sum())
        outputs = regress(which[:n, :n], which[n:, :n], task.targets, ridge=max(ridge, least))
        found.append(_accuracy(task, outputs))
    return found


def _accuracy(task: _Task, outputs: Array) -> float:
    return float((outputs.argmax(1) == task.labels).mean())


def _drawn(
    settings: Settings, task: _Task, sigma_w2: float, width: int, number: int, unit: int
) -> list[float]:
    """R² by level of one network, at the same ridge, λ/unit, as that of infinite width."""
    with torch.random.fork_rng(devices=[]):
        network = mlp(task.shape, depth=settings.depth, width=width, classes=2,
                      activation=settings.activation)  # fmt: skip
    initialise(network, sigma_w2=sigma_w2, sigma_b2=settings.sigma_b2, seed=settings.seed + number)
    found = []
    for _, activation in look(network, task.images):
        here = activation.flatten(1).double().numpy()
        found.append(_level_r2(settings, task, here @ here.T / width, unit))
    return found[: settings.depth]


def _trainings(settings: Settings, task: _Task) -> dict[str, Any]:
    """How far trained networks are from what their kernels predict, and how often each is right."""
    sigma_w2, n = settings.trained_sigma_w2, task.fitted
    *_, last = mlp_kernels(task.pixels, **_variances(settings, sigma_w2, settings.trained_depth))
    limits: dict[str, Any] = {"nngp": last.nngp, "ntk": last.ntk}
    rates, exact = {}, {}
    for name, kernel in limits.items():
        largest = float(np.linalg.eigvalsh(kernel[:n, :n])[-1])
        rates[name] = settings.relative_rate * n / largest
        exact[name] = _descended(settings, task, kernel, rates[name])
    shape = len(WAYS), len(settings.trained_widths)
    distance, accuracy = np.zeros((2, *shape, settings.members))
    together, ensemble = np.zeros((2, *shape))
    for column, width in enumerate(settings.trained_widths):
        runs = [
            _learners(settings, task, width, number, rates) for number in range(settings.members)
        ]
        for row, outputs in enumerate(np.stack(runs, 1)):
            limit = exact["nngp" if row == 2 else "ntk"]
            distance[row, column] = [_apart(one, limit) for one in outputs]
            accuracy[row, column] = [_accuracy(task, one) for one in outputs]
            together[row, column] = _apart(outputs.mean(0), limit)
            ensemble[row, column] = _accuracy(task, outputs.mean(0))
    each, mean, one = ("way", "trained_width", "member"), ("way", "trained_width"), {"units": "1"}
    return {
        "distance": (each, distance, one),
        "ensemble_distance": (mean, together, one),
        "accuracy": (each, accuracy, one),
        "ensemble_accuracy": (mean, ensemble, one),
        "kernel_accuracy": (("kernel",), [_accuracy(task, found) for found in exact.values()], one),
        "rate": (("kernel",), list(rates.values()), one),
    }


def _apart(outputs: Array, limit: Array) -> float:
    return float(np.linalg.norm(outputs - limit) / np.linalg.norm(limit))


def _descended(settings: Settings, task: _Task, kernel: Any, rate: float) -> Array:
    n = task.fitted
    return descend(kernel[:n, :n], kernel[n:, :n], task.targets, rate=rate, steps=settings.steps)


def _learners(
    settings: Settings, task: _Task, width: int, number: int, rates: dict[str, float]
) -> Array:
    """Outputs (way, image, class) of one network of this width, after training in each way."""
    sigma_w2 = settings.trained_sigma_w2
    with torch.no_grad():
        network = _network(settings, task, width, number)
        features = network[:-1](task.images)
        before = network[-1](features)
    here = features.double().numpy()
    kernel = sigma_w2 * (here @ here.T) / width + settings.sigma_b2
    plain, centred = (
        _trained(settings, task, _network(settings, task, width, number), less, rates["ntk"])
        for less in (torch.zeros_like(before), before)
    )
    return np.stack([plain, centred, _descended(settings, task, kernel, rates["nngp"])])


def _network(settings: Settings, task: _Task, width: int, number: int) -> nn.Sequential:
    """An untrained network that ends in one linear layer."""
    with torch.random.fork_rng(devices=[]):
        stages = mlp(task.shape, depth=settings.trained_depth, width=width,
                     activation=settings.activation).stages  # fmt: skip
        network = nn.Sequential(*stages, nn.Linear(width, task.targets.shape[1]))
    initialise(
        network,
        sigma_w2=settings.trained_sigma_w2,
        sigma_b2=settings.sigma_b2,
        seed=settings.seed + number,
    )
    return network


def _trained(
    settings: Settings, task: _Task, network: nn.Sequential, before: Tensor, rate: float
) -> Array:
    """Outputs for the test images, less `before`, of a network that learnt the targets so."""
    lessons = (
        task.images[: task.fitted],
        torch.as_tensor(task.targets).float() + before[: task.fitted],
    )
    variance = settings.trained_sigma_w2
    groups = [
        # the NTK parameterisation, by rates: see paperlib.kernels
        {"params": [p], "lr": rate * (variance / p[0].numel() if p.ndim > 1 else settings.sigma_b2)}
        for p in network.parameters()
    ]
    train(network, lessons, optimiser=torch.optim.SGD(groups, lr=rate), steps=settings.steps,
          batch_size=task.fitted, rule=squared_error)  # fmt: skip
    with torch.no_grad():
        return (network(task.images[task.fitted :]) - before[task.fitted :]).double().numpy()


# --- drawing


def figure(result: xr.Dataset) -> Figure:
    """Draw R² at infinite and at finite width, the law of their gap, and networks that learn."""
    with paper_style():
        drawn = Figure(figsize=(10.5, 6.2), layout="constrained")
        axes = drawn.subplots(2, 3)
        width = int(result["drawn_width"])
        _draw_map(drawn, axes[0, 0], result, "r2_infinite", "R² at infinite width")
        _draw_map(drawn, axes[0, 1], result, "r2_drawn", f"R² of drawn networks, {width} wide")
        _draw_law(axes[0, 2], result)
        _draw_distance(axes[1, 0], result)
        _draw_accuracy(axes[1, 1], result)
        _draw_ridges(axes[1, 2], result)
    return drawn


def _draw_map(drawn: Figure, axis: Any, result: xr.Dataset, name: str, title: str) -> None:
    values = result[name]
    values = values.mean("network") if "network" in values.dims else values
    grid = values["sigma_w2"].values
    places = edges(np.arange(len(grid), dtype=float))
    places[0] = -0.5
    mesh = axis.pcolormesh(places, edges(values["level"].values), values.T, cmap=SEQUENTIAL,
                           vmin=0, vmax=1, rasterized=True)  # fmt: skip
    extend = "min" if float(values.min()) < -0.01 else "neither"
    drawn.colorbar(mesh, ax=axis, label="R² of the image", extend=extend)
    found, most = walls(result), result.sizes["level"]
    for which, marker, size in (("drawn", "s", 9), ("infinite", "o", 5)):
        lost = np.where(found[which] <= most, found[which], np.nan)
        axis.plot(np.arange(len(grid)), lost, marker, color=COLLAPSE_COLOUR, ms=size, lw=0,
                  mfc=COLLAPSE_COLOUR if which == "infinite" else "none",
                  mew=1.2, label=f"R² < {LOST:g}, {which}")  # fmt: skip
    axis.set_xticks(np.arange(len(grid)), [f"{s:g}" for s in grid],
                    rotation=90 if len(grid) > 8 else 0)  # fmt: skip
    axis.set(title=title, xlabel=VARIANCE, ylabel="level", ylim=(most + 0.5, 0.5))
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend_below(axis, ncols=2)


def _gaps(result: xr.Dataset, sigma_w2: float, *, all_of_them: bool = False) -> Array:
    """Levels, widths and gaps of R², of those that the law is fitted to, (3, points)."""
    infinite = result["law_infinite"].sel(law_sigma_w2=sigma_w2)
    gap = infinite - result["law_drawn"].sel(law_sigma_w2=sigma_w2).mean("network")
    rows = []
    for width in gap["law_width"].values:
        for level in gap["level"].values:
            one = float(gap.sel(law_width=width, level=level))
            share = one / float(infinite.sel(level=level))
            wide = width >= APART * int(result["law_images"])
            if (all_of_them and one > 0) or (wide and FITTED[0] <= share <= FITTED[1]):
                rows.append((level, width, one))
    return np.array(rows, float).reshape(-1, 3).T


def _draw_law(axis: Any, result: xr.Dataset) -> None:
    markers = "osD^v<>"
    for number, sigma_w2 in enumerate(result["law_sigma_w2"].values):
        colour = PALETTE[number % len(PALETTE)]
        levels, widths, gaps = _gaps(result, sigma_w2, all_of_them=True)
        for place, width in enumerate(result["law_width"].values):
            here = widths == width
            wide = width >= APART * int(result["law_images"])
            axis.plot(levels[here] / width, gaps[here], markers[place % 7], color=colour, ms=3,
                      mfc="none", alpha=1 if wide else 0.35)  # fmt: skip
        used = _gaps(result, sigma_w2)
        label = rf"$\sigma_w^2$ = {sigma_w2:g}"
        axis.plot([], [], color=colour, label=label + _exponents(law(result, sigma_w2)))
        if used.shape[1]:
            x = np.geomspace((levels / widths).min(), (levels / widths).max(), 50)
            axis.plot(x, np.median(used[2] * used[1] / used[0]) * x, color=colour, lw=1)
    for place, width in enumerate(result["law_width"].values):
        said = "" if width >= APART * int(result["law_images"]) else " (not fitted)"
        axis.plot([], [], markers[place % 7], color="0.4", ms=3, mfc="none",
                  label=f"width {width}{said}")  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="level / width",
             ylabel="R² at infinite width − drawn R²", title="What a finite width costs",
             ylim=(2e-3, 3))  # fmt: skip
    axis.legend(loc="lower right")


def _exponents(fitted: dict[str, float]) -> str:
    if np.isnan(fitted["p"]):
        return ""
    return f": level$^{{{fitted['q']:.2f}}}$ / width$^{{{fitted['p']:.2f}}}$"


def _draw_distance(axis: Any, result: xr.Dataset) -> None:
    widths = result["trained_width"].values
    for way in WAYS:
        each = result["distance"].sel(way=way)
        label = f"{way} → {'NNGP' if 'last' in way else 'NTK'}"
        axis.errorbar(widths, each.mean("member"), each.std("member"), color=COLOURS[way], fmt="o-",
                      ms=3, capsize=2, label=label)  # fmt: skip
        axis.plot(widths, result["ensemble_distance"].sel(way=way), "s--", ms=3, mfc="white",
                  color=COLOURS[way], lw=1)  # fmt: skip
    start = float(result["distance"].sel(way=WAYS[1]).mean("member")[0])
    axis.plot(widths, 1.25 * start * (widths / widths[0]) ** -0.5, color="0.6", lw=0.8, ls=":",
              label=r"$\propto 1/\sqrt{\mathrm{width}}$")  # fmt: skip
    axis.plot([], [], "s--", ms=3, mfc="white", color="0.4", lw=1,
              label=f"mean of {result.sizes['member']} networks")  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="width", title="Trained networks → kernels",
             ylabel="distance to the kernel's prediction")  # fmt: skip
    axis.set_xticks(widths, [str(w) for w in widths])
    axis.minorticks_off()
    least = float(min(result["distance"].min(), result["ensemble_distance"].min()))
    # room for the legend below the lines
    axis.set_ylim(least**1.1 * float(result["distance"].max()) ** -0.1 / 5, None)
    axis.legend(loc="lower left", fontsize=6)


def _draw_accuracy(axis: Any, result: xr.Dataset) -> None:
    widths = result["trained_width"].values
    for way in WAYS[1:]:
        each = 100 * result["accuracy"].sel(way=way)
        axis.errorbar(widths, each.mean("member"), each.std("member"), color=COLOURS[way], fmt="o-",
                      ms=3, capsize=2, label=way)  # fmt: skip
        axis.plot(widths, 100 * result["ensemble_accuracy"].sel(way=way), "s--", ms=3, mfc="white",
                  color=COLOURS[way], lw=1)  # fmt: skip
    for kernel, way in (("ntk", WAYS[1]), ("nngp", WAYS[2])):
        axis.axhline(100 * float(result["kernel_accuracy"].sel(kernel=kernel)), color=COLOURS[way],
                     lw=0.8, ls=":", label=f"{kernel.upper()}, infinite width")  # fmt: skip
    axis.set(xscale="log", xlabel="width", ylabel="test accuracy (%)",
             title="The same in accuracy")  # fmt: skip
    axis.set_xticks(widths, [str(w) for w in widths])
    axis.minorticks_off()
    axis.legend(loc="lower right")


def _draw_ridges(axis: Any, result: xr.Dataset) -> None:
    smallest = float(result["sigma_w2"].min())
    here = 100 * result["accuracy_infinite"].sel(sigma_w2=smallest)
    for ridge, colour in zip(RIDGES, PALETTE, strict=False):
        axis.plot(here["level"], here.sel(kernel="nngp", ridge=ridge), color=colour,
                  label=f"NNGP, {ridge}")  # fmt: skip
        axis.plot(here["level"], here.sel(kernel="ntk", ridge=ridge), color=colour, ls="--", lw=1)
    axis.plot([], [], color="0.4", ls="--", lw=1, label="NTK")
    axis.set(xlabel="level", ylabel="test accuracy (%)", ylim=(0, 100),
             title=rf"Which ridge? ($\sigma_w^2$ = {smallest:g})")  # fmt: skip
    axis.legend(loc="lower left")
