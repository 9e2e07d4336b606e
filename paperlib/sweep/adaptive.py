"""An adaptive sweep: networks are measured where something changes, the rest follows.

    first               |               |               |    every eighth variance, with all seeds
    then                |       |       |               |    the middle of two that differ
    until they agree    |       | | |   |               |    or no variance of the grid is between

Two measured neighbours agree if the mean over seeds of their curve (of a cascade, R² by depth)
differs nowhere by more than the tolerance or than the seeds do among themselves, and so does the
depth at which the image is lost. A wall is found by bisection, a cone by its two sides.
Variances between neighbours that agree are interpolated: such a point has no file, is not
`finished`, and is marked in the result's variable `follows`.
"""

from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from paperlib.measures import collapse_depth
from paperlib.sweep.grid import Grid
from paperlib.sweep.plan import Plan
from paperlib.sweep.store import Point

FIRST = 8  # of so many variances one is measured in any case
ALONG, SEEDS = "sigma_w2", "seed"


def check_adaptive(config: Grid) -> None:
    """Refuse a grid that cannot be measured adaptively.

    Raises:
        ValueError: the grid has no axis of variances, or its points no curve to watch.
    """
    if not config.point.watched or not {ALONG, SEEDS} <= set(config.axes):
        raise ValueError(
            "adaptive=True takes a CascadeSweep, a TrainingSweep or another grid over sigma_w2 and "
            f"seed whose points name what is `watched`; got a {type(config).__name__}, "
            "which adaptive=False measures whole"
        )


def rounds(plan: Plan, tolerance: float) -> Iterator[set[Any]]:
    """Yield the points to measure next; each set has to be finished before the next is asked for.

    Args:
        plan: of a grid that `check_adaptive` takes; where finished points are read.
        tolerance: by which neighbours may differ: in units of the watched curve, and as a share of
            the depth at which the image is lost, where one stage is always allowed.
    """
    found = ChainMap(plan.own, plan.taken)
    walks = [_walk(line, found, tolerance) for line in _lines(plan.config)]
    while wanted := {point for walk in walks for point in next(walk, ())}:
        yield wanted


def _lines(config: Grid) -> Iterator[list[list[Any]]]:
    """The points along the variances, all seeds of each; a line for each value of other axes."""
    others = [axis for axis in config.axes if axis not in (ALONG, SEEDS)]
    lines: dict[Any, dict[float, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for point in config.points():
        lines[tuple(getattr(point, axis) for axis in others)][point.sigma_w2].append(point)
    for line in lines.values():
        yield [line[sigma_w2] for sigma_w2 in sorted(line)]


def _walk(
    line: Sequence[Sequence[Any]], found: Mapping[Any, Point], tolerance: float
) -> Iterator[list[Any]]:
    """The points of one line, as they are wanted."""
    watched = line[0][0].watched

    def curves(place: int) -> np.ndarray:
        return np.array([found[point][watched] for point in line[place]])

    def alike(left: int, right: int) -> bool:
        return agree(curves(left), curves(right), tolerance=tolerance)

    for places in refinement(len(line), alike):
        yield [point for place in places for point in line[place]]


def refinement(count: int, agree: Callable[[int, int], bool]) -> Iterator[list[int]]:
    """Yield the places of a line to measure next, until all measured neighbours agree.

    Example:
        >>> from paperlib.sweep.adaptive import refinement
        >>> def same_side(left, right):  # of a wall between the places 10 and 11
        ...     return (left > 10) == (right > 10)
        >>> list(refinement(17, same_side))
        [[0, 8, 16], [12], [10], [11]]

    Args:
        count: places of the line.
        agree: whether two places, which have been measured, say the same.
    """
    known: list[int] = []
    new = sorted({*range(0, count, FIRST), count - 1})
    while new:
        yield new
        known = sorted([*known, *new])
        gaps = pairwise(known)
        new = [(left + right) // 2 for left, right in gaps if right - left > 1
               and not agree(left, right)]  # fmt: skip


def agree(left: np.ndarray, right: np.ndarray, *, tolerance: float) -> bool:
    """Return whether two variances say the same, as far as their seeds can tell.

    Example:
        >>> import numpy as np
        >>> from paperlib.sweep.adaptive import agree
        >>> left = np.array([[0.9, 0.50], [0.9, 0.40]])  # two seeds, two depths
        >>> right = left - [0, 0.05]
        >>> agree(left, right, tolerance=0.02)  # at depth 2, seeds differ by more
        True
        >>> agree(left[:1], right[:1], tolerance=0.02)
        False

    Args:
        left, right: (seeds, depth), curves of R²; or (seeds,), such as accuracies.
        tolerance: see `rounds`.
    """
    if not _close(left, right, tolerance):
        return False
    if left.ndim == 1:
        return True
    lost = np.array([[collapse_depth(curve) for curve in curves] for curves in (left, right)])
    return _close(lost[0], lost[1], max(1, tolerance * lost.max()))


def _close(left: np.ndarray, right: np.ndarray, tolerance: float) -> bool:
    """Whether means over seeds (seeds, …) differ nowhere by more than allowed or than seeds do."""
    means = [values.mean(axis=0) for values in (left, right)]
    spreads = [v.std(axis=0, ddof=1) if len(v) > 1 else 0 * v[0] for v in (left, right)]
    close = np.abs(means[1] - means[0]) <= np.fmax(tolerance, np.fmax(*spreads))
    return bool((close | (np.isnan(means[0]) & np.isnan(means[1]))).all())


def with_followers(result: xr.Dataset) -> xr.Dataset:
    """Return a collected adaptive sweep whose curves are interpolated where nothing was measured.

    Counts (cutoffs) and pictures are not interpolated: they stay -1 and empty, as of all points
    that are not finished. `follows` is 1 where a point follows, 0 where it was measured.
    """
    whole = result.copy(deep=True)
    dims = whole["finished"].dims  # the variances first
    measured, grid = whole["finished"].values == 1, whole[ALONG].values
    curves = [
        variable.values
        for variable in whole.data_vars.values()
        if variable.dims[: len(dims)] == dims and variable.dtype.kind == "f"
    ]
    for rest in np.ndindex(measured.shape[1:]):
        known = np.flatnonzero(measured[:, *rest])
        for place in np.flatnonzero(~measured[:, *rest]):
            at = int(np.searchsorted(known, place))
            left, right = known[at - 1], known[at]
            share = (grid[place] - grid[left]) / (grid[right] - grid[left])
            for values in curves:
                values[place, *rest] = (1 - share) * values[left, *rest]
                values[place, *rest] += share * values[right, *rest]
    whole["follows"] = dims, (~measured).astype(np.int8)
    return whole
