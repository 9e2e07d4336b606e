"""Labelled images in memory: by name, from a Keras-layout .npz, or from a folder of pictures."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from paperlib.core import paths
from paperlib.core.checks import checked, device_of, path_of
from paperlib.datasets import idx, libraries
from paperlib.datasets.places import (
    FALLBACKS,
    OFFLINE_NAMES,
    availability,
    located,
    npz_file,
    own_path,
)
from paperlib.datasets.readers import Found, Split, in_byte_order, read_folder, read_npz, reason

PICTURE = ("channel", "row", "column")  # the dims of a picture in a result

# Checksum -> what these images really are, whatever their file is called.
KNOWN: dict[str, str] = {
    "5ebb882eb66bd488450e415eb6e7f4defbaeceb59bc530b9962b704a18720eac": "mnist",
    "7af4744b0f6cf828fe10f25f54d40c0151ba5691e1a6e5b39f146c2d3e6adb40": "cifar10_grey_jpeg",
    "fb14c5f6fcaa20faf0379fbccb910e3a6a528c6ea9b706e59285249fabcf1e7d": "fashion_mnist",
}

# Part of `Dataset.source` where a file's contents are not what its name promises.
UNRECOGNISED = "unrecognised contents"

_PUBLISHED = {  # train images, test images, shape of one image
    "mnist": (60_000, 10_000, (1, 28, 28)),
    "fashion_mnist": (60_000, 10_000, (1, 28, 28)),
    "cifar10": (50_000, 10_000, (3, 32, 32)),
}

# Where one can have it without torchvision's download.
_PACKAGED = {"fashion_mnist": "Debian and Ubuntu have it, apt-get install dataset-fashion-mnist; "}

_CLOTHES = "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
_OBJECTS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
_CLASSES = {  # where they have names, not only numbers
    "fashion_mnist": tuple(_CLOTHES.split(",")),
    "cifar10": tuple(_OBJECTS.split(",")),
    "cifar10_grey_jpeg": tuple(_OBJECTS.split(",")),
}

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601


class DownloadError(FileNotFoundError):
    """A data set is not on this machine, and fetching it failed."""


_unreachable: set[tuple[str, str]] = set()  # names and folders whose download failed here


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels in a random order, so that any leading slice is a fair sample.

    Example:
        >>> from paperlib import load_dataset
        >>> data = load_dataset("digits", limit=100)
        >>> data.name, data.image_shape, len(data.classes)
        ('digits', (1, 28, 28), 10)
        >>> tuple(data.floats("test", flat=True).shape)
        (100, 784)

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
        limit: int | None = None,
        grey: bool = True,
        flat: bool = False,
        device: str | torch.device = "cpu",
    ) -> torch.Tensor:
        """Return a split's images as float32 in [0, 1], (N, channels, height, width) or flat.

        Args:
            split: "train" or "test".
            limit: the first so many at most.
            grey: turn colour into one channel (luma of ITU-R BT.601); grey images stay as they are.
            flat: return (N, pixels) instead.
            device: where the result lies.

        Raises:
            ValueError: there is no such split.
        """
        checked("split", split, str, choices=("train", "test"))
        grey, flat = checked("grey", grey, bool), checked("flat", flat, bool)
        device = device_of("device", device)
        images = self.train_images if split == "train" else self.test_images
        if limit is not None:
            images = images[: checked("limit", limit, int, low=1)]
        floats = images.to(device=device, dtype=torch.float32) / 255
        if grey and floats.shape[1] == 3:
            weights = torch.tensor(_GREY_WEIGHTS, dtype=torch.float32, device=device)
            floats = (floats * weights.view(3, 1, 1)).sum(1, keepdim=True)
        return floats.flatten(1) if flat else floats

    def labels(self, split: str) -> torch.Tensor:
        """Return the labels (N,) of one split, "train" or "test"; a ValueError for others."""
        checked("split", split, str, choices=("train", "test"))
        return self.train_labels if split == "train" else self.test_labels

    def examples(
        self,
        split: str,
        limit: int | None = None,
        *,
        grey: bool = True,
        device: str | torch.device = "cpu",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images of a split, see `floats`, and their labels (N,), the first `limit`.

        Example:
            >>> from paperlib import load_dataset
            >>> images, labels = load_dataset("digits").examples("train", 100)
            >>> tuple(images.shape), tuple(labels.shape)
            ((100, 1, 28, 28), (100,))
        """
        images = self.floats(split, limit=limit, grey=grey, device=device)
        return images, self.labels(split)[: len(images)].to(device_of("device", device))

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.image_shape)
        return (
            f"Dataset({self.name}: {len(self.train_images)} train + {len(self.test_images)} test "
            f"images of {shape}, {len(self.classes)} classes, "
            f"sha256 {self.checksum[:12]}…, from {self.source})"
        )


