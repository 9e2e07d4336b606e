"""A reader in JupyterLab: all cells run twice in one kernel, and again with changed parameters."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from checkout import ROOT
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

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
    "09_will_it_train": {"opened": 2, "anew": 2},
    "07_predictors": {"column": 1.5, "column_depth": 10},
    "08_probe_your_model": {"depth": 4, "seed": 1},
}
INSTRUMENTS = {"networks": 2, "seed": 1}  # of the notebooks from 10 on
PATIENCE = 900  # seconds for a cell, on a machine that is busy


class Kernel:
    """The kernel that JupyterLab starts for a notebook, and what its cells print."""

    def __init__(self, home: Path) -> None:
        # without folders to look in, Jupyter takes ipykernel's own, of this interpreter
        specs = KernelSpecManager(kernel_dirs=[])
        self.manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
        self.manager.start_kernel(cwd=str(home / "notebooks"))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)
        self.printed: list[str] = []  # in red

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
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what a notebook reads, so that the checkout's figures stay as they are."""
    root = tmp_path_factory.mktemp("home")
    shutil.copytree(
        ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_*")
    )
    shutil.copytree(ROOT / "data/reference", root / "data/reference")
    with pytest.MonkeyPatch.context() as patch:
        if "PAPERLIB_DATA" in os.environ:  # a relative one counts from the home, which is moved
            patch.setenv("PAPERLIB_DATA", str((ROOT / os.environ["PAPERLIB_DATA"]).resolve()))
        patch.setenv("PAPERLIB_HOME", str(root))
        yield root


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Kernel]:
    started = Kernel(home)
    yield started
    started.stop()


@pytest.fixture
def kernel(running: Kernel) -> Kernel:
    """A kernel without the names of the notebook before; what that imported is imported once."""
    assert running.run("%reset -f") is None
    running.printed.clear()
    return running


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
def test_all_cells_run_twice_in_one_kernel_and_again_with_changed_parameters(
    name: str, kernel: Kernel, home: Path
) -> None:
    changed = smoke(name) | CHANGED.get(name, INSTRUMENTS)
    assert changed != smoke(name)
    for time, values in enumerate((smoke(name), smoke(name), changed), start=1):
        for code in cells(name, values):
            wrong = kernel.run(code)
            assert wrong is None, f"run {time}: {wrong}, in the cell\n{code}"
    wanted = [f"config.{key} == {value!r}" for key, value in CHANGED.get(name, INSTRUMENTS).items()]
    asked = " and ".join(wanted).replace("[", "(").replace("]", ",)")
    assert kernel.run(f"assert {asked}") is None, "the changed parameters counted"
    assert (home / "figures/custom" / f"{name}.png").is_file()
    assert kernel.printed == [], "nothing is printed in red"
