"""Every notebook of the repository on its smoke profile, by the runner; then, in the same kernel,
a reader in JupyterLab: all cells again, and once more with changed parameters."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from checkout import ROOT, copy_of_checkout
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session
from kernels import execute_in

from paperlib.core import paths
from paperlib.notebooks import runner as notebooks

NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
CHANGED: dict[str, dict[str, Any]] = {
    "00_how_it_works": {"depth": 5, "seed": 1},
    "01_mnist_phase_diagram": {"depth": 3, "sigma_b2": 0.1},
    "02_cifar10_phase_diagram": {"depth": 3, "trained_depths": [2, 3]},
    "03_cnn_phase_diagram": {"depth": 3, "sigma_b2": 1e-4},
    "04_resnet_depth": {"depth": 3, "sigma_b2": 1e-4},
    "05_digit_reconstructions": {"seed": 1, "steps": 10},
    "06_vgg16_channels": {"seed": 1, "shown": ["1:2"]},
    "09_will_it_train": {"opened": 0, "anew": 0},
    "07_predictors": {"column": 1.5, "column_depth": 10},
    "08_probe_your_model": {"depth": 4, "seed": 1},
}
INSTRUMENTS = {"networks": 2, "seed": 1}  # of the notebooks from 10 on, where they have them
PATIENCE = 900  # seconds for a cell, on a machine that is busy
# Fonts inside of a PDF take a fifth of a run (tests/plots looks at whole ones); after each cell
# pyplot draws what Jupyter then draws again; and DRAWN says which files a later run draws.
FASTER = """
from matplotlib import pyplot
from matplotlib.backends.backend_pdf import PdfFile
from matplotlib.figure import Figure
PdfFile.writeFonts = lambda file: file.writeObject(file.fontObject, {})
def savefig(figure, file, *, whole=Figure.savefig, **options):
    if getattr(file, "suffix", None) in (None, *figure.drawn):  # one in memory is always
        whole(figure, file, **options)
    else:
        file.touch()
