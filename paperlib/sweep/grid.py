"""A grid of points: every combination of the values along its axes."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import option
from paperlib.networks.experiment import Experiment, ImageExperiment, Point


@dataclass(frozen=True, kw_only=True)
class Grid(ImageExperiment):
    """Every combination of the values along its axes, which rise."""

    # a point's setting: the field with its values here
    axes: ClassVar[Mapping[str, str]]
    point: ClassVar[type[Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.axes.values():  # figures and scores go along rising axes
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        object.__setattr__(self, "_points", tuple(self._grid()))  # each checks its own values

    def points(self) -> Iterator[Any]:
        """Yield every point of the grid; the last axis runs fastest."""
        points: tuple[Any, ...] = self.__dict__["_points"]
        return iter(points)

    def _grid(self) -> Iterator[Any]:
        shared = {k: v for k, v in self.as_dict().items() if k not in self.axes.values()}
        for values in itertools.product(*(getattr(self, name) for name in self.axes.values())):
            yield self.point(**shared, **dict(zip(self.axes, values, strict=True)))

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of the whole result: the axes, and the dims of its fields."""
        return {axis: np.array(getattr(self, name)) for axis, name in self.axes.items()}


@dataclass(frozen=True, kw_only=True)
class Sweep(Grid, Experiment):
    """A grid of networks of one architecture, over variances and seeds."""

    axes: ClassVar[Mapping[str, str]] = {"sigma_w2": "sigma_w2", "seed": "seeds"}
    point: ClassVar[type[Point]]

    sigma_w2: tuple[float, ...] = option((1.0, 1.7, 3.0), above=0.0)
    seeds: tuple[int, ...] = option((0, 1, 2), low=0, high=LARGEST_SEED)

    def coordinates(self) -> dict[str, Any]:
        along = super().coordinates()
        if "depth" not in along:
            along["depth"] = np.arange(1, self.as_dict()["depth"] + 1)
        return along


def column_of(sweep: Sweep, sigma_w2: float, **changes: Any) -> Any:
    """Return one variance of a grid with its first seed, other settings as they are or as given.

    A grid with an axis of depths keeps those up to `depth`, at least its shallowest.

    Example:
        >>> from paperlib import CascadeSweep
        >>> from paperlib.sweep import column_of
        >>> column = column_of(CascadeSweep(sigma_w2=(1.0, 1.7), seeds=(3, 4)), 1.7, depth=10)
        >>> column.sigma_w2, column.seeds, column.depth
        ((1.7,), (3,), 10)
    """
    if "depth" in sweep.axes:
        depths = getattr(sweep, sweep.axes["depth"])
        deepest = max(changes.pop("depth"), min(depths))
        changes[sweep.axes["depth"]] = tuple(depth for depth in depths if depth <= deepest)
    return replace(sweep, sigma_w2=(sigma_w2,), seeds=sweep.seeds[:1], **changes)


def numbered(result: xr.Dataset) -> xr.Dataset:
    """Return a result with one axis of networks, `number`.

    A zoo has it; of a grid the networks are counted from 0, the last axis fastest, and where each
    stands becomes a coordinate.
    """
    axes = result["finished"].dims
    if axes == ("number",):
        return result
    flat = result.stack(number=axes, create_index=False)
    return flat.assign_coords(number=np.arange(flat.sizes["number"]))
