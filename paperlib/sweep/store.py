"""What sweeps keep on disk: a file per finished point, and NetCDF results with their digests.

Every file appears under its final name complete or not at all, and is checked when it is read.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from paperlib.core import paths
from paperlib.core.checks import path_of

Point = Mapping[str, np.ndarray]  # a finished point: its arrays by name
ABOUT = "about"  # beside them: settings and stamp, in JSON


def save_result(result: xr.Dataset, path: Path) -> None:
    """Write one NetCDF file, complete or not at all, and its digest in SHA256SUMS."""
    packed = {name: {"zlib": True, "complevel": 9} for name, v in result.items() if v.ndim > 2}
    with _without_cluster():
        content = bytes(result.to_netcdf(None, engine="h5netcdf", encoding=packed))
    sums = path.with_name(paths.CHECKSUMS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with paths.alone(sums):  # another sweep's line must not get lost
        digests = {**_digests(sums), path.name: hashlib.sha256(content).hexdigest()}
        paths.write_whole(path, content)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
        paths.write_whole(sums, lines.encode())


def _without_cluster() -> AbstractContextManager[Any]:
    """Where this process has a Dask client, xarray would ask its cluster for a lock in vain."""
    if "distributed" not in sys.modules:
        return nullcontext()
    import dask

    scheduler: AbstractContextManager[Any] = dask.config.set(scheduler="threads")
    return scheduler


def _digests(sums: Path) -> dict[str, str]:
    """The digest of every file that a SHA256SUMS names, in sha256sum's own format."""
    lines = sums.read_text().splitlines() if sums.exists() else []
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name: digest for digest, name in pairs}


def load_result(path: str | os.PathLike[str]) -> xr.Dataset:
    """Load a result that `save_result` wrote; a bare name is looked up in data/reference/.

    Example:
        >>> from paperlib import load_result
        >>> result = load_result("mnist_mlp_adam.nc")
        >>> result["r_squared"].dims
        ('sigma_w2', 'seed', 'depth')

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that does not match its line in SHA256SUMS, or is no NetCDF of a sweep.
    """
    file = path_of("path", path)
    if not file.is_absolute() and len(file.parts) == 1:
        file = paths.reference_file(file.name)
    if not file.is_file():
        raise FileNotFoundError(
            f"no result at the path {file}; give a .nc file or a name in data/reference/"
        )
    sums = file.with_name(paths.CHECKSUMS)
    content, sound = _vouched(file, sums)
    if not sound:
        with suppress(OSError), paths.alone(sums):  # another process may have been writing both
            content, sound = _vouched(file, sums)
    if not sound:
        raise ValueError(f"{file} is damaged: it does not match its digest in {sums.name}")
    try:
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as opened:
            result = opened.load()
        json.loads(result.attrs["provenance"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged or no result of a sweep: {error}") from error
    return result


def _vouched(file: Path, sums: Path) -> tuple[bytes, bool]:
    """The content of a file, and whether its digest is the one that is noted, if one is."""
    content = file.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    return content, _digests(sums).get(file.name, actual) == actual


def write_point(file: Path, about: Mapping[str, Any], arrays: Point) -> None:
    """Write a point's file: its arrays, their description and the digest of both."""
    content = {**arrays, ABOUT: np.array(json.dumps(about, sort_keys=True))}
    stored: dict[str, Any] = {**content, "digest": np.array(_content_digest(content))}
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    paths.write_whole(file, buffer.getvalue())


def read_point(file: Path, *, tell: bool = True) -> Point | None:
    """Return the arrays of a finished point; None where there is none, or only a damaged one.

    Args:
        file: of the point.
        tell: print that it is damaged.
    """
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as archive:
            content = dict(archive)
        sound = str(content.pop("digest")) == _content_digest(content)
    except Exception:  # a damaged zip raises nearly anything
        sound = False
    if not sound and tell:
        print(f"sweep: {file.name} is damaged and will be computed again", flush=True)
    return content if sound else None


def _content_digest(content: Point) -> str:
    digest = hashlib.sha256()
    for name in sorted(content):
        array = np.ascontiguousarray(content[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()
