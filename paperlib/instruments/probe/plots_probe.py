"""The figure of a report on a model."""

import json
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure

from paperlib.core.provenance import provenance
from paperlib.measures import LOST, collapse_depth
from paperlib.plots import (
    BLUE,
    ORANGE,
    draw_picture,
    edges,
    hatch,
    paper_style,
    pixels,
    sign,
    written,
)

NAMED = 36  # stages whose names have room on the axis


def report(result: xr.Dataset, *, title: str | None = None) -> Figure:
    """Draw one model: R², correlation and separation along its stages, and pictures.

    Args:
        result: of `probe`.
        title: instead of model, images, resolution and what is left at the end.
    """
    pictured = "example" in result
    with paper_style():
        height = 4.6 if pictured else 3.4
        figure = plt.figure(figsize=(8.2, height))
        ratios = (2.4, 1) if pictured else (1,)
        panels: Any = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
        kept, geometry = panels[0].subplots(1, 2)
        _kept(kept, result)
        _geometry(geometry, result)
        if pictured:
            _pictures(panels[1], result)
        sign(figure, title or describe(result), result)
    return figure


WATCHED = {
    "r_squared": ("R²: fraction of the input that comes back", False),
    "rms": ("size of activations (RMS)", True),
    "gradient": ("size of their gradient (RMS)", True),
    "dead": ("share of dead units", False),
    "constant": ("share of units that are the same for every image", False),
    "rank": ("effective rank", True),
}


