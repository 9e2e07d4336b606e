"""The figures of reports, from Datasets written by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_report import report

from paperlib.instruments.probe import plots_probe


@pytest.fixture(autouse=True)
def closed_figures() -> object:
    yield
    plt.close("all")


def words(figure: plt.Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_the_stage_from_which_the_input_is_lost_is_marked() -> None:
    figure = plots_probe.report(report([0.9, 0.01, 0.0]).result)
    assert "lost from stage 2" in words(figure)
    assert "lost from" not in words(plots_probe.report(report([0.9, 0.5]).result))


def test_stages_that_are_read_directly_are_drawn_apart() -> None:
    figure = plots_probe.report(report([0.9, 0.7], read=["direct", "cascade"]).result)
    chained, direct = figure.axes[0].lines[:2]
    np.testing.assert_allclose(chained.get_ydata(), [0.7])
    np.testing.assert_allclose(direct.get_ydata(), [0.9])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7, 200])
def test_any_number_of_stages_has_room(count: int) -> None:
    pictures = torch.rand(count + 1, 3, 4, 4)
    figure = plots_probe.report(report([0.5] * count, pictures=pictures).result)
    figure.draw_without_rendering()
    assert len(figure.axes[0].get_xticks()) <= plots_probe.NAMED


def test_models_are_compared_along_their_relative_depth() -> None:
    results = {"deep": report([0.9, 0.5, 0.3, 0.1]).result, "shallow": report([0.8, 0.4]).result}
    axis = plots_probe.compare(results).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_xdata(), [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(axis.lines[1].get_ydata(), [0.8, 0.4])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["deep", "shallow"]


def test_a_title_tells_the_model_the_samples_the_resolution_and_what_is_left() -> None:
    title = plots_probe.report(report([0.9, 0.12]).result).get_suptitle()
    for expected in ("Mine, 7 parameters, 2 stages", "R² at the end: 0.12", "inputs of 1×4×4",
                     "80 fitted, 20 held out", "λ = 0.001"):  # fmt: skip
        assert expected in title
    compared = plots_probe.compare({"a": report([0.9]).result, "b": report([0.8]).result})
    assert compared.get_suptitle() == title.splitlines()[1]


def test_the_names_below_the_axes_are_said_to_be_those_of_layers() -> None:
    axes = plots_probe.report(report([0.9, 0.5]).result).axes[:2]
    assert [axis.get_xlabel() for axis in axes] == ["layer (its name in the model)"] * 2


def test_nothing_that_is_left_has_no_sign() -> None:
    assert "R² at the end: 0.00" in plots_probe.describe(report([0.9, -0.001]).result)
