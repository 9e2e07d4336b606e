"""Figures of VGG's channels: what they show, and what their titles and files say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from paperlib.instruments.channels import plots_channels
from paperlib.instruments.channels.channels import best_channels, run_channels
from paperlib.instruments.channels.settings import ChannelsPoint

POINT = ChannelsPoint(
    layers=11,
    side=32,
    train_images=6,
    test_images=2,
    shown=("2:26",),
    asked="2:5",
    asked_images=("chelsea",),
    ranked_levels=(2,),
    ranked_images=1,
    best=2,
)


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return run_channels(POINT)


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures", "best", "answers", "curves"])
def test_every_title_says_that_the_weights_are_random(name: str, result: xr.Dataset) -> None:
    figure = getattr(plots_channels, name)(result)
    assert "VGG11, random weights" in figure.get_suptitle()
    assert "6 of scikit-image's photographs (32×32)" in figure.get_suptitle()


@pytest.mark.slow
def test_pictures_shows_what_was_asked_for_and_the_last_two_levels(result: xr.Dataset) -> None:
    shown = titles(plots_channels.pictures(result))
    assert shown[0] == "astronaut"
    assert "level 2 (pool1), channel 26" in shown
    assert "level 12 (conv5_2), all channels" in shown
    assert "level 13 (pool5), all channels" in shown


@pytest.mark.slow
def test_best_shows_the_channels_in_the_order_of_what_they_carry(result: xr.Dataset) -> None:
    shown = [title.partition(":")[0] for title in titles(plots_channels.best(result))]
    assert shown == [str(channel) for channel in best_channels(result, 2)[:2]]


@pytest.mark.slow
def test_answers_are_drawn_on_one_scale(result: xr.Dataset) -> None:
    figure = plots_channels.answers(result)
    drawn = [np.abs(axis.images[0].get_array() - 0.5).max() for axis in figure.axes[2:]]
    scales = result.answer_scale.values / result.answer_scale.values.max()
    np.testing.assert_allclose(drawn, 0.5 * scales, atol=0.01)


@pytest.mark.slow
def test_curves_says_where_a_cascade_lies_below_the_axis(result: xr.Dataset) -> None:
    lost = result.assign(r_squared=result.r_squared - 5)
    figure = plots_channels.curves(lost)
    axis = figure.axes[0]
    assert "below the axis, R² −4.0" in axis.get_legend_handles_labels()[1][0]
    assert axis.lines[1].get_marker() == "v"
    assert len(axis.lines[1].get_xdata()) == result.sizes["level"]
    figure.draw_without_rendering()
    assert axis.get_legend().get_window_extent().y1 < axis.get_window_extent().y0


@pytest.mark.slow
def test_energy_has_a_unit_in_words(result: xr.Dataset) -> None:
    assert plots_channels.curves(result).axes[2].get_xlabel() == "energy (squared pixel value)"


@pytest.mark.slow
def test_the_ranking_is_a_table_of_the_best(result: xr.Dataset) -> None:
    table = plots_channels.ranking(result, 2, count=5)
    assert table["channel"].tolist() == best_channels(result, 2)[:5]
    with pytest.raises(ValueError, match=r"one of those ranked \(2\), got 7"):
        plots_channels.ranking(result, 7)


@pytest.mark.slow
def test_the_gallery_has_a_file_for_every_picture_that_says_where_it_comes_from(
    result: xr.Dataset, tmp_path: Path
) -> None:
    files = plots_channels.save_gallery(result, tmp_path / "vgg16")
    names = [name.replace(":", "_") for name in result.shown.values]
    assert [file.stem for file in files] == names
    assert names[:3] == ["2_26", "12_all", "13_all"]
    with Image.open(files[0]) as opened:
        assert '"weights"' in opened.text["Description"]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_weights_that_were_trained_here_are_named_with_their_accuracy(result: xr.Dataset) -> None:
    import json

    about = json.loads(result.attrs["provenance"])
    about["weights"] |= {
        "name": "w.safetensors",
        "epochs": 15,
        "accuracy": 0.812,
        "trained_on": {"name": "cifar10", "train_images": 20000},
    }
    named = result.assign_attrs(provenance=json.dumps(about))
    title = plots_channels.describe(named)
    assert "trained on 20,000 images of grey CIFAR10 for 15 epochs: 81.2%" in title


@pytest.mark.slow
def test_the_depth_of_the_network_is_in_the_title() -> None:
    point = replace(POINT, batch_norm=True, test_images=2)
    title = plots_channels.describe(run_channels(point))
    assert title.startswith("VGG11 with batch norm, random weights")
