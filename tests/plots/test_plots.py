import hashlib
import json
import logging
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from paperlib import plots
from paperlib.instruments.reconstruction.points import CascadeSweep, shown_depths
from paperlib.plots import theory
from paperlib.plots.comparison import depths_by_entropy
from paperlib.sweep import along

GRID = (0.5, 1.0, 1.7, 2.4, 3.0)


def result(
    solver: str = "ridge",
    depth: int = 12,
    seeds: int = 2,
    name: str = "made-up",
    **settings: object,
) -> xr.Dataset:
    """A made-up sweep whose R² collapses at depth 4 for the smallest variance and never else."""
    config = CascadeSweep(
        solver=solver, depth=depth, sigma_w2=GRID, seeds=tuple(range(seeds)), **settings
    )
    shape = (len(GRID), seeds, depth)
    r_squared = np.full(shape, 0.5, np.float32)
    r_squared[0, :, 3:] = 0.0
    shown = shown_depths(depth)
    pixels = np.random.default_rng(0).integers(0, 256, (len(GRID), seeds, len(shown), 1, 8, 8))
    curves = ("relative_entropy", "differential_entropy", "gram_entropy")
    variables = {name: (("sigma_w2", "seed", "depth"), r_squared / 2) for name in curves}
    about = {
        "config": config.as_dict(),
        "data": {
            "name": name, "checksum": "0" * 64, "pixels": 64,
            "train_images": 10, "test_images": 5,
        },
        "computed": [{"commit": "abc", "versions": {"torch": "0"}, "points": 10}],
        "finished_at": "2026-01-02T03:04:05",
        "seconds_per_point": 1.0, "code_version": 1,
    }  # fmt: skip
    return xr.Dataset(
        {
            **variables,
            "r_squared": (("sigma_w2", "seed", "depth"), r_squared),
            "cutoff": (("sigma_w2", "seed"), np.full(shape[:2], 5, np.int32)),
            "finished": (("sigma_w2", "seed"), np.ones(shape[:2], np.int8)),
            "example": (
                ("sigma_w2", "seed", "shown_depth", "channel", "row", "column"),
                pixels.astype(np.uint8),
            ),
            "original": (("channel", "row", "column"), pixels[0, 0, 0].astype(np.uint8)),
        },
        {
            "sigma_w2": list(GRID),
            "seed": np.arange(seeds),
            "depth": np.arange(1, depth + 1),
            "shown_depth": shown,
        },
        {"provenance": json.dumps(about)},
    )


@pytest.fixture(autouse=True)
def closed_figures() -> object:
    yield
    plt.close("all")


