"""Data sets that libraries bring: torchvision downloads three; three more need no network.

These are scikit-learn's digits, patches of scikit-image's photographs, and NumPy's noise.
"""

import http.client
import os
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paperlib.core import paths
from paperlib.datasets import idx
from paperlib.datasets.readers import (
    UNREADABLE,
    Found,
    Pixels,
    checked_split,
    hold_out,
    reason,
    same_shape,
)

DOWNLOAD_FAILURES = (*UNREADABLE, http.client.HTTPException, tarfile.TarError)
_TIMEOUT = 30.0  # seconds that a silent server is waited for

# Only pictures that ship in scikit-image's wheel, and as PNG: decoders of JPEG differ.
_PHOTOGRAPHS = "astronaut,brick,camera,chelsea,coffee,coins,grass,gravel,immunohistochemistry,moon"
_PATCH = 32
_LEAST_CONTRAST = 16  # grey levels between a patch's brightest and darkest pixel
_PATCHES_PER_PICTURE = (400, 80)  # train, test
_DIGITS = Path("datasets", "data", "digits.csv.gz")  # in scikit-learn's folder
_DIGITS_TEST = 300
_NOISE_IMAGES = (10_000, 2_000)  # train, test


# --- torchvision's layout and downloads, and idx files elsewhere ---


class Layout(NamedTuple):
    """How torchvision keeps a data set."""

    class_name: str
    folder: str
    files: tuple[str, ...]

    def is_in(self, folder: Path) -> bool:
        """Return whether all of its files are in a folder, idx files packed or not."""
        if self.files == idx.FILES:
            return all(idx.packed_or_not(folder, file) for file in self.files)
        return all((folder / file).is_file() for file in self.files)


_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
TORCHVISION = {
    "mnist": Layout("MNIST", "MNIST/raw", idx.FILES),
    "fashion_mnist": Layout("FashionMNIST", "FashionMNIST/raw", idx.FILES),
    "cifar10": Layout("CIFAR10", "cifar-10-batches-py", _BATCHES),
}


def folders(name: str, root: Path) -> dict[Path, str]:
    """Return where the files of `name` may lie, in the order of the search.

    Args:
        name: of a data set that torchvision downloads.
        root: the folder of data sets.

    Returns:
        "torchvision" for its own folder, "idx" for others.
    """
    layout, dashed = TORCHVISION[name], name.replace("_", "-")
    own = {root / layout.folder: "torchvision"}
    if layout.files != idx.FILES:
        return own
    beside = dict.fromkeys((root / name, root / dashed), "idx")
    return beside | own | {paths.SYSTEM_DATA / dashed: "idx"}


def read_torchvision(folder: Path, name: str) -> Found:
    """Return the data set called `name` from its folder of torchvision's layout.

    Raises:
        ValueError: its files are damaged.
    """
    try:
        if TORCHVISION[name].files == idx.FILES:
            return idx.read_idx(folder, name)
        return _torchvision(name, folder.parent, str(folder), download=False)
    except UNREADABLE as error:
        raise ValueError(
            f"{folder} is damaged ({reason(error)}); delete it to have {name} downloaded again"
        ) from error


def download(name: str, root: Path) -> Found:
    """Return the data set called `name`, fetched by torchvision into its layout in `root`.

    It is fetched beside its place, so that what breaks off leaves nothing under final names.

    Raises:
        DOWNLOAD_FAILURES: whatever went wrong.
    """
    layout = TORCHVISION[name]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as staging:
        with time_limit(), inside_only():
            source = f"torchvision's download of {name}"
            found = _torchvision(name, Path(staging), source, download=True)
        (root / layout.folder).mkdir(parents=True, exist_ok=True)
        for file in layout.files:
            os.replace(Path(staging, layout.folder, file), root / layout.folder / file)
    return found


