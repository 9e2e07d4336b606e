"""One picture."""

import numpy as np
from matplotlib.axes import Axes

from paperlib.plots.style import SEQUENTIAL


def draw_picture(axis: Axes, values: np.ndarray) -> None:
    """Draw values (height, width, channels) whose range is 0 to 1.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> import numpy as np
        >>> from paperlib.plots import draw_picture
        >>> figure, axis = plt.subplots()
        >>> draw_picture(axis, np.zeros((8, 8, 1)))
        >>> len(axis.images)
        1
        >>> plt.close(figure)
    """
    axis.imshow(values.clip(0, 1), cmap=SEQUENTIAL, vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
