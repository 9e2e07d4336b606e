import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from paperlib import plots
from paperlib.instruments.digits import plots_study
from paperlib.instruments.digits.settings import StudyPoint

KINDS = ("typical", "ambiguous", "misclassified")


@pytest.fixture(autouse=True)
def closed_figures() -> object:
    yield
    plt.close("all")


def result(
    *, depth: int = 4, classes: int = 3, channels: int = 1, kinds: tuple[str, ...] = KINDS
) -> xr.Dataset:
    """A made-up study: the network sees class 1 down to level 2 and class 2 from there on."""
    random = np.random.default_rng(0)
    size = {"state": 2, "judge": 2, "level": depth + 1, "shown": len(kinds), "class": classes}

    def noise(*dims: str) -> tuple[tuple[str, ...], np.ndarray]:
        return dims, random.uniform(0, 1, [size[dim] for dim in dims])

    picture = ("channel", "row", "column")
    verdict = np.ones((2, 2, depth + 1, len(kinds)), np.int64)
    verdict[:, 0, 3:] = 2
    ideal_verdict = np.broadcast_to(np.arange(classes), (2, 2, classes)).copy()
    ideal_verdict[1, 1, 0] = 1
    point = StudyPoint(shape="shrinking", depth=depth, optimiser="adam")
    about = {
        "config": point.as_dict(),
        "data": {
            "name": "made-up", "checksum": "0" * 64, "pixels": 25, "image_shape": [channels, 5, 5],
        },
        "computed": [{"commit": "abc", "versions": {"torch": "0"}}],
        "finished_at": "2026-01-02T03:04:05",
    }  # fmt: skip
    shape = (channels, 5, 5)
    return xr.Dataset(
        {
            "picture": (
                ("state", "level", "shown", *picture),
                random.uniform(-0.2, 1.2, (2, depth + 1, len(kinds), *shape)),
            ),
            "ideal": (("state", "class", *picture), random.uniform(0, 1, (2, classes, *shape))),
            "verdict": (("state", "judge", "level", "shown"), verdict),
            "ideal_verdict": (("state", "judge", "class"), ideal_verdict),
            "r_squared": noise("state", "shown", "level"),
            "relative_entropy": noise("state", "level", "shown"),
            "test_r_squared": noise("state", "level"),
            "right": noise("state", "judge", "level"),
            "faithful": noise("state", "judge", "level"),
            "number": ("shown", np.arange(len(kinds)) + 70),
            "label": ((), 1),
            "accuracy": ((), 0.9876),
            "steps": ((), 1234),
        },
        {
            "state": ["untrained", "trained"],
            "judge": ["network", "class mean"],
            "level": np.arange(depth + 1),
            "shown": list(kinds),
            "class": [f"class {n}" for n in range(classes)],
        },
        {"provenance": json.dumps(about)},
    )


def texts(figure: plt.Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def images(figure: plt.Figure) -> list[np.ndarray]:
    return [axis.images[0].get_array() for axis in figure.findobj(plt.Axes) if axis.images]


def test_the_title_names_data_network_training_and_solver() -> None:
    title = plots_study.describe(result(channels=3))
    for expected in ("made-up (colour 5×5)", "shrinking, tanh", "4 stages", "ridge, λ = 0.001",
                     "Adam for 1,234 steps of 64: 98.8%"):  # fmt: skip
        assert expected in title
    assert "(grey 5×5)" in plots_study.describe(result())


def test_every_shown_image_every_stage_and_every_ideal_input_is_drawn() -> None:
    made = result()
    figure = plots_study.reconstructions(made)
    drawn = images(figure)
    assert len(drawn) == 3 * 5 + 3
    expected = made.picture.sel(state="trained", shown="typical", level=2).values[0].clip(0, 1)
    np.testing.assert_allclose(drawn[2], expected)
    words = texts(figure)
    for part in (*KINDS, "#70", "“class 1”", "input", "commit abc", "its output 1, the others −1",
                 "the network 3 of 3, by the class means 2 of 3"):  # fmt: skip
        assert part in words


def test_a_verdict_other_than_the_label_is_told_apart_by_colour() -> None:
    figure = plots_study.reconstructions(result(kinds=("ambiguous",)))
    said = [text for text in figure.findobj(plt.Text) if text.get_text().startswith("net: ")]
    colours = [text.get_color() for text in said[:5]]
    assert [text.get_text() for text in said[:5]] == ["net: class 1"] * 3 + ["net: class 2"] * 2
    assert colours == [plots_study.RIGHT] * 3 + [plots_study.WRONG] * 2
    assert {text.get_fontweight() for text in said} == {"normal"}  # bold is illegible when small


def test_deep_networks_and_many_classes_are_drawn_in_part() -> None:
    figure = plots_study.reconstructions(result(depth=30, classes=45))
    assert len(images(figure)) == 3 * 10 + plots_study.CLASSES
    assert plots_study._spread(30, 9) == [1, 5, 8, 12, 16, 19, 23, 26, 30]
    assert plots_study._spread(1, 9) == [1]
    assert plots_study._spread(3, 9) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_before_and_after_stand_side_by_side(channels: int) -> None:
    figure = plots_study.before_and_after(result(depth=9, channels=channels))
    assert len(images(figure)) == 2 * (3 * 5 + 3)
    assert {drawn.shape for drawn in images(figure)} == {(5, 5, 3) if channels == 3 else (5, 5)}
    assert "Untrained" in texts(figure)
    assert "Trained" in texts(figure)


def test_curves_are_those_of_the_study() -> None:
    made = result()
    figure = plots_study.curves(made)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "R²", "Relative entropy", "Known by the network", "Known by the class means",
    ]  # fmt: skip
    known = figure.axes[3].lines[1].get_ydata()
    np.testing.assert_allclose(known, made.right.sel(state="trained", judge="class mean"))
    assert len(figure.axes[0].lines) == 2 * (3 + 1)


def test_the_table_says_at_which_stage_a_verdict_changes() -> None:
    table = plots_study.verdicts(result())
    assert list(table.columns) == ["input", "1", "2", "3", "4", "changes"]
    network = table.loc[("ambiguous", "network")]
    assert network["2"] == "class 1"
    assert network["changes"] == "class 1, class 2 from stage 3"
    assert table.loc[("ambiguous", "class mean"), "changes"] == "none"
    assert plots_study._changes(["5", "6", "6", "5"]) == "5, 6 from stage 1, 5 from stage 3"


def test_long_names_of_classes_are_shortened() -> None:
    assert plots_study._short("ankle boot") == "ankle boot"
    assert plots_study._short("n0149633112345") == "n0149633112…"


@pytest.mark.slow
def test_a_figure_carries_the_provenance_of_its_study(tmp_path: Path) -> None:
    made = result()
    png, pdf = plots.save(plots_study.curves(made), tmp_path / "figure", made)
    (about,) = json.loads(Image.open(png).text["Description"])
    assert about == json.loads(made.attrs["provenance"])
    assert pdf.stat().st_size > 1000
