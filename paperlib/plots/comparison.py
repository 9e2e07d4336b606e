"""Two results beside each other: solvers, resolutions."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.core.provenance import provenance
from paperlib.networks.kinds import RESOLUTION, stages_of
from paperlib.plots.labels import (
    describe,
    known_points,
    network_of,
    seeds_of,
    sign,
    solver_name,
    solver_of,
)
from paperlib.plots.maps import collapse_depths, depth_lines
from paperlib.plots.published import (
    EDGE,
    ENTROPY_PUBLISHED,
    published_depths,
    published_entropy,
    published_resnet_depths,
)
from paperlib.plots.style import (
    COLLAPSE_LABEL,
    ORANGE,
    SEQUENTIAL,
    SOLVER_COLOURS,
    VARIANCE,
    legend_below,
    mean_with_bars,
    paper_style,
)


def solver_comparison(ridge: xr.Dataset, adam: xr.Dataset) -> Figure:
    """Draw the closed form against Adam: R², information over all depths, cutoff and seconds.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import solver_comparison
        >>> ridge, adam = load_result("mnist_mlp.nc"), load_result("mnist_mlp_adam.nc")
        >>> figure = solver_comparison(ridge, adam)
        >>> len(figure.axes)
        5
        >>> plt.close(figure)

    Args:
        ridge, adam: results on the same data and networks; compared where their grids meet.

    Raises:
        ValueError: different data or networks, or grids that share no σ_w² and seed.
    """
    check_comparable(ridge, adam)
    if (solver_name(ridge), solver_name(adam)) != ("ridge", "adam"):
        raise ValueError(
            "expected one result by ridge and one by adam, "
            f"got {solver_name(ridge)} and {solver_name(adam)}"
        )
    depths = [r.sizes["depth"] for r in (ridge, adam)]
    closed, trained = xr.align(ridge, adam, join="inner", exclude=("shown_depth",))
    if not closed.sizes["sigma_w2"] * closed.sizes["seed"]:
        raise ValueError("the two results share no sigma_w2 and seed; nothing to compare")
    with paper_style():
        figure, axes = plt.subplots(1, 4, figsize=(10.5, 3.3))
        _scatter_r_squared(axes[0], closed, trained)
        _information(axes[1], closed, trained)
        _depths_compared(axes[2], {"ridge": closed, "Adam": trained}, depths)
        _costs(axes[3], {"ridge": ridge, "Adam": adam})
        sign(figure, f"{describe(ridge)}  ·  against  ·  {solver_of(adam)}", adam)
    return figure


def resolution_calibration(calibration: xr.Dataset, adam: xr.Dataset) -> Figure:
    """Draw the depth at which R² collapses against the resolution λ.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import resolution_calibration
        >>> calibration = load_result("mnist_mlp_resolution.nc")
        >>> figure = resolution_calibration(calibration, load_result("mnist_mlp_adam.nc"))
        >>> len(figure.axes)
        1
        >>> plt.close(figure)

    Args:
        calibration: ridge results along the dim resolution, from `run_resolutions`.
        adam: a result by Adam, whose depths are drawn as horizontal lines; where the network is
            the published one, the published depths are drawn too.

    Raises:
        ValueError: the two are of different data or networks.
    """
    check_comparable(calibration, adam)
    depths, trained = collapse_depths(calibration), collapse_depths(adam)
    published = published_depths(calibration)
    with paper_style():
        figure, axis = plt.subplots(figsize=(5.2, 3.4))
        colours = plt.get_cmap("cividis")(np.linspace(0, 0.85, depths.sizes["sigma_w2"]))
        for sigma_w2, colour in zip(depths.sigma_w2.values, colours, strict=True):
            line = depths.sel(sigma_w2=sigma_w2).mean("seed")
            axis.plot(line.resolution, line, ".-", color=colour, label=f"{sigma_w2:g}")
            if sigma_w2 in trained.sigma_w2:
                depth = float(trained.sel(sigma_w2=sigma_w2).mean())
                axis.axhline(depth, color=colour, lw=0.8, ls="--")
            if sigma_w2 in published:
                axis.axhline(published[sigma_w2], color=colour, lw=0.8, ls=":")
        lines = ["solid: ridge", "dashed: Adam", *(["dotted: published"] if published else [])]
        axis.set(
            xscale="log",
            xlabel="resolution λ (squared activation units)",
            ylabel=COLLAPSE_LABEL,
            title="What the resolution does",
        )
        default = RESOLUTION[provenance(calibration)["config"]["architecture"]]
        axis.axvline(default, color="0.8", lw=4, zorder=0)
        heading = VARIANCE + "\n" + "\n".join(lines)
        axis.legend(title=heading, title_fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
        sign(figure, f"{network_of(calibration)}  ·  {seeds_of(calibration)}", calibration)
    return figure


def steps_of_training(by_steps: xr.Dataset, decayed: xr.Dataset | None = None) -> Figure:
    """Draw how deep the published entropy finds images, and R², by the steps of the inverses.

    Left the depth from which the differential entropy stays below -10, where the colours of the
    published figures end; of the published network with the published depths, by eye. Right R²
    summed over depth: the information that is really there.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import steps_of_training
        >>> figure = steps_of_training(load_result("resnet_published_steps.nc"))
        >>> len(figure.axes)
        2
        >>> plt.close(figure)

    Args:
        by_steps: results by Adam along the dim steps, from `sweep.run_along`.
        decayed: of the same networks by Adam with weight decay, drawn dashed.

    Raises:
        ValueError: the two are of different data or networks.
    """
    if decayed is not None:
        check_comparable(by_steps, decayed)
    last = by_steps.sizes["depth"]
    with paper_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4))
        colours = plt.get_cmap("cividis")(np.linspace(0, 0.85, by_steps.sizes["steps"]))
        for steps, colour in zip(by_steps.steps.values, colours, strict=True):
            result, look = by_steps.sel(steps=steps), {"color": colour, "ls": "-"}
            _depth_and_information(left, right, result, label=f"{steps:,} steps", **look)
        if decayed is not None:
            label = solver_of(decayed).partition(", ")[2].replace(", ", ",\n")
            _depth_and_information(left, right, decayed, label=label, color=ORANGE, ls="--")
        published = published_resnet_depths(by_steps)
        if published:
            at = [*published], [*published.values()]
            left.plot(*at, "o", color="white", mec="black", label="published, by eye")
        left.axhline(last, color="0.8", lw=0.6, zorder=0)
        entropy = "published" if published_entropy(by_steps) == ENTROPY_PUBLISHED else "own"
        left.set(title=f"Below −{-EDGE:g} nats from", ylabel=f"depth, by the {entropy} entropy")
        right.set(title="Information over all depths", ylabel="sum of R² ≥ 0 over depth")
        for axis in (left, right):
            axis.set(xlabel=VARIANCE, xscale="log")
        right.legend(*left.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1.01, 1))
        sign(figure, f"{network_of(by_steps)}  ·  Adam  ·  {seeds_of(by_steps)}", by_steps)
    return figure


def _depth_and_information(left: Axes, right: Axes, result: xr.Dataset, **look: Any) -> None:
    """A line on each axis: the depth by the entropy, and R² above 0 summed over depth."""
    kept = result["r_squared"].clip(0).where(known_points(result)).sum("depth", skipna=False)
    for axis, values in ((left, depths_by_entropy(result)), (right, kept)):
        line = values.mean("seed").dropna("sigma_w2")
        axis.plot(line.sigma_w2, line, marker=".", **look)


def depths_by_entropy(result: xr.Dataset) -> xr.DataArray:
    """Return the depth from which a result's differential entropy stays below -10; depth + 1 if it
    never does. It is the published one where the result has it.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots.comparison import depths_by_entropy
        >>> depths = depths_by_entropy(load_result("resnet_published_adam.nc"))
        >>> int(depths.sel(sigma_w2=1.0, seed=0))
        51
    """
    return collapse_depths(result, published_entropy(result), threshold=EDGE)


def check_comparable(result: xr.Dataset, other: xr.Dataset) -> None:
    """Check that two results are of the same data and the same kind of network.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import check_comparable
        >>> ridge, adam = load_result("mnist_mlp_resolution.nc"), load_result("mnist_mlp_adam.nc")
        >>> check_comparable(ridge, adam)
        >>> check_comparable(ridge, load_result("mnist_cnn_adam.nc"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: these results cannot be compared, they differ in architecture (mlp and cnn)...

    Raises:
        ValueError: they are not; says in what they differ.
    """
    first, second = (provenance(r) for r in (result, other))
    same = {"data": [about["data"]["checksum"][:12] for about in (first, second)]}
    mlps = first["config"]["architecture"] == "mlp"
    size = ("shape", "width") if mlps else ("channels",)
    for name in ("architecture", *size, "activation", "sigma_b2"):
        same[name] = [about["config"].get(name) for about in (first, second)]
    different = [f"{name} ({a} and {b})" for name, (a, b) in same.items() if a != b]
    if different:
        raise ValueError(f"these results cannot be compared, they differ in {', '.join(different)}")


def _scatter_r_squared(axis: Axes, closed: xr.Dataset, trained: xr.Dataset) -> None:
    """R² by ridge over R² by Adam, one dot per network and depth, coloured by depth."""
    depths = np.broadcast_to(closed.depth.values, closed["r_squared"].shape)
    dots = axis.scatter(
        trained["r_squared"], closed["r_squared"], c=depths, s=3, cmap=SEQUENTIAL, rasterized=True
    )
    axis.axline((0, 0), slope=1, color="0.6", lw=0.7)
    axis.set(
        title="R² at every depth", xlabel="Adam", ylabel="ridge", xlim=(-0.3, 1), ylim=(-0.3, 1)
    )
    axis.figure.colorbar(dots, ax=axis, label="depth", pad=0.02)


def _costs(axis: Axes, compared: Mapping[str, xr.Dataset]) -> None:
    """Draw a dot for the seconds of each solver, and name what it ran on."""
    seconds = {name: _seconds_per_stage(result) for name, result in compared.items()}
    for place, (name, value) in enumerate(seconds.items()):
        axis.plot(place, value, "o", ms=7, color=SOLVER_COLOURS[name.lower()])
        axis.annotate(f"{value:.2g} s", (place, value), xytext=(8, 0), textcoords="offset points",
                      va="center", fontsize=7)  # fmt: skip
    machines = [_machine(result) for result in compared.values()]
    axis.set_xticks(
        range(len(seconds)), ["\n".join(x) for x in zip(seconds, machines, strict=True)]
    )
    axis.set(title="Seconds per stage", ylabel="seconds", yscale="log")
    axis.set(xlim=(-0.5, len(seconds) - 0.2))
    axis.margins(y=0.2)


def _machine(result: xr.Dataset) -> str:
    """What a result was computed on: the seconds of a CPU are those of one of its cores."""
    devices = {way.get("device", "cpu") for way in provenance(result)["computed"]}
    return {("cpu",): "one core", ("cuda",): "a GPU"}.get((*devices,), "cores and a GPU")


def _seconds_per_stage(result: xr.Dataset) -> float:
    """Seconds that one stage of a network took, on average over all that have an inverse."""
    about = provenance(result)
    stages = stages_of(about["config"]["architecture"], result.sizes["depth"])
    return float(about["seconds_per_point"]) / stages


def _depths_compared(axis: Axes, compared: Mapping[str, xr.Dataset], measured: list[int]) -> None:
    """Draw the depths of two solvers, over the depth that both have.

    Args:
        compared: by solver, cut to the depth of both.
        measured: the depths that their cutoffs were measured to.
    """
    for (name, result), depth in zip(compared.items(), measured, strict=True):
        colour = SOLVER_COLOURS[name.lower()]
        depth_lines(axis, result, f"{name}: collapse depth", colour)
        cutoff = result["cutoff"].where(result["cutoff"] >= 0).mean("seed")
        label = f"{name}: cutoff (of {depth} stages)"
        axis.plot(cutoff.sigma_w2, cutoff, "--", color=colour, lw=0.9, label=label)
    deepest = min(measured)
    axis.set(title="Depth reached", xlabel=VARIANCE, ylabel="depth", ylim=(0, 1.1 * (deepest + 1)))
    legend_below(axis, ncols=2)


def _information(axis: Axes, closed: xr.Dataset, trained: xr.Dataset) -> None:
    for result, label in ((closed, "ridge"), (trained, "Adam")):
        total = result["r_squared"].clip(min=0).sum("depth", min_count=1)
        mean_with_bars(axis, total, label, SOLVER_COLOURS[label.lower()])
    axis.set(title="Information kept", xlabel=VARIANCE, ylabel="Σ over depths of max(R², 0)")
    axis.legend()