def _torchvision(name: str, root: Path, source: str, *, download: bool) -> Found:
    from paperlib.core.vision import torchvision

    maker = getattr(torchvision.datasets, TORCHVISION[name].class_name)
    parts = [maker(str(root), train=train, download=download) for train in (True, False)]
    train, test = (checked_split(part.data, part.targets, source) for part in parts)
    return same_shape(Found(name, source, train, test))


@contextmanager
def time_limit(seconds: float = _TIMEOUT) -> Iterator[None]:
    """torchvision opens its connections without a limit and would wait for a silent server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def inside_only() -> Iterator[None]:
    """What torchvision unpacks stays in its folder, on Pythons before 3.14 too: no member of an
    archive is a link or a path that leads out, or a device."""
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


# --- bundled ---


def digits() -> Found:
    """scikit-learn's 8×8 handwritten digits, scaled to 28×28."""
    package: Any = find_spec("sklearn")  # to import it takes a second; its file, 50 milliseconds
    table = np.loadtxt(Path(package.origin).parent / _DIGITS, delimiter=",", dtype=np.int64)
    small, labels = table[:, :-1], table[:, -1]
    # Bilinear weights in fourteenths, and whole numbers throughout: no machine rounds differently.
    position = np.clip(4 * np.arange(28) - 5, 0, 98)
    weights = np.maximum(0, 14 - np.abs(position[:, np.newaxis] - 14 * np.arange(8)))
    large = weights @ small.reshape(-1, 8, 8) @ weights.T
    full = 16 * 14**2
    images = ((255 * large + full // 2) // full).astype(np.uint8)
    source = "scikit-learn's digits"
    train, test = hold_out(checked_split(images, labels, source), _DIGITS_TEST)
    return Found("digits", source, train, test)


def patches() -> Found:
    """Grey 32×32 patches of scikit-image's photographs, each labelled with its picture.

    Train patches come from the left three quarters of each picture, test patches from the rest.
    """
    import skimage.data

    names = tuple(_PHOTOGRAPHS.split(","))
    pictures = [_grey(getattr(skimage.data, name)()) for name in names]
    source = "scikit-image's photographs"
    borders = [3 * picture.shape[1] // 4 for picture in pictures]
    left = [picture[:, :border] for picture, border in zip(pictures, borders, strict=True)]
    right = [picture[:, border:] for picture, border in zip(pictures, borders, strict=True)]
    train, test = (
        checked_split(
            np.concatenate([_cut(region, count) for region in regions]),
            np.repeat(np.arange(len(regions)), count),
            source,
        )
        for regions, count in zip((left, right), _PATCHES_PER_PICTURE, strict=True)
    )
    return Found("patches", source, train, test, names)


def noise() -> Found:
    """28×28 images of independent uniform pixels, and labels that say nothing about them."""
    random = np.random.default_rng(0)
    source = "uniform random numbers"
    train, test = (
        checked_split(
            random.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            random.integers(0, 10, count),
            source,
        )
        for count in _NOISE_IMAGES
    )
    return Found("noise", source, train, test)


def _grey(picture: Pixels) -> Pixels:
    if picture.ndim == 2:
        return picture
    luma = picture.astype(np.int64) @ np.array([299, 587, 114])
    return ((luma + 500) // 1000).astype(np.uint8)


def _cut(region: Pixels, count: int) -> Pixels:
    """`count` patches, evenly chosen among those on a grid that show something."""
    windows: Pixels = np.lib.stride_tricks.sliding_window_view(region, (_PATCH, _PATCH))
    patches = windows[:: _PATCH // 4, :: _PATCH // 4].reshape(-1, _PATCH, _PATCH)
    contrasts = patches.max(axis=(1, 2)) - patches.min(axis=(1, 2))
    patches = patches[contrasts >= _LEAST_CONTRAST]
    return patches[np.arange(count) * len(patches) // count]


BUNDLED = {"digits": digits, "patches": patches, "noise": noise}
