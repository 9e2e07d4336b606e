"""Figures of VGG's channels: the picture that each carries alone, and how much of the image.

What a channel adds to the picture is often faint. Where it is drawn stretched, grey means no
change, and the largest change is black or white in its colour.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.core.provenance import provenance
from paperlib.instruments.channels.channels import STEP, best_channels, picture
from paperlib.plots import (
    SOLVER_COLOURS,
    data_of,
    draw_picture,
    paper_style,
    pixels,
    sign,
    write_png,
    written,
)

NAMES = {"ridge": "closed form", "adam": "Adam, as published", "random weights": "random weights"}
COLOURS = {**SOLVER_COLOURS, "random weights": "0.5"}


def pictures(result: xr.Dataset) -> Figure:
    """Draw the photograph and of what single channels and whole levels make of it.

    Args:
        result: of `channels.run_channels`.

    Source: arXiv:2406.12916, the figure of VGG16's channels.
    """
    shown = _shown_channels(result)
    with paper_style():
        figure, axes = plt.subplots(2, 1 + len(shown), figsize=(10.5, 4.0), squeeze=False)
        draw_picture(axes[0, 0], pixels(result.original[0]) / 255)
        axes[0, 0].set_title(_stem(result.photograph.values[0]), **_SMALL)
        axes[1, 0].set_visible(False)
        for column, name in zip(axes[:, 1:].T, shown, strict=True):
            draw_picture(column[0], pixels(picture(result, name)))
            column[0].set_title(_title(result, name), **_SMALL)
            _draw_added(column[1], result.added.sel(shown=name))
            column[1].set_title(f"stretched {_stretch(result, name):.3g} ×", **_SMALL)
        axes[0, 1].set_ylabel("as it comes")
        axes[1, 1].set_ylabel("what it adds")
        sign(figure, describe(result), result)
    return figure


def best(result: xr.Dataset) -> Figure:
    """Draw the channels of each ranked level that carry most of the image.

    Args:
        result: of `channels.run_channels`.
    """
    levels = list(dict.fromkeys(result.entry_level.values.tolist()))
    count = provenance(result)["config"]["best"]
    with paper_style():
        figure, axes = plt.subplots(
            len(levels), count, figsize=(10.5, 0.5 + 1.35 * len(levels)), squeeze=False
        )
        for row, level in zip(axes, levels, strict=True):
            gained = _of_level(result, level).gained.values
            channels = best_channels(result, level)[:count]
            for axis, channel in zip(row, channels, strict=False):
                _draw_added(axis, result.added.sel(shown=f"{level}:{channel}"))
                axis.set_title(f"{channel}: R² +{gained[channel]:.3f}", **_SMALL)
            for axis in row[len(channels) :]:
                axis.set_visible(False)
            row[0].set_ylabel(f"level {level}\n{_stage(result, level)}")
        sign(figure, describe(result), result)
    return figure


def answers(result: xr.Dataset) -> Figure:
    """Draw what one channel makes of several photographs, all on one scale.

    Args:
        result: of `channels.run_channels`.
    """
    asked = provenance(result)["config"]["asked"]
    largest = float(result.answer_scale.max())
    with paper_style():
        figure, axes = plt.subplots(
            2, result.sizes["photograph"], figsize=(10.5, 5.0), squeeze=False
        )
        for column, name in zip(axes.T, result.photograph.values, strict=True):
            at = result.sel(photograph=name)
            draw_picture(column[0], pixels(at.original) / 255)
            column[0].set_title(_stem(name), **_SMALL)
            share = float(at.answer_scale) / largest
            _draw_added(column[1], at.answer * share)
            energy = float(at.answer_energy / result.answer_energy.max())
            column[1].set_title(f"energy {energy:.0%} of the largest", **_SMALL)
        level, _, channel = asked.partition(":")
        axes[1, 0].set_ylabel(f"level {level}, channel {channel}")
        sign(figure, describe(result), result)
    return figure


def curves(result: xr.Dataset) -> Figure:
    """Draw R² by level, and of how the image is spread over the channels of a level.

    Args:
        result: of `channels.run_channels`.
    """
    with paper_style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.7))
        _all_channels(left, result)
        frame = _entries(result)
        look: dict[str, Any] = {
            "data": frame,
            "y": "R² gained",
            "hue": "level",
            "palette": "colorblind",
        }
        seaborn.lineplot(x="rank", ax=middle, **look)
        seaborn.scatterplot(x="energy (squared pixel value)", ax=right, s=8, **look)
        middle.set(title="One channel", xscale="log")
        right.set(title="Loud or telling?", xscale="log", ylabel="")
        loudest = float(result.energy.max())
        right.set_xlim(1e-5 * loudest, 2 * loudest)
        for axis in (middle, right):
            axis.set_yscale("symlog", linthresh=1e-4)
        sign(figure, describe(result), result)
    return figure


def ranking(result: xr.Dataset, level: int, *, count: int = 8) -> pd.DataFrame:
    """Return a table of the channels of a ranked level that carry most of the image, best first.

    Raises:
        ValueError: a level that was not ranked.
    """
    at = _of_level(result, level)
    if not at.sizes["entry"]:
        ranked = ", ".join(map(str, dict.fromkeys(result.entry_level.values.tolist())))
        raise ValueError(f"level must be one of those ranked ({ranked}), got {level}")
    table = at[["entry_channel", "gained", "energy"]].to_dataframe()
    table = table.rename(columns={"entry_channel": "channel", "gained": "R² gained"})
    table.insert(0, "level", level)
    return table.sort_values("R² gained", ascending=False).head(count).reset_index(drop=True)


def save_gallery(result: xr.Dataset, folder: Path) -> list[Path]:
    """Write <level>_<channel>.png for each channel: its picture, and what it adds, stretched.

    Args:
        result: of `channels.run_channels`.
        folder: made if it is missing.
    """
    files = []
    for name in result.shown.values:
        with paper_style():
            figure, (left, right) = plt.subplots(1, 2, figsize=(4.2, 2.5))
            draw_picture(left, pixels(picture(result, name)))
            left.set_title("as it comes", **_SMALL)
            _draw_added(right, result.added.sel(shown=name))
            right.set_title(f"what it adds, stretched {_stretch(result, name):.3g} ×", **_SMALL)
            sign(figure, f"{_weights(result)}\n{_title(result, name)}", result)
            files.append(folder / f"{name.replace(':', '_')}.png")
            write_png(figure, files[-1], result)
            plt.close(figure)
    return files


def describe(result: xr.Dataset) -> str:
    """Return the title in words: weights, photographs really used, and the cascade's fit."""
    about = provenance(result)
    config, data = about["config"], about["data"]
    solver = "Adam" if config["solver"] == "adam" else f"ridge, λ = {written(config['resolution'])}"
    weights = _weights(result)
    fit = f"{data['train_images']} of {data_of(data['name'])} ({config['side']}×{config['side']})"
    break_ = "\n" if len(weights) > _LONG else "  ·  "
    return f"{weights}{break_}cascade by {solver}, fitted to {fit}"


