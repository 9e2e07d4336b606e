"""Every directory and file name of the project, each in one place, and how files are written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from filelock import FileLock
from platformdirs import user_data_path

PACKAGE = __name__.partition(".")[0]
DISTRIBUTION = "reconstruction-entropy"
SHIPPED = "shipped"  # in the package of a wheel: what a checkout holds beside it
PLOTS = "plots"
STYLE = "paper.mplstyle"  # of every figure; in that folder of the package

# Where the caches and the data look-up can be pointed elsewhere.
HOME_VARIABLE = "PAPERLIB_HOME"
DATA_VARIABLE = "PAPERLIB_DATA"
# Where the runner has a notebook save its figure: the path without its ending.
FIGURE_VARIABLE = "PAPERLIB_FIGURE"

# Where packages of Debian and Ubuntu put data sets; they are only read there.
SYSTEM_DATA = Path("/usr/share/datasets")

# The folders of a checkout.
NOTEBOOKS = "notebooks"
PROFILES = "notebooks/profiles"
COSTS = "notebooks/costs.yaml"
FIGURES = "figures"
DATA = "data"
POINTS = "data/points"
RESULTS = "data/results"
REFERENCE = "data/reference"
CHECKSUMS = "SHA256SUMS"  # beside the .nc files it vouches for
WEIGHTS = "weights"  # of pretrained networks, in the folder of data sets


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that appears under its name complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # the number of a process is another's on another machine of a cluster
    temporary = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make sure that the folder exists and that files can be written to it.

    Raises:
        OSError: they cannot; the message says what to do.
    """
    try:
        write_whole(folder / ".writable", b"")
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise cannot_keep(folder, error) from error


def cannot_keep(folder: Path, error: OSError) -> OSError:
    """Return the error to raise where a folder does not take what was computed."""
    what = f"{error.strerror or error}: results cannot be written there; what was finished before"
    return OSError(
        error.errno,
        f"{what} is kept. Make room or give access, or set {HOME_VARIABLE} to a folder that takes "
        "them, and run again",
        str(folder),
    )


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Between processes: only one at a time is here with the same file.

    The lock is a file beside it, which goes with its last holder and frees itself if one is killed.
    """
    lock = file.with_name(f".{file.name}.lock")
    with FileLock(lock):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                lock.unlink()


def package_folder() -> Path:
    """Return the folder of the whole package, in whichever of its folders this module lies."""
    return Path(str(resources.files(PACKAGE)))


def package_files() -> list[Path]:
    """Return every file that the package is made of, in all its folders: code before the rest."""
    folder = package_folder()
    files = (path for path in folder.rglob("*") if path.is_file())
    made = (path for path in files if not _is_by_product(path.relative_to(folder)))
    return sorted(made, key=lambda path: (path.suffix != ".py", path))


def _is_by_product(path: Path) -> bool:
    """Whether Python, Jupyter or an editor made the file, or a wheel brought it."""
    return path.parts[0] == SHIPPED or any(
        part == "__pycache__" or part.startswith(".") for part in path.parts
    )


def style_file() -> Path:
    """Return matplotlib's style sheet that every figure is drawn with."""
    return package_folder() / PLOTS / STYLE


def home() -> Path:
    """Return where figures, downloads and finished points go: $PAPERLIB_HOME, else the checkout
    that this package lies in, else, of an installed wheel, a folder of the user's.

    Raises:
        FileNotFoundError: it holds no notebooks, and none were installed; says how to get some.
    """
    named = os.environ.get(HOME_VARIABLE)
    if named:
        root = Path(named).expanduser()
    elif _shipped().is_dir():
        root = user_data_path(DISTRIBUTION, appauthor=False)
    else:
        root = package_folder().parent
    if not any((folder / NOTEBOOKS).is_dir() for folder in (root, _installed())):
        origin = f"${HOME_VARIABLE}" if named else "the installed package"
        raise FileNotFoundError(
            f"no notebooks/ in {root} (from {origin}): clone the repository and run there, "
            f"or set {HOME_VARIABLE} to your checkout"
        )
    return root.resolve()


def source() -> Path:
    """Return what holds `notebooks/` and `data/reference/`: `home()` where it is a checkout, else
    the checkout that this package lies in, else the folder in which a wheel brings them.

    Raises:
        FileNotFoundError: as `home`.
    """
    root = home()
    return root if (root / NOTEBOOKS).is_dir() else _installed()


def checkout() -> Path | None:
    """Return `source()`; None where a wheel brought it.

    Raises:
        FileNotFoundError: as `home`.
    """
    root = source()
    return None if root == _shipped() else root


def _installed() -> Path:
    """What came with the package: a wheel's own folder, else the checkout around it."""
    return _shipped() if _shipped().is_dir() else package_folder().parent


def _shipped() -> Path:
    return package_folder() / SHIPPED


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder data sets are looked up in: `root`, else $PAPERLIB_DATA, else `data/`.

    A relative $PAPERLIB_DATA is resolved against the project, not against the caller's folder,
    so that notebooks, tests and commands started anywhere read the same files.
    """
    if root is not None:
        return Path(root).expanduser().resolve()
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        return home() / DATA
    path = Path(named).expanduser()
    return path.resolve() if path.is_absolute() else (home() / path).resolve()


def weights_file(name: str) -> Path:
    """Return where the weights in a file of torchvision's are put, e.g. `vgg16-397923af.pth`."""
    return data_root() / WEIGHTS / name


def given_weights(path: str | os.PathLike[str]) -> Path:
    """Return the file of weights that a path names; a bare name that is not here is looked up in
    `weights/`, in the folder of data sets."""
    file = Path(path).expanduser()
    bare = not file.is_absolute() and len(file.parts) == 1
    return weights_file(file.name) if bare and not file.is_file() else file


def notebook_file(name: str) -> Path:
    """Return the notebook called `name`, e.g. `01_mnist_phase_diagram`."""
    return source() / NOTEBOOKS / f"{name}.ipynb"


def profile_file(profile: str, name: str) -> Path:
    """Return the parameters of one notebook in one profile, in a form that `papermill -f` takes."""
    return source() / PROFILES / profile / f"{name}.yaml"


def costs_file() -> Path:
    """Return what the notebooks cost, as it was measured."""
    return source() / COSTS


def points_folder() -> Path:
    """Return where finished points of sweeps are kept, one file each."""
    return home() / POINTS


def results_folder() -> Path:
    """Return where sweeps write their NetCDF files."""
    return home() / RESULTS


def reference_file(name: str) -> Path:
    """Return a result that ships with the repository, e.g. `mnist_mlp.nc`."""
    return source() / REFERENCE / name


def figures_folder(profile: str | None = None) -> Path:
    """Return where figures go: `figures/<profile>/`; None: `figures/`, for the canonical ones."""
    folder = home() / FIGURES
    return folder / profile if profile else folder
