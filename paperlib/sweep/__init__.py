"""Grids of points, measured in parallel: one file per finished point, all in one Dataset."""

from paperlib.sweep.grid import Sweep, column_of
from paperlib.sweep.points import measure_point
from paperlib.sweep.run import TOGETHER_ON_GPU, collect_sweep, run_sweep
from paperlib.sweep.search import run_resolutions, run_search

__all__ = [
    "TOGETHER_ON_GPU",
    "Sweep",
    "collect_sweep",
    "column_of",
    "measure_point",
    "run_resolutions",
    "run_search",
    "run_sweep",
]
