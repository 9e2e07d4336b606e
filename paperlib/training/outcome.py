"""The outcome of trainings: which networks trained, and down to which depth."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from paperlib.core.provenance import provenance

LEARNT = 0.1  # of the way from chance to perfection: less may be luck, or a frequent class


def trained_threshold(accuracy: ArrayLike, *, classes: int) -> float:
    """Return the accuracy from which a network counts as trained: halfway from chance to the best.

    Args:
        accuracy: of every network of a grid, any shape; NaN where it is not known.
        classes: of the data set; chance is 1/classes.

    Raises:
        ValueError: fewer than two classes, no accuracy that is known, or none that shows that a
            network has learnt anything.
    """
    if classes < 2:
        raise ValueError(f"classes must be >= 2, got {classes}")
    values, chance = np.asarray(accuracy, float), 1 / classes
    if np.isnan(values).all():
        raise ValueError("no accuracy is known: no training of this grid is finished")
    best = float(np.nanmax(values))
    if best < chance + LEARNT * (1 - chance):
        raise ValueError(
            f"no network has learnt anything: the best accuracy is {best:.3g}, chance is "
            f"{chance:.3g}; train for more steps or at another rate"
        )
    return (chance + best) / 2


def accuracy_of(trained: xr.Dataset) -> xr.DataArray:
    """Return the accuracy of the networks that were trained, NaN elsewhere.

    Of networks that were trained several ways, the best that was seen of any.
    """
    found = trained["accuracy"].where(trained["finished"] == 1)
    return found.max(sorted({"training", "moment"} & set(found.dims)))


def threshold_of(trained: xr.Dataset) -> float:
    """Return the accuracy from which a network of this result counts as trained."""
    classes = provenance(trained)["data"]["classes"]
    return trained_threshold(accuracy_of(trained), classes=classes)


def trainable_depth(accuracy: ArrayLike, depths: ArrayLike, threshold: float) -> np.ndarray:
    """Return the deepest depth of the grid that trains; 0 if none does, NaN if none is known.

    Shallower networks may have failed: a training fails by chance, in its rate or its order, but
    none reaches the threshold by chance, so one that does shows that its depth can be trained.
    Where the deepest network of all trains, the value is censored: the true depth is that or more.

    Args:
        accuracy: (..., depth), or a predictor's scores; NaN where it is not known.
        depths: (depth,), each at least 1.
        threshold: what an accuracy must reach; see `trained_threshold`.

    Returns:
        (...), one depth for each column.

    Raises:
        ValueError: shapes that do not match, or a depth below 1.
    """
    values, along = np.asarray(accuracy, float), np.asarray(depths)
    if along.ndim != 1 or values.shape[-1:] != along.shape:
        raise ValueError(
            f"the last axis of accuracy must be depth; got {values.shape} and {along.shape} depths"
        )
    if not (along >= 1).all():
        raise ValueError(f"depths must be >= 1, got {along.tolist()}")
    deepest = np.where(values >= threshold, along, 0).max(-1)
    return np.where(np.isnan(values).all(-1), np.nan, deepest)


def wall(values: ArrayLike, sigma_w2: ArrayLike, threshold: float) -> float:
    """Return the σ_w² at which values along a grid first reach a threshold, between grid values.

    NaN where the first value is there already (the wall is below the grid, if it is at all), and
    where none ever is.

    Args:
        values: (n,), of one depth: R², an entropy, an accuracy; NaN where it is not known.
        sigma_w2: (n,), rising.
        threshold: in the unit of the values.

    Raises:
        ValueError: shapes that do not match, or a grid that does not rise.
    """
    heights, grid = np.asarray(values, float), np.asarray(sigma_w2, float)
    if heights.ndim != 1 or heights.shape != grid.shape or not (np.diff(grid) > 0).all():
        raise ValueError(
            "values and a rising sigma_w2 must be of the same length, "
            f"got {heights.shape} and {grid.shape}"
        )
    known = ~np.isnan(heights)
    heights, grid = heights[known], grid[known]
    above = np.flatnonzero(heights >= threshold)
    if not len(above) or above[0] == 0:
        return np.nan
    right = above[0]
    low, high = heights[[right - 1, right]]
    share = (threshold - low) / (high - low)
    return float(grid[right - 1] + share * (grid[right] - grid[right - 1]))
