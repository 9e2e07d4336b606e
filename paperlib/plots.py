"""Figures from results: a sweep's Dataset goes in, a matplotlib Figure comes out.

Brighter always means more of the image. Nothing is computed here but means over seeds, depths at
which a curve collapses, and the mean-field curves that are drawn over them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from paperlib import paths
from paperlib.config import RESOLUTION, STEM, stages_of
from paperlib.meanfield import SMOOTH, correlation_depth, critical_sigma_w2, propagate
from paperlib.measures import LOST, collapse_depth
from paperlib.results import provenance

PUBLISHED_DEPTHS = {0.6: 16, 1.1: 38, 1.4: 87, 1.5: 120}
PUBLISHED_WALLS = {"cnn": {30: 0.65, 50: 0.78, 100: 0.87, 400: 0.97}, "resnet": {50: 0.95}}
STYLE = paths.style_file()
SEQUENTIAL, SEQUENTIAL_REVERSED = "viridis", "viridis_r"
# By value: a name such as C0 would be looked up when the figure is shown, outside of the style.
PALETTE = rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"].by_key()[
    "color"
]
BLUE, ORANGE, GREEN = PALETTE[:3]
SOLVER_COLOURS = {"ridge": BLUE, "adam": ORANGE}
COLLAPSE_COLOUR, CUTOFF_COLOUR = "#D81B60", GREEN  # the depths; red stands out of viridis

VARIANCE = r"weight variance $\sigma_w^2$"
COLLAPSE_LABEL, CENSORED = (
    f"collapse depth (R² < {LOST:g})",
    f"R² ≥ {LOST:g} down to the last stage",
)

# Of pictures shifted to minimum 0 first, and of pictures as they are.
ENTROPY_PUBLISHED, ENTROPY = "differential_entropy_published", "differential_entropy"

# measure: (title, colour-bar label, map, lowest and highest colour; None is the data's own)
_PANELS = {
    "r_squared": ("R²", "fraction of image (0: average)", SEQUENTIAL, 0.0, 1.0),
    "gram_entropy": ("Gram entropy", "fraction of ln n", SEQUENTIAL, 0.0, None),
    ENTROPY_PUBLISHED: (
        "Differential entropy, as published", "nats per pixel", SEQUENTIAL, None, -5.0,
    ),
    ENTROPY: (
        "Differential entropy", "nats per pixel, pictures not shifted", SEQUENTIAL, None, -5.0,
    ),
    "relative_entropy": ("Relative entropy", "nats", SEQUENTIAL_REVERSED, 0.0, None),
}  # fmt: skip
# As published: the MLP's scale begins where all images are alike, the others' higher up. A scale of
# the data's own would make walls of differences that mean nothing.
_LEAST_ENTROPY = {"mlp": -19.3, "cnn": -10.0, "resnet": -10.0}


@contextmanager
def paper_style() -> Iterator[None]:
    """Figures made inside look alike."""
    # Jupyter's backend turns interactive when it is loaded, by the first figure. Inside the context
    # that would be undone at its end, and no later figure of the notebook would be shown.
    plt.draw_if_interactive()  # loads it, and does nothing else
    with plt.style.context(STYLE):
        yield


def phase_diagram(result: xr.Dataset) -> Figure:
    """A figure of one sweep: four measures over σ_w² × depth, the depths reached, and examples.

    Args:
        result: from `run_sweep`; dims sigma_w2, seed, depth.

    Source: arXiv:2406.12916, figures of the MLP; R² and the collapse depth are this package's.
    """
    with paper_style():
        figure = plt.figure(figsize=(10.5, 6.4))
        top, bottom = cast("Any", figure.subfigures(2, 1, height_ratios=(1, 1.15)))
        _heat_maps(top, result)
        left, right = bottom.subfigures(1, 2, width_ratios=(1, 1.1))
        _depths_reached(left.subplots(), result)
        _examples(right, result)
        sign(figure, describe(result), result)
    return figure


def heat_maps(result: xr.Dataset) -> Figure:
    """A figure of the four measures over σ_w² × depth alone."""
    with paper_style():
        figure = plt.figure(figsize=(10.5, 2.9))
        _heat_maps(figure, result)
        sign(figure, describe(result), result)
    return figure


def solver_comparison(ridge: xr.Dataset, adam: xr.Dataset) -> Figure:
    """A figure of the closed form against Adam: R², information over all depths, cutoff, seconds.

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
        per_stage = [_seconds_per_stage(r) for r in (ridge, adam)]
        bars = axes[3].bar(["ridge", "Adam"], per_stage, color=[*SOLVER_COLOURS.values()], log=True)
        axes[3].bar_label(bars, fmt="%.2g s", fontsize=7)
        axes[3].set(title="Seconds per stage", ylabel="CPU seconds, one core")
        sign(figure, f"{describe(ridge)}  ·  against  ·  {solver_of(adam)}", adam)
    return figure


