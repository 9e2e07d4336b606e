"""Images and labels from files: .npz archives and folders of pictures."""

import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_LABEL = 2**16 - 1
PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_LARGEST_SIDE = 224  # pixels; of the images of a folder
_NAMED = 5  # of the files that a warning names
_FOLDER_TEST_SHARE = 5  # one in so many, where the folder has no split of its own

# What NumPy, zipfile and torchvision raise on damaged files, the latter also from assertions.
UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, TypeError, LookupError, AssertionError),
    *(MemoryError, zipfile.BadZipFile, zlib.error),
)

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")  # of an .npz file

Pixels = NDArray[np.uint8]
_Files = list[tuple[Path, str]]  # pictures with the names of their classes


class Split(NamedTuple):
    """The images and labels of one split."""

    images: Pixels  # (N, channels, height, width)
    labels: NDArray[np.int64]  # (N,)

    def part(self, index: slice | NDArray[np.intp]) -> "Split":
        """Those images with their labels."""
        return Split(self.images[index], self.labels[index])


class Found(NamedTuple):
    """A data set as it was read, in the order of its file."""

    name: str
    source: str
    train: Split
    test: Split
    classes: tuple[str, ...] | None = None  # None: known from the name, or numbered


def reason(error: BaseException) -> str:
    """Return the error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# --- splits ---


def checked_split(images: Any, labels: Any, where: str) -> Split:
    """Return the split, with channels first, that arrays with channels last make.

    Args:
        images: uint8 (N, height, width) or (N, height, width, 1 or 3).
        labels: whole numbers from 0, (N,) or (N, 1).
        where: what an error's message begins with.

    Raises:
        ValueError: the arrays are anything else.
    """
    pixels = _channels_first(np.asarray(images), where)
    return Split(pixels, _class_numbers(np.asarray(labels), len(pixels), where))


def in_byte_order(split: Split) -> Split:
    """Return the split in the order of the images' bytes, equal images in that of their labels."""
    count = len(split.labels)
    pixels = split.images.reshape(count, -1)
    labels = split.labels.astype(">i8").view(np.uint8).reshape(count, -1)
    keys = np.concatenate([pixels, labels], axis=1)
    return split.part(np.argsort(keys.view(f"V{keys.shape[1]}").ravel(), kind="stable"))


def hold_out(whole: Split, count: int) -> tuple[Split, Split]:
    """Train and test images: a random choice that depends neither on file order nor on a seed."""
    ordered = in_byte_order(whole)
    order = np.random.default_rng(0).permutation(len(ordered.labels))
    return ordered.part(order[count:]), ordered.part(order[:count])


