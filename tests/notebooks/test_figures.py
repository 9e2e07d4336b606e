"""What figure files say of themselves: those that are drawn here, and every one that ships."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import xarray as xr
from checkout import ROOT
from PIL import Image

from paperlib import plots
from paperlib.instruments.reconstruction.points import CascadeSweep
from paperlib.notebooks import figures
from paperlib.training import TrainingPoint

# A benchmark's figure has no PDF if it was drawn before benchmarks told what they measured with:
# `python benchmarks/cost.py`, on an idle machine, draws both.
SHIPPED = sorted(
    path
    for path in (ROOT / "figures").glob("*.png")
    if path.with_suffix(".pdf").exists() or path.stem[:2].isdigit()
)
ABOUT: dict[str, Any] = {
    "config": {"depth": 3, "sigma_w2": [0.5, 1.75], "seeds": [0, 1], "data_seed": 7, "start": ""},
    "data": {"name": "made-up", "source": "x.npz", "checksum": "0" * 64, "train_images": 60_000},
    "computed": [
        {
            "commit": "abc",
            "versions": {"torch": "2", "python": "3"},
            "hardware": "one core",
            "device": "cpu",
            "points": 1200,
            "threads": 2,
        }
    ],
    "finished_at": "2026-01-02T03:04:05",
    "code_version": 4,
}


def drawn(stem: Path, *about: dict[str, Any]) -> list[Path]:
    """The files of an empty figure of results with this provenance."""
    results = [xr.Dataset(attrs={"provenance": json.dumps(each)}) for each in about]
    figure = plt.figure(figsize=(1, 1))
    try:
        return plots.save(figure, stem, *results)
    finally:
        plt.close(figure)


@pytest.mark.parametrize(
    "name", ["plain", "a (b) c", "open ( only", r"back\slash\n", "Über-größe", ") > /Keywords (x)"]
)
def test_png_and_pdf_give_back_what_was_drawn_in_them(name: str, tmp_path: Path) -> None:
    first = {**ABOUT, "data": {**ABOUT["data"], "name": name}}
    files = drawn(tmp_path / "figure", first, ABOUT)
    assert [file.suffix for file in files] == [".png", ".pdf"]
    for file in files:
        assert figures.provenance_of(file) == [first, ABOUT]


def test_a_provenance_is_told_with_every_setting_seed_version_and_time() -> None:
    lines = figures.provenance_lines(ABOUT)
    said = dict(line.split(maxsplit=1) for line in lines)
    assert said["depth"] == "3"
    assert said["sigma_w2"] == "0.5, 1.75"
    assert said["seeds"] == "0, 1"
    assert said["start"] == "(empty)"
    for expected in ("2026-01-02T03:04:05", "code version    4", "commit abc", "torch 2",
                     "python 3", "one core", "threads 2", "1,200 points", "made-up", "x.npz",
                     f"sha256 {'0' * 64}", "train images    60,000",
                     "data seed       7"):  # fmt: skip
        assert expected in "\n".join(lines), expected
    assert max(map(len, lines)) <= 100


def told_of(config: dict[str, Any], **data: Any) -> dict[str, str]:
    lines = figures.provenance_lines({**ABOUT, "config": config, "data": {**ABOUT["data"], **data}})
    return {line[:18].strip(): line[18:].strip() for line in lines}


def test_settings_that_a_computation_does_not_read_are_not_told() -> None:
    by_ridge = told_of(CascadeSweep(depth=3).as_dict())
    assert not {"channels", "steps", "batch_size", "fallback"} & by_ridge.keys()
    assert {"width", "resolution", "solver", "depth", "sigma_w2"} <= by_ridge.keys()
    by_adam = told_of(CascadeSweep(solver="adam", architecture="cnn").as_dict())
    assert {"channels", "steps", "batch_size"} <= by_adam.keys()
    assert not {"width", "shape", "resolution"} & by_adam.keys()
    resolutions = {**CascadeSweep().as_dict(), "resolution": [1e-4, 1e-3]}
    assert told_of(resolutions)["resolution"] == "0.0001, 0.001"
    assert "channels" not in told_of(TrainingPoint().as_dict())


def test_a_number_that_stands_for_another_is_explained() -> None:
    told = told_of(CascadeSweep(solver="adam").as_dict())
    assert told["width"] == "0: as many neurons as pixels"
    assert told["steps"] == "0: one epoch"
    assert told_of(CascadeSweep(solver="adam", steps=7, width=5).as_dict())["steps"] == "7"


def test_as_many_images_as_were_asked_for_are_told_once() -> None:
    config = CascadeSweep(train_images=2000, test_images=100).as_dict()
    told = told_of(config, train_images=2000, test_images=90)
    assert told["train images"] == "2,000"
    assert "train_images" not in told
    assert (told["test images"], told["test_images"]) == ("90", "100")


def test_a_way_of_which_only_a_bound_is_known_is_told_so() -> None:
    way = {**ABOUT["computed"][0], "at_most": True}
    text = "\n".join(figures.provenance_lines({**ABOUT, "computed": [way]}))
    assert "at most 1,200 points, commit abc" in text
    assert "at_most" not in text


def test_a_figure_is_found_by_its_path_or_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    png, pdf = drawn(tmp_path / "figures/01_line", ABOUT)
    quick, _ = drawn(tmp_path / "figures/quick/01_line", ABOUT)
    assert figures.find_figure(str(pdf)) == pdf
    assert figures.find_figure("01_line").samefile(png)
    assert figures.find_figure("01_line.pdf").samefile(pdf)
    assert figures.find_figure("quick/01_line").samefile(quick)
    monkeypatch.chdir(quick.parent)
    assert figures.find_figure("01_line.png").samefile(quick), "a file that is there comes first"
    with pytest.raises(FileNotFoundError, match=r"no figure '01_lime' \(did you mean '01_line'"):
        figures.find_figure("01_lime")
    with pytest.raises(FileNotFoundError, match=r"no figure '01' \(there are: 01_line\)"):
        figures.find_figure("01")
    with pytest.raises(FileNotFoundError, match="no figure ''"):
        figures.find_figure("")


def test_files_without_provenance_are_told_apart_from_figures(tmp_path: Path) -> None:
    bare = tmp_path / "bare.png"
    Image.new("L", (2, 2)).save(bare)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(drawn(tmp_path / "whole", ABOUT)[0].read_bytes()[:60])
    text = tmp_path / "text.pdf"
    text.write_bytes(b"%PDF-1.4 /Keywords ([1, 2])")
    for file in (bare, damaged, text):
        with pytest.raises(ValueError, match=rf"{file.name} carries no provenance, or is damaged"):
            figures.provenance_of(file)
    with pytest.raises(ValueError, match=r"notes\.txt must be a \.png or \.pdf file"):
        figures.provenance_of(tmp_path / "notes.txt")


@pytest.mark.parametrize("png", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_figure_says_what_it_was_computed_from(png: Path) -> None:
    about = figures.provenance_of(png)
    assert about == figures.provenance_of(png.with_suffix(".pdf"))
    for result in about:
        assert result["config"]
        # a network's number is the seed of its weights
        assert {"seed", "seeds", "numbers"} & result["config"].keys()
        assert result["data"]["name"]
        assert len(bytes.fromhex(result["data"]["checksum"])) == 32
        assert result["finished_at"][:4].isdigit()
        assert result["computed"]
        for way in result["computed"]:
            int(way["commit"], 16)  # of a clean checkout: no "-dirty"
            assert {"python", "torch", "numpy", "scipy", "xarray"} <= way["versions"].keys()


def test_figures_ship_and_none_without_its_other_format() -> None:
    assert SHIPPED
    pdfs = {path.stem for path in (ROOT / "figures").glob("*.pdf")}
    assert pdfs == {path.stem for path in SHIPPED}