def resolution_calibration(calibration: xr.Dataset, adam: xr.Dataset) -> Figure:
    """A figure of the depth at which R² collapses against the resolution λ.

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
        axis.legend(title=VARIANCE + "\n" + "\n".join(lines), title_fontsize=7)
        sign(figure, f"{network_of(calibration)}  ·  {seeds_of(calibration)}", calibration)
    return figure


def save(figure: Figure, stem: Path, *drawn: xr.Dataset) -> list[Path]:
    """The files written: `stem`.png and `stem`.pdf, with the provenance of what is drawn inside.

    The same figure of the same result gives the same bytes.
    """
    png, pdf = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.pdf")
    about = write_png(figure, png, *drawn)
    metadata = {"Title": stem.name, "Keywords": about, "CreationDate": None, "Producer": None}
    with _as_laid_out(figure):
        figure.savefig(pdf, metadata=metadata)
    return [png, pdf]


def write_png(figure: Figure, file: Path, *drawn: xr.Dataset) -> str:
    """The provenance of what is drawn, in JSON, which is in the PNG's metadata as well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps([provenance(result) for result in drawn], sort_keys=True)
    metadata = {"Title": file.stem, "Description": about, "Software": None}
    with _as_laid_out(figure):
        figure.savefig(file, metadata=metadata)
    return about


@contextmanager
def _as_laid_out(figure: Figure) -> Iterator[None]:
    """The style, which lays out no figure that has been made without a layout.

    Matplotlib puts the style's layout in the place of none when it has saved a figure.
    """
    with paper_style(), plt.rc_context():
        if figure.get_layout_engine() is None:
            plt.rcParams["figure.constrained_layout.use"] = False
        yield


def check_comparable(result: xr.Dataset, other: xr.Dataset) -> None:
    """Nothing; the two results are of the same data and the same kind of network.

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


def published_depths(result: xr.Dataset) -> dict[float, int]:
    """The published depth by σ_w² where a result is of the published network, else nothing.

    Read off the figure of arXiv:2406.12916: where the differential entropy crosses -13.
    """
    about = provenance(result)
    config = about["config"]
    published = {"architecture": "mlp", "shape": "wide", "width": 0, "activation": "tanh"}
    same = all(config[name] == value for name, value in published.items())
    same = same and config["sigma_b2"] == 0.05 and about["data"]["name"] == "mnist"
    return dict(PUBLISHED_DEPTHS) if same else {}


def published_entropy(result: xr.Dataset) -> str:
    """Return the name of the entropy in a result that is compared with published values.

    The published one where every finished point has it; else this package's, of pictures that are
    not shifted, and figures and tables say so: the two are not mixed.
    """
    if ENTROPY_PUBLISHED in result:
        known = result[ENTROPY_PUBLISHED].notnull().any("depth")
        if (known | (result["finished"] != 1)).all():
            return ENTROPY_PUBLISHED
    return ENTROPY


def describe(result: xr.Dataset) -> str:
    """A result's title in words: data really used, network, variance, solver, seeds."""
    return f"{network_of(result)}  ·  {solver_of(result)}  ·  {seeds_of(result)}"


def network_of(result: xr.Dataset) -> str:
    """A result's data and network in words."""
    about = provenance(result)
    config = about["config"]
    width = f"width {config['width'] or about['data']['pixels']}"
    size = width if config["shape"] == "wide" else "shrinking"
    if config["architecture"] != "mlp":
        size = f"{config['channels']} channels"
    kind = {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet"}[config["architecture"]]
    return (
        f"{about['data']['name']}  ·  {kind}, {size}, {config['activation']}, "
        f"σ_b² = {config['sigma_b2']:g}"
    )


def solver_name(result: xr.Dataset) -> str:
    """The solver that fitted a result's cascades: "ridge" or "adam"."""
    return provenance(result)["config"]["solver"]


def solver_of(result: xr.Dataset) -> str:
    """What fitted a result's cascades, in words."""
    about = provenance(result)
    config, images = about["config"], about["data"]["train_images"]
    if config["solver"] == "ridge":
        return f"ridge, λ = {config['resolution']:g}, {images:,} images"
    steps = config["steps"] or -(-images // config["batch_size"])
    return f"Adam, {steps:,} steps of {config['batch_size']}"


def seeds_of(result: xr.Dataset) -> str:
    """How many seeds a result has, in words."""
    count = result.sizes["seed"]
    return f"{count} seed{'s' if count > 1 else ''}"


def sign(figure: Figure, title: str, result: xr.Dataset) -> None:
    """Nothing; a title, and in small print what the result was computed with."""
    about = provenance(result)
    commits = ", ".join(sorted({way["commit"] for way in about["computed"]}))
    versions = ", ".join(sorted({way["versions"]["torch"] for way in about["computed"]}))
    checksum = about["data"]["checksum"][:12]
    day = about["finished_at"][:10]
    imprint = f"commit {commits} · {day} · torch {versions} · data {checksum}"
    figure.suptitle(title, fontsize=9)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0.02, 1, 0.98))  # type: ignore[call-arg]
    figure.text(0.995, 0.002, imprint, ha="right", fontsize=4.5, color="0.45")


