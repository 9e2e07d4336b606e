"""A reader in a browser: JupyterLab opens notebook 00, and "Run All Cells" runs all of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from browser import BROWSER
from checkout import ROOT
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

NAME = "00_how_it_works"
# The indicator in the page says so too early. Without a kernel JupyterLab asks which one to take,
# and who answers gets a second one, in which half of the cells run.
KERNEL_IS_READY = (
    "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
)
PATIENCE = 180  # seconds, for what takes ten on an idle machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with notebook 00 set to the smoke profile, as a reader would; no outputs."""
    shutil.copytree(ROOT / "data/reference", tmp_path / "project/data/reference")
    folder = tmp_path / "project" / "notebooks"
    shutil.copytree(ROOT / "notebooks" / "profiles", folder / "profiles")
    values = yaml.safe_load((folder / "profiles/smoke" / f"{NAME}.yaml").read_text())
    source = load_notebook_node(str(ROOT / "notebooks" / f"{NAME}.ipynb"))
    notebook = parameterize_notebook(source, values, kernel_name="python3", language="python")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / f"{NAME}.ipynb")
    return tmp_path / "project"


@pytest.fixture
def server(project: Path, tmp_path: Path) -> Iterator[str]:
    """The address, with its token, of a JupyterLab that knows nothing of this user's settings."""
    settings = ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    places = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", *settings)
    folders = {key: str(tmp_path / key.lower()) for key in places}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={project / 'notebooks'}"]
    command.append("--LabApp.expose_app_in_browser=True")  # as window.jupyterapp
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    log = tmp_path / "jupyterlab.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, **folders, "PAPERLIB_HOME": str(project)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            yield _address(process, Path(folders["JUPYTER_RUNTIME_DIR"]), log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: "subprocess.Popen[bytes]", runtime: Path, log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                about = json.loads(file.read_text())
            except ValueError:  # half written
                continue
            return f"{about['url']}lab/tree/{NAME}.ipynb?token={about['token']}"
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


def _command(page: Any, name: str) -> None:
    """Run the command that stands behind an entry of the menu, and wait until it is done.

    The mouse would need the menu to be there, and no dialog above it, at the right moment.
    """
    page.evaluate(
        """name => {
            window.ended = false;
            window.jupyterapp.commands.execute(name).finally(() => { window.ended = true; });
        }""",
        name,
    )
    page.wait_for_function("window.ended")


def test_all_cells_of_notebook_00_run_in_jupyterlab(
    project: Path, server: str, browser: Any
) -> None:
    path = project / "notebooks" / f"{NAME}.ipynb"
    # high enough that JupyterLab draws every cell, not only those in view
    page = browser.new_page(viewport={"width": 1280, "height": 8000})
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(server)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.wait_for_function(KERNEL_IS_READY)
    _command(page, "notebook:run-all-cells")
    _command(page, "docmanager:save")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"] == []
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    page.locator(".jp-OutputArea-output img").first.wait_for(state="visible")
    assert page.locator(".jp-OutputArea-output img").count() >= 1
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    # opened by hand, with whatever parameters: no profile's figure is overwritten
    assert (project / "figures/custom" / f"{NAME}.png").is_file()