Figure.savefig = savefig
pyplot.close(pyplot.figure())  # which loads Jupyter's backend
get_ipython().events.unregister("post_execute", pyplot._draw_all_if_interactive)
"""


SHOWN = (
    "__import__('matplotlib_inline.config').config.InlineBackend.instance().figure_formats = {!r}"
)
DRAWN = "__import__('matplotlib.figure').figure.Figure.drawn = {!r}"


class Kernel:
    """A kernel that papermill runs a notebook in, and JupyterLab after it."""

    def __init__(self) -> None:
        # without folders to look in, Jupyter takes ipykernel's own, of this interpreter
        specs = KernelSpecManager(kernel_dirs=[])
        self.manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)
        self.printed: list[str] = []  # in red
        assert self.run(FASTER) is None

    def place(self, folder: Path, told: Mapping[str, str]) -> None:
        """Go on as if started in this folder, with this and the test's own environment."""
        variables = (paths.HOME_VARIABLE, paths.DATA_VARIABLE, paths.FIGURE_VARIABLE)
        given = {name: os.environ[name] for name in variables if name in os.environ} | told
        for code in (
            f"__import__('os').chdir({str(folder)!r})",
            f"[__import__('os').environ.pop(name, None) for name in {variables!r}]",
            f"__import__('os').environ.update({given!r})",
        ):
            assert self.run(code) is None

    def execute_notebook(
        self, *given: Any, kernel_manager_class: Any, cwd: Path, **options: Any
    ) -> Any:
        """papermill's, in this kernel instead of one that it starts and ends."""
        self.place(cwd, kernel_manager_class().kernel_spec.env)
        # a client of its own: a kernel does not answer two of the same session
        self.manager.session = Session(key=self.manager.session.key)
        return execute_in(self.manager, *given, **options)

    def run(self, code: str) -> Any:
        """Run a cell, and return what went wrong, if anything did."""
        reply = self.client.execute_interactive(
            code,
            allow_stdin=True,  # as JupyterLab says, and papermill does not
            stdin_hook=lambda message: pytest.fail("no cell asks for anything"),
            output_hook=self._hear,
            timeout=PATIENCE,
        )["content"]
        return None if reply["status"] == "ok" else f"{reply['ename']}: {reply['evalue']}"

    def _hear(self, message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stderr":
            self.printed.append(message["content"]["text"])

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def running() -> Iterator[Kernel]:
    started = Kernel()
    yield started
    started.stop()


@pytest.fixture
def kernel(running: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel without the names of the notebook before; what that imported is imported once."""
    assert running.run("%reset -f") is None
    running.printed.clear()
    monkeypatch.setattr(papermill, "execute_notebook", running.execute_notebook)
    return running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a notebook reads, so that the checkout's figures stay as they are."""
    if "PAPERLIB_DATA" in os.environ:  # a relative one counts from the home, which is moved
        data = (ROOT / os.environ["PAPERLIB_DATA"]).resolve()
        monkeypatch.setenv("PAPERLIB_DATA", str(data))
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    return copy_of_checkout(tmp_path)


def cells(name: str, values: dict[str, Any]) -> Iterator[str]:
    """The code of the committed notebook with these parameters, as a reader would type them; the
    cell of the reference run is deleted."""
    for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            yield "\n".join(
                f"{key}: {type(value).__name__} = {value!r}" for key, value in values.items()
            )
        elif cell.cell_type == "code" and "injected-parameters" not in tags:
            yield cell.source


def smoke(name: str) -> dict[str, Any]:
    values = notebooks.validated(name, "smoke", {})
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_from_beginning_to_end_and_twice_more_in_its_kernel(
    name: str, kernel: Kernel, home: Path
) -> None:
    """One test, not two, so that they share a kernel and its first run."""
    assert kernel.run(SHOWN.format({"png"})) is None
    assert kernel.run(DRAWN.format((".png", ".pdf"))) is None
    assert_the_runner_runs_it(name, home)
    kernel.place(home / "notebooks", {})  # as JupyterLab, which names no place for a figure
    assert kernel.run(SHOWN.format(set())) is None  # a figure that is saved is drawn already
    assert_all_cells_run_again_and_with_changed_parameters(name, kernel, home)


def assert_the_runner_runs_it(name: str, home: Path) -> None:
    path = notebooks.execute(name, profile="smoke")
    assert path == home.resolve() / "figures/smoke" / f"{name}.ipynb"
    for suffix in ("png", "pdf"):
        assert (home / "figures/smoke" / f"{name}.{suffix}").stat().st_size > 1000
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [o.text for o in outputs if o.get("name") == "stderr"] == [], "nothing is printed in red"
    assert notebooks.state(name, "smoke").word == "fresh"
    committed = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    here, there = (n.cells[-1].outputs[0].data["text/markdown"] for n in (notebook, committed))
    assert here != there, "what a run says is of that run"
    assert "digits" in here or "dataset" not in notebooks.parameters(name)


def assert_all_cells_run_again_and_with_changed_parameters(
    name: str, kernel: Kernel, home: Path
) -> None:
    known = notebooks.parameters(name)
    others = CHANGED.get(name, {key: value for key, value in INSTRUMENTS.items() if key in known})
    changed = smoke(name) | others
    assert changed != smoke(name)
    # the same parameters draw the figure that the runner's run has drawn
    for time, values, drawn in ((2, smoke(name), ()), (3, changed, (".png",))):
        assert kernel.run(DRAWN.format(drawn)) is None
        for code in cells(name, values):
            wrong = kernel.run(code)
            assert wrong is None, f"run {time}: {wrong}, in the cell\n{code}"
    wanted = [f"config.{key} == {value!r}" for key, value in others.items()]
    asked = " and ".join(wanted).replace("[", "(").replace("]", ",)")
    assert kernel.run(f"assert {asked}") is None, "the changed parameters counted"
    assert (home / "figures/custom" / f"{name}.png").is_file()
    assert kernel.printed == [], "nothing is printed in red"