def _heat_maps(panel: Figure | SubFigure, result: xr.Dataset) -> None:
    axes = panel.subplots(1, 4, sharey=True)
    measures = ("r_squared", "gram_entropy", published_entropy(result), "relative_entropy")
    for axis, measure in zip(axes, measures, strict=True):
        heat_map(axis, result, measure)
    axes[0].set_ylabel("depth")


def heat_map(axis: Axes, result: xr.Dataset, measure: str) -> None:
    """Nothing; draws one measure over σ_w² × depth, mean over seeds, with mean field over it."""
    title, unit, colours = _PANELS[measure][:3]
    values = result[measure].mean("seed").values.T
    lowest, highest = _limits(result, measure, values)
    mesh = axis.pcolormesh(
        edges(result.sigma_w2.values),
        np.arange(result.sizes["depth"] + 1) + 0.5,
        values,
        cmap=colours,
        vmin=lowest,
        vmax=highest,
        rasterized=True,
    )
    draw_theory(axis, result, colour="white")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(title=title, xlabel=VARIANCE, ylim=(0.5, result.sizes["depth"] + 0.5))
    axis.set_facecolor("0.85")
    label = f"{unit}\ngrey: no value" if np.isnan(values).any() else unit
    extend = _beyond(values, *mesh.get_clim())
    axis.figure.colorbar(mesh, ax=axis, label=label, pad=0.02, extend=extend)


def _limits(
    result: xr.Dataset, measure: str, values: np.ndarray
) -> tuple[float | None, float | None]:
    """The values at the ends of the colours; None is the data's own."""
    lowest, highest = _PANELS[measure][3:]
    if measure in (ENTROPY, ENTROPY_PUBLISHED):
        lowest = _LEAST_ENTROPY[provenance(result)["config"]["architecture"]]
    lost = measure == "r_squared" and not (values > 0).any()
    if lost and (values < 0).any():
        return float(np.nanmin(values)), 0.0
    return lowest, highest


def _beyond(values: np.ndarray, lowest: float, highest: float) -> str:
    """On which sides values lie outside of the limits, as a colour bar calls it."""
    slack = 0.02 * (highest - lowest)  # of rounding, and of what scatters around 0
    below, above = (values < lowest - slack).any(), (values > highest + slack).any()
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (bool(below), bool(above)), "neither"
    )


def edges(centres: np.ndarray) -> np.ndarray:
    """The borders between grid values, halfway; the outermost as far as their neighbours', not
    below 0, where neither variances nor depths are."""
    if len(centres) == 1:
        return np.array([max(0, centres[0] - 0.05), centres[0] + 0.05])
    middles = (centres[:-1] + centres[1:]) / 2
    first = max(0, 2 * centres[0] - middles[0])
    return np.array([first, *middles, 2 * centres[-1] - middles[-1]])


