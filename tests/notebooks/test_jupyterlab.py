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
    _ask_nothing(Path(folders["JUPYTERLAB_SETTINGS_DIR"]))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={project / 'notebooks'}"]
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


def _ask_nothing(settings: Path) -> None:
    """Switch off the question whether to fetch news, whose dialog lies over the menu."""
    file = settings / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))


def _answer_dialogs(page: Any) -> None:
    """Answer any other dialog by its default button: on a slow machine JupyterLab may ask for a
    kernel, or whether to read a file anew."""
    for button in page.locator(".jp-Dialog button.jp-mod-accept").all():
        if button.is_visible():
            button.dispatch_event("click")  # whatever else lies over it


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


def _code_cells(path: Path) -> list[Any]:
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.reader.NotJSONError):  # half written
        return []
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _finished(path: Path) -> bool:
    cells = _code_cells(path)
    return bool(cells) and all(cell.execution_count for cell in cells)


def _errors(path: Path) -> list[str]:
    outputs = [output for cell in _code_cells(path) for output in cell.outputs]
    return [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]


def _run_all_cells(page: Any) -> None:
    """Use the menu, again if need be: it ignores a click while it is still opening."""
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    for _ in range(5):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        entry = page.get_by_role("menuitem", name="Run All Cells", exact=True)
        entry.hover()
        page.wait_for_timeout(500)
        entry.click()
        page.wait_for_timeout(2000)
        if any(text.strip(" []:") for text in prompts.all_inner_texts()):
            return
        page.keyboard.press("Escape")
    pytest.fail("no cell began to run")


def test_all_cells_of_notebook_00_run_in_jupyterlab(
    project: Path, server: str, browser: Any
) -> None:
    path = project / "notebooks" / f"{NAME}.ipynb"
    # high enough that JupyterLab draws every cell, not only those in view
    page = browser.new_page(viewport={"width": 1280, "height": 8000})
    page.set_default_timeout(PATIENCE * 1000)
    dialog = page.locator(".jp-Dialog").first
    page.add_locator_handler(dialog, lambda: _answer_dialogs(page), no_wait_after=True)
    page.goto(server)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    # before its kernel is there, JupyterLab would ask which one to take
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    _run_all_cells(page)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not _finished(path) and not _errors(path):
        page.wait_for_timeout(1000)
        _answer_dialogs(page)
        page.keyboard.press("Control+s")
    assert _errors(path) == []
    assert _finished(path), "not every cell has run"
    page.locator(".jp-OutputArea-output img").first.wait_for(state="visible")
    assert page.locator(".jp-OutputArea-output img").count() >= 1
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    # opened by hand, with whatever parameters: no profile's figure is overwritten
    assert (project / "figures/custom" / f"{NAME}.png").is_file()
