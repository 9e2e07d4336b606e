"""What a result says of itself: from what it was computed, when, and with what."""

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from paperlib.core import paths

LIBRARIES = ("reconstruction-entropy", "torch", "numpy", "scipy", "xarray")


def provenance(result: xr.Dataset) -> dict[str, Any]:
    """Return what a result was computed from and with: data, settings, versions, hardware."""
    return json.loads(result.attrs["provenance"])


def data_name(result: xr.Dataset, otherwise: str = "images given") -> str:
    """Return the truthful name of a result's data set; `otherwise` of one that says nothing of it,
    because it was measured without `instruments.run`."""
    return provenance(result)["data"]["name"] if "provenance" in result.attrs else otherwise


def on_gpu(result: xr.Dataset) -> bool:
    """Return whether a result, or a part of it, was computed on a GPU: its seconds are of one."""
    about = provenance(result) if "provenance" in result.attrs else {}
    return any(way.get("device") == "cuda" for way in about.get("computed", ()))


def stamp() -> dict[str, Any]:
    """Return what this process computes with: commit, versions and hardware."""
    return _stamp_in(paths.checkout())


@cache
def _stamp_in(checkout: Path | None) -> dict[str, Any]:
    """The stamp of a process in one checkout: looked up once, for points are many."""
    return {
        "commit": _commit(checkout) if checkout else "unknown",  # of an installed wheel
        "versions": {"python": platform.python_version()} | {k: version(k) for k in LIBRARIES},
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _commit(checkout: Path) -> str:
    """The checkout's commit, marked where files differ from it; "unknown" outside git."""
    try:
        where = ["git", "-C", os.fspath(checkout)]
        command = [*where, "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def merge_computed(computed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return entries of `computed`, equal ones merged into one with the sum of their points."""
    points: Counter[str] = Counter()
    for way in computed:
        same = {name: value for name, value in way.items() if name != "points"}
        points[json.dumps(same, sort_keys=True)] += way["points"]
    return [{**json.loads(way), "points": count} for way, count in points.items()]


def about_data(config: Any, data: Any) -> dict[str, Any]:
    """Return what a provenance says of the data: what they really are, and how many were used."""
    return {
        "name": data.name,
        # without the folders of this machine
        "source": Path(data.source).name if os.path.isabs(data.source) else data.source,
        "checksum": data.checksum,
        "classes": len(data.classes),
        "pixels": data.image_shape[1] * data.image_shape[2],  # grey
        # fewer than were asked for, where the data set holds fewer
        "train_images": min(config.train_images, len(data.train_images)),
        "test_images": min(config.test_images, len(data.test_images)),
    }


def about_one(point: Any, data: Any, *, code_version: int) -> dict[str, Any]:
    """Return the provenance of one point computed here and now, in the form of a sweep's."""
    return {
        "config": point.as_dict(),
        "data": about_data(point, data),
        "code_version": code_version,
        "computed": [{**stamp(), "device": "cpu", "points": 1}],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
