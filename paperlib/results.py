"""Results on disk: NetCDF files with their digests, and what they say of themselves."""

from paperlib.core.provenance import provenance
from paperlib.sweep.store import load_result, save_result

__all__ = ["load_result", "provenance", "save_result"]
