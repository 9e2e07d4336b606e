"""The tree may get folders: what would break without a sound when modules move."""

import ast
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT

from paperlib import plots
from paperlib.core import paths

PACKAGE = ROOT / "paperlib"
TESTS = ROOT / "tests"
COUNTED = re.compile(r"__file__.*(\.parent\.parent|\.parents\[)|dirname\(.*dirname\(.*__file__")
# DESIGN.md's folders, and folders in them
FOLDERS = (
    "notebooks", "instruments", "instruments/probe", "sweep", "cascade", "training", "plots",
    "networks", "activations", "datasets", "core", "core/deeper",
)  # fmt: skip

# --- folders, and files found by them ---


def test_the_checkout_is_where_the_package_and_the_tests_are() -> None:
    assert (ROOT / "pyproject.toml").is_file()
    assert paths.package_folder() == PACKAGE
    assert Path(__file__).is_relative_to(TESTS)


def counts_folders(code: str) -> bool:
    """Whether code looks for another folder than its own by counting up from its file."""
    return bool(COUNTED.search(code))


def test_no_module_finds_a_folder_by_counting_up_from_its_own() -> None:
    assert [path.name for path in paths.package_files() if b"__file__" in path.read_bytes()] == []
    files = [path for path in TESTS.rglob("*.py") if counts_folders(path.read_text())]
    assert files == [TESTS / "checkout.py"]


@pytest.mark.parametrize(
    "code",
    [
        "ROOT = Path(HERE).parent.parent",
        "ROOT = Path(HERE).resolve().parents[1]",
        "ROOT = os.path.dirname(os.path.dirname(HERE))",
    ],
)
def test_a_count_of_folders_would_be_found(code: str) -> None:
    assert counts_folders(code.replace("HERE", "__file__"))


def packages(folder: Path) -> list[Path]:
    """Every folder below with Python code in it."""
    return sorted({path.parent for path in folder.rglob("*.py")})


def unmarked(folder: Path) -> list[Path]:
    """Folders of code without an `__init__.py`, which wheels and imports treat otherwise."""
    return [path for path in packages(folder) if not (path / "__init__.py").is_file()]


def shadowed(folder: Path) -> list[Path]:
    """Modules beside a folder of their name: Python imports the folder, and the module is dead."""
    return [
        path for path in folder.rglob("*.py") if (path.with_suffix("") / "__init__.py").exists()
    ]


def test_every_folder_of_the_package_is_a_package() -> None:
    assert unmarked(PACKAGE) == []


def test_no_module_is_left_behind_a_folder_of_its_name() -> None:
    assert shadowed(PACKAGE) == []