def _channels_first(images: NDArray[Any], where: str) -> Pixels:
    if images.dtype != np.uint8:
        raise ValueError(
            f"{where}: images must be uint8 (0 to 255), got {images.dtype}; "
            "scale to 0…255, round, and save as uint8"
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"{where}: images must be (N, height, width) or (N, height, width, 1 or 3), "
            f"none of them 0, got {images.shape}"
        )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _class_numbers(labels: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ValueError(
            f"{where}: expected {count} integer labels, one for each image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    # Every number up to the largest becomes a class: one stray label would fill the memory.
    if labels.min() < 0 or labels.max() > _LARGEST_LABEL:
        raise ValueError(
            f"{where}: labels must number the classes from 0 (to {_LARGEST_LABEL} at most), "
            f"got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)


def same_shape(found: Found) -> Found:
    """Return the data set if its train and test images have one shape; else raise a ValueError."""
    train, test = found.train.images.shape[1:], found.test.images.shape[1:]
    if train != test:
        raise ValueError(
            f"{found.source}: train and test images must have one (channels, height, width), "
            f"got {train} and {test}"
        )
    return found


# --- .npz files ---


def read_npz(path: Path, name: str) -> Found:
    """Read the data set in an .npz file of the Keras layout.

    Raises:
        ValueError: the file is damaged or has another layout.
    """
    arrays = _npz_arrays(path, _ARRAYS)
    train, test = (
        checked_split(
            arrays[f"x_{split}"], arrays[f"y_{split}"], f"{path}, x_{split} and y_{split}"
        )
        for split in ("train", "test")
    )
    return same_shape(Found(name, str(path), train, test))


def read_labels(path: Path) -> list[NDArray[Any]]:
    """Return the labels of both splits in an .npz file of the Keras layout; no image is read.

    Raises:
        ValueError: the file is damaged or has another layout.
    """
    return list(_npz_arrays(path, ("y_train", "y_test")).values())


def count_classes(path: Path) -> int:
    """Return the number of classes of a data set in an .npz file or in a folder of pictures.

    Raises:
        ValueError: as `read_npz` and `read_folder`.
    """
    if path.is_file():
        return 1 + max(int(labels.max(initial=0)) for labels in read_labels(path))
    train, test = _folder_files(path)
    return len({name for _, name in (*train, *(test or ()))})


def _npz_arrays(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            if set(_ARRAYS) <= set(names):
                return {name: archive[name] for name in wanted}
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is no readable .npz file ({reason(error)}); it may be damaged or half "
            "copied: replace it, or delete it to have a named data set downloaded again"
        ) from error
    raise ValueError(
        f"{path}: expected the arrays {', '.join(_ARRAYS)}, found {', '.join(names) or 'none'}; "
        "save them with numpy.savez_compressed"
    )


# --- folders of pictures ---


def read_folder(folder: Path) -> Found:
    """Read the pictures below a folder, as squares of one size, labelled by their classes' folders.

    Raises:
        ValueError: there are too few, or one of them cannot be read.
    """
    train_files, test_files = _folder_files(folder)
    own_split = test_files is not None
    files, first = [*train_files, *(test_files or ())], len(train_files)
    if not train_files or len(files) < 2 or (own_split and not test_files):
        raise ValueError(
            f"{folder}: expected at least two pictures, as train/<class>/* with test/<class>/* or "
            f"val/<class>/*, or as <class>/*, found {first} to train and {len(files) - first} to "
            f"test (endings {' '.join(sorted(PICTURE_SUFFIXES))})"
        )
    classes = tuple(sorted({name for _, name in files}))
    images = _read_pictures([file for file, _ in files])
    whole = checked_split(images, [classes.index(name) for _, name in files], str(folder))
    if own_split:
        train, test = whole.part(slice(first)), whole.part(slice(first, None))
    else:
        train, test = hold_out(whole, max(1, len(files) // _FOLDER_TEST_SHARE))
    return Found(folder.resolve().name, str(folder), train, test, classes)


def _folder_files(folder: Path) -> tuple[_Files, _Files | None]:
    """The pictures to train with and those held out, with their classes; None of the latter where
    the folder has no split of its own."""
    train = own_folder(folder, "train")
    held_out = own_folder(folder, "test", "val") if train else None
    if train is None or held_out is None:
        return _picture_files(train or folder), None
    return _picture_files(train), _picture_files(held_out)


def own_folder(folder: Path, *names: str) -> Path | None:
    """Return the first of the folders with these names in a folder, if it has one.

    Raises:
        ValueError: it is a link, which may lead to the other pictures.
    """
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    if found is not None and found.is_symlink():
        raise ValueError(
            f"{found} is a link, and links in a folder of pictures are not followed: put the "
            f"pictures themselves there, or name {found.resolve()} as the folder"
        )
    return found


def pictures_in(folder: Path) -> list[Path]:
    """Return every picture below a folder but hidden ones; links, which may lead out of it or back
    into it, and what is no file are skipped, with a warning that names them."""
    found: list[Path] = []
    skipped: list[Path] = []
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            path = Path(entry.path)
            is_picture = path.suffix.lower() in PICTURE_SUFFIXES
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif entry.is_file(follow_symlinks=False):
                found += [path] * is_picture
            elif is_picture or entry.is_symlink():
                skipped.append(path)
    if skipped:
        _warn_of_skipped(folder, sorted(skipped))
    return sorted(found)


def _warn_of_skipped(folder: Path, skipped: list[Path]) -> None:
    names = ", ".join(str(path.relative_to(folder)) for path in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    warnings.warn(
        f"{folder}: skipped {names}{more}: links are not followed, and only files are read; copy "
        "the pictures there to have them read",
        UserWarning,
        stacklevel=4,
    )


def _picture_files(folder: Path) -> _Files:
    """Each picture below a class's folder, with the name of the class; hidden files are none."""
    below = (file for file in pictures_in(folder) if file.parent != folder)
    return [(file, file.relative_to(folder).parts[0]) for file in below]


def _read_pictures(files: list[Path]) -> Pixels:
    """All pictures as one (N, side, side, channels); grey only if all of them are."""
    from PIL import Image, ImageOps

    shorter_sides, modes = [], set()
    for file in files:
        with opened(file) as picture:
            shorter_sides.append(min(picture.size))
            modes.add(picture.mode)
    side = min(_LARGEST_SIDE, median_low(shorter_sides))
    mode, channels = ("L", 1) if modes <= {"1", "L", "LA"} else ("RGB", 3)
    images = np.empty((len(files), side, side, channels), dtype=np.uint8)
    for image, file in zip(images, files, strict=True):
        with opened(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert(mode)
            square = ImageOps.fit(upright, (side, side), method=Image.Resampling.BICUBIC)
            image[:] = np.asarray(square).reshape(image.shape)
    return images


@contextmanager
def opened(file: Path) -> Iterator["Image"]:
    """Open a picture; a ValueError names a file that cannot be read or has more than 8 bits."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits a channel, mode {picture.mode}")
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} is no readable 8-bit picture ({reason(error)}); replace or remove it"
        ) from error