def draw_theory(axis: Axes, result: xr.Dataset, *, colour: str) -> None:
    """Nothing; draws what mean field says of the network.

    ξ_c and 6 ξ_c, and the critical line where it lies inside the grid; of a residual network, which
    has no fixed point, the depth at which two images have become twice as parallel. Of
    convolutional networks also where the closed form loses what is left of the image.
    """
    config = provenance(result)["config"]
    ends = edges(result.sigma_w2.values)[[0, -1]]
    lowest = max(ends[0], 1e-3)
    if config["architecture"] != "resnet":
        grid = np.linspace(lowest, ends[1], 200)
        lengths = np.array([_mean_field(correlation_depth, config, float(s)) for s in grid])
        axis.plot(grid, lengths, color=colour, lw=1, ls="--", label=r"$\xi_c$ (mean field)")
        axis.plot(grid, 6 * lengths, color=colour, lw=1, label=r"$6\,\xi_c$ (mean field)")
        critical = _mean_field(critical_sigma_w2, config)
        if ends[0] <= critical <= ends[1]:
            axis.axvline(critical, color=colour, lw=0.8, ls=":", label=f"critical: {critical:.2f}")
    if config["architecture"] != "mlp" and config["activation"] in SMOOTH:
        grid = np.linspace(lowest, ends[1], 60)
        paths = [signal_path(float(s), result) for s in grid]
        if config["architecture"] == "resnet":
            halved = [_first(apart <= apart[0] / 2) for apart, _ in paths]
            axis.plot(grid, halved, color=colour, lw=1, label="mean field: 1 − c halved")
        if config.get("solver") == "ridge":
            lost = [_first(signal < config["resolution"]) for _, signal in paths]
            axis.plot(grid, lost, color=colour, lw=1.4, ls="-.", label="mean field: signal < λ")
    axis.set_xlim(*ends)


def signal_path(sigma_w2: float, result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """By mean field, at the end of the stem and after each stage of a convolutional network: 1 − c
    of two images, and the variance of what they do not share, summed over the channels.

    All channels carry the same few patterns, so that their sum is what stands out of the noise. The
    images have nothing in common at first; the stem is three ordinary layers. NaN for activations
    whose path mean field does not follow.
    """
    config = provenance(result)["config"]
    if config["activation"] not in SMOOTH:
        nothing = np.full(result.sizes["depth"] + 1, np.nan)
        return nothing, nothing
    brightness = round(float(((result["original"] / 255) ** 2).mean()), 6)
    block = config.get("block", "plain") if config["architecture"] == "resnet" else ""
    shared = config["sigma_b2"], config["activation"]
    squares, signals = _propagated(sigma_w2, STEM, brightness, brightness, "", *shared)
    entering = float(squares[-1]), float(signals[-1])
    squares, signals = _propagated(sigma_w2, result.sizes["depth"], *entering, block, *shared)
    return signals / squares, config["channels"] * signals


@lru_cache(maxsize=1000)
def _propagated(
    sigma_w2: float,
    depth: int,
    mean_square: float,
    signal: float,
    block: str,
    sigma_b2: float,
    activation: str,
) -> tuple[np.ndarray, np.ndarray]:
    """`meanfield.propagate`, kept for a figure's other panels."""
    return propagate(
        sigma_w2,
        sigma_b2,
        depth=depth,
        mean_square=mean_square,
        signal=signal,
        activation=activation,
        residual=bool(block),
        bounded=block == "published",
    )


def _first(true: np.ndarray) -> float:
    """The first place where it is true, NaN where it never is."""
    return float(true.argmax()) if true.any() else np.nan


def _mean_field(
    quantity: Callable[..., float], config: Mapping[str, Any], *sigma_w2: float
) -> float:
    """A quantity of mean field, NaN where a variance is beyond what the quadrature can reach."""
    try:
        return quantity(*sigma_w2, config["sigma_b2"], activation=config["activation"])
    except ValueError:
        return np.nan


def _depths_reached(axis: Axes, result: xr.Dataset) -> None:
    draw_theory(axis, result, colour="0.55")
    depth_lines(axis, result, COLLAPSE_LABEL, COLLAPSE_COLOUR)
    cutoff = result["cutoff"].where(result["finished"] == 1)
    mean_with_bars(axis, cutoff, "published cutoff", CUTOFF_COLOUR)
    depth = result.sizes["depth"]
    axis.axhline(depth, color="0.8", lw=0.6, zorder=0)
    axis.set(title="Depth reached", xlabel=VARIANCE, ylabel="depth", ylim=(0, 1.1 * (depth + 1)))
    legend_below(axis, ncols=3)


def collapse_depths(result: xr.Dataset) -> xr.DataArray:
    """The collapse depth of every point, dims sigma_w2 and seed; depth + 1 where none was seen."""
    return xr.apply_ufunc(
        collapse_depth, result["r_squared"], input_core_dims=[["depth"]], vectorize=True
    ).where(result["finished"] == 1)


def depth_lines(axis: Axes, result: xr.Dataset, label: str, colour: str) -> None:
    """Nothing; draws the collapse depth of R², triangles where none was seen."""
    depths = collapse_depths(result)
    mean_with_bars(axis, depths, label, colour)
    censored = (depths > result.sizes["depth"]).any("seed")
    at = result.sigma_w2.values[censored.values]
    if len(at):
        height = np.full(len(at), result.sizes["depth"] + 1)
        axis.plot(at, height, "^", color=colour, ms=3, label=CENSORED)


def legend_below(axis: Axes, *, ncols: int, **look: Any) -> None:
    """Nothing; a legend below an axis whose limits are set, of what is seen inside them, once."""
    seen: dict[str, Any] = {}
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
        line = getattr(handle, "lines", [handle])[0]
        places = line.get_transform().transform(line.get_xydata())
        inside = axis.transAxes.inverted().transform(places)
        if (np.abs(inside - 0.5) <= 0.5 + 1e-6).all(1).any():
            seen.setdefault(label, handle)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "fontsize": 6}
    below["borderaxespad"] = 5.5  # so many letters' height, for the axis' numbers and label
    axis.legend(list(seen.values()), list(seen), ncols=ncols, **below, **look)


