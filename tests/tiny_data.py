"""Small data sets in the layouts that are read, and what tests ask about them."""

import gzip
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperlib.datasets import Dataset

Arrays = dict[str, np.ndarray]


def keras(
    shape: tuple[int, ...] = (6, 5), *, train: int = 30, test: int = 12, seed: int = 0
) -> Arrays:
    """Random images and labels of four classes, in the Keras layout."""
    random = np.random.default_rng(seed)
    return {
        "x_train": random.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train, dtype=np.uint8) % 4,
        "x_test": random.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test, dtype=np.uint8) % 4,
    }


def save(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def reordered(arrays: Arrays) -> Arrays:
    """The same images in another file order."""
    random = np.random.default_rng(99)
    result = {}
    for split in ("train", "test"):
        order = random.permutation(len(arrays[f"y_{split}"]))
        result[f"x_{split}"] = arrays[f"x_{split}"][order]
        result[f"y_{split}"] = arrays[f"y_{split}"][order]
    return result


def pairs(images: Any, labels: Any) -> list[tuple[bytes, int]]:
    """Images with their labels as an unordered collection."""
    rows = zip(np.asarray(images), np.asarray(labels), strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in rows)


def same(first: Dataset, second: Dataset) -> bool:
    tensors = ("train_images", "train_labels", "test_images", "test_labels")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)


def idx(array: np.ndarray) -> bytes:
    """The array in the format of the MNIST files."""
    header = bytes([0, 0, 8, array.ndim])
    return header + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


def idx_files(arrays: Arrays) -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte": idx(arrays["x_train"]),
        "train-labels-idx1-ubyte": idx(arrays["y_train"]),
        "t10k-images-idx3-ubyte": idx(arrays["x_test"]),
        "t10k-labels-idx1-ubyte": idx(arrays["y_test"]),
    }


def lay_out(folder: Path, arrays: Arrays, *, packed: bool = False) -> None:
    folder.mkdir(parents=True)
    for name, content in idx_files(arrays).items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def refuse_requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request fails as on a machine without a network; the list holds what was asked for."""
    asked: list[str] = []

    def refuse(request: Any, *args: Any, **kwargs: Any) -> None:
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked
