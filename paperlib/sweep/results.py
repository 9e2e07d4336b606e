"""Results on disk: a file per finished point, NetCDF with its digest, and what they are made of."""

from typing import TYPE_CHECKING

from paperlib.core.lazy import exports

if TYPE_CHECKING:
    from paperlib.core.provenance import LIBRARIES, provenance, stamp
    from paperlib.sweep.store import ABOUT, Point, load_result, read_point, save_result, write_point
else:
    __getattr__ = exports(__name__)

__all__ = [
    "ABOUT",
    "LIBRARIES",
    "Point",
    "load_result",
    "provenance",
    "read_point",
    "save_result",
    "stamp",
    "write_point",
]
