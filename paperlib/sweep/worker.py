"""What a worker does with a group of points, wherever it runs: it measures and keeps them."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from paperlib.core import paths
from paperlib.core.progress import clock_of
from paperlib.core.provenance import stamp
from paperlib.sweep import store
from paperlib.sweep.plan import forget_data, load_data
from paperlib.sweep.points import measure_together

# Measuring seeds torch's generator, sets its threads and reads the CPU time, all of the process.
_ALONE = threading.Lock()


class Terms(NamedTuple):
    """What every worker of a sweep has to know."""

    device: str
    root: str  # where the data lie
    checksum: str  # of the data that the sweep began with
    code_version: int  # of the process that named the files


def finish(files: Mapping[Any, Path], terms: Terms) -> str:
    """Why the points of one group failed; empty: their files are written.

    What another worker has finished meanwhile is not computed again. Threads of one process, as
    Dask's workers may have, measure one after the other.

    Raises:
        OSError: a file cannot be written.
    """
    points = [point for point, file in files.items() if store.read_point(file, tell=False) is None]
    if not points:
        return ""
    if points[0].code_version != terms.code_version:
        return f"this worker has another paperlib, code version {points[0].code_version}"
    clock = clock_of(terms.device)
    try:
        data = load_data(points[0], terms.root)
        if data.checksum != terms.checksum:  # this worker read the files before they changed
            forget_data()
            data = load_data(points[0], terms.root)
        if data.checksum != terms.checksum:
            return f"this worker finds other data in {terms.root} than the sweep began with"
        with _ALONE:
            begin = clock()
            measured = measure_together(points, device=terms.device, data=data)
            seconds = (clock() - begin) / len(points)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        if len(points) > 1:  # as many as can are finished alone
            alone = [finish({point: files[point]}, terms) for point in points]
            return next(filter(None, alone), "")
        return f"{type(error).__name__}: {error}"
    for point, arrays in zip(points, measured, strict=True):
        _keep(files[point], point, arrays, terms.device, seconds)
    return ""


def _keep(file: Path, point: Any, arrays: Any, device: str, seconds: float) -> None:
    about = {
        "point": point.as_dict(),
        "computed": {**stamp(), "device": device, **point.computed_with(device)},
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }
    try:
        store.write_point(file, about, arrays)
    except OSError as error:
        raise paths.cannot_keep(file.parent, error) from error
