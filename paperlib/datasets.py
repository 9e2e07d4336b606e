"""Labelled images in memory: by name, from a Keras-layout .npz, or from a folder of pictures."""

import difflib
import hashlib
import http.client
import numbers
import os
import socket
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from paperlib import paths

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES: tuple[str, ...] = ("mnist", "fashion_mnist", "cifar10", "digits", "patches", "noise")
OFFLINE_NAMES: tuple[str, ...] = ("digits", "patches", "noise")

# What stands in where a data set is missing and cannot be downloaded.
FALLBACKS = {"fashion_mnist": "mnist", "mnist": "digits", "cifar10": "patches"}

# Checksum -> what these images really are, whatever their file is called.
KNOWN: dict[str, str] = {
    "5ebb882eb66bd488450e415eb6e7f4defbaeceb59bc530b9962b704a18720eac": "mnist",
    "7af4744b0f6cf828fe10f25f54d40c0151ba5691e1a6e5b39f146c2d3e6adb40": "cifar10_grey_jpeg",
}

# Part of `Dataset.source` where a file's contents are not what its name promises.
UNRECOGNISED = "unrecognised contents"

_PUBLISHED = {  # train images, test images, shape of one image
    "mnist": (60_000, 10_000, (1, 28, 28)),
    "fashion_mnist": (60_000, 10_000, (1, 28, 28)),
    "cifar10": (50_000, 10_000, (3, 32, 32)),
}

_DIGITS = tuple("0123456789")
_CLOTHES = "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
_OBJECTS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
_CLASSES = {
    "mnist": _DIGITS,
    "fashion_mnist": tuple(_CLOTHES.split(",")),
    "cifar10": tuple(_OBJECTS.split(",")),
    "cifar10_grey_jpeg": tuple(_OBJECTS.split(",")),
}

# Only pictures that ship in scikit-image's wheel, and as PNG: decoders of JPEG differ.
_PHOTOGRAPHS = "astronaut,brick,camera,chelsea,coffee,coins,grass,gravel,immunohistochemistry,moon"
_PATCH = 32
_LEAST_CONTRAST = 16  # grey levels between a patch's brightest and darkest pixel
_PATCHES_PER_PICTURE = (400, 80)  # train, test
_DIGITS_TEST = 300
_NOISE_IMAGES = (10_000, 2_000)  # train, test

_PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_LARGEST_SIDE = 224  # pixels; of the images of a folder
_FOLDER_TEST_SHARE = 5  # one in so many, where the folder has no split of its own
_LARGEST_LABEL = 2**16 - 1

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TIMEOUT = 30.0  # seconds that a silent server is waited for

# What NumPy, zipfile and torchvision raise on damaged files, the latter also from assertions.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, TypeError, LookupError, AssertionError),
    *(MemoryError, zipfile.BadZipFile, zlib.error),
)

Pixels = NDArray[np.uint8]


class DownloadError(FileNotFoundError):
    """A data set is not on this machine, and fetching it failed."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels in a random order, so that any leading slice is a fair sample.

    Attributes:
        train_images, test_images: uint8 (N, channels, height, width).
        train_labels, test_labels: int64 (N,), numbering `classes` from 0.
        name: what the images really are; results must carry this name.
        source: where they came from.
        checksum: sha256, in hex, of the full data; the same for any file name, file order,
            limit and seed.
        classes: the name of each class.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    name: str
    source: str
    checksum: str
    classes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def floats(
        self,
        split: str,
        *,
        grey: bool = True,
        flat: bool = False,
        device: str | torch.device = "cpu",
    ) -> torch.Tensor:
        """The images of one split as float32 in [0, 1], (N, channels, height, width) or flat.

        Args:
            split: "train" or "test".
            grey: turn colour into one channel (luma of ITU-R BT.601); grey images stay as they are.
            flat: return (N, pixels) instead.
            device: where the result lies.

        Raises:
            ValueError: there is no such split.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}")
        images = self.train_images if split == "train" else self.test_images
        floats = images.to(device=device, dtype=torch.float32) / 255
        if grey and floats.shape[1] == 3:
            weights = torch.tensor(_GREY_WEIGHTS, dtype=torch.float32, device=device)
            floats = (floats * weights.view(3, 1, 1)).sum(1, keepdim=True)
        return floats.flatten(1) if flat else floats

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.image_shape)
        return (
            f"Dataset({self.name}: {len(self.train_images)} train + {len(self.test_images)} test "
            f"images of {shape}, {len(self.classes)} classes, "
            f"sha256 {self.checksum[:12]}…, from {self.source})"
        )


