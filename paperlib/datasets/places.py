"""Where data sets and photographs lie; nothing is read here, and torch is not needed for it."""

import os
from pathlib import Path

from paperlib.core import paths
from paperlib.core.checks import did_you_mean, path_of, quoted
from paperlib.datasets import libraries

OFFLINE_NAMES: tuple[str, ...] = tuple(libraries.BUNDLED)
NAMES: tuple[str, ...] = (*libraries.TORCHVISION, *OFFLINE_NAMES)

NAMED_CLASSES = 10  # of each of them

# scikit-image's photographs: of those that ship in its wheel, and as PNG: decoders of JPEG differ.
PHOTOGRAPHS = (
    *("coffee", "brick", "camera", "coins", "grass", "gravel", "immunohistochemistry", "moon"),
    *("astronaut", "chelsea"),  # held out
)

# What stands in where a data set is missing and cannot be downloaded.
FALLBACKS = {"fashion_mnist": "mnist", "mnist": "digits", "cifar10": "patches"}


def availability(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """Return where a named data set would come from; nothing is loaded or downloaded.

    Example:
        >>> from paperlib.datasets import availability
        >>> availability("digits")
        'bundled'

    Returns:
        "bundled" (with a library), "npz", "idx" or "torchvision" (that layout), or "absent".

    Raises:
        ValueError: unknown name.
    """
    return located(name, root)[0]


def located(name: str, root: str | os.PathLike[str] | None = None) -> tuple[str, Path | None]:
    """Return where a named data set would come from, as `availability` does, and its file or
    folder; None if it is bundled or absent.

    Example:
        >>> from paperlib.datasets import located
        >>> located("digits")
        ('bundled', None)

    Raises:
        ValueError: unknown name.
    """
    if name not in NAMES:
        raise unknown(name)
    if name in OFFLINE_NAMES:
        return "bundled", None
    folder = paths.data_root(root)
    if npz_file(name, folder).is_file():
        return "npz", npz_file(name, folder)
    layout = libraries.TORCHVISION[name]
    for place, where in libraries.folders(name, folder).items():
        if layout.is_in(place):
            return where, place
    return "absent", None


def own_path(name: str | os.PathLike[str]) -> Path | None:
    """Return the user's own file or folder that a data set's name is; None for one of `NAMES`.

    Raises:
        ValueError: neither a name nor a path, or a pipe or a device.
        FileNotFoundError: no such path.
    """
    if isinstance(name, str) and name in NAMES:
        return None
    if isinstance(name, str | os.PathLike) and name:
        path_of("name", name)
    if not _looks_like_path(name):
        raise unknown(name)
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if path.exists():  # a pipe or a device would be read for ever
        raise ValueError(
            f"{path} is neither a file nor a folder; expected an .npz file or pictures"
        )
    raise FileNotFoundError(
        f"no file or folder {path} (relative paths start at {Path.cwd()}); "
        f"expected an .npz file, a folder of pictures, or one of the names {', '.join(NAMES)}"
    )


def photographs_folder(
    name: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> Path:
    """Return the folder that a name means: the path itself, else one in the folder of data sets."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else paths.data_root(root) / folder


def unknown(name: object) -> ValueError:
    """Return the error to raise for a name that is none of `NAMES`."""
    return ValueError(
        f"unknown data set {quoted(name)}{did_you_mean(name, NAMES)}: expected one of "
        f"{', '.join(NAMES)}, or the path of an .npz file or of a folder of pictures"
    )


def npz_file(name: str, folder: Path) -> Path:
    """Return where a named data set's .npz file is looked for in the folder of data sets."""
    return folder / f"{name}.npz"


def _looks_like_path(name: object) -> bool:
    if not isinstance(name, str) or not name:
        return isinstance(name, os.PathLike)
    return "/" in name or os.sep in name or name.endswith(".npz") or Path(name).exists()