def test_such_a_folder_and_such_a_module_would_be_found(tmp_path: Path) -> None:
    for name in ("__init__.py", "sweep.py", "sweep/__init__.py", "core/paths.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert unmarked(tmp_path) == [tmp_path / "core"]
    assert shadowed(tmp_path) == [tmp_path / "sweep.py"]


def test_the_package_has_at_most_sixteen_entries() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 16, sorted(entries)


@pytest.mark.slow
def test_results_are_imported_from_where_they_were() -> None:
    """As `paperlib.results`, by a program that imports nothing else; they live with the sweeps."""
    code = (
        "from paperlib.results import save_result; import paperlib.results as r; print(r.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "paperlib.sweep.results", done.stderr


# --- the wheel ---


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A wheel of a copy of the package that has folders, and the names of the files put in."""
    root = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "hatch_build.py"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(PACKAGE, root / "paperlib", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in FOLDERS:
        for name in ("__init__.py", "module.py", paths.STYLE):
            (root / "paperlib" / folder).mkdir(exist_ok=True)
            (root / "paperlib" / folder / name).touch()
    names = {str(path.relative_to(root)) for path in (root / "paperlib").rglob("*.*")}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = (root / "dist").glob("*.whl")
    return made, names


def test_a_wheel_holds_every_module_of_every_folder_and_the_style(
    wheel: tuple[Path, set[str]],
) -> None:
    made, names = wheel
    with zipfile.ZipFile(made) as archive:
        held = {name for name in archive.namelist() if name.startswith("paperlib/")}
    assert {f"paperlib/{folder}/module.py" for folder in FOLDERS} <= names
    assert str(paths.style_file().relative_to(ROOT)) in names
    assert held == names


def test_figures_are_drawn_with_the_style_that_the_wheel_holds() -> None:
    assert paths.style_file() == plots.STYLE
    assert plots.STYLE.is_file()


# --- names of modules in code that no test runs, and in texts ---

DOTTED = re.compile(r"(?<![\w./@:-])paperlib(?:\.[A-Za-z_]\w*)+")
QUOTED = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")
FILE = re.compile(
    r"(?<![\w./-])(?:paperlib|tests|benchmarks|book|notebooks|data)/[\w/.-]*\.(?:py|ipynb|ya?ml|md)\b"
)
VARIABLES = {"report"}  # what `probe` returned, in an example
ENDINGS = {"py", "nc", "npz", "ipynb", "pth", "yaml", "html", "png", "csv", "md", "lock", "txt"}


def code_of(path: Path) -> str:
    """The code of a module, or of a notebook's cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def text_of(path: Path) -> str:
    """What a file says, a notebook without its outputs."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def programs() -> list[Path]:
    """Every file of code: lazy imports, benchmarks and notebooks are run by few tests or none."""
    folders = (PACKAGE, TESTS, ROOT / "benchmarks", ROOT / "book")
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [*files, *sorted((ROOT / "notebooks").glob("*.ipynb"))]


def texts() -> list[Path]:
    """Every file that names things which must be there: not tests, nor the history of changes."""
    folders = (ROOT / folder for folder in ("", "book", "data", "data/reference"))
    about = [path for folder in folders for path in sorted(folder.glob("*.md"))]
    about.remove(ROOT / "CHANGELOG.md")
    code = [path for path in programs() if not path.is_relative_to(TESTS)]
    return [*code, *about, ROOT / "pyproject.toml", ROOT / "Makefile"]


def missing(found: dict[Path, list[str]]) -> dict[str, list[str]]:
    """Where something is missing: the names by file."""
    return {str(path.relative_to(ROOT)): names for path, names in found.items() if names}


def imported(code: str) -> Iterator[str]:
    """The dotted names of paperlib that code imports anywhere in it."""
    for node in ast.walk(parsed(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "paperlib")


parsed = cache(ast.parse)  # several tests read the same files


# Modules that cannot be imported without an optional extra, which may not be installed.
OF_EXTRAS = {"paperlib.notebooks.explorer.figures"}


@cache
def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return name in OF_EXTRAS
    return True


@cache
def modules() -> dict[str, list[str]]:
    """The dotted names of all modules by their last part."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages([str(PACKAGE)], "paperlib."):
        found.setdefault(module.name.rpartition(".")[2], []).append(module.name)
    return found


def is_known(reference: str) -> bool:
    """Whether what stands in `…` as `plots.save` does is there, in whichever folder; or a file."""
    first, _, rest = reference.partition(".")
    if first == "paperlib":
        return exists(reference)
    if first in VARIABLES or rest.rpartition(".")[2] in ENDINGS:
        return True
    return any(exists(f"{module}.{rest}") for module in modules().get(first, []))


@pytest.mark.slow
def test_every_name_that_is_imported_from_the_package_exists() -> None:
    names = {path: imported(code_of(path)) for path in programs()}
    assert missing({path: [n for n in names[path] if not exists(n)] for path in names}) == {}


def test_every_module_and_file_that_a_text_names_exists() -> None:
    read = {path: text_of(path) for path in texts()}
    names = {path: [n for n in DOTTED.findall(read[path]) if not exists(n)] for path in read}
    files = {
        path: [n for n in FILE.findall(read[path]) if not (ROOT / n).exists()] for path in read
    }
    assert (missing(names), missing(files)) == ({}, {})


def test_every_name_that_a_docstring_of_the_package_refers_to_exists() -> None:
    names = {path: QUOTED.findall(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
    assert missing({path: [n for n in names[path] if not is_known(n)] for path in names}) == {}


def test_every_name_in_the_books_reference_exists() -> None:
    text = (ROOT / "book" / "api.md").read_text()
    module, names = "", []
    for kind, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)$", text, re.MULTILINE):
        if kind == "currentmodule":
            module = name
        else:
            names.append(f"{module}.{name}")
    assert len(names) > 20
    assert [name for name in names if not exists(name)] == []


def test_a_name_that_moved_away_would_be_found() -> None:
    assert list(imported("def f():\n    from paperlib.gone import name")) == ["paperlib.gone.name"]
    assert not exists("paperlib.gone.name")
    assert not exists("paperlib.plots.gone")
    assert exists("paperlib.plots.save")
    assert is_known("plots.save")
    assert not is_known("plots.gone")
    assert DOTTED.findall("see `paperlib.gone.name`, paperlib.cli:main") == [
        "paperlib.gone.name",
        "paperlib.cli",
    ]
    assert QUOTED.findall("see `plots.save` and `gone.name()`") == ["plots.save", "gone.name"]
    assert FILE.findall("`tests/test_gone.py`, (benchmarks/gone.py)") == [
        "tests/test_gone.py",
        "benchmarks/gone.py",
    ]


# --- what tests replace ---


def replaced(code: str) -> Iterator[tuple[str, str]]:
    """The module and the name of everything in modules of paperlib that a test replaces."""
    tree = parsed(code)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "paperlib":
            known |= {n.asname or n.name: f"{node.module}.{n.name}" for n in node.names}
        elif isinstance(node, ast.Import):
            known |= {n.asname: n.name for n in node.names if n.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".setattr"):
            target, name = node.args[0], node.args[1]
            if ast.unparse(target) in known and isinstance(name, ast.Constant):
                yield known[ast.unparse(target)], str(name.value)
        elif isinstance(node, ast.Assign):
            for at in node.targets:
                if isinstance(at, ast.Attribute) and ast.unparse(at.value) in known:
                    yield known[ast.unparse(at.value)], at.attr


def has_or_reads(code: str, name: str) -> bool:
    """Whether code defines a name or uses it; one that only hands it on does neither."""
    for node in ast.walk(parsed(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.Name) and node.id == name:
            return True
    return False


def in_vain(code: str) -> list[str]:
    """What a test replaces in a module of paperlib that neither defines it nor reads it."""
    found = []
    for module, name in replaced(code):
        spec = find_spec(module) if exists(module) and module in every_module() else None
        if spec and spec.origin and not has_or_reads(Path(spec.origin).read_text(), name):
            found.append(f"{module}.{name}")
    return found


def every_module() -> set[str]:
    return {name for names in modules().values() for name in names}


@pytest.mark.slow
def test_what_a_test_replaces_is_what_the_code_looks_up() -> None:
    """Else `pytest.fail` in the place of a function that must not be called is never called."""
    codes = {path: path.read_text() for path in sorted(TESTS.rglob("*.py"))}
    assert sum(len(list(replaced(code))) for code in codes.values()) > 40
    assert missing({path: in_vain(code) for path, code in codes.items()}) == {}


def test_a_replacement_in_vain_would_be_found() -> None:
    right = "from paperlib.sweep import points\nmonkeypatch.setattr(points, 'measure_point', None)"
    vain = "from paperlib.sweep import points as p\nmonkeypatch.setattr(p, 'run_sweep', None)"
    written = "import paperlib.sweep.points as p\np.run_sweep = None"
    assert [in_vain(code) for code in (right, vain, written)] == [
        [],
        ["paperlib.sweep.points.run_sweep"],
        ["paperlib.sweep.points.run_sweep"],
    ]
    assert not has_or_reads("from paperlib.sweep.plan import load_data", "load_data")
