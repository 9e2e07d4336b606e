"""What a run of the notebooks 00, 01, 03 and 04 says, in Markdown, computed from its results.

Each function takes what its notebook has computed. It names the data set and the settings, states
numbers of these results only, and compares with the paper only where the settings are published.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from paperlib.core.provenance import data_name, provenance
from paperlib.datasets import Dataset
from paperlib.instruments.cyclical_rates import another_rate
from paperlib.instruments.reconstruction.points import CascadePoint
from paperlib.meanfield import correlation_depth, critical_sigma_w2
from paperlib.measures import LOST, collapse_depth
from paperlib.notebooks.findings.cascades import (
    depth_in_words,
    kept,
    lost,
    resolutions,
    setting,
    solvers,
    steps_of_training,
)
from paperlib.notebooks.findings.published import (
    departures,
    depths_against_paper,
    measured_as,
    nothing_to_compare,
    walls_against_paper,
    which_entropy,
)
from paperlib.notebooks.findings.trained import trained_at_depths, trained_depths
from paperlib.notebooks.findings.wording import (
    UNDEFINED,
    counted,
    listed,
    number,
    paragraphs,
    percent,
    short,
    table,
)
from paperlib.plots import PUBLISHED_DEPTHS, published_entropy, seeds_of, signal_path
from paperlib.training.outcome import wall

CHAOTIC = (-12.0, -9.0)  # published entropy of the MLP's chaotic side at depth 200, by eye
CHAOTIC_FROM, CHAOTIC_DEPTH = 3.0, 200
ABOVE_WALL = (-8.0, -6.0)  # published entropy of the CNN right of its wall, to depth 400, by eye


def how_it_works(
    point: CascadePoint,
    data: Dataset,
    left: Sequence[float],
    accuracies: Mapping[int, float],
    *,
    steps: int,
) -> str:
    """Return what one untrained network keeps, and whether networks of that variance train.

    Args:
        point: its settings.
        data: the data set that was really used.
        left: R² by depth, from depth 1.
        accuracies: by depth, of networks that were trained.
        steps: of their training.
    """
    last, chance = len(left), 1 / len(data.classes)
    lost_at = collapse_depth(np.asarray(left, float))
    first = listed(number(value) for value in list(left)[:3])
    fate = (
        f"The image is lost from depth {lost_at} on (R² below {LOST:g})."
        if lost_at <= last
        else f"The image is not lost within these {last} stages: R² is {number(left[-1])} there."
    )
    trained = listed(f"{percent(a)} at depth {depth}" for depth, a in accuracies.items())
    return paragraphs(
        f"**This run.** {data.name}  ·  MLP, {counted(last, 'stage')} of width {point.width}, "
        f"{point.activation}, σ_w² = {short(point.sigma_w2)}, σ_b² = {short(point.sigma_b2)}  ·  "
        f"{point.solver}, {counted(point.train_images, 'image')}, "
        f"{counted(point.test_images, 'held-out image')}  ·  seed {point.seed} alone.",
        f"**What is left.** R² is {first} at the first {counted(min(3, last), 'stage')}. {fate}",
        f"**Does it hold?** After {counted(steps, 'step')} of SGD the networks have {trained} of "
        f"the test images right; guessing gives {percent(chance)}. "
        + _holds(accuracies, lost_at, last, chance),
        _mean_field(point),
        _published_depth(point, data),
    )


def _holds(accuracies: Mapping[int, float], lost_at: int, last: int, chance: float) -> str:
    """Whether the networks above the depth of loss have learnt, and those below have not."""
    if lost_at > last:
        return (
            "Nothing was lost within the stages measured, so nothing is predicted of deeper ones."
        )
    half = (chance + max(accuracies.values())) / 2
    right = all((accuracy >= half) == (depth < lost_at) for depth, accuracy in accuracies.items())
    learnt = max(accuracies.values()) >= chance + 0.1 * (1 - chance)
    if not learnt:
        return "None has learnt anything, so they test nothing."
    words = "They do what was predicted" if right else "They do not do what was predicted"
    return f"{words}, if those that come halfway from guessing to the best count as trained."


def _mean_field(point: CascadePoint) -> str:
    try:
        critical = critical_sigma_w2(point.sigma_b2, activation=point.activation)
        length = correlation_depth(point.sigma_w2, point.sigma_b2, activation=point.activation)
    except ValueError:
        return ""
    phase = "ordered" if point.sigma_w2 < critical else "chaotic"
    return (
        f"**Mean field.** The critical variance is {short(critical)}, so this one is in the "
        f"{phase} phase; the trainable depth 6 ξ_c is {depth_in_words(6 * length)}."
    )


def _published_depth(point: CascadePoint, data: Dataset) -> str:
    published = PUBLISHED_DEPTHS.get(point.sigma_w2)
    pixels = math.prod(data.image_shape)
    same = (data.name, point.activation, point.sigma_b2) == ("mnist", "tanh", 0.05)
    if same and point.width in (0, pixels) and published:
        return (
            f"**Against the paper.** It gives depth {published} for this network, by another "
            "measure, the differential entropy; notebook 01 compares the two."
        )
    return (
        "**Against the paper: nothing is compared.** It has no such run; its networks on MNIST "
        "are as wide as the image (784), tanh, σ_b² = 0.05, and notebook 01 compares with them."
    )


def phase_diagram(
    result: xr.Dataset,
    *,
    comparison: xr.Dataset | None = None,
    by_resolution: xr.Dataset | None = None,
    trained: xr.Dataset | None = None,
    predicted: xr.Dataset | None = None,
    rates: xr.Dataset | None = None,
) -> str:
    """Return what a phase diagram of fully connected networks says.

    Args:
        result: cascades, from `run_sweep`.
        comparison: some of them by the other solver.
        by_resolution: along the dim resolution, from `run_resolutions`.
        trained: trainings of such networks, and `predicted`, cascades of their width.
        rates: of the instrument `cyclical_rates`: which rates train such networks.
    """
    if _nothing_known(result):
        return paragraphs(setting(result), f"R² is {UNDEFINED} everywhere: nothing can be said.")
    return paragraphs(
        setting(result),
        kept(result),
        lost(result),
        *_of_both(result, comparison, depths_against_paper, _chaotic_side),
        solvers(result, comparison) if comparison is not None else "",
        resolutions(by_resolution) if by_resolution is not None else "",
        trained_depths(trained, predicted, result)
        if trained is not None and predicted is not None
        else "",
        _another_rate(rates) if rates is not None else "",
    )


def _of_both(
    result: xr.Dataset, comparison: xr.Dataset | None, *sayings: Callable[[xr.Dataset], str]
) -> list[str]:
    """What is said of a result and, where it is as deep, of that by the other solver."""
    both = [result]
    if comparison is not None and comparison.sizes["depth"] >= result.sizes["depth"]:
        both.append(comparison)
    return [say(each) for each in both for say in sayings]


def _another_rate(rates: xr.Dataset) -> str:
    return (
        f"**Would another rate have trained them?** Notebook 14 asks this of MLPs of width "
        f"{rates.attrs['map_width']} ({data_name(rates)}). {another_rate(rates)}"
    )


def _nothing_known(result: xr.Dataset) -> bool:
    return bool(result["r_squared"].isnull().all())


def _chaotic_side(result: xr.Dataset) -> str:
    """The entropy far in the chaotic phase, beside the published one, where both are measured."""
    grid = result.sigma_w2.values
    if departures(result) or grid[-1] < CHAOTIC_FROM or CHAOTIC_DEPTH not in result.depth:
        return ""
    at = result[published_entropy(result)].sel(depth=CHAOTIC_DEPTH).mean("seed")
    places = sorted({float(at.sigma_w2.sel(sigma_w2=CHAOTIC_FROM, method="nearest")), grid[-1]})
    values = [float(at.sel(sigma_w2=s)) for s in places]
    if any(math.isnan(value) for value in values):
        return ""
    low, high = CHAOTIC
    verdict = "agrees" if all(low <= v <= high for v in values) else "does not agree"
    said = listed(
        f"{number(v, 1)} at σ_w² = {short(s)}" for s, v in zip(places, values, strict=True)
    )
    return (
        f"**The chaotic side, {measured_as(result)}: it {verdict}.** At depth {CHAOTIC_DEPTH} the "
        f"entropy is {said}; "
        f"published are {number(low, 0)} to {number(high, 0)}. {which_entropy(result)}"
    )


def cnn(
    result: xr.Dataset, *, comparison: xr.Dataset | None = None, trained: xr.Dataset | None = None
) -> str:
    """Return what a phase diagram of convolutional networks says.

    Args:
        result: cascades, from `run_sweep`.
        comparison: some of them by the other solver.
        trained: trainings of such networks.
    """
    if _nothing_known(result):
        return paragraphs(setting(result), f"R² is {UNDEFINED} everywhere: nothing can be said.")
    return paragraphs(
        setting(result),
        _walls(result),
        kept(result),
        *_of_both(result, comparison, walls_against_paper, _right_of_the_wall),
        trained_at_depths(trained, result) if trained is not None else "",
        solvers(result, comparison) if comparison is not None else "",
    )


def resnet(
    result: xr.Dataset,
    *,
    comparison: xr.Dataset | None = None,
    by_resolution: xr.Dataset | None = None,
    by_steps: xr.Dataset | None = None,
    decayed: xr.Dataset | None = None,
    trained: xr.Dataset | None = None,
) -> str:
    """Return what a depth plot of residual networks says.

    Args:
        result: cascades, from `run_sweep`.
        comparison: some of them by the other solver.
        by_resolution: along the dim resolution, from `run_resolutions`.
        by_steps: by Adam along the dim steps, from `run_along`.
        decayed: by Adam with weight decay.
        trained: trainings of such networks.
    """
    if _nothing_known(result):
        return paragraphs(setting(result), f"R² is {UNDEFINED} everywhere: nothing can be said.")
    return paragraphs(
        setting(result),
        kept(result),
        lost(result),
        *_of_both(result, comparison, walls_against_paper, _slow_loss),
        resolutions(by_resolution) if by_resolution is not None else "",
        steps_of_training(by_steps, decayed) if by_steps is not None else "",
        trained_at_depths(trained, result) if trained is not None else "",
        solvers(result, comparison) if comparison is not None else "",
    )


def _walls(result: xr.Dataset) -> str:
    """The variance at which R² rises to 0.02, at a few depths, and where mean field puts it."""
    grid, config = result.sigma_w2.values, provenance(result)["config"]
    last, closed = result.sizes["depth"], config["solver"] == "ridge"
    signals = np.array([signal_path(float(s), result)[1] for s in grid])
    rows, gaps = [], []
    for depth in sorted({max(1, round(last * part)) for part in (0.3, 0.5, 1.0)}):
        here = wall(result["r_squared"].sel(depth=depth).mean("seed").values, grid, LOST)
        theory = wall(np.log(signals[:, depth]), grid, np.log(config["resolution"]))
        gaps.append(abs(here - theory))
        words = [short(value) if not math.isnan(value) else "none" for value in (here, theory)]
        rows.append([depth, *(words if closed else words[:1])])
    known = [gap for gap in gaps if not math.isnan(gap)]
    apart = f" The two differ by at most {number(max(known))}." if known and closed else ""
    return paragraphs(
        f"**The wall.** The variance at which R² rises to {LOST:g}, mean over {seeds_of(result)}"
        + (
            f"; beside it the one at which mean field's signal rises to λ.{apart}"
            if closed
            else "."
        )
        + " `none`: the smallest variance of the grid is above it, or the largest below.",
        table(["depth", f"R² = {LOST:g}", *(["mean field: signal = λ"] if closed else [])], rows),
    )


def _right_of_the_wall(result: xr.Dataset) -> str:
    """What the entropy and R² say at the largest variance of the last depth."""
    at = result.isel(depth=-1, sigma_w2=-1)
    entropy, left = (float(at[n].mean()) for n in (published_entropy(result), "r_squared"))
    sigma_w2, depth = short(float(at.sigma_w2)), result.sizes["depth"]
    if math.isnan(entropy) or math.isnan(left):
        return ""
    said = (
        f"At σ_w² = {sigma_w2} and depth {depth} the differential entropy is "
        f"{number(entropy, 1)} nats and R² is {number(left)}. {which_entropy(result)}"
    )
    if nothing_to_compare(result):
        return f"**The chaotic side.** {said}"
    low, high = ABOVE_WALL
    verdict = "agrees" if low <= entropy <= high else "does not agree"
    published = f"published are {number(low, 0)} to {number(high, 0)} above the wall"
    return f"**The chaotic side, {measured_as(result)}: it {verdict}.** {said} By eye, {published}."


def _slow_loss(result: xr.Dataset) -> str:
    """How R² and the entropy fall with the variance at the last depth."""
    grid, at = result.sigma_w2.values, result.isel(depth=-1).mean("seed")
    places = np.unique(np.linspace(0, len(grid) - 1, 6).round().astype(int))
    entropy = at[published_entropy(result)].values
    rows = [
        [short(grid[i]), number(float(at["r_squared"][i])), number(float(entropy[i]), 1)]
        for i in places
    ]
    return paragraphs(
        f"**The loss with the variance, {measured_as(result)}.** After "
        f"{counted(result.sizes['depth'], 'block')}, mean over {seeds_of(result)}; the entropy is "
        "the differential one, in nats. " + which_entropy(result),
        table(["σ_w²", "R²", "entropy"], rows),
    )
