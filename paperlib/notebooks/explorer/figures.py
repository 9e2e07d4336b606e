"""The explorer's live figures, by Bokeh: its script is a quarter of Plotly's, and says of every
click and drag where in the data it was. What they show is set by the script of the page.

They need the optional extra `explorer`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.events import DoubleTap, Pan, Tap
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    CustomJS,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
    Span,
)
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from paperlib.notebooks.explorer.contents import values_of
from paperlib.plots.style import COLLAPSE_COLOUR, PALETTE, edges

GREYS = [f"#{level:02x}{level:02x}{level:02x}" for level in range(256)]


def map_figure(maps: Mapping[str, Any]) -> Any:
    """Draw the maps of all architectures, of which one is seen at a time.

    Args:
        maps: by architecture, of `contents.map_of`.
    """
    plot = _plot("map", 420, "weight variance σ_w²", "depth", x_range=Range1d(), y_range=Range1d())
    colours = LinearColorMapper(Viridis256, low=0, high=1, nan_color="#bbbbbb", name="colours")
    for name, about in maps.items():
        values, ends = values_of(name), edges(np.array(about["sigma_w2"]))
        left, width = float(ends[0]), float(ends[-1] - ends[0])
        source = ColumnDataSource({measure: [value] for measure, value in values.items()})
        plot.image(
            "r_squared", left, 0.5, width, about["deepest"], source=source,
            color_mapper=colours, name=f"heat {name}", visible=False,
        )  # fmt: skip
    plot.multi_line(
        "x", "y", source=_empty("x", "y", "dash"), line_dash="dash", color="white", name="theory"
    )
    plot.line("x", "y", source=_empty("x", "y"), color=COLLAPSE_COLOUR, width=2, name="wall")
    grey = LinearColorMapper(GREYS, low=0, high=1)
    plot.scatter(
        "x", "y", source=_empty("x", "y", "accuracy"), size=9, line_color="white", name="trained",
        fill_color={"field": "accuracy", "transform": grey},
    )  # fmt: skip
    for name, dimension in (("across", "width"), ("down", "height")):
        plot.add_layout(Span(dimension=dimension, line_color="white", line_alpha=0.8, name=name))
    plot.scatter(
        "x", "y", source=_empty("x", "y"), size=18, fill_color=None, line_color="#ff9d00",
        line_width=4, name="here",
    )  # fmt: skip
    bar = ColorBar(color_mapper=colours, width=10, padding=6, margin=0)
    plot.add_layout(bar, "right")
    _call(plot, "explorer.pick(cb_obj.x, cb_obj.y)", Tap, DoubleTap, Pan)
    return plot


def curve_figure() -> Any:
    """Draw one measure down the depth of one network."""
    plot = _plot("curve", 230, "depth", "R²", x_range=Range1d(), y_range=Range1d())
    plot.line("x", "y", source=_empty("x", "y"), color=PALETTE[0], width=2, name="line")
    plot.scatter(
        "x", "y", source=_empty("x", "y"), size=8, color=PALETTE[1], marker="triangle",
        name="accuracies",
    )  # fmt: skip
    plot.add_layout(Span(dimension="height", line_color="#555555", name="at"))
    for name, dash in (("xi", "dashed"), ("six xi", "solid")):
        line = Span(dimension="height", line_color="#999999", line_dash=dash, name=name)
        plot.add_layout(line)
    _call(plot, "explorer.pick(null, cb_obj.x)", Tap, DoubleTap)
    return plot


def zoo_figure(numbers: dict[str, Any]) -> Any:
    """Draw the zoo: foretold against reached, a dot for each network."""
    ranges = {"x_range": Range1d(-0.03, 1.03), "y_range": Range1d(0, 1.03)}
    plot = _plot("zoo", 420, "probability that it learns, foretold", "best accuracy", **ranges)
    families = sorted({*numbers["family"]})
    colour = dict(zip(families, PALETTE, strict=False))
    source = ColumnDataSource(
        {
            "x": numbers["probability"],
            "y": numbers["best"],
            "colour": [colour[family] for family in numbers["family"]],
            "alpha": [0.75] * len(numbers["family"]),
        }
    )
    plot.scatter("x", "y", source=source, size=9, color="colour", alpha="alpha", name="dots")
    plot.scatter(
        "x", "y", source=_empty("x", "y"), size=18, fill_color=None, line_color="black",
        line_width=2, name="chosen",
    )  # fmt: skip
    for axis in (plot.xaxis, plot.yaxis):
        axis.formatter = NumeralTickFormatter(format="0%")
    _call(plot, "explorer.nearest(cb_obj.x, cb_obj.y)", Tap, DoubleTap)
    return plot


def _plot(name: str, height: int, x: str, y: str, **ranges: Any) -> Any:
    """An empty figure without tools: a finger on it scrolls the page."""
    plot = figure(
        name=name, height=height, sizing_mode="stretch_width", tools="", toolbar_location=None,
        x_axis_label=x, y_axis_label=y, min_border=4, **ranges,
    )  # fmt: skip
    for axis in (plot.xaxis, plot.yaxis):
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
    plot.outline_line_color = None
    plot.yaxis[0].name = f"{name} values"
    return plot


def _call(plot: Any, code: str, *events: Any) -> None:
    """Have the page's script called where the figure is clicked; a second click soon after the
    first, wherever it is, is a DoubleTap to Bokeh."""
    for event in events:
        plot.js_on_event(event, CustomJS(code=code))


def _empty(*names: str) -> ColumnDataSource:
    return ColumnDataSource({name: [] for name in names})