def texts(figure: plt.Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_collapse_depths_are_one_past_the_last_where_nothing_collapsed() -> None:
    depths = plots.collapse_depths(result())
    assert depths.values.tolist() == [[4, 4], [13, 13], [13, 13], [13, 13], [13, 13]]


@pytest.mark.slow
def test_a_phase_diagram_names_its_data_and_draws_all_measures_and_three_phases() -> None:
    words = texts(plots.phase_diagram(result()))
    measures = ("R²", "Gram entropy", "Differential entropy", "Relative entropy")
    phases = ("ordered", "critical", "chaotic")
    for expected in ("made-up", "2 seeds", *measures, *phases, "xi_c", "commit abc"):
        assert expected in words


@pytest.mark.slow
def test_a_residual_network_has_no_phases_and_mean_field_has_no_fixed_point() -> None:
    words = texts(plots.phase_diagram(result(architecture="resnet", sigma_b2=2e-5)))
    assert "small" in words
    for absent in ("xi_c", "critical", "chaotic"):
        assert absent not in words


def test_mean_field_of_residual_networks_merges_images_where_biases_outgrow_them() -> None:
    made = result(architecture="resnet", sigma_b2=2e-5, depth=50)
    apart = [plots.signal_path(s, made)[0] for s in (0.05, 0.1, 1.0)]
    depths = [theory._first(path <= path[0] / 2) for path in apart]
    assert depths[0] < depths[1] < 20
    assert np.isnan(depths[2])


@pytest.mark.slow
def test_mean_field_finds_the_published_walls_of_the_cnn() -> None:
    made = result(architecture="cnn", channels=128, sigma_b2=2e-5, depth=100)
    made["original"][:] = 255 * 0.1**0.5  # as bright as a digit
    grid = np.arange(0.5, 1.0, 0.01)
    lost = np.array([theory._first(plots.signal_path(s, made)[1] < 3e-6) for s in grid])
    for depth, published in ((30, 0.65), (50, 0.78), (100, 0.87)):
        last = np.flatnonzero(lost <= depth)[-1]
        assert grid[last] == pytest.approx(published, abs=0.03)


def test_a_cutoff_that_is_not_known_is_not_drawn() -> None:
    known = result()
    known["cutoff"][2, 0] = -1  # of a point that ended where R² was lost
    figure = plots.phase_diagram(known)
    (line,) = [
        container.lines[0]
        for axis in figure.axes
        for container in axis.containers
        if container.get_label() == "published cutoff"
    ]
    np.testing.assert_array_equal(line.get_ydata(), np.full(len(GRID), 5.0))
    plt.close(figure)


def test_the_heat_maps_show_the_mean_over_seeds_depth_upwards() -> None:
    figure = plots.heat_maps(result())
    (mesh,) = [c for c in figure.axes[0].collections if c.get_array() is not None]
    shown = mesh.get_array().reshape(12, 5)
    np.testing.assert_allclose(shown, result()["r_squared"].mean("seed").values.T)


def test_an_unfinished_or_single_valued_result_can_be_drawn() -> None:
    partial = result()
    partial["finished"][2:] = 0
    for name in ("r_squared", "relative_entropy", "differential_entropy", "gram_entropy"):
        partial[name][2:] = np.nan
    plots.phase_diagram(partial)
    plots.phase_diagram(result(seeds=1).isel(sigma_w2=[2]))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_a_sweep_beyond_the_reach_of_mean_field_is_drawn_without_it(architecture: str) -> None:
    words = texts(plots.phase_diagram(result(architecture=architecture, sigma_b2=25.0)))
    assert "critical" not in words
    for row in ("small", "middle", "large"):
        assert row in words


def test_solvers_are_compared_where_their_grids_meet() -> None:
    other = result("adam", depth=8, seeds=1).isel(sigma_w2=[0, 2])
    figure = plots.solver_comparison(result(), other)
    (dots,) = figure.axes[0].collections
    assert len(dots.get_offsets()) == 2 * 1 * 8
    strangers = other.assign_coords(sigma_w2=[7.0, 8.0])
    with pytest.raises(ValueError, match="share no sigma_w2"):
        plots.solver_comparison(result(), strangers)


def test_the_stem_counts_among_the_stages_that_take_seconds() -> None:
    pair = [result(s, d, architecture="cnn") for s, d in (("ridge", 12), ("adam", 7))]
    dots = plots.solver_comparison(*pair).axes[3].lines
    np.testing.assert_allclose([dot.get_ydata()[0] for dot in dots], [1 / 15, 1 / 10])


def test_a_few_variances_stand_apart() -> None:
    few = result().isel(sigma_w2=slice(0, 3))
    axis, mesh = panel(plots.heat_maps(few), "R²")
    kept = few["r_squared"].mean("seed").values.T
    columns = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(len(kept), -1)
    np.testing.assert_allclose(columns[:, ::2], kept)
    assert np.isnan(columns[:, 1::2]).all()
    middles = mesh.get_coordinates()[0, :, 0].reshape(-1, 2).mean(1)
    np.testing.assert_allclose(middles, few.sigma_w2)
    assert not axis.patch.get_hatch()


def test_a_calibration_draws_a_line_per_variance() -> None:
    fine, coarse = result(seeds=1), result(seeds=1)
    both = xr.concat(
        [fine, coarse], dim=xr.DataArray([1e-4, 1e-2], dims="resolution", name="resolution")
    )
    figure = plots.resolution_calibration(both, result("adam"))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert sum(line.get_marker() == "." for line in lines) == len(GRID)
    assert figure.axes[0].get_ylabel() == "collapse depth (R² < 0.02)"


def test_the_steps_of_adam_are_drawn_with_a_line_each_where_they_were_measured() -> None:
    few, many = result("adam", seeds=1), result("adam", seeds=1)
    few["r_squared"][:] = -1.0
    few["differential_entropy"][:, :, 3:] = -12.0
    both = along([few.isel(sigma_w2=slice(2)), many], "steps", [10, 600])
    depths = depths_by_entropy(both).isel(seed=0)
    assert depths.sel(steps=10).values[:2].tolist() == [4, 4]
    assert depths.sel(steps=10).isnull().sum() == len(GRID) - 2
    figure = plots.steps_of_training(both)
    left, right = figure.axes
    assert [len(line.get_xdata()) for line in right.lines] == [2, len(GRID)]
    assert set(right.lines[0].get_ydata()) == {0.0}  # no R² is above 0
    assert right.get_legend_handles_labels()[1] == ["10 steps", "600 steps"]
    assert "own entropy" in left.get_ylabel()  # made-up results have no published one
    figure = plots.steps_of_training(both, result("adam", weight_decay=0.01))
    dashed = figure.axes[1].lines[-1]
    assert (dashed.get_linestyle(), len(dashed.get_xdata())) == ("--", len(GRID))
    assert "weight decay 0.01" in dashed.get_label()
    with pytest.raises(ValueError, match="differ in activation"):
        plots.steps_of_training(both, result("adam", activation="relu"))


def test_results_of_other_networks_or_data_are_not_compared() -> None:
    for other in (result("adam", activation="relu"), result("adam", sigma_b2=0.1)):
        with pytest.raises(
            ValueError, match=r"cannot be compared, they differ in (activ|sigma_b2)"
        ):
            plots.solver_comparison(result(), other)
    with pytest.raises(ValueError, match="expected one result by ridge and one by adam"):
        plots.solver_comparison(result(), result())


@pytest.mark.filterwarnings("error")
def test_a_figure_without_a_layout_is_saved_without_one(tmp_path: Path) -> None:
    with plots.paper_style():
        figure = plt.figure(layout="none")
    plots.save(figure, tmp_path / "figure", result())
    assert figure.get_layout_engine() is None


@pytest.mark.slow
def test_a_figure_is_laid_out_as_its_saved_picture_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> Figure:
        with plots.paper_style():
            figure, axes = plt.subplots(1, 2, figsize=(4, 2))
        axes[0].set(ylabel="two\nlines", title="a title")
        return figure

    figure, layouts, compute = made(), [], ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda *a: layouts.append(0) or compute(*a)
    )
    first = [file.read_bytes() for file in plots.save(figure, tmp_path / "figure")]
    again = [file.read_bytes() for file in plots.save(figure, tmp_path / "figure")]
    figure.canvas.draw()
    assert (first == again, len(layouts), figure.dpi) == (True, 1, made().dpi)
    plain = made()
    with plots.paper_style():
        plain.savefig(tmp_path / "plain.png", metadata={"Software": None})
    pictures = [Image.open(tmp_path / name).convert("RGB") for name in ("figure.png", "plain.png")]
    assert pictures[0].tobytes() == pictures[1].tobytes()