def mean_with_bars(axis: Axes, values: xr.DataArray, label: str, colour: str) -> None:
    """Nothing; draws the mean over seeds, with its standard deviation if there are several."""
    spread = values.std("seed", ddof=1) if values.sizes["seed"] > 1 else None
    axis.errorbar(
        values.sigma_w2,
        values.mean("seed"),
        yerr=spread,
        color=colour,
        label=label,
        capsize=1.5,
        elinewidth=0.7,
        marker=".",
        ms=3,
        lw=1,
    )


def _examples(panel: SubFigure, result: xr.Dataset) -> None:
    """One test image as it comes back from several depths, a row per phase."""
    rows = _phases(result)
    shown = result.shown_depth.values
    axes = panel.subplots(len(rows), len(shown) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, (phase, sigma_w2) in enumerate(rows):
        pictures = result["example"].sel(sigma_w2=sigma_w2).isel(seed=0)
        _picture(axes[row, 0], result["original"])
        axes[row, 0].set_ylabel(f"{phase}\n$\\sigma_w^2$ = {sigma_w2:g}", fontsize=7)
        for column, depth in enumerate(shown, start=1):
            _picture(axes[row, column], pictures.sel(shown_depth=depth))
    axes[0, 0].set_title("input", fontsize=7, loc="center", fontweight="normal")
    for column, depth in enumerate(shown, start=1):
        axes[0, column].set_title(f"{depth}", fontsize=7, loc="center", fontweight="normal")
    panel.suptitle("One test image, reconstructed from depth …", fontsize=9, fontweight="bold")


def _phases(result: xr.Dataset) -> list[tuple[str, float]]:
    """A variance of the grid for each phase that it holds: below, at and above the critical one.

    Where none is known, as of residual networks: the smallest, the middle and the largest.
    """
    config = provenance(result)["config"]
    grid = result.sigma_w2.values[result["finished"].values[:, 0] == 1]
    residual = config["architecture"] == "resnet"
    critical = np.nan if residual else _mean_field(critical_sigma_w2, config)
    if np.isnan(critical):
        middle = float(grid[len(grid) // 2])
        wanted = {"small": float(grid[0]), "middle": middle, "large": float(grid[-1])}
    else:
        wanted = {"ordered": 0.6 * critical, "critical": critical, "chaotic": 1.7 * critical}
    found: dict[float, str] = {}
    for phase, target in wanted.items():
        found.setdefault(float(grid[np.abs(grid - target).argmin()]), phase)
    return [(phase, sigma_w2) for sigma_w2, phase in found.items()]


def _picture(axis: Axes, image: xr.DataArray) -> None:
    axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)


def pixels(image: xr.DataArray) -> np.ndarray:
    """A picture (channel, row, column) as matplotlib takes it, (height, width, channels)."""
    return image.transpose("row", "column", "channel").values


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


def _seconds_per_stage(result: xr.Dataset) -> float:
    """CPU seconds that one stage of a network took, on average over all that have an inverse."""
    about = provenance(result)
    stages = stages_of(about["config"]["architecture"], result.sizes["depth"])
    return float(about["seconds_per_point"]) / stages


def _depths_compared(axis: Axes, compared: Mapping[str, xr.Dataset], measured: list[int]) -> None:
    """Nothing; draws the depths of two solvers, on the axis of the depth that both have.

    Args:
        compared: by solver, cut to the depth of both.
        measured: the depths that their cutoffs were measured to.
    """
    for (name, result), depth in zip(compared.items(), measured, strict=True):
        colour = SOLVER_COLOURS[name.lower()]
        depth_lines(axis, result, f"{name}: collapse depth", colour)
        cutoff = result["cutoff"].where(result["finished"] == 1).mean("seed")
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
