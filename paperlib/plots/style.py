"""How every figure looks, and what is written into its files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.measures import LOST

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


@contextmanager
def paper_style() -> Iterator[None]:
    """Give the figures made inside the package's look.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib.plots import paper_style
        >>> with paper_style():
        ...     plt.rcParams["pdf.fonttype"]
        42
    """
    # Jupyter's backend turns interactive when it is loaded, by the first figure. Inside the context
    # that would be undone at its end, and no later figure of the notebook would be shown.
    plt.draw_if_interactive()  # loads it, and does nothing else
    with plt.style.context(STYLE):
        yield


def save(figure: Figure, stem: Path, *drawn: xr.Dataset) -> list[Path]:
    """Save a figure as `stem`.png and `stem`.pdf, with the provenance of its results inside.

    The same figure of the same result gives the same bytes. It is laid out once, and keeps that
    layout; after changes to it, `figure.set_layout_engine("constrained")` asks for another.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = save(plt.figure(), Path(folder) / "empty", load_result("mnist_mlp_adam.nc"))
        >>> [file.name for file in files]
        ['empty.png', 'empty.pdf']
        >>> plt.close()
    """
    png, pdf = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.pdf")
    about = write_png(figure, png, *drawn)
    metadata = {"Title": stem.name, "Keywords": about, "CreationDate": None, "Producer": None}
    with _as_laid_out(figure):
        figure.savefig(pdf, metadata=metadata)
    return [png, pdf]


def write_png(figure: Figure, file: Path, *drawn: xr.Dataset) -> str:
    """Write a PNG with the provenance of its results in its metadata; return that, in JSON.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import write_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "empty.png"
        ...     about = write_png(plt.figure(), file, load_result("mnist_mlp_adam.nc"))
        >>> '"solver": "adam"' in about
        True
        >>> plt.close()
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps([provenance(result) for result in drawn], sort_keys=True)
    metadata = {"Title": file.stem, "Description": about, "Software": None}
    with _as_laid_out(figure):
        figure.savefig(file, metadata=metadata)
    return about


@contextmanager
def _as_laid_out(figure: Figure) -> Iterator[None]:
    """The style, and the figure with the layout that a saved PNG of it has, for all that follows.

    Each drawing would compute it anew, which takes most of its time. A figure that has been made
    without a layout gets none: matplotlib would give it the style's when it has saved it.
    """
    with paper_style(), plt.rc_context():
        if engine := figure.get_layout_engine():
            shown, figure.dpi = figure.dpi, plt.rcParams["savefig.dpi"]
            engine.execute(figure)
            figure.dpi = shown
            figure.set_layout_engine("none")
        else:
            plt.rcParams["figure.constrained_layout.use"] = False
        yield


def hatch(axis: Axes) -> None:
    """Hatch the axes' ground, so that what is not known looks like no colour of a map.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib.plots import hatch
        >>> figure, axis = plt.subplots()
        >>> hatch(axis)
        >>> axis.patch.get_hatch()
        '////'
        >>> plt.close(figure)
    """
    axis.patch.set(facecolor="white", edgecolor="0.7", hatch="////", linewidth=0)


def edges(centres: np.ndarray) -> np.ndarray:
    """Return the borders between grid values, halfway; the outermost ones as far as their
    neighbours', but not below 0, where neither variances nor depths are.

    Example:
        >>> import numpy as np
        >>> from paperlib.plots import edges
        >>> edges(np.array([1.0, 2.0, 4.0])).tolist()
        [0.5, 1.5, 3.0, 5.0]
    """
    if len(centres) == 1:
        return np.array([max(0, centres[0] - 0.05), centres[0] + 0.05])
    middles = (centres[:-1] + centres[1:]) / 2
    first = max(0, 2 * centres[0] - middles[0])
    return np.array([first, *middles, 2 * centres[-1] - middles[-1]])


def legend_below(axis: Axes, *, ncols: int, **look: Any) -> None:
    """Draw a legend below an axis with fixed limits: each label once, and only what is visible.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib.plots import legend_below
        >>> figure, axis = plt.subplots()
        >>> inside = axis.plot([0, 1], [0, 1], label="inside")
        >>> outside = axis.plot([5, 6], [5, 6], label="outside")
        >>> limits = axis.set(xlim=(0, 1), ylim=(0, 1))
        >>> legend_below(axis, ncols=2)
        >>> [text.get_text() for text in axis.get_legend().get_texts()]
        ['inside']
        >>> plt.close(figure)
    """
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
    """Draw the mean over seeds, with its standard deviation if there are several.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import mean_with_bars
        >>> accuracy = load_result("trainability_mnist.nc")["accuracy"].isel(depth=0)
        >>> figure, axis = plt.subplots()
        >>> mean_with_bars(axis, accuracy, "depth 5", "tab:blue")
        >>> axis.get_legend_handles_labels()[1]
        ['depth 5']
        >>> plt.close(figure)
    """
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


def pixels(image: xr.DataArray) -> np.ndarray:
    """Return a picture (channel, row, column) as matplotlib takes it, (height, width, channels).

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import pixels
        >>> pixels(load_result("mnist_mlp_adam.nc")["original"]).shape
        (28, 28, 1)
    """
    return image.transpose("row", "column", "channel").values
