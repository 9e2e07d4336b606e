"""Every directory and file name of the project, each in one place, and how files are written."""

import os
from pathlib import Path

# Where the caches and the data look-up can be pointed elsewhere.
HOME_VARIABLE = "PAPERLIB_HOME"
DATA_VARIABLE = "PAPERLIB_DATA"

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
    """Nothing; the file appears under its name complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def home() -> Path:
    """The checkout that holds `notebooks/`: $PAPERLIB_HOME, else the one this file lies in.

    Raises:
        FileNotFoundError: neither is a checkout; the message says how to get one.
    """
    named = os.environ.get(HOME_VARIABLE)
    root = Path(named).expanduser() if named else Path(__file__).parent.parent
    if not (root / NOTEBOOKS).is_dir():
        origin = f"${HOME_VARIABLE}" if named else "the installed package"
        raise FileNotFoundError(
            f"no notebooks/ in {root} (from {origin}): clone the repository and run there, "
            f"or set {HOME_VARIABLE} to your checkout"
        )
    return root.resolve()


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder data sets are looked up in: `root`, else $PAPERLIB_DATA, else `data/`.

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
    """Where the weights in a file of torchvision's are put, e.g. `vgg16-397923af.pth`."""
    return data_root() / WEIGHTS / name


def notebook_file(name: str) -> Path:
    """The notebook called `name`, e.g. `01_mnist_phase_diagram`."""
    return home() / NOTEBOOKS / f"{name}.ipynb"


def profile_file(profile: str, name: str) -> Path:
    """The parameters of one notebook in one profile, in a form that `papermill -f` takes."""
    return home() / PROFILES / profile / f"{name}.yaml"


def costs_file() -> Path:
    """What the notebooks cost, as it was measured."""
    return home() / COSTS


def points_folder() -> Path:
    """Where finished points of sweeps are kept, one file each."""
    return home() / POINTS


def results_folder() -> Path:
    """Where sweeps write their NetCDF files."""
    return home() / RESULTS


def reference_file(name: str) -> Path:
    """A result that ships with the repository, e.g. `mnist_mlp.nc`."""
    return home() / REFERENCE / name


def figures_folder(profile: str | None = None) -> Path:
    """Where figures go: `figures/<profile>/`; None: `figures/`, for the canonical ones."""
    folder = home() / FIGURES
    return folder / profile if profile else folder
