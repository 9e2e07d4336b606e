"""Figures of a study: digits as they come back from every stage, and the one each class wants.

The colours of every picture run from 0 to 1, as those of the images do: lost contrast is visible.
"""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from paperlib.core.provenance import provenance
from paperlib.plots import PALETTE, draw_picture, network_of, paper_style, pixels, sign, written

COLUMNS = 10  # pictures in a row
CLASSES = 20  # ideal inputs that are drawn, where there are more
RIGHT, WRONG = "0.25", "#D55E00"  # verdicts


def reconstructions(result: xr.Dataset) -> Figure:
    """Draw the shown images as they come back from every stage, and the ideal inputs.

    Args:
        result: of `study.run_study`.

    Source: arXiv:2406.12916, the figure of reconstructed digits.
    """
    trained = result.sel(state="trained")
    kinds, ideals = result.sizes["shown"], _ideals(result)
    below = 1.3 * -(-len(ideals) // COLUMNS)
    with paper_style():
        figure = plt.figure(figsize=(10.5, 1.0 + 1.3 * kinds + below))
        top, bottom = cast(
            "Any", figure.subfigures(2, 1, height_ratios=(0.2 + 1.3 * kinds, 0.2 + below))
        )
        levels = _spread(result.sizes["level"] - 1, COLUMNS - 1)
        _draw_rows(top, trained, [0, *levels])
        top.suptitle(_shown_title(result), fontsize=9, fontweight="bold")
        _draw_ideals(bottom, trained, ideals, COLUMNS)
        bottom.suptitle(_ideal_title(trained), fontsize=9, fontweight="bold")
        sign(figure, describe(result), result)
    return figure


def before_and_after(result: xr.Dataset) -> Figure:
    """Draw the same pictures through the untrained (left) and the trained network (right).

    Args:
        result: of `study.run_study`.
    """
    kinds, ideals = result.sizes["shown"], _ideals(result)
    columns = COLUMNS // 2
    below = 1.05 * -(-len(ideals) // columns)
    with paper_style():
        figure = plt.figure(figsize=(10.5, 1.0 + 1.1 * kinds + below))
        halves = cast("Any", figure.subfigures(1, 2, wspace=0.04))
        for half, state in zip(halves, result.state.values, strict=True):
            top, bottom = half.subfigures(2, 1, height_ratios=(0.2 + 1.1 * kinds, 0.2 + below))
            levels = [0, *_spread(result.sizes["level"] - 1, columns - 1)]
            _draw_rows(top, result.sel(state=state), levels, judged=False)
            _draw_ideals(bottom, result.sel(state=state), ideals, columns, judged=False)
            top.suptitle(f"{state.capitalize()}: back from stage …", fontsize=9, fontweight="bold")
            bottom.suptitle("The ideal input of each class", fontsize=9, fontweight="bold")
        sign(figure, describe(result), result)
    return figure


def curves(result: xr.Dataset) -> Figure:
    """Draw what is left at every stage: R², relative entropy, and who still knows the class.

    Args:
        result: of `study.run_study`.
    """
    with paper_style():
        figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.9))
        for state, style in (("untrained", "--"), ("trained", "-")):
            at = result.sel(state=state)
            for number, kind in enumerate(result.shown.values):
                look = {"color": PALETTE[number % len(PALETTE)], "ls": style, "lw": 1.0}
                label = kind if state == "trained" else None
                axes[0].plot(at.level, at.r_squared.sel(shown=kind), label=label, **look)
                axes[1].plot(at.level[1:], at.relative_entropy.sel(shown=kind)[1:], **look)
            black = {"color": "black", "ls": style}
            axes[0].plot(at.level, at.test_r_squared, label=f"test images, {state}", **black)
            for axis, judge in zip(axes[2:], result.judge.values, strict=True):
                axis.plot(at.level, at.right.sel(judge=judge), label=state, **black)
        axes[0].set(
            title="R²",
            ylabel="fraction of the image",
            ylim=(min(-0.1, axes[0].get_ylim()[0]), 1.03),
        )
        axes[1].set(title="Relative entropy", ylabel="nats")
        axes[2].set(title="Known by the network", ylabel="fraction of test images", ylim=(0, 1.03))
        axes[3].set(title="Known by the class means", ylim=(0, 1.03))
        for axis in axes:
            axis.set(xlabel="reconstructed from stage")
        axes[0].legend(fontsize=5.5)
        axes[2].legend()
        sign(figure, describe(result), result)
    return figure


