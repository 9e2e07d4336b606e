"""The guarded import of torchvision, with its compiled operators and without them."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import ROOT

import paperlib.core.vision
from paperlib.core import paths
from paperlib.core.vision import torchvision

# Whatever torchvision this machine has: its compiled operators do not load.
WITHOUT_OPERATORS = """
import torch
def refuse(path):
    raise OSError(f"not loading {path}")
torch.ops.load_library = refuse
"""

# Each of the two schemas that is declared from here on is printed.
RECORDED = """
import torch
declare = torch.library.Library.define
def define(library, schema, *args, **kwargs):
    if schema.startswith(("nms(", "qnms(")):
        print("declared", schema.partition("(")[0])
    return declare(library, schema, *args, **kwargs)
torch.library.Library.define = define
"""

USED = """
import torch
from paperlib.core.vision import torchvision
with torch.device("meta"):
    print(type(torchvision.models.vgg11(weights=None)).__name__)
print(len(torchvision.datasets.FakeData(size=3)))
print(torchvision.transforms.Resize(4))
"""
WORKS = ["VGG", "3", "Resize(size=4, interpolation=bilinear, max_size=None, antialias=True)"]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter makes of the code."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def lines_of(code: str) -> list[str]:
    done = run(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_models_work_through_the_guard() -> None:
    model = torchvision.models.vgg11(weights=None, num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_datasets_and_transforms_work_through_the_guard() -> None:
    transforms = torchvision.transforms
    shrink = transforms.Compose([transforms.Resize(8), transforms.ToTensor()])
    data = torchvision.datasets.FakeData(size=2, image_size=(3, 16, 16), transform=shrink)
    image, _ = data[1]
    assert image.shape == (3, 8, 8)


def test_the_guard_hands_out_the_one_torchvision_that_later_imports_find() -> None:
    assert importlib.import_module("torchvision") is torchvision


@pytest.mark.slow
def test_a_plain_import_without_operators_fails_as_the_guard_expects() -> None:
    done = run(WITHOUT_OPERATORS + "import torchvision")
    assert done.returncode != 0
    assert "operator torchvision::nms does not exist" in done.stderr


@pytest.mark.slow
def test_on_this_machine_a_plain_import_works_or_fails_over_the_operators_only() -> None:
    done = run("import torchvision")
    assert done.returncode == 0 or "operator torchvision::" in done.stderr


@pytest.mark.slow
def test_without_operators_the_guard_declares_both_and_goes_on() -> None:
    printed = lines_of(WITHOUT_OPERATORS + RECORDED + USED)
    assert printed == ["declared nms", "declared qnms", *WORKS]


@pytest.mark.slow
def test_where_one_operator_is_there_only_the_other_is_declared() -> None:
    one = 'library = torch.library.Library("torchvision", "FRAGMENT")\nlibrary.define({!r})\n'
    code = WITHOUT_OPERATORS + one.format(paperlib.core.vision._SCHEMAS["nms"]) + RECORDED + USED
    assert lines_of(code) == ["declared qnms", *WORKS]


@pytest.mark.slow
def test_with_operators_the_guard_declares_nothing() -> None:
    # Where the machine's own operators load, they are used; else declared schemas play their part.
    there = """
import sys, torch
try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
    assert lines_of(there + RECORDED + USED) == WORKS


def test_any_other_failure_of_the_import_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(f"{name}: compiled with different CUDA major versions")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="different CUDA major versions"):
        paperlib.core.vision._import_torchvision()


def test_the_package_its_datasets_and_commands_do_not_pay_for_what_they_may_not_need() -> None:
    code = """
import sys
import paperlib, paperlib.datasets, paperlib.cli
heavy = {"torchvision", "sklearn", "skimage", "matplotlib", "seaborn", "IPython", "nbformat"}
print(sorted({*heavy, "papermill", "dask", "distributed"} & set(sys.modules)))
"""
    assert lines_of(code) == ["[]"]


def imported_names(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_an_import_of_torchvision_would_be_seen(tmp_path: Path) -> None:
    for number, line in enumerate(("import torchvision.ops", "from torchvision import models")):
        file = tmp_path / f"{number}.py"
        file.write_text(f"def inside():\n    {line}\n", encoding="utf-8")
        assert imported_names(file) == {"torchvision"}


@pytest.mark.slow
def test_no_other_module_imports_torchvision_itself() -> None:
    files = [path for path in paths.package_files() if path.suffix == ".py"]
    assert paths.package_folder() / "cli.py" in files
    assert [file.name for file in files if "torchvision" in imported_names(file)] == []
