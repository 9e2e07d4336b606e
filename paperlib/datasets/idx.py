"""The four idx files that MNIST and data sets made after it are published as, packed or not."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paperlib.datasets.readers import Found, Split, checked_split, reason, same_shape

_DIMENSIONS = {"images-idx3": 3, "labels-idx1": 1}
FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in _DIMENSIONS)
_UNSIGNED_BYTES = 8  # the third byte of such a file; the fourth is the number of dimensions
# What a header may promise. The 60,000 published images are 47 million bytes; a packed file of
# some kilobytes could hold a thousand times as much.
_MOST, _MOST_BYTES = 2**20, 2**28
_DAMAGED = "it may be damaged or half copied: replace it"


def packed_or_not(folder: Path, file: str) -> Path | None:
    """Return the file of that name in a folder, else the packed one, else None."""
    found = (folder / name for name in (file, f"{file}.gz"))
    return next((path for path in found if path.is_file()), None)


def read_idx(folder: Path, name: str) -> Found:
    """Return the data set called `name` in the four idx files of a folder.

    A file is only read, and no further than its own header says: 2**20 images or 2**28 bytes at
    most.

    Raises:
        ValueError: a file is missing or damaged, or does not fit the others.
    """
    train, test = (_split(folder, split) for split in ("train", "t10k"))
    return same_shape(Found(name, str(folder), train, test))


def _split(folder: Path, split: str) -> Split:
    names = [f"{split}-{kind}-ubyte" for kind in _DIMENSIONS]
    files = [packed_or_not(folder, name) or folder / name for name in names]
    images, labels = map(_array, files, _DIMENSIONS.values())
    return checked_split(images, labels, " and ".join(map(str, files)))


def _array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in one file, (N, height, width) or (N,)."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _shape(file.read(4 + 4 * dimensions), dimensions, path)
            size = math.prod(shape)
            content = file.read(size + 1)  # one more shows that there is more
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no readable idx file ({reason(error)}); {_DAMAGED}") from error
    if len(content) != size:
        came = "more" if len(content) > size else f"{len(content):,}"
        raise ValueError(
            f"{path}: expected {size:,} bytes after its header, which says {shape}, "
            f"got {came}; {_DAMAGED}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(header: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    magic = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if header[:4] != magic or len(header) < 4 + 4 * dimensions:
        raise ValueError(
            f"{path}: expected an idx file of unsigned bytes in {dimensions} dimensions, with a "
            f"header of {4 + 4 * dimensions} bytes that begins with {magic.hex(' ')}, "
            f"got {len(header)} bytes: {header.hex(' ') or 'nothing'}; {_DAMAGED}"
        )
    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    if shape[0] > _MOST or math.prod(shape) > _MOST_BYTES:
        raise ValueError(
            f"{path}: expected at most {_MOST:,} images or labels and {_MOST_BYTES:,} bytes, "
            f"got a header that promises {shape}, {math.prod(shape):,} bytes; {_DAMAGED}"
        )
    return shape