def verdicts(result: xr.Dataset) -> pd.DataFrame:
    """Return a table of what each judge sees in the shown images and in their reconstructions."""
    names = result["class"].values
    seen = result.verdict.sel(state="trained").transpose("shown", "judge", "level")
    rows = [(kind, judge) for kind in result.shown.values for judge in result.judge.values]
    index = pd.MultiIndex.from_tuples(rows, names=["image", "judge"])
    columns = ["input", *map(str, result.level.values[1:])]
    table = pd.DataFrame(names[seen.values].reshape(len(rows), -1), index, columns)
    table["changes"] = [_changes(row.tolist()) for row in table.to_numpy()]
    return table


def describe(result: xr.Dataset) -> str:
    """Return a study's title in words: data really used, network, training and fit."""
    about = provenance(result)
    config, data = about["config"], about["data"]
    channels, height, width = data["image_shape"]
    size = f" ({'grey' if channels == 1 else 'colour'} {height}×{width})"
    optimiser = {"sgd": "SGD", "adam": "Adam"}[config["optimiser"]]
    solver = "Adam" if config["solver"] == "adam" else f"ridge, λ = {written(config['resolution'])}"
    name, rest = network_of(result).split("  ·  ", 1)
    return (
        f"{name}{size}  ·  {rest}, {config['depth']} stages  ·  trained by {optimiser} for "
        f"{int(result.steps):,} steps of {config['batch_size']}: {float(result.accuracy):.1%}  ·  "
        f"cascade by {solver}"
    )


def _changes(seen: Sequence[str]) -> str:
    """At which stages what a judge sees is no longer what it saw before."""
    steps = [f"{seen[0]}"]
    for stage in range(1, len(seen)):
        if seen[stage] != seen[stage - 1]:
            steps.append(f"{seen[stage]} from stage {stage}")
    return ", ".join(steps) if len(steps) > 1 else "none"


def _spread(depth: int, count: int) -> list[int]:
    """At most `count` levels from 1 to `depth`, both among them, evenly spread."""
    return sorted({round(level) for level in np.linspace(1, depth, min(count, depth))})


def _ideals(result: xr.Dataset) -> list[int]:
    return list(range(min(CLASSES, result.sizes["class"])))


def _shown_title(result: xr.Dataset) -> str:
    name = result["class"].values[int(result.label)]
    return f"Test images of the class “{name}”, as they come back from stage …"


def _ideal_title(trained: xr.Dataset) -> str:
    off = f"{provenance(trained)['config']['off']:g}".replace("-", "−")
    known = (trained.ideal_verdict == np.arange(trained.sizes["class"])).sum("class").values
    count = trained.sizes["class"]
    return (
        f"The ideal input of each class: its output 1, the others {off}; "
        f"known by the network {known[0]} of {count}, by the class means {known[1]} of {count}"
    )


def _draw_rows(
    panel: Figure | SubFigure, at: xr.Dataset, levels: Sequence[int], *, judged: bool = True
) -> None:
    """Draw a row for each shown image, and below each picture what the judges see in it."""
    label = int(at.label)
    axes = panel.subplots(at.sizes["shown"], len(levels), squeeze=False)
    for row, kind in zip(axes, at.shown.values, strict=True):
        seen = at.sel(shown=kind)
        row[0].set_ylabel(f"{kind}\n#{int(seen.number)}", fontsize=7)
        for axis, level in zip(row, levels, strict=True):
            draw_picture(axis, pixels(seen.picture.sel(level=level)))
            if judged:
                _write_verdicts(axis, seen.verdict.sel(level=level), label, at)
    for axis, level in zip(axes[0], levels, strict=True):
        axis.set_title("input" if level == 0 else f"{level}", **_SMALL)


def _draw_ideals(
    panel: Figure | SubFigure,
    at: xr.Dataset,
    classes: Sequence[int],
    columns: int,
    *,
    judged: bool = True,
) -> None:
    """Draw the ideal input of each of these classes."""
    rows = -(-len(classes) // columns)
    axes = panel.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(classes) :]:
        axis.set_visible(False)
    axes[0, 0].set_ylabel("ideal\ninput", fontsize=7)
    for axis, number in zip(axes.flat, classes, strict=False):
        seen = at.isel({"class": number})
        draw_picture(axis, pixels(seen.ideal))
        axis.set_title(_short(str(at["class"].values[number])), **_SMALL)
        if judged:
            _write_verdicts(axis, seen.ideal_verdict, number, at)


_SMALL: dict[str, Any] = {"fontsize": 7, "loc": "center", "fontweight": "normal", "pad": 2}


def _write_verdicts(axis: Axes, verdict: xr.DataArray, label: int, at: xr.Dataset) -> None:
    """Write below a picture what the network and the class means see in it."""
    names = at["class"].values
    for line, seen in enumerate(verdict.values):
        axis.text(
            0.5,
            -0.03 - 0.14 * line,
            f"{'net' if line == 0 else 'mean'}: {_short(str(names[seen]))}",
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=6.5,
            color=RIGHT if seen == label else WRONG,
        )


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
