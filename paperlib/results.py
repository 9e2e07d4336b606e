"""What sweeps keep on disk: a file per finished point, and NetCDF results with their digests.

Every file appears under its final name complete or not at all, and is checked when it is read.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from paperlib import paths

Point = Mapping[str, np.ndarray]  # a finished point: its arrays by name


def provenance(result: xr.Dataset) -> dict[str, Any]:
    """What a result was computed from and with: config, data, versions, commit, time, hardware."""
    return json.loads(result.attrs["provenance"])


def save_result(result: xr.Dataset, path: Path) -> None:
    """Nothing; writes one NetCDF file, complete or not at all, and its digest in SHA256SUMS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {name: {"zlib": True, "complevel": 9} for name, v in result.items() if v.ndim > 2}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    result.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    os.replace(temporary, path)
    sums = path.with_name(paths.CHECKSUMS)
    lines = sums.read_text().splitlines() if sums.exists() else []
    kept = [line for line in lines if line.split()[-1] != path.name]
    _replace(
        sums, "".join(f"{line}\n" for line in sorted([*kept, f"{digest}  {path.name}"])).encode()
    )


def load_result(path: str | os.PathLike[str]) -> xr.Dataset:
    """A result that `save_result` wrote; a bare name is looked up in data/reference/.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that does not match its line in SHA256SUMS, or is no NetCDF of a sweep.
    """
    file = Path(path)
    if not file.is_absolute() and len(file.parts) == 1:
        file = paths.reference_file(file.name)
    if not file.exists():
        raise FileNotFoundError(
            f"no result at {file}; give a .nc file or a name in data/reference/"
        )
    content = file.read_bytes()
    sums = file.with_name(paths.CHECKSUMS)
    for line in sums.read_text().splitlines() if sums.exists() else []:
        digest, name = line.split()
        if name == file.name and digest != hashlib.sha256(content).hexdigest():
            raise ValueError(f"{file} is damaged: it does not match its digest in {sums.name}")
    try:
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as opened:
            result = opened.load()
        json.loads(result.attrs["provenance"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged or no result of a sweep: {error}") from error
    return result


def write_point(file: Path, settings: Mapping[str, Any], arrays: Point) -> None:
    """Nothing; a point file holds its arrays, its settings and the digest of both."""
    content = {**arrays, "settings": np.array(json.dumps(settings, sort_keys=True))}
    stored: dict[str, Any] = {**content, "digest": np.array(_content_digest(content))}
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, buffer.getvalue())


def read_point(file: Path) -> Point | None:
    """The arrays of a finished point; None where there is none, or only a damaged one."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            content = {name: stored[name] for name in stored.files}
        sound = str(content.pop("digest")) == _content_digest(content)
    except Exception:  # a damaged zip raises nearly anything
        sound = False
    if not sound:
        print(f"sweep: {file.name} is damaged and will be computed again", flush=True)
        return None
    return content


def _content_digest(content: Point) -> str:
    digest = hashlib.sha256()
    for name in sorted(content):
        array = np.ascontiguousarray(content[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _replace(file: Path, content: bytes) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}.part")
    temporary.write_bytes(content)
    os.replace(temporary, file)
