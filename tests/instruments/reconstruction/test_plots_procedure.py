import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_study import pictures

from paperlib.instruments.reconstruction import plots_procedure
from paperlib.instruments.reconstruction.points import CascadePoint
from paperlib.instruments.reconstruction.procedure import run_procedure


@pytest.fixture(autouse=True)
def closed_figures() -> object:
    yield
    plt.close("all")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_schematic_holds_every_step_picture_and_barcode(depth: int) -> None:
    point = CascadePoint(depth=depth, width=50, train_images=80, test_images=20)
    result = run_procedure(point, data=pictures())
    figure = plots_procedure.procedure(result)
    barcodes = [axis for axis in figure.axes if axis.images[0].get_array().shape == (1, 40)]
    assert len(barcodes) == depth + depth * (depth + 1) // 2
    assert len(figure.axes) == len(barcodes) + 1 + depth
    drawn = barcodes[-1].images[0].get_array()  # the last cascade's estimate of the first level
    last = result.estimate.sel(cascade=depth, level=1).values
    np.testing.assert_allclose(drawn[0], last[:40])
    words = " ".join(text.get_text() for text in figure.findobj(plt.Text))
    steps = ("① Forward", "② Back", "③ Chained", "④ Compared")
    numbers = (f"$C^{{{depth}}}", f"R² = {float(result.r_squared[-1]):.2f}", "σ_w² = 1.7")
    for expected in (*steps, *numbers, "pictures", "width 50"):
        assert expected in words


def test_nothing_is_drawn_outside_the_figure() -> None:
    point = CascadePoint(depth=1, width=20, train_images=80, test_images=20)
    figure = plots_procedure.procedure(run_procedure(point, data=pictures()))
    figure.draw_without_rendering()
    for text in figure.findobj(plt.Text):
        if text.get_text():
            box = text.get_window_extent().transformed(figure.transFigure.inverted())
            assert min(*box.p0, *(1 - box.p1)) > -0.01, text