def _weights(result: xr.Dataset) -> str:
    """Network and weights in words, e.g. VGG16, random weights."""
    about = provenance(result)
    config, weights = about["config"], about["weights"]
    network = f"VGG{config['layers']}" + (" with batch norm" if config["batch_norm"] else "")
    if weights["epochs"]:
        trained = weights["trained_on"]
        return (
            f"{network}, trained on {trained['train_images']:,} images of "
            f"{data_of(trained['name'])} for {weights['epochs']} epochs: {weights['accuracy']:.1%}"
        )
    names = {"random": "random weights", "imagenet": "ImageNet weights"}
    return f"{network}, {names.get(weights['name'], weights['name'])}"


def _all_channels(axis: Axes, result: xr.Dataset) -> None:
    """Draw R² of every cascade by level; triangles mark values below the axis."""
    for name in result.cascade.values:
        at = result.sel(cascade=name)
        label = f"{NAMES[name]}, {float(at.seconds):.0f} s"
        if name == "adam" and int(at.steps):
            label += f", {int(at.steps)} steps"
        if at.r_squared.max() < _LOWEST:
            ends = [f"{float(at.r_squared[end]):.1f}".replace("-", "−") for end in (0, -1)]
            label += f"\n(below the axis, R² {' to '.join(dict.fromkeys(ends))})"
        axis.plot(at.level, at.r_squared, "o-", ms=2.5, label=label, color=COLOURS[name])
        below = at.level[at.r_squared.values < _LOWEST]
        if len(below):
            low = np.full(len(below), _LOWEST)
            axis.plot(below, low, "v", ms=3, color=COLOURS[name], clip_on=False)
    axis.set(title="All channels", ylabel="R²", ylim=(_LOWEST, 1.03))
    axis.set_xticks(result.level, result.stage.values, rotation=90, fontsize=5.5)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=5.5, fontsize=6)


def _shown_channels(result: xr.Dataset) -> Sequence[str]:
    whole = [name for name in result.shown.values if name.endswith(":all")]
    return [*provenance(result)["config"]["shown"], *whole]


def _entries(result: xr.Dataset) -> pd.DataFrame:
    """Every channel of the ranked levels, with its rank in its level."""
    frame = result[["entry_level", "gained", "energy"]].to_dataframe()
    frame["rank"] = frame.groupby("entry_level")["gained"].rank(ascending=False, method="first")
    frame["level"] = [f"{level}, {_stage(result, level)}" for level in frame["entry_level"]]
    return frame.rename(columns={"gained": "R² gained", "energy": "energy (squared pixel value)"})


def _of_level(result: xr.Dataset, level: int) -> xr.Dataset:
    return result.isel(entry=result.entry_level.values == level)


def _stage(result: xr.Dataset, level: int) -> str:
    return str(result.stage.sel(level=level).values)


def _title(result: xr.Dataset, shown: str) -> str:
    level, _, channel = shown.partition(":")
    which = "all channels" if channel == "all" else f"channel {channel}"
    return f"level {level} ({_stage(result, int(level))}), {which}"


def _stem(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _stretch(result: xr.Dataset, shown: str) -> float:
    """How much larger a change is drawn than it is."""
    return 0.5 / float(result.scale.sel(shown=shown))


def _draw_added(axis: Axes, added: xr.DataArray) -> None:
    draw_picture(axis, 0.5 + 0.5 * pixels(added) / STEP)


_LONG = 40  # characters of what the weights are, from which on they have a line of their own
_LOWEST = -0.05  # R² that is drawn
_SMALL = {"fontsize": 7, "loc": "center", "fontweight": "normal", "pad": 2}
