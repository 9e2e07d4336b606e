"""What a sweep has and what it lacks: its finished points wherever they lie, its provenance."""

import itertools
import json
import math
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from paperlib.core import paths
from paperlib.core.provenance import about_data, merge_computed, provenance
from paperlib.datasets import FALLBACKS, NAMES, Dataset, load_dataset, load_with_fallback
from paperlib.sweep import store
from paperlib.sweep.grid import Grid
from paperlib.sweep.store import Point


@dataclass
class Plan:
    """What a sweep has and what it lacks."""

    config: Grid
    data: Dataset | None  # None: nothing is missing, and nothing was loaded
    earlier: dict[str, Any]  # the provenance of the result that it starts from, if any
    taken: dict[Any, Point]  # from that result
    own: dict[Any, Point]  # from point files
    missing: dict[Any, Path]  # where each will be written

    @property
    def finished(self) -> dict[Any, Point]:
        return {**self.taken, **self.own}

    @property
    def checksum(self) -> str:
        return self.data.checksum if self.data else self.earlier["data"]["checksum"]

    @property
    def name(self) -> str:
        """What the whole result's file is called after."""
        version = self.config.point.code_version
        return self.config.identity(code_version=version, checksum=self.checksum)[:16]

    def look_up(self, point: Any, file: Path) -> None:
        """Put the point into `own` if its file is finished, else into `missing`."""
        found = store.read_point(file)
        if found is None:
            self.missing[point] = file
        else:
            self.own[point] = found

    def about(self, points: Collection[Any]) -> dict[str, Any]:
        """The provenance of these of the finished points."""
        taken = sum(point in self.taken for point in points)
        earlier = self.earlier
        if taken:
            earlier = {**earlier, "computed": _computed_of_part(earlier["computed"], taken)}
        if self.data is None:
            return {**earlier, "config": self.config.as_dict()}
        own = [self.own[point] for point in points if point in self.own]
        about = _about(self.config, self.data, own)
        return _with_earlier(about, earlier, taken) if taken else about


def make_plan(config: Grid, start_from: str | os.PathLike[str] | None) -> Plan:
    """Return what is finished of a sweep, in `start_from` or in point files, and what is missing.

    The data set is loaded, for its checksum, unless an earlier result on one of `NAMES` has every
    point; a file or folder of the user's may have changed since.
    """
    points = list(config.points())
    earlier: dict[str, Any] = {}
    taken: dict[Any, Point] = {}
    if start_from:
        before = store.load_result(start_from)
        earlier, taken = provenance(before), _points_of(before, config)
        if not taken:
            warnings.warn(f"{start_from} holds no point of this sweep", stacklevel=3)
        elif len(taken) == len(points) and _is_same_named(config, earlier["config"]):
            return Plan(config, None, earlier, taken, {}, {})
    forget_data()  # the files may have changed since this process read them
    data = load_data(points[0])
    if taken and earlier["data"]["checksum"] != data.checksum:
        warnings.warn(f"{start_from} was computed from other data; starting afresh", stacklevel=3)
        taken = {}
    if config.fallback and config.dataset in FALLBACKS and data.name in NAMES:
        # decided once, so that no worker looks for the other again
        config = replace(config, dataset=data.name, fallback=False)
        taken = {replace(p, dataset=data.name, fallback=False): a for p, a in taken.items()}
    plan = Plan(config, data, earlier, taken, {}, {})
    for point in config.points():
        if point not in taken:
            name = point.identity(code_version=config.point.code_version, checksum=data.checksum)
            plan.look_up(point, paths.points_folder() / f"{name}.npz")
    return plan


def _is_same_named(config: Grid, earlier: Mapping[str, Any]) -> bool:
    return config.dataset in NAMES and config.dataset == earlier["dataset"]


def _points_of(result: xr.Dataset, config: Grid) -> dict[Any, Point]:
    """The finished points of an earlier result that are points of this grid too."""
    about = provenance(result)
    kind, axes = config.point, tuple(config.axes)
    if result["finished"].dims != axes:
        raise ValueError(
            f"this sweep can start from the result of one with dims {', '.join(axes)}; "
            f"got one with {', '.join(map(str, result['finished'].dims))}"
        )
    # through the class, so that a setting that came later has its default
    before = type(config).from_dict(about["config"])

    def shared(sweep: Grid) -> dict[str, Any]:
        return {k: v for k, v in sweep.identifying().items() if k not in sweep.axes.values()}

    if about["code_version"] != kind.code_version or shared(before) != shared(config):
        return {}
    done = result["finished"].values == 1
    # by its own axes: those of earlier versions do not always rise
    grid = itertools.product(*(result[name].values.tolist() for name in axes))
    places = {at: p for p, at in zip(np.ndindex(done.shape), grid, strict=True) if done[p]}
    found: dict[Any, Point] = {}
    for point in config.points():
        place = places.get(tuple(getattr(point, name) for name in axes))
        if place is not None:
            own = {name: result[name].values[place] for name in kind.fields_in(result)}
            found[point] = own | {name: result[name].values for name in kind.shared}
    return found


@lru_cache(maxsize=1)
def _load(name: str, fallback: bool, limit: int, seed: int, root: str) -> Dataset:
    load = load_with_fallback if fallback else load_dataset
    return load(name, root=root, limit=limit, seed=seed)


def forget_data() -> None:
    """Drop the data set in memory, so that the next `load_data` reads the files again."""
    _load.cache_clear()


def load_data(point: Any, root: str | None = None) -> Dataset:
    """Load as much of a point's data set as it uses; the last one stays in memory."""
    limit = max(point.train_images, point.test_images)
    root = root or os.fspath(paths.data_root())
    return _load(point.dataset, point.fallback, limit, point.data_seed, root)


def _about(config: Grid, data: Dataset, own: Sequence[Point]) -> Any:
    """The provenance of these points: one entry in `computed` for each way they were made."""
    notes = [json.loads(str(point[store.ABOUT])) for point in own]
    return {
        "config": config.as_dict(),
        "data": about_data(config, data),
        "code_version": config.point.code_version,
        "computed": merge_computed({**point["computed"], "points": 1} for point in notes),
        "finished_at": max((point["finished_at"] for point in notes), default=""),
        "seconds_per_point": _mean([point["seconds"] for point in notes]),
    }


def _computed_of_part(computed: Sequence[dict[str, Any]], points: int) -> list[dict[str, Any]]:
    """Return how so many points of an earlier result were computed: entries of `computed`.

    A result does not say which of its points belong to which entry. So for a part of a result with
    several entries only an upper limit of each one's points is known.
    """
    if len(computed) == 1:
        return [{**computed[0], "points": points}]
    if sum(way["points"] for way in computed) == points:
        return list(computed)
    return [{**way, "points": min(way["points"], points), "at_most": True} for way in computed]


def _with_earlier(about: dict[str, Any], earlier: Mapping[str, Any], taken: int) -> dict[str, Any]:
    """The provenance of new points together with `taken` ones of an earlier result."""
    new = sum(way["points"] for way in about["computed"])
    seconds = [earlier["seconds_per_point"]] * taken + [about["seconds_per_point"]] * new
    return {
        **about,
        "computed": merge_computed([*earlier["computed"], *about["computed"]]),
        "finished_at": max(about["finished_at"], earlier["finished_at"]),
        "seconds_per_point": _mean(seconds),
    }


def _mean(values: Sequence[float]) -> float | None:
    # the exact sum, so that the order of points does not decide how it is rounded
    return round(math.fsum(values) / len(values), 3) if values else None
