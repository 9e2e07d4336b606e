"""What SECURITY.md promises: no pickles, no escapes, no unchecked downloads, nothing listening."""

import ast
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
from checkout import ROOT
from tiny_data import keras, lay_out

from paperlib import load_dataset
from paperlib.core import paths
from paperlib.datasets import UNRECOGNISED, DownloadError, libraries
from paperlib.datasets.photographs import load_photographs
from paperlib.instruments.reconstruction.points import CascadeSweep
from paperlib.notebooks import runner as notebooks
from paperlib.sweep import run_sweep

# --- nothing read from disk is unpickled or run ---

# Calls that unpickle or run what they are given, or unpack it without a look at its paths.
FORBIDDEN = re.compile(
    r"(c?[pP]ickle|cloudpickle|dill|marshal)\.(load|loads|Unpickler)|joblib\.load|shelve\.open"
    r"|pd\.read_pickle|pandas\.read_pickle|yaml\.(load|full_load|unsafe_load)(_all)?"
    r"|torch\.(hub\.load|jit\.load|package)|os\.(system|popen)|shutil\.unpack_archive"
    r"|.*\.(extractall|extract)|eval|exec"
)
REQUIRED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def unsafe_calls(code: str) -> list[str]:
    """The calls in Python code that could run what lies in a file."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        option, value = REQUIRED.get(name, ("shell", False))
        default = object() if name in REQUIRED else False  # what an option left out stands for
        if FORBIDDEN.fullmatch(name) or given.get(option, default) is not value:
            found.append(ast.unparse(node))
    return found


def sources() -> Iterator[tuple[str, str]]:
    """The code of the package, of the benchmarks and of the notebooks, by file."""
    for folder in ("paperlib", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            yield str(path.relative_to(ROOT)), path.read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        yield path.name, "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.slow
def test_no_call_unpickles_or_runs_what_lies_in_a_file() -> None:
    found = {name: calls for name, code in sources() if (calls := unsafe_calls(code))}
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(f)", "cloudpickle.loads(b)", "joblib.load(p)", "pd.read_pickle(p)",
        "yaml.load(f)", "eval(text)", "tar.extractall(p)", "shutil.unpack_archive(p)",
        "np.load(p)", "np.load(p, allow_pickle=True)", "torch.load(p)",
        "torch.load(p, weights_only=False)", "subprocess.run(c, shell=True)", "os.system(c)",
    ],
)  # fmt: skip
def test_such_a_call_would_be_found(code: str) -> None:
    assert unsafe_calls(f"def f():\n    return [{code}]") == [code]


@pytest.mark.parametrize(
    "code",
    [
        "np.load(p, allow_pickle=False)", "torch.load(p, weights_only=True)", "yaml.safe_load(f)",
        "model.eval()", "subprocess.run(c)", "ast.literal_eval(t)",
    ],
)  # fmt: skip
def test_a_safe_call_is_none_of_them(code: str) -> None:
    assert unsafe_calls(code) == []


# --- downloads ---


def test_every_downloaded_file_has_a_digest_that_torchvision_checks() -> None:
    from paperlib.core.vision import torchvision

    sets = torchvision.datasets
    digests = [digest for _, digest in (*sets.MNIST.resources, *sets.FashionMNIST.resources)]
    digests += [sets.CIFAR10.tgz_md5, *(d for _, d in sets.CIFAR10.train_list)]
    digests += [sets.CIFAR10.test_list[0][1], sets.CIFAR10.meta["md5"]]
    digests += [digest for _, digest in sets.Imagenette._ARCHIVES.values()]
    assert len(digests) == 4 + 4 + 1 + 5 + 2 + 3
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)
    assert {layout.class_name for layout in libraries.TORCHVISION.values()} == {
        "MNIST", "FashionMNIST", "CIFAR10",
    }  # fmt: skip


def archive(*members: tuple[str, str]) -> bytes:
    """A .tar.gz of files, or of links where a target is given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, target in members:
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member, io.BytesIO())
    return buffer.getvalue()


class Served(io.BytesIO):
    """A server's answer."""

    length = None
    headers: dict[str, str] = {}  # noqa: RUF012
    url = "https://example.org/archive.tgz"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "imagenette"])
