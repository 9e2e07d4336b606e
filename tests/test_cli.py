"""The command line: what it prints, what it passes on, and how it fails."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_data import keras, lay_out
from tiny_project import NAME, build

from paperlib.cli import main
from paperlib.core import paths
from paperlib.instruments.probe.diagnoses import HEALTHY
from paperlib.instruments.probe.vitals import STAGE_SIGNS
from paperlib.notebooks import runner as notebooks
from paperlib.sweep import engines


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    monkeypatch.setenv("PAPERLIB_DATA", "data")
    return build(tmp_path).resolve()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What would have been run, name and options."""
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(notebooks, "execute", lambda name, **options: found.append((name, options)))
    return found


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert "the notebooks, and what each one shows" in said
    assert "error" not in said


@pytest.mark.parametrize("command", ["run", "train", "probe"])
def test_the_help_of_a_command_tells_every_option_and_its_default(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    expected = {
        "run": ["smoke, quick, reference or paper (default: quick)", "(default: one per core)",
                "(default: all)", "(default: loky)", "(default: a cluster on this machine)"],
        "train": ["(default: in data/weights/)"],
        "probe": ["how many images to use, at most (default: 400)", "(default: 0)",
                  "(default: as they are)", "(default: where all paths meet)"],
    }  # fmt: skip
    for text in expected[command]:
        assert text in said, text
    assert "; default" not in said


def test_list_shows_a_claim_as_text_without_its_markup(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / "notebooks" / f"{NAME}.ipynb"
    marked = file.read_text().replace("It goes up", "**It** goes *2 * 3* `up`")
    file.write_text(marked)
    assert main(["list"]) == 0
    assert "It goes 2 * 3 up with the depth." in capsys.readouterr().out


def test_list_names_each_notebook_with_its_figure_claim_and_state(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "notebook"
    cells = [cell.strip() for cell in line.split("  ") if cell]
    assert cells == [NAME, "A line", "It goes up with the depth.", *["not measured"] * 2, "missing"]


def test_list_prints_the_readmes_table(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--markdown"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert f"[A line](notebooks/{NAME}.ipynb) | `paperlib run 01` | not measured |" in row


def test_params_gives_each_parameter_its_default_in_a_profile_its_unit_and_its_range(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["params", "1"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "parameter"
    assert "default (quick)" in header
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines]
    assert ["depth", "3", "stages, 1 to 10,000"] in cells
    assert main(["params", "1", "--profile", "reference"]) == 0
    assert "depth      4 " in capsys.readouterr().out


def test_status_has_a_line_for_every_profile_and_says_why(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    lines = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:3] for line in lines] == [
        [NAME, "smoke", "missing"],
        [NAME, "quick", "missing"],
        [NAME, "reference", "missing"],
        [NAME, "paper", "unknown"],
    ]
    assert lines[0][3] == "not run here yet"
    assert "has no profile paper" in lines[3][3]


def test_show_tells_what_each_figure_was_computed_from(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_figures import ABOUT, drawn

    drawn(project / "figures" / NAME, ABOUT, ABOUT)
    monkeypatch.chdir(project)
    assert main(["show", NAME, f"figures/{NAME}.pdf"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        f"figures/{NAME}.png", "result 1 of 2", "result 2 of 2",
        f"figures/{NAME}.pdf", "result 1 of 2", "result 2 of 2",
    ]  # fmt: skip
    assert sum("commit abc" in line for line in lines) == 4
    assert main(["show", "none"]) == 1
    assert capsys.readouterr().err.startswith("paperlib: no figure 'none'")


def test_run_passes_its_options_on(project: Path, runs: list[tuple[str, dict[str, Any]]]) -> None:
    words = "run 01 --profile paper -p depth 1e2 -p dataset mnist --jobs 3 --force --save"
    assert main(words.split()) == 0
    options = {"profile": "paper", "parameters": {"depth": 100.0, "dataset": "mnist"}}
    assert runs == [(NAME, {**options, "jobs": 3, "force": True, "save": True, "output": None})]


def test_a_profile_may_come_as_a_parameter_and_brings_its_values(
    project: Path, runs: list[tuple[str, dict[str, Any]]]
) -> None:
    assert main(["run", "01", "-p", "profile", "smoke", "--output", "there"]) == 0
    ((_, options),) = runs
    assert (options["profile"], options["output"]) == ("smoke", "there")
    assert notebooks.validated(NAME, "smoke", options["parameters"])["depth"] == 2
    assert main(["run", "01", "--profile", "smoke", "-p", "profile", "smoke"]) == 0


def test_run_chooses_where_the_sweeps_of_its_notebooks_are_computed(
    project: Path, runs: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (engines.BACKEND_VARIABLE, engines.ADDRESS_VARIABLE):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    assert main(["run", "01"]) == 0
    assert engines.BACKEND_VARIABLE not in os.environ  # kernels inherit the environment
    assert main(["run", "01", "--backend", "dask", "--address", "tcp://127.0.0.1:8786"]) == 0
    assert os.environ[engines.BACKEND_VARIABLE] == "dask"
    assert os.environ[engines.ADDRESS_VARIABLE] == "tcp://127.0.0.1:8786"


def test_run_without_names_runs_every_notebook_on_the_quick_profile(
    project: Path, runs: list[tuple[str, dict[str, Any]]]
) -> None:
    folder = project / "notebooks"
    (folder / "02_more.ipynb").write_bytes((folder / f"{NAME}.ipynb").read_bytes())
    assert main(["run"]) == 0
    assert [name for name, _ in runs] == [NAME, "02_more"]
    assert {options["profile"] for _, options in runs} == {"quick"}


def test_run_goes_on_after_a_failure_and_reports_it_at_the_end(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "notebooks"
    (folder / "02_more.ipynb").write_bytes((folder / f"{NAME}.ipynb").read_bytes())
    ran = []

    def execute(name: str, **options: Any) -> None:
        ran.append(name)
        if name == NAME:
            raise notebooks.NotebookError("01_tiny: it broke")

    monkeypatch.setattr(notebooks, "execute", execute)
    assert main(["run"]) == 1
    assert ran == [NAME, "02_more"]
    assert capsys.readouterr().err == "paperlib: 01_tiny: it broke\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run 01_tinny", "no notebook '01_tinny' (did you mean '01_tiny'?)"),
        ("run --profile fast", "unknown profile 'fast'"),
        ("run -p depht 3", "unknown parameter 'depht' = 3 (did you mean 'depth'?)"),
        ("run -p depth three", "depth must be a whole number, got 'three'"),
        ("run -p depth 0", "depth must be >= 1, got 0"),
        ("run -p sigma_b2 -1", "sigma_b2 must be >= 0"),
        ("run --backend slurm", "backend must be one of dask, loky"),
        ("run --backend loky --address tcp://x:1", "address is for the backend 'dask'"),
        ("run --profile smoke -p profile quick", "two profiles are named, --profile smoke and"),
        (
            "run --output {project}/figures/quick",
            "output must be another folder than those of the profiles",
        ),
        ("run --save", "only runs with exactly the values of the profiles"),
        ("params 7", "no notebook '7'; there are: 01_tiny"),
        ("params 1 --profile qiuck", "unknown profile 'qiuck' (did you mean 'quick'?)"),
        ("data mnits", "unknown data set 'mnits'"),
        ("data none/such.npz", "such.npz"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_status_1(
    project: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.format(project=project).split()) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("paperlib: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_reader_that_has_read_enough_is_no_error(project: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-u", "-m", "paperlib", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == ""


def test_a_package_without_its_checkout_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "package_folder", lambda: tmp_path / "site" / "paperlib")
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    assert main(["list"]) == 1
    assert "set PAPERLIB_HOME to your checkout" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "execute", interrupted)
    assert main(["run"]) == 130
    assert capsys.readouterr().err == "paperlib: interrupted; finished points are kept\n"


def test_data_lists_every_name_and_where_it_would_come_from(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(project / "data/fashion-mnist", keras())
    assert main(["data"]) == 0
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert str(project / "data") in first
    assert str(paths.SYSTEM_DATA) in first
    found = dict(line.split() for line in lines)
    assert found["fashion_mnist"] == "idx"
    assert found["digits"] == "bundled"
    assert found["mnist"] == "absent"
    assert len(found) == 6


def test_data_loads_what_it_names_and_prints_its_shape_and_checksum(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "digits"]) == 0
    out = capsys.readouterr().out
    assert "1, 28, 28)" in out
    assert "10 classes" in out
    assert len(out.split("checksum ")[1].split()[0]) >= 16


@pytest.fixture
def full(project: Path) -> Path:
    """A project with one file, ten bytes long, in every place that `clean` knows or must not."""
    for name in (
        "data/points/a.npz",
        "data/results/a.nc",
        "data/mnist.npz",
        "data/MNIST/raw/images",
        "data/README.md",
        "data/reference/mnist.nc",
        "figures/01_tiny.png",
        "figures/quick/01_tiny.png",
        "figures/custom/01_tiny.png",
        "figures/mine/01_tiny.png",
    ):
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"0123456789")
    return project


def left(project: Path) -> set[str]:
    files = (path for path in project.rglob("*") if path.is_file())
    return {str(path.relative_to(project)) for path in files}


@pytest.mark.parametrize(
    ("words", "removed"),
    [
        ("clean", {"data/points/a.npz", "data/results/a.nc"}),
        ("clean --points", {"data/points/a.npz", "data/results/a.nc"}),
        ("clean --data", {"data/mnist.npz", "data/MNIST/raw/images"}),
        ("clean --figures", {"figures/quick/01_tiny.png", "figures/custom/01_tiny.png"}),
    ],
)
def test_clean_says_and_frees_exactly_what_it_was_asked_for(
    full: Path, words: str, removed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(full)
    assert main(words.split()) == 0
    assert before - left(full) == removed
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("removing ") and line.endswith(" MB)") for line in lines)
    assert main(words.split()) == 0
    assert capsys.readouterr().out.startswith("nothing to free")


def test_clean_never_leaves_the_checkout(full: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "mnist.npz").write_bytes(b"precious")
    (full / "data" / "linked").symlink_to(outside)
    assert main(["clean", "--data"]) == 0
    assert not (full / "data" / "linked").exists()
    (full / "data").rename(full / "moved")
    (full / "data").symlink_to(outside)
    assert main(["clean", "--data"]) == 0
    assert (outside / "mnist.npz").read_bytes() == b"precious"


@pytest.fixture
def mine(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module of the user's own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "my_own_models.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 3))\n"
        "ready = build()\n"
        "def needs(width): pass\n"
        "number = 3\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "my_own_models", raising=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["build", "ready"])
def test_probe_prints_a_report_on_a_model_of_the_current_folder_and_writes_it(
    name: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"probe my_own_models:{name} --dataset digits --size 8 --images 200 --output report"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    first, second = out.splitlines()[:2]
    assert first == HEALTHY
    assert second.startswith("trains with a probability of ")
    assert "\nSequential, 1,363 parameters; inputs of 1×8×8; 160 fitted, 40 held out\n" in out
    assert {f"report/probe.{kind}" for kind in ("html", "png", "csv")} == {
        line.removeprefix("wrote ") for line in out.splitlines() if line.startswith("wrote")
    }
    assert (mine / "report/probe.png").read_bytes().startswith(b"\x89PNG")
    header, *rows = (mine / "report/probe.csv").read_text().splitlines()
    assert header == ",".join(
        ["stage,layer,shape,read,r_squared,correlation,separation", *STAGE_SIGNS, "diagnosis"]
    )
    assert [row.split(",")[1] for row in rows] == ["2", "3"]
    page = (mine / "report/probe.html").read_text()
    assert "160 fitted" in page
    assert "trains with a probability of " in page
    assert "data:image/png;base64" in page


@pytest.mark.usefixtures("mine")
def test_probe_can_leave_the_verdict_out(capsys: pytest.CaptureFixture[str]) -> None:
    words = "probe my_own_models:build --dataset digits --size 8 --images 200 --no-verdict"
    assert main(words.split()) == 0
    assert "trains with a probability" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("probe my_own_models --dataset digits", "must be MODULE:FACTORY"),
        ("probe no_such_module:x --dataset digits", "cannot import 'no_such_module'"),
        ("probe my_own_models:x --dataset digits", "'my_own_models' has no 'x'"),
        ("probe my_own_models:needs --dataset digits", "callable without arguments"),
        ("probe my_own_models:number --dataset digits", "return a torch.nn.Module, got int"),
        ("probe my_own_models:build --dataset mnits", "unknown data set 'mnits'"),
        ("probe my_own_models:build --dataset digits", "layer '1', which was given (2, 784)"),
        ("probe my_own_models:build --dataset digits --images 0", "images must be >= 1"),
        ("probe my_own_models:build --dataset digits --size 8 --layers 9", "no layer '9'"),
    ],
)
def test_a_model_that_cannot_be_probed_is_one_line_on_stderr(
    words: str, message: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("paperlib: ")
    assert message in captured.err


def test_python_m_paperlib_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paperlib", "--version"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("paperlib 0.")
