"""Figures from results: a sweep's Dataset goes in, a matplotlib Figure comes out.

Brighter always means more of the image. Only means over seeds, collapse depths and mean-field
curves are computed here.
"""

# ruff: noqa: E402 (what is said below must be said before matplotlib is imported)
import logging

# After an installation the first figure would tell of its font cache, in notebooks in red.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

from paperlib.plots.comparison import (
    check_comparable,
    resolution_calibration,
    solver_comparison,
    steps_of_training,
)
from paperlib.plots.labels import (
    data_of,
    describe,
    describe_training,
    network_of,
    seeds_of,
    sign,
    solver_name,
    solver_of,
    written,
)
from paperlib.plots.maps import collapse_depths, depth_lines, heat_map, heat_maps, phase_diagram
from paperlib.plots.pictures import draw_picture
from paperlib.plots.published import (
    ENTROPY,
    ENTROPY_PUBLISHED,
    PUBLISHED_DEPTHS,
    PUBLISHED_WALLS,
    published_depths,
    published_entropy,
)
from paperlib.plots.style import (
    BLUE,
    CENSORED,
    COLLAPSE_COLOUR,
    COLLAPSE_LABEL,
    CUTOFF_COLOUR,
    GREEN,
    ORANGE,
    PALETTE,
    SEQUENTIAL,
    SEQUENTIAL_REVERSED,
    SOLVER_COLOURS,
    STYLE,
    VARIANCE,
    edges,
    hatch,
    legend_below,
    mean_with_bars,
    paper_style,
    pixels,
    save,
    write_png,
)
from paperlib.plots.theory import draw_theory, signal_path
