"""What notebooks cost: in words, in a table, and in the README."""

import runpy
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from paperlib import notebooks
from paperlib.notebooks import costs
from paperlib.notebooks.costs import Cost, duration

MEASURED = {
    "quick": {"seconds": 41.2, "gigabytes": 1.26},
    "paper": {"seconds": 900_000, "how": "some.nc: 1 s a stage × 9 stages"},
    "busy": False,
    "hardware": "an abacus",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures").mkdir()
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    return tmp_path


def write(project: Path, text: str) -> None:
    (project / "notebooks/costs.yaml").write_text(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (41.2, "41 s"), (100, "2 min"), (5940, "99 min"), (6000, "2 h"),
     (47.4 * 3600, "47 h"), (48 * 3600, "2 days"), (2e6, "23 days")],
)  # fmt: skip
def test_a_duration_is_said_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_time_says_whether_it_was_measured_estimated_or_on_a_busy_machine() -> None:
    values = {"quick_seconds": 50, "quick_gigabytes": 1, "paper_seconds": 7200, "hardware": "x"}
    assert Cost(**values, paper_estimated=False, busy=False).times == ("50 s", "2 h")
    assert Cost(**values, paper_estimated=True, busy=True).times == ("under 50 s", "about 2 h")
    assert Cost(**values, paper_estimated=False, busy=True).times == ("under 50 s", "under 2 h")
    values["paper_seconds"] = None
    unknown = Cost(**values, paper_estimated=False, busy=False)
    assert unknown.times == ("50 s", "not measured")


def test_measured_costs_are_read_and_none_where_nothing_was_measured(project: Path) -> None:
    assert costs.load_costs() == {}
    write(project, yaml.safe_dump({"01_tiny": MEASURED}))
    found = costs.load_costs()["01_tiny"]
    assert found == Cost(41.2, 1.26, 900_000, True, False, "an abacus")


@pytest.mark.parametrize("text", ["[1", "- 1", "01_tiny: 3", "01_tiny: {quick: 3}", "a: {}"])
def test_a_damaged_file_of_costs_is_told(text: str, project: Path) -> None:
    write(project, text)
    with pytest.raises(ValueError, match=r"costs\.yaml cannot be read .* measure anew"):
        costs.load_costs()


def test_the_table_links_figures_and_notebooks_and_admits_what_is_not_measured(
    project: Path,
) -> None:
    write(project, yaml.safe_dump({"01_tiny": MEASURED}))
    for name in ("01_tiny", "01_tiny_more", "02_other"):
        (project / "figures" / f"{name}.png").touch()
    found = [
        notebooks.Notebook(name, title, "", Path(f"{name}.ipynb"))
        for name, title in (("01_tiny", "A line"), ("03_none", "Nothing"))
    ]
    header, rule, first, second = costs.markdown(found, costs.load_costs()).splitlines()
    assert header.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert first == (
        "| [01_tiny](figures/01_tiny.png), […_more](figures/01_tiny_more.png) "
        "| [A line](notebooks/01_tiny.ipynb) | `paperlib run 01` | 41 s | about 10 days | 1.3 GB "
        "| an abacus |"
    )
    assert second.startswith("| none | [Nothing](notebooks/03_none.ipynb) | `paperlib run 03` |")
    assert second.count("not measured") == 4


def test_the_table_in_the_readme_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERLIB_HOME", str(ROOT))
    table = costs.markdown(notebooks.find(), costs.load_costs())
    assert f"\n\n{table}\n\n" in (ROOT / "README.md").read_text(), (
        "put what `paperlib list --markdown` prints into the README"
    )


def test_what_was_measured_is_of_notebooks_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERLIB_HOME", str(ROOT))
    assert costs.load_costs().keys() <= {notebook.name for notebook in notebooks.find()}


@pytest.mark.parametrize(
    ("name", "stages"), [("03_cnn_phase_diagram", 3 + 400), ("04_resnet_depth", 3 + 50)]
)
def test_scaled_times_of_convolutional_networks_count_the_stem(name: str, stages: int) -> None:
    scaled = runpy.run_path(str(ROOT / "benchmarks/notebooks.py"))
    assert f"× {stages} stages" in scaled["convolutional_seconds"](name)[1]