@pytest.mark.slow
def test_saved_files_hold_their_provenance_and_are_the_same_bytes_again(tmp_path: Path) -> None:
    digests = []
    for folder in ("a", "b"):
        files = plots.save(plots.heat_maps(result()), tmp_path / folder / "figure", result())
        assert [file.name for file in files] == ["figure.png", "figure.pdf"]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]
    with Image.open(tmp_path / "a" / "figure.png") as picture:
        about = json.loads(picture.text["Description"])
    assert [drawn["computed"][0]["commit"] for drawn in about] == ["abc"]
    assert b"made-up" in (tmp_path / "a" / "figure.pdf").read_bytes()


@pytest.mark.slow
def test_every_cell_of_a_notebook_shows_its_figure() -> None:
    draw = "from matplotlib import pyplot\nfrom paperlib import plots\n\n"
    draw += "with plots.paper_style():\n    figure = pyplot.figure(figsize=(1, 1))"
    notebook = new_notebook(cells=[new_code_cell(draw) for _ in range(3)])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [[o.output_type for o in cell.outputs] for cell in notebook.cells]
    assert shown == [["display_data"]] * 3


def test_colours_are_the_styles_own_also_where_the_figure_is_shown_outside_of_it() -> None:
    figures = [plots.phase_diagram(result()), plots.solver_comparison(result(), result("adam"))]
    for line in (line for figure in figures for line in figure.findobj(plt.Line2D)):
        assert not re.fullmatch(r"C\d", str(line.get_color())), line.get_label()


@pytest.mark.slow
def test_files_are_written_in_the_style_also_outside_of_it(tmp_path: Path) -> None:
    png, pdf = plots.save(plots.heat_maps(result()), tmp_path / "figure", result())
    with Image.open(png) as picture:
        assert picture.width == 10.5 * 200
    assert b"/Type3" not in pdf.read_bytes()


def legend(axis: plt.Axes) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


@pytest.mark.slow
def test_a_legend_lists_what_is_seen_inside_the_axes_and_lies_below_them() -> None:
    words = texts(plots.phase_diagram(result(architecture="cnn", sigma_b2=2e-5, depth=40)))
    assert "mean field: signal < λ" in words
    figure = plots.phase_diagram(result(architecture="resnet", sigma_b2=2e-5))
    axis = next(a for a in figure.axes if a.get_title(loc="left") == "Depth reached")
    assert "mean field: signal < λ" not in legend(axis)  # never, at these variances
    assert {plots.COLLAPSE_LABEL, plots.CENSORED, "published cutoff"} <= set(legend(axis))
    figure.draw_without_rendering()
    assert axis.get_legend().get_window_extent().y1 < axis.get_window_extent().y0


