"""One picture."""

import numpy as np
from matplotlib.axes import Axes

from paperlib.plots.style import SEQUENTIAL


def draw_picture(axis: Axes, values: np.ndarray) -> None:
    """Draw values (height, width, channels) whose range is 0 to 1."""
    axis.imshow(values.clip(0, 1), cmap=SEQUENTIAL, vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
