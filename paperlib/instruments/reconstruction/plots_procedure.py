"""The schematic figure of the method, drawn from a real network's numbers."""

import textwrap

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from paperlib.core.provenance import provenance
from paperlib.plots import draw_picture, network_of, paper_style, pixels, sign, solver_of

FORWARD, BACK = "#0072B2", "#D55E00"  # the style's first two colours
STRIPES = 40  # neurons of a barcode, where there are more
# In inches: a picture or barcode, from one to the next, and to the first of them.
BOX, ROW, COLUMN, LEFT, TOP = 1.1, 1.65, 2.1, 2.45, 0.75
EXTRA = 1.05  # for a step that has no row of its own
STEPS = {
    "① Forward": "An image goes through an untrained network. After each stage it is one number "
    "per neuron: a barcode.",
    "② Back": "For each stage f a small inverse c is fitted, which guesses what went into the "
    "stage from what came out of it.",
    "③ Chained": "One behind the other, the inverses lead from any depth back to an image. "
    "They are the cascade C of that depth.",
    "④ Compared": "What the picture has lost, the network had lost at that depth. R² is the "
    "fraction of all test images that is left.",
}


def procedure(result: xr.Dataset) -> Figure:
    """Draw a schematic figure of the method: an image goes through the stages, and back from each.

    Args:
        result: of `procedure.run_procedure`.

    Source: arXiv:2406.12916, the figures of the procedure.
    """
    depth = result.sizes["level"]
    extra = EXTRA * max(0, len(STEPS) - depth - 1)
    size = (LEFT + COLUMN * depth + BOX + 0.95, TOP + ROW * (depth + 1) + extra)
    with paper_style():
        figure = plt.figure(figsize=size, layout="none")
        _forward(figure, result)
        for start in result.cascade.values:
            _cascade(figure, result, int(start))
        _explain(figure, depth)
        sigma_w2 = provenance(result)["config"]["sigma_w2"]
        title = f"{network_of(result)}, σ_w² = {sigma_w2:g}  ·  {solver_of(result)}"
        sign(figure, title, result)
    return figure


def _forward(figure: Figure, result: xr.Dataset) -> None:
    """Draw the top row: the image and its activations."""
    depth = result.sizes["level"]
    _picture(figure, 0, result.input).set_title("image", fontsize=8, loc="center")
    for level in result.level.values:
        axis = _barcode(figure, 0, level, result.activation.sel(level=level), FORWARD)
        axis.set_title(f"activation {level}", fontsize=8, loc="center")
        _arrow(figure, (0, level - 1), (0, level), f"$f_{{{level}}}$", FORWARD)
        _drop(figure, level)
    right = LEFT + COLUMN * depth + BOX
    _line(figure, (right + 0.08, TOP + BOX / 2), (right + 0.45, TOP + BOX / 2), FORWARD, "-|>")
    _text(figure, right + 0.5, TOP + BOX / 2, "deeper\nstages,\nclass", va="center", fontsize=7)


def _cascade(figure: Figure, result: xr.Dataset, start: int) -> None:
    """Draw the row of the cascade that begins at level `start`."""
    for level in range(start, 0, -1):
        found = result.estimate.sel(cascade=start, level=level)
        _barcode(figure, start, level, found, FORWARD if level == start else BACK)
        _arrow(figure, (start, level), (start, level - 1), f"$c_{{{level}}}$", BACK)
    axis = _picture(figure, start, result.reconstruction.sel(cascade=start))
    kept = float(result.r_squared.sel(cascade=start))
    chain = " ".join(f"c_{{{level}}}" for level in range(1, start + 1)).replace(" ", r"\circ ")
    axis.set_title(
        f"$C^{{{start}}} = {chain}$:  R² = {kept:.2f}", fontsize=8, loc="center", color=BACK
    )


def _explain(figure: Figure, depth: int) -> None:
    """Write the steps beside the rows, and the remaining ones below the last row."""
    for place, (head, body) in enumerate(STEPS.items()):
        top = TOP + ROW * min(place, depth) + EXTRA * max(0, place - depth)
        _text(figure, 0.15, top, head, va="top", fontsize=8, fontweight="bold")
        _text(
            figure,
            0.15,
            top + 0.2,
            textwrap.fill(body, 31),
            va="top",
            fontsize=7.5,
            linespacing=1.35,
        )


def _axes(figure: Figure, row: int, column: int) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom = LEFT + COLUMN * column, height - TOP - ROW * row - BOX
    axis = figure.add_axes((left / width, bottom / height, BOX / width, BOX / height))
    axis.set(xticks=[], yticks=[])
    return axis


def _picture(figure: Figure, row: int, picture: xr.DataArray) -> Axes:
    axis = _axes(figure, row, 0)
    draw_picture(axis, pixels(picture))
    return axis


def _barcode(figure: Figure, row: int, column: int, values: xr.DataArray, colour: str) -> Axes:
    """An activation as stripes, black at the lowest and white at the highest value."""
    axis = _axes(figure, row, column)
    axis.imshow(values.values[None, :STRIPES], aspect="auto", cmap="gray", vmin=-1, vmax=1)
    axis.spines[:].set(visible=True, color=colour, linewidth=1.2)
    return axis


def _arrow(
    figure: Figure, start: tuple[int, int], end: tuple[int, int], name: str, colour: str
) -> None:
    """Draw a labelled arrow between two boxes, (row, column), of one row."""
    row, first, last = start[0], start[1], end[1]
    height = TOP + ROW * row + BOX / 2
    gap = BOX + 0.08 if last > first else -0.08
    begin, stop = LEFT + COLUMN * first + gap, LEFT + COLUMN * last + BOX - gap
    _line(figure, (begin, height), (stop, height), colour, "-|>")
    _text(
        figure, (begin + stop) / 2, height, name, va="center", ha="center", color="white",
        bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"},
    )  # fmt: skip


def _drop(figure: Figure, level: int) -> None:
    """Draw the path of an activation down to the row of its cascade."""
    x = LEFT + COLUMN * level + BOX / 2
    _line(figure, (x, TOP + BOX + 0.05), (x, TOP + ROW * level - 0.05), FORWARD, "-|>", ls=":")


def _line(
    figure: Figure,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    style: str,
    ls: str = "-",
) -> None:
    """Draw an arrow between two places, in inches from the top left corner."""
    width, height = figure.get_size_inches()
    ends = [(x / width, 1 - y / height) for x, y in (start, end)]
    figure.add_artist(
        FancyArrowPatch(
            *ends,
            arrowstyle=style,
            mutation_scale=9,
            color=colour,
            lw=1.2,
            ls=ls,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _text(figure: Figure, x: float, y: float, text: str, **look: object) -> None:
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, **look)  # type: ignore[arg-type]