class _Split(NamedTuple):
    images: Pixels  # (N, channels, height, width)
    labels: NDArray[np.int64]  # (N,)


class _Found(NamedTuple):
    """A data set as it was read, in the order of its file."""

    name: str
    source: str
    train: _Split
    test: _Split
    classes: tuple[str, ...] | None  # None: known from the name, or numbered


def load_dataset(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set in memory, downloaded first where that is needed and possible.

    Args:
        name: one of `NAMES`, or a path: to an .npz in the Keras layout (arrays x_train y_train
            x_test y_test, uint8, channels last), or to a folder of pictures
            (train/<class>/* with test/<class>/* or val/<class>/*; without that split, one picture
            in five of <class>/* is kept for testing). Pictures are scaled and centre-cropped to
            one square, as wide as the median picture's shorter side, at most 224 pixels.
        root: where names are looked up: <root>/<name>.npz, then torchvision's own layout, then
            torchvision's download into it. Default: $PAPERLIB_DATA, else `data/`.
        limit: keep at most this many images of each split; a larger limit extends a smaller one.
        seed: of the order of the images, hence of the choice that `limit` makes.

    Raises:
        ValueError: unknown name, limit < 1, seed < 0, or a file that is damaged or has another
            layout.
        FileNotFoundError: no such path; DownloadError, if a download failed.
    """
    _check_whole("seed", seed, least=0)
    if limit is not None:
        _check_whole("limit", limit, least=1)
    return _dataset(_find(name, root), limit=limit, seed=seed)


def load_with_fallback(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """`load_dataset`, or the nearest data set at hand where `name` cannot be downloaded.

    fashion_mnist -> mnist -> digits; cifar10 -> patches; a warning says so, and the result's
    `.name` is that of the data really loaded. Damaged files and the user's own paths never fall
    back. Args and Raises: as `load_dataset`.
    """
    try:
        return load_dataset(name, root=root, limit=limit, seed=seed)
    except DownloadError as error:
        stand_in = FALLBACKS[str(name)]
        warnings.warn(
            f"NOT {name} BUT {stand_in} IS USED, and the results carry its name: {error}",
            UserWarning,
            stacklevel=2,
        )
    return load_with_fallback(stand_in, root=root, limit=limit, seed=seed)


def availability(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """Where a named data set would come from; nothing is loaded or downloaded.

    Returns:
        "bundled" (with a library), "npz" or "torchvision" (that layout, in `root`), or "absent".

    Raises:
        ValueError: unknown name.
    """
    if name not in NAMES:
        raise _unknown(name)
    if name in OFFLINE_NAMES:
        return "bundled"
    folder = paths.data_root(root)
    if _npz_file(name, folder).exists():
        return "npz"
    layout = _TORCHVISION[name]
    present = all((folder / layout.folder / file).is_file() for file in layout.files)
    return "torchvision" if present else "absent"


def _check_whole(what: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{what} must be a whole number >= {least}, got {value!r}")


def _unknown(name: object) -> ValueError:
    close = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(
        f"unknown data set {name!r}: expected one of {', '.join(NAMES)}, "
        f"or the path of an .npz file or of a folder of pictures{hint}"
    )


def _reason(error: BaseException) -> str:
    """The error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# --- from what was read to a Dataset ---


def _dataset(found: _Found, *, limit: int | None, seed: int) -> Dataset:
    train, test = _sorted(found.train), _sorted(found.test)
    checksum = _checksum(train, test)
    name, recognised = _identify(found, checksum)
    train_images, train_labels = _shuffled(train, limit=limit, seed=(seed, 0))
    test_images, test_labels = _shuffled(test, limit=limit, seed=(seed, 1))
    return Dataset(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        name=name,
        source=found.source if recognised else f"{found.source} ({UNRECOGNISED})",
        checksum=checksum,
        classes=found.classes or _class_names(name if recognised else None, train, test),
    )


def _sorted(split: _Split) -> _Split:
    """In the order of the images' bytes, equal images in that of their labels."""
    count = len(split.labels)
    pixels = split.images.reshape(count, -1)
    labels = split.labels.astype(">i8").view(np.uint8).reshape(count, -1)
    keys = np.concatenate([pixels, labels], axis=1)
    order = np.argsort(keys.view(f"V{keys.shape[1]}").ravel(), kind="stable")
    return _Split(split.images[order], split.labels[order])


def _checksum(train: _Split, test: _Split) -> str:
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(repr(images.shape).encode())
        digest.update(images.data)
        digest.update(labels.astype("<i8").data)
    return digest.hexdigest()


def _shuffled(
    split: _Split, *, limit: int | None, seed: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    order = np.random.default_rng(seed).permutation(len(split.labels))[:limit]
    return torch.from_numpy(split.images[order]), torch.from_numpy(split.labels[order])


def _identify(found: _Found, checksum: str) -> tuple[str, bool]:
    """The truthful name, and whether the contents are what the file's name promises."""
    if checksum in KNOWN:
        return KNOWN[checksum], True
    if found.name not in _PUBLISHED:
        return found.name, True
    sizes = (len(found.train.labels), len(found.test.labels), found.train.images.shape[1:])
    if found.name not in KNOWN.values() and sizes == _PUBLISHED[found.name]:
        return found.name, True
    warnings.warn(
        f"{found.source} is not the published {found.name}: {UNRECOGNISED}, sha256 {checksum}, "
        f"{sizes[0]} + {sizes[1]} images of shape {sizes[2]}; "
        "rename the file if it holds something else",
        UserWarning,
        stacklevel=4,
    )
    return found.name, False


def _class_names(name: str | None, train: _Split, test: _Split) -> tuple[str, ...]:
    count = 1 + int(max(train.labels.max(), test.labels.max()))
    names = _CLASSES.get(name, ()) if name else ()
    return names if count <= len(names) else tuple(str(number) for number in range(count))


# --- where things are found ---


def _find(name: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> _Found:
    if isinstance(name, str) and name in NAMES:
        return _BUNDLED[name]() if name in _BUNDLED else _find_named(name, paths.data_root(root))
    if not _looks_like_path(name):
        raise _unknown(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.exists():
        return _read_npz(path, path.stem)
    raise FileNotFoundError(
        f"no file or folder {path} (relative paths start at {Path.cwd()}); "
        f"expected an .npz file, a folder of pictures, or one of the names {', '.join(NAMES)}"
    )


def _looks_like_path(name: object) -> bool:
    if isinstance(name, os.PathLike):
        return True
    if not isinstance(name, str) or not name:
        return False
    return "/" in name or os.sep in name or name.endswith(".npz") or Path(name).exists()


def _find_named(name: str, folder: Path) -> _Found:
    where = availability(name, folder)
    if where == "npz":
        return _read_npz(_npz_file(name, folder), name)
    if where == "torchvision":
        return _read_torchvision(name, folder)
    return _download(name, folder)


def _npz_file(name: str, folder: Path) -> Path:
    return folder / f"{name}.npz"


# --- arrays and .npz files ---


def _split(images: Any, labels: Any, where: str) -> _Split:
    """Checked arrays, from images (N, height, width) or (N, height, width, channels)."""
    images, labels = np.asarray(images), np.asarray(labels)
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
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where}: expected {len(images)} integer labels, one for each image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > _LARGEST_LABEL:
        raise ValueError(
            f"{where}: labels must number the classes from 0 (to {_LARGEST_LABEL} at most), "
            f"got {labels.min()} to {labels.max()}"
        )
    return _Split(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.astype(np.int64))


def _same_shape(found: _Found) -> _Found:
    train, test = found.train.images.shape[1:], found.test.images.shape[1:]
    if train != test:
        raise ValueError(
            f"{found.source}: train and test images must have one (channels, height, width), "
            f"got {train} and {test}"
        )
    return found


def _read_npz(path: Path, name: str) -> _Found:
    arrays = _npz_arrays(path)
    train = _split(arrays["x_train"], arrays["y_train"], f"{path}, x_train and y_train")
    test = _split(arrays["x_test"], arrays["y_test"], f"{path}, x_test and y_test")
    return _same_shape(_Found(name, str(path), train, test, None))


def _npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    expected = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            if set(expected) <= set(names):
                return {name: archive[name] for name in expected}
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} is no readable .npz file ({_reason(error)}); it may be damaged or half "
            "copied: replace it, or delete it to have a named data set downloaded again"
        ) from error
    raise ValueError(
        f"{path}: expected the arrays {', '.join(expected)}, found {', '.join(names) or 'none'}; "
        "save them with numpy.savez_compressed"
    )


# --- torchvision ---


class _Layout(NamedTuple):
    """How torchvision keeps a data set."""

    class_name: str
    folder: str
    files: tuple[str, ...]


_IDX = tuple(
    f"{split}-{content}-ubyte"
    for split in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
)
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_TORCHVISION = {
    "mnist": _Layout("MNIST", "MNIST/raw", _IDX),
    "fashion_mnist": _Layout("FashionMNIST", "FashionMNIST/raw", _IDX),
    "cifar10": _Layout("CIFAR10", "cifar-10-batches-py", _BATCHES),
}


def _torchvision_class(name: str) -> Any:
    from paperlib.vision import torchvision

    return getattr(torchvision.datasets, _TORCHVISION[name].class_name)


def _torchvision_splits(maker: Any, folder: Path, *, download: bool) -> list[_Split]:
    splits = [maker(str(folder), train=train, download=download) for train in (True, False)]
    return [_split(split.data, split.targets, str(folder)) for split in splits]


def _read_torchvision(name: str, folder: Path) -> _Found:
    maker, layout = _torchvision_class(name), folder / _TORCHVISION[name].folder
    try:
        train, test = _torchvision_splits(maker, folder, download=False)
    except _UNREADABLE as error:
        raise ValueError(
            f"{layout} is damaged ({_reason(error)}); delete it to have {name} downloaded again"
        ) from error
    return _same_shape(_Found(name, str(layout), train, test, None))


def _download(name: str, folder: Path) -> _Found:
    """Fetched beside its place, so that what breaks off leaves nothing under final names."""
    maker = _torchvision_class(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as staging:
            with _timeout(_TIMEOUT):
                train, test = _torchvision_splits(maker, Path(staging), download=True)
            for file in _TORCHVISION[name].files:
                target = folder / _TORCHVISION[name].folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(staging) / _TORCHVISION[name].folder / file, target)
    except (*_UNREADABLE, http.client.HTTPException, tarfile.TarError) as error:
        raise DownloadError(
            f"{name} is neither at {_npz_file(name, folder)} nor in "
            f"{folder / _TORCHVISION[name].folder}, and its download failed ({_reason(error)}); "
            "put either there by hand (the .npz with arrays x_train y_train x_test y_test), "
            f"or use what needs no network: {', '.join(OFFLINE_NAMES)}"
        ) from error
    return _same_shape(_Found(name, f"torchvision's download of {name}", train, test, None))


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its connections without a limit and would wait for a silent server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- what ships with the libraries ---


def _held_out(
    images: Pixels, labels: NDArray[Any], count: int, where: str
) -> tuple[_Split, _Split]:
    """Train and test images: a random choice that depends neither on file order nor on a seed."""
    whole = _sorted(_split(images, labels, where))
    order = np.random.default_rng(0).permutation(len(whole.labels))
    test, train = order[:count], order[count:]
    return (
        _Split(whole.images[train], whole.labels[train]),
        _Split(whole.images[test], whole.labels[test]),
    )


def _digits() -> _Found:
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    # Bilinear weights in fourteenths, and whole numbers throughout: no machine rounds differently.
    position = np.clip(4 * np.arange(28) - 5, 0, 98)
    weights = np.maximum(0, 14 - np.abs(position[:, np.newaxis] - 14 * np.arange(8)))
    large = weights @ small.reshape(-1, 8, 8).astype(np.int64) @ weights.T
    full = 16 * 14**2
    images = ((255 * large + full // 2) // full).astype(np.uint8)
    source = "scikit-learn's digits"
    train, test = _held_out(images, labels, _DIGITS_TEST, source)
    return _Found("digits", source, train, test, _DIGITS)


def _patches() -> _Found:
    """Train patches from the left three quarters of each picture, test patches from the rest."""
    import skimage.data

    names = tuple(_PHOTOGRAPHS.split(","))
    pictures = [_grey(getattr(skimage.data, name)()) for name in names]
    source = "scikit-image's photographs"
    borders = [3 * picture.shape[1] // 4 for picture in pictures]
    left = [picture[:, :border] for picture, border in zip(pictures, borders, strict=True)]
    right = [picture[:, border:] for picture, border in zip(pictures, borders, strict=True)]
    train, test = (
        _split(
            np.concatenate([_cut(region, count) for region in regions]),
            np.repeat(np.arange(len(regions)), count),
            source,
        )
        for regions, count in zip((left, right), _PATCHES_PER_PICTURE, strict=True)
    )
    return _Found("patches", source, train, test, names)


def _grey(picture: Pixels) -> Pixels:
    if picture.ndim == 2:
        return picture
    luma: NDArray[np.int64] = picture.astype(np.int64) @ np.array([299, 587, 114])
    return ((luma + 500) // 1000).astype(np.uint8)


def _cut(region: Pixels, count: int) -> Pixels:
    """`count` patches, evenly chosen among those on a grid that show something."""
    windows: Pixels = np.lib.stride_tricks.sliding_window_view(region, (_PATCH, _PATCH))
    patches = windows[:: _PATCH // 4, :: _PATCH // 4].reshape(-1, _PATCH, _PATCH)
    contrasts = patches.max(axis=(1, 2)) - patches.min(axis=(1, 2))
    patches = patches[contrasts >= _LEAST_CONTRAST]
    return patches[np.arange(count) * len(patches) // count]


def _noise() -> _Found:
    random = np.random.default_rng(0)
    source = "uniform random numbers"
    train, test = (
        _split(
            random.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            random.integers(0, 10, count),
            source,
        )
        for count in _NOISE_IMAGES
    )
    return _Found("noise", source, train, test, _DIGITS)


_BUNDLED = {"digits": _digits, "patches": _patches, "noise": _noise}


# --- folders of pictures ---


def _read_folder(folder: Path) -> _Found:
    train_folder = folder / "train" if (folder / "train").is_dir() else folder
    held_out = [folder / name for name in ("test", "val") if (folder / name).is_dir()]
    own_split = train_folder != folder and bool(held_out)
    train_files = _picture_files(train_folder)
    test_files = _picture_files(held_out[0]) if own_split else []
    if not train_files or len(train_files) + len(test_files) < 2 or (own_split and not test_files):
        raise ValueError(
            f"{folder}: expected at least two pictures, as train/<class>/* with test/<class>/* or "
            f"val/<class>/*, or as <class>/*, found {len(train_files)} to train and "
            f"{len(test_files)} to test (endings {' '.join(sorted(_PICTURE_SUFFIXES))})"
        )
    files = [*train_files, *test_files]
    classes = tuple(sorted({name for _, name in files}))
    images = _read_pictures([file for file, _ in files])
    labels = np.array([classes.index(name) for _, name in files])
    source, first = str(folder), len(train_files)
    if own_split:
        train = _split(images[:first], labels[:first], source)
        test = _split(images[first:], labels[first:], source)
    else:
        count = max(1, len(files) // _FOLDER_TEST_SHARE)
        train, test = _held_out(images, labels, count, source)
    return _Found(folder.resolve().name, source, train, test, classes)


def _picture_files(folder: Path) -> list[tuple[Path, str]]:
    """Each picture below a class's folder, with the name of the class; hidden files are none."""
    found = []
    for place, _, names in os.walk(folder, followlinks=True):
        parts = Path(place).relative_to(folder).parts
        if parts and not any(part.startswith(".") for part in parts):
            files = [Path(place, name) for name in names if not name.startswith(".")]
            pictures = [file for file in files if file.suffix.lower() in _PICTURE_SUFFIXES]
            found += [(file, parts[0]) for file in pictures]
    return sorted(found)


def _read_pictures(files: list[Path]) -> Pixels:
    """All pictures as one (N, side, side, channels); grey only if all of them are."""
    from PIL import Image, ImageOps

    shorter_sides, modes = [], set()
    for file in files:
        with _opened(file) as picture:
            shorter_sides.append(min(picture.size))
            modes.add(picture.mode)
    side = min(_LARGEST_SIDE, median_low(shorter_sides))
    mode = "L" if modes <= {"1", "L", "LA"} else "RGB"
    squares = []
    for file in files:
        with _opened(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert(mode)
            square = ImageOps.fit(upright, (side, side), method=Image.Resampling.BICUBIC)
            squares.append(np.asarray(square, dtype=np.uint8))
    return np.stack(squares)


@contextmanager
def _opened(file: Path) -> Iterator["Image"]:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits a channel, mode {picture.mode}")
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} is no readable 8-bit picture ({_reason(error)}); replace or remove it"
        ) from error