def load_dataset(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set into memory, downloaded first where that is needed and possible.

    Example:
        >>> from paperlib import load_dataset
        >>> data = load_dataset("digits", limit=100)
        >>> tuple(data.train_images.shape)
        (100, 1, 28, 28)

    Args:
        name: one of `NAMES`, or a path: to an .npz in the Keras layout (arrays x_train y_train
            x_test y_test, uint8, channels last), or to a folder of pictures
            (train/<class>/* with test/<class>/* or val/<class>/*; without that split, one picture
            in five of <class>/* is kept for testing). Pictures are scaled and centre-cropped to
            one square, as wide as the median picture's shorter side, at most 224 pixels.
        root: where names are looked up: <root>/<name>.npz; for mnist and fashion_mnist the four
            idx files, packed (.gz) or not, in <root>/<name> (also with dashes); torchvision's own
            layout; the idx files that a package of Debian's put under /usr/share/datasets; then
            torchvision's download into its layout. Default: $PAPERLIB_DATA, else `data/`.
        limit: keep at most this many images of each split; a larger limit extends a smaller one.
        seed: of the order of the images, hence of the choice that `limit` makes.

    Raises:
        ValueError: unknown name, limit < 1, seed < 0, or a file that is damaged or has another
            layout.
        FileNotFoundError: no such path; DownloadError, if a download failed.
    """
    seed = checked("seed", seed, int, low=0)
    if limit is not None:
        limit = checked("limit", limit, int, low=1)
    if root is not None:
        root = path_of("root", root)
    return _dataset(_find(name, root), limit=limit, seed=seed)


def load_with_fallback(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set, or the nearest one at hand where `name` cannot be downloaded.

    fashion_mnist -> mnist -> digits; cifar10 -> patches; a warning says so, and the result's
    `.name` is that of the data really loaded. Damaged files and the user's own paths never fall
    back. A download that failed is not tried again in this process. Args and Raises: as
    `load_dataset`.

    Example:
        >>> from paperlib.datasets import load_with_fallback
        >>> load_with_fallback("digits", limit=10).name  # bundled: it never needs a download
        'digits'
    """
    wanted = (str(name), str(paths.data_root(root)))
    if wanted not in _unreachable or availability(wanted[0], root) != "absent":
        try:
            return load_dataset(name, root=root, limit=limit, seed=seed)
        except DownloadError as error:
            _unreachable.add(wanted)
            warnings.warn(
                f"NOT {name} BUT {FALLBACKS[wanted[0]]} IS USED, and the results carry its name: "
                f"{error}",
                UserWarning,
                stacklevel=2,
            )
    return load_with_fallback(FALLBACKS[wanted[0]], root=root, limit=limit, seed=seed)


# --- from what was read to a Dataset ---


def _dataset(found: Found, *, limit: int | None, seed: int) -> Dataset:
    train, test = in_byte_order(found.train), in_byte_order(found.test)
    checksum = _checksum(train, test)
    name, recognised = _identify(found, checksum)
    return Dataset(
        *_shuffled(train, limit=limit, seed=(seed, 0)),
        *_shuffled(test, limit=limit, seed=(seed, 1)),
        name=name,
        source=found.source if recognised else f"{found.source} ({UNRECOGNISED})",
        checksum=checksum,
        classes=found.classes or _class_names(name if recognised else None, train, test),
    )


def _checksum(train: Split, test: Split) -> str:
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(repr(images.shape).encode())
        digest.update(images.data)
        digest.update(labels.astype("<i8").data)
    return digest.hexdigest()


def _shuffled(
    split: Split, *, limit: int | None, seed: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    order = np.random.default_rng(seed).permutation(len(split.labels))[:limit]
    images, labels = split.part(order)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _identify(found: Found, checksum: str) -> tuple[str, bool]:
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


def _class_names(name: str | None, train: Split, test: Split) -> tuple[str, ...]:
    count = 1 + int(max(train.labels.max(), test.labels.max()))
    names = _CLASSES.get(name or "", ())
    return names if count <= len(names) else tuple(str(number) for number in range(count))


# --- where things are found ---

_READERS = {"npz": read_npz, "idx": idx.read_idx, "torchvision": libraries.read_torchvision}


def _find(name: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> Found:
    path = own_path(name)
    if path is None:
        return _find_named(str(name), root)
    return read_folder(path) if path.is_dir() else read_npz(path, path.stem)


def _find_named(name: str, root: str | os.PathLike[str] | None) -> Found:
    if name in libraries.BUNDLED:
        return libraries.BUNDLED[name]()
    folder = paths.data_root(root)
    where, place = located(name, folder)
    if place is not None:
        return _READERS[where](place, name)
    try:
        return libraries.download(name, folder)
    except libraries.DOWNLOAD_FAILURES as error:
        raise _not_here(name, folder, error) from error


def _not_here(name: str, folder: Path, error: BaseException) -> DownloadError:
    places, files = libraries.folders(name, folder), libraries.TORCHVISION[name].files
    packed = ", packed (.gz) or not," if files == idx.FILES else ""
    return DownloadError(
        f"{name} is not on this machine, and its download failed ({reason(error)}); put it at "
        f"{npz_file(name, folder)} (arrays x_train y_train x_test y_test), or the files "
        f"{' '.join(files)}{packed} into {' or '.join(map(str, places))}; "
        f"{_PACKAGED.get(name, '')}or use what needs no network: {', '.join(OFFLINE_NAMES)}"
    )
