"""The panel: its pictures, and that a notebook runs without the optional extra."""

import sys

import pytest
import torch
from test_study import POINT, pictures

from paperlib.instruments.digits import panel
from paperlib.instruments.digits.study import Study, run_study


@pytest.fixture(scope="module")
def done() -> Study:
    return run_study(POINT, data=pictures())


def test_the_views_are_the_image_its_reconstruction_and_the_outputs_by_hand(done: Study) -> None:
    outputs = torch.tensor([-1.0, 1.0, -1.0])
    found = panel.views(done, 4, 2, outputs)
    image, back, ideal = found.values()
    assert torch.equal(image, pictures().floats("test")[4])
    torch.testing.assert_close(back, done.cascade.reconstruct(image[None], levels=2)[0, 0])
    torch.testing.assert_close(ideal, done.cascade.ideal_input(outputs[None])[0])
    titles = list(found)
    assert [title.splitlines()[0] for title in titles] == [
        "test image 4", "from stage 2", "outputs by hand",
    ]  # fmt: skip
    assert titles[2].endswith("net: b, mean: b")


def test_the_outputs_of_an_image_lead_back_to_its_last_reconstruction(done: Study) -> None:
    outputs = panel.outputs_of(done, 7)
    assert outputs.shape == (3,)
    _, back, by_hand = panel.views(done, 7, 3, outputs).values()
    torch.testing.assert_close(by_hand, back, rtol=0, atol=1e-5)


def test_without_the_extra_one_line_says_how_to_get_it(
    done: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    panel.explore(done)
    (line,) = capsys.readouterr().out.splitlines()
    assert "pip install ipywidgets," in line


def test_with_the_extra_the_controls_follow_the_image(done: Study) -> None:
    widgets = pytest.importorskip("ipywidgets")
    controls = panel._controls(done, widgets)
    (number, level), sliders = controls.children[0].children, controls.children[2].children
    assert (level.value, level.max, number.max) == (3, 3, 59)
    for image in (0, 5):
        number.value = image
        expected = panel.outputs_of(done, image).tolist()
        assert [slider.value for slider in sliders] == pytest.approx(expected)
    sliders[0].value = 0.5
    assert sliders[0].value == 0.5