def watched(result: xr.Dataset) -> Figure:
    """Draw a training: R² and vital signs over step × stage, those that are there.

    Args:
        result: of `Watch.result`.
    """
    own = [n for n, v in result.data_vars.items() if v.dims == ("step", "stage")]
    names = [n for n in WATCHED if n in own] or [str(name) for name in own[:6]]
    config = provenance(result)["config"]
    with paper_style():
        rows = max(1, -(-len(names) // 2))
        figure, axes = plt.subplots(rows, 2, figsize=(8.2, 1.9 * rows + 0.8), squeeze=False)
        for axis in axes.flat[len(names) :]:
            axis.axis("off")
        for axis, name in zip(axes.flat, names, strict=False):
            _over_steps(axis, result, name)
        looks = f"{result.sizes['step']} looks, every {config['every']} steps"
        sign(figure, f"{config['model']}, {config['parameters']:,} parameters  ·  {looks}", result)
    return figure


def _over_steps(axis: Axes, result: xr.Dataset, name: str) -> None:
    title, logarithmic = WATCHED.get(name, (name, False))
    values = result[name].transpose("stage", "step").values.astype(float)
    seen = values[np.isfinite(values) & (values > 0)]
    norm: Any = None
    if logarithmic and seen.size and seen.min() < seen.max():
        norm = LogNorm(max(seen.min(), 1e-9 * seen.max()), seen.max())
    elif not logarithmic:
        norm = Normalize(0, 1)
    hatch(axis)  # where there is no number, or none that a logarithm has
    drawn = axis.pcolormesh(
        edges(result.step.values.astype(float)), edges(result.stage.values.astype(float)),
        values, norm=norm, cmap="viridis",
    )  # fmt: skip
    axis.figure.colorbar(drawn, ax=axis)
    axis.set(title=title, xlabel="step", ylabel="stage")


def compare(results: dict[str, xr.Dataset]) -> Figure:
    """Draw several models: R² along their stages, from the input (0) to the output (1)."""
    with paper_style():
        figure, axis = plt.subplots(figsize=(6.4, 3.4))
        for name, result in results.items():
            places = result.stage.values / result.sizes["stage"]
            axis.plot(places, result["r_squared"], ".-", ms=3, label=name)
        axis.axhline(LOST, color="0.6", lw=0.8, ls=":")
        axis.set(
            xlabel="place in the model (0: input, 1: output)",
            ylabel="R²",
            ylim=(-0.05, 1.02),
            title="Fraction of the input that comes back",
        )
        axis.legend(fontsize=6.5)
        samples = dict.fromkeys(map(samples_of, results.values()))
        sign(figure, "\n".join(samples), next(iter(results.values())))
    return figure


def describe(result: xr.Dataset) -> str:
    """Return a report's title in words: the model, its input, and how much is left at the end."""
    config = provenance(result)["config"]
    left = float(result["r_squared"][-1])
    model = (
        f"{config['model']}, {config['parameters']:,} parameters, {result.sizes['stage']} stages"
    )
    told = json.loads(result.attrs.get("verdict", "{}"))
    trains = f"  ·  trains with a probability of {told['probability']:.0%}" if told else ""
    return f"{model}  ·  R² at the end: {left:z.2f}{trains}\n{samples_of(result)}"


def samples_of(result: xr.Dataset) -> str:
    """Return the samples and the resolution of a report in words."""
    about = provenance(result)
    data = about["data"]
    shape = "×".join(map(str, data["shape"]))
    return (
        f"inputs of {shape}  ·  {data['train_images']:,} fitted, {data['test_images']:,} held out"
        f"  ·  λ = {written(about['config']['resolution'])}"
    )


def _kept(axis: Axes, result: xr.Dataset) -> None:
    stages, kept = result.stage.values, result["r_squared"].values
    direct = np.array(["direct" in text for text in result["read"].values])
    axis.plot(stages[~direct], kept[~direct], ".-", label="cascade")
    if direct.any():
        axis.plot(stages[direct], kept[direct], "s", ms=3, label="direct")
        axis.legend()
    axis.axhline(LOST, color="0.6", lw=0.8, ls=":")
    lost = collapse_depth(kept)
    if lost <= len(kept):
        axis.axvspan(lost - 0.5, len(kept) + 0.5, color="0.9", zorder=0)
        axis.annotate(
            f"lost from stage {lost}", (lost - 0.3, 0.93), fontsize=7, annotation_clip=False
        )
    low = min(-0.05, float(np.nanmin(kept)) - 0.02)
    axis.set(title="Fraction of the input that comes back", ylabel="R²", ylim=(max(low, -1), 1.02))
    _name_stages(axis, result)


def _geometry(axis: Axes, result: xr.Dataset) -> None:
    axis.plot(result.stage, result["correlation"], ".-", color=BLUE)
    axis.set(title="Geometry of activations", ylim=(-0.1, 1.05))
    axis.set_ylabel("mean cosine of different inputs", color=BLUE)
    other = axis.twinx()
    apart = result["separation"].clip(min=1e-6)
    other.plot(result.stage, apart, ".-", color=ORANGE)
    limits = (min(0.1, 0.7 * float(apart.min())), max(10.0, 1.4 * float(apart.max())))
    other.set(yscale="log", ylim=limits)
    other.set_ylabel("distance of neighbours (at the input: 1)", color=ORANGE)
    _name_stages(axis, result)


def _name_stages(axis: Axes, result: xr.Dataset) -> None:
    count = result.sizes["stage"]
    step = -(-count // NAMED)
    names = [str(name)[-22:] for name in result["layer"].values[::step]]
    axis.set_xticks(result.stage.values[::step], names, rotation=90, fontsize=5)
    axis.set(xlim=(0.5, count + 0.5), xlabel="layer (its name in the model)")


def _pictures(panel: SubFigure, result: xr.Dataset) -> None:
    axes = panel.subplots(1, result.sizes["shown"] + 1, squeeze=False)[0]
    draw_picture(axes[0], pixels(result["original"]))
    axes[0].set_title("input", fontsize=6, loc="center")
    for axis, stage in zip(axes[1:], result.shown.values, strict=True):
        draw_picture(axis, pixels(result["example"].sel(shown=stage)))
        layer = str(result["layer"].sel(stage=stage).values)[-20:]
        axis.set_title(f"{layer}\nstage {stage}", fontsize=6, loc="center")
