"""Grids of points, measured in parallel: one file per finished point, all in one Dataset."""

from typing import TYPE_CHECKING

from paperlib.core.lazy import exports

if TYPE_CHECKING:
    from paperlib.sweep.grid import Sweep, column_of
    from paperlib.sweep.points import measure_point
    from paperlib.sweep.run import TOGETHER_ON_GPU, collect_sweep, run_sweep
    from paperlib.sweep.search import along, run_along, run_resolutions, run_search
else:
    __getattr__ = exports(__name__)
