"""The numbers of points, alone or several as one program."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from paperlib.core.checks import device_of, instance_of
from paperlib.core.settings import Measured
from paperlib.core.threads import one_thread
from paperlib.datasets import Dataset
from paperlib.sweep.plan import load_data


def measure_point(
    point: Measured, *, device: str = "cpu", data: Dataset | None = None
) -> dict[str, np.ndarray]:
    """Measure one point: an untrained network's cascade, a training, or a prediction.

    Example:
        >>> from paperlib import CascadePoint, measure_point
        >>> point = CascadePoint(dataset="digits", depth=3, width=50, train_images=200)
        >>> measured = measure_point(point)
        >>> measured["r_squared"].shape, bool(measured["r_squared"][0] > 0.5)
        ((3,), True)

    Args:
        point: its settings.
        device: "cpu" or "cuda".
        data: the point's data set, where it is loaded already.

    Returns:
        What the point's own `measure` says.

    Raises:
        ValueError: an argument of another kind, a cascade whose activations overflow, or data that
            it cannot take.
    """
    instance_of("point", point, Measured)
    device = str(device_of("device", device))
    data = load_data(point) if data is None else instance_of("data", data, Dataset)
    with one_thread():
        return point.measure(data, device=device)


def measure_together(points: Sequence[Any], *, device: str, data: Dataset) -> list[Any]:
    """Return the numbers of several points, as one program where they can be."""
    if len(points) == 1:
        return [measure_point(points[0], device=device, data=data)]
    return list(type(points[0]).measure_together(points, data, device=device))