def test_a_download_with_other_bytes_than_the_published_is_not_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(("harmless", ""), ("../escaped", ""))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **b: Served(content))
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda *a, **b: pytest.fail("unpacked"))
    load = load_photographs if name == "imagenette" else load_dataset
    with pytest.raises(DownloadError, match="download failed"):
        load(name, root=tmp_path / "data")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", "")],
        [("sub/../../escaped", "")],
        [("link", "ABSOLUTE"), ("link/escaped", "")],
        [("link", ".."), ("link/escaped", "")],
    ],
)
@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_an_archive_cannot_write_outside_its_folder(
    name: str,
    members: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from paperlib.core.vision import torchvision

    outside = str(tmp_path)
    content = archive(*((member, to.replace("ABSOLUTE", outside)) for member, to in members))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **b: Served(content))
    # as if these were the published bytes
    monkeypatch.setattr(
        torchvision.datasets.utils, "check_integrity", lambda path, md5=None: Path(path).is_file()
    )
    before = tarfile.TarFile.extraction_filter
    load = load_photographs if name == "imagenette" else load_dataset
    with pytest.raises(DownloadError, match=r"download failed \(\w*(Outside|Link)\w*"):
        load(name, root=tmp_path / "data")
    assert [path for path in tmp_path.rglob("*") if path.name == "escaped"] == []
    assert tarfile.TarFile.extraction_filter is before


# --- paths of the user's ---


def tree(folder: Path, *, without: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time, but those of one folder."""
    every = (path for path in folder.rglob("*") if not path.is_relative_to(without))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in every}


@pytest.mark.parametrize("name", ["data.npz", "..npz", "a b\n;rm -rf x.npz", "%s{0}$HOME.npz"])
def test_a_data_set_anywhere_makes_nothing_outside_the_projects_folders(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside" / "deep"
    (home / "notebooks").mkdir(parents=True)
    outside.mkdir(parents=True)
    monkeypatch.setenv(paths.HOME_VARIABLE, str(home))
    monkeypatch.chdir(outside)
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 10
    with (outside / name).open("wb") as file:
        np.savez(file, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    before = tree(tmp_path, without=home)
    settings = {"depth": 2, "width": 8, "train_images": 20, "test_images": 10, "seeds": (0,)}
    for path in (outside / name, Path("..", "deep", name), Path(".") / name):
        given = str(path) if "/" in str(path) else f"./{path}"
        run_sweep(CascadeSweep(dataset=given, sigma_w2=(1.7,), **settings), jobs=1)
    assert tree(tmp_path, without=home) == before
    made = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert made == {("data", "points"), ("data", "results")}
    assert len(list((home / "data/points").iterdir())) == 1  # the same images, wherever they lie


def test_the_systems_data_sets_are_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "system/fashion-mnist", keras(), packed=True)
    monkeypatch.setattr(paths, "SYSTEM_DATA", tmp_path / "system")
    before = tree(tmp_path, without=tmp_path / "data")
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        assert len(load_dataset("fashion_mnist", root=tmp_path / "data").train_labels) == 30
    assert tree(tmp_path, without=tmp_path / "data") == before
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("dataset", ["../../elsewhere", "../x.npz", "/etc/passwd", "~/x.npz"])
def test_a_figures_place_does_not_depend_on_the_path_of_a_data_set(dataset: str) -> None:
    name = "01_mnist_phase_diagram"
    values = notebooks.validated(name, "quick", {"dataset": dataset})
    place = notebooks.figure_of_run(name, values)
    assert place.parent.parent == paths.figures_folder("custom")
    assert place.name == name


# --- JupyterLab ---


def lab_options() -> list[str]:
    """What `make lab` gives to JupyterLab."""
    done = subprocess.run(
        ["make", "-n", "--always-make", "lab", "ARGS="],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    (line,) = (line for line in lines if "jupyter lab" in line)
    return shlex.split(line.split("jupyter lab")[1])


@pytest.mark.slow
def test_jupyterlab_asks_for_its_token_and_listens_on_loopback(tmp_path: Path) -> None:
    folders = {f"JUPYTER_{k}_DIR": str(tmp_path / k) for k in ("RUNTIME", "CONFIG", "DATA")}
    command = [sys.executable, "-m", "jupyterlab", *lab_options(), "--no-browser"]
    command += ["--ServerApp.port=0", "--allow-root"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **folders}, stdout=log, stderr=log
        )
    try:
        about = server_of(process, tmp_path / "RUNTIME", tmp_path / "log")
        assert len(about["token"]) >= 32
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{about['url']}api/contents")
        allowed = f"{about['url']}api/contents?token={about['token']}"
        assert urllib.request.urlopen(allowed).status == 200
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(process.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    finally:
        process.kill()
        process.wait()


def server_of(process: "subprocess.Popen[bytes]", runtime: Path, log: Path) -> dict[str, Any]:
    """What a server that has started says of itself."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                about: dict[str, Any] = json.loads(file.read_text())
            except ValueError:  # half written
                continue
            return about
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")