def test_the_legend_of_two_solvers_names_each_line_and_says_how_deep_was_measured() -> None:
    axis = plots.solver_comparison(result(), result("adam", depth=8)).axes[2]
    assert sorted(legend(axis)) == [
        "Adam: collapse depth", "Adam: cutoff (of 8 stages)", plots.CENSORED,
        "ridge: collapse depth", "ridge: cutoff (of 12 stages)",
    ]  # fmt: skip
    assert axis.get_ylim()[1] < 12  # the depth of the deeper one


def panel(figure: plt.Figure, title: str) -> tuple[plt.Axes, QuadMesh]:
    axis = next(a for a in figure.axes if a.get_title(loc="left") == title)
    return axis, axis.collections[0]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "least"), [("mlp", -19.3), ("cnn", -10), ("resnet", -10)])
def test_small_differences_of_entropy_do_not_fill_the_colours(
    architecture: str, least: float
) -> None:
    made = result(architecture=architecture, sigma_b2=2e-5)
    made["differential_entropy"] = made["r_squared"] - 6
    _, mesh = panel(plots.heat_maps(made), "Differential entropy")
    assert mesh.get_clim() == (least, -5)
    assert mesh.colorbar.extend == "neither"


@pytest.mark.parametrize(("architecture", "least"), [("mlp", -19.3), ("cnn", -10), ("resnet", -10)])
def test_the_published_entropy_is_drawn_where_a_result_has_it_on_the_published_scale(
    architecture: str, least: float
) -> None:
    made = result(architecture=architecture, sigma_b2=2e-5)
    made["differential_entropy_published"] = made["r_squared"] - 7
    axis, mesh = panel(plots.heat_maps(made), "Differential entropy, as published")
    assert mesh.get_clim() == (least, -5)
    shown = mesh.get_array().reshape(12, 5)
    np.testing.assert_allclose(shown, made["r_squared"].mean("seed").values.T - 7, rtol=1e-6)
    assert "not shifted" not in texts(axis.figure)


def test_the_other_entropy_is_drawn_and_named_where_a_finished_point_lacks_the_published_one() -> (
    None
):
    made = result()
    assert plots.published_entropy(made) == "differential_entropy"
    made["differential_entropy_published"] = made["r_squared"] - 7
    made["differential_entropy_published"][1, 1] = np.nan
    _, mesh = panel(plots.heat_maps(made), "Differential entropy")
    assert "pictures not shifted" in mesh.colorbar.ax.get_ylabel()
    made["finished"][1, 1] = 0
    assert plots.published_entropy(made) == "differential_entropy_published"


def test_a_colour_bar_has_an_arrow_where_values_lie_beyond_it() -> None:
    made = result()
    made["differential_entropy"][:] = -4.0
    assert panel(plots.heat_maps(made), "Differential entropy")[1].colorbar.extend == "max"
    made["r_squared"][0] = -0.5
    assert panel(plots.heat_maps(made), "R²")[1].colorbar.extend == "min"


def test_r_squared_that_is_below_0_everywhere_is_shown_on_a_scale_of_its_own() -> None:
    made = result("adam")
    made["r_squared"] -= 2
    _, mesh = panel(plots.heat_maps(made), "R²")
    assert mesh.get_clim() == (-2, 0)
    assert "0: average" in mesh.colorbar.ax.get_ylabel()
    assert panel(plots.heat_maps(result()), "R²")[1].get_clim() == (0, 1)


def test_what_has_no_value_is_hatched_and_said_to_be() -> None:
    made = result()
    made["differential_entropy"][0] = np.nan
    axis, mesh = panel(plots.heat_maps(made), "Differential entropy")
    assert "hatched: no value" in mesh.colorbar.ax.get_ylabel()
    assert axis.patch.get_hatch()


def test_no_cell_of_a_map_reaches_below_a_variance_of_0() -> None:
    assert plots.edges(np.array([0.1, 1.0, 4.0])).tolist() == [0, 0.55, 2.5, 5.5]
    assert plots.edges(np.array([0.01])).tolist() == [0, 0.01 + 0.05]


def test_the_first_figure_on_a_machine_tells_nothing_of_a_font_cache() -> None:
    assert not logging.getLogger("matplotlib.font_manager").isEnabledFor(logging.WARNING)
