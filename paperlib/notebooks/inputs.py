"""Which files the parameters of a notebook name, and whether they are there."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paperlib.core import paths
from paperlib.datasets import places, readers

DATA_SETS = ("dataset", "pictures")  # the parameters that name one
PICTURES = ("image", "asked_images")  # those that name a picture's file
# a .nc; or none
RESULTS = (
    "start_from",
    "compare_with",
    "calibration",
    "by_steps",
    "decayed",
    "trained",
    "predicted",
)
WEIGHTS = ("random", "imagenet")
PHOTOGRAPHS = ("bundled", "imagenette")
_FOLDERS = (*DATA_SETS, "photographs")  # these may name one
_KNOWN = {  # what is no path, whatever lies in the current folder
    **dict.fromkeys(DATA_SETS, places.NAMES),
    **dict.fromkeys(PICTURES, places.PHOTOGRAPHS),
    "weights": WEIGHTS,
    "photographs": PHOTOGRAPHS,
}


def texts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every text among the values of parameters, with the parameter's name."""
    for key, value in values.items():
        for text in value if isinstance(value, tuple | list) else (value,):
            if isinstance(text, str):
                yield key, text


def is_own_path(key: str, text: str) -> bool:
    """Return whether a text is a path, or a file of that name lies in the current folder, or a
    folder where the parameter may name one; of what has a meaning by itself it is none."""
    if text in _KNOWN.get(key, ()):
        return False
    folder = key in _FOLDERS and Path(text).is_dir()
    return "/" in text or os.sep in text or folder or Path(text).is_file()


def named(key: str, text: str) -> Path | None:
    """Return the file or folder that a parameter names, found as those who read it find it; None of
    a data set, and of what is no file's name."""
    given = Path(text).expanduser()
    if text.endswith(".nc") or (key in RESULTS and text):
        bare = not given.is_absolute() and len(given.parts) == 1
        return paths.reference_file(text) if bare else given
    if key == "weights":
        return paths.given_weights(text)
    if key == "photographs":
        return places.photographs_folder(text)
    return given if key in PICTURES else None


def check(values: Mapping[str, Any]) -> None:
    """Check that what the parameters name is there; named data sets may still be downloaded.

    Raises:
        FileNotFoundError: a file or folder that is not.
        ValueError: an unknown data set, a damaged file, or a class that the data have not; names
            the parameter.
    """
    for key, text in texts(values):
        try:
            _check_one(key, text)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{key} = {text!r}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{key} = {text!r}: {error}") from None
    if "shown_class" in values:
        _check_class(values["shown_class"], values["dataset"])


def _check_one(key: str, text: str) -> None:
    file = named(key, text)
    if key in DATA_SETS:
        own = places.own_path(text)
        if own is not None and own.is_file():
            readers.read_labels(own)
    elif key in RESULTS and file is not None:
        _check_result(file)
    elif key == "weights" and text not in WEIGHTS:
        _check_there(file, "file of weights, .safetensors or .pth", WEIGHTS)
    elif key == "photographs" and text not in PHOTOGRAPHS:
        _check_there(file, "folder of pictures", PHOTOGRAPHS, folder=True)
    elif key in PICTURES and text not in places.PHOTOGRAPHS:
        _check_there(file, "picture", places.PHOTOGRAPHS)


def _check_there(
    file: Path | None, what: str, names: tuple[str, ...], *, folder: bool = False
) -> None:
    if file is None or not (file.is_dir() if folder else file.is_file()):
        raise FileNotFoundError(f"no {what} at {file}; expected one, or {', '.join(names)}")


def _check_result(file: Path) -> None:
    import h5py

    if not file.is_file():
        shipped = sorted(path.name for path in paths.reference_file("x").parent.glob("*.nc"))
        raise FileNotFoundError(
            f"no result at {file}; expected a .nc file, or one of those that ship: "
            f"{', '.join(shipped)}"
        )
    try:
        with h5py.File(file) as opened:
            json.loads(opened.attrs["provenance"])
    except (OSError, KeyError, ValueError, TypeError):
        raise ValueError(f"{os.fspath(file)} is damaged or no result of this package") from None


def _check_class(number: int, dataset: str) -> None:
    classes = places.NAMED_CLASSES
    if (own := places.own_path(dataset)) is not None:
        classes = readers.count_classes(own)
    if number >= classes:
        raise ValueError(
            f"shown_class must be below {classes}, the number of classes of {dataset}, got {number}"
        )
