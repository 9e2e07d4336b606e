"""What libraries bring: the bundled data sets, torchvision's layout, its downloads."""

import gzip
import pickle
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny_data import Arrays, idx_files, keras, lay_out, same, save

from paperlib.core import paths
from paperlib.datasets import (
    OFFLINE_NAMES,
    UNRECOGNISED,
    DownloadError,
    availability,
    libraries,
    load_dataset,
    load_with_fallback,
)

# --- torchvision's layout ---


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")]
)
def test_torchvisions_layout_is_read_without_a_download(
    name: str, folder: str, tmp_path: Path, no_network: list[str]
) -> None:
    lay_out(tmp_path / folder, keras())
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        data = load_dataset(name, root=tmp_path)
    assert same(data, load_dataset(save(tmp_path / "same.npz", keras())))
    assert data.source.startswith(str(tmp_path / folder))
    assert no_network == []


def test_torchvisions_cifar10_is_read_in_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paperlib.core.vision import torchvision

    maker = torchvision.datasets.CIFAR10
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(maker, name, [(file, None) for file, _ in getattr(maker, name)])
    monkeypatch.setattr(maker, "meta", {**maker.meta, "md5": None})
    arrays = keras((32, 32, 3), train=10, test=4)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batches = {f"data_batch_{1 + n}": ("train", slice(2 * n, 2 * n + 2)) for n in range(5)}
    for file, (split, part) in {**batches, "test_batch": ("test", slice(None))}.items():
        planes = arrays[f"x_{split}"][part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        batch = {"data": planes, "labels": arrays[f"y_{split}"][part].tolist()}
        (folder / file).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"] * 10}))
    assert availability("cifar10", tmp_path) == "torchvision"
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        data = load_dataset("cifar10", root=tmp_path)
    assert data.image_shape == (3, 32, 32)
    assert same(data, load_dataset(save(tmp_path / "same.npz", arrays)))


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_a_damaged_layout_is_refused_and_never_falls_back(
    keep: int, tmp_path: Path, no_network: list[str]
) -> None:
    lay_out(tmp_path / "MNIST/raw", keras())
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    for load in (load_dataset, load_with_fallback):
        with pytest.raises(ValueError, match=r"MNIST/raw is damaged .*delete it"):
            load("mnist", root=tmp_path)
    assert no_network == []


def test_a_damaged_cifar10_batch_is_refused_unread(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in libraries.TORCHVISION["cifar10"].files:
        (folder / name).write_bytes(b"not what its checksum says")
    with pytest.raises(ValueError, match="cifar-10-batches-py is damaged"):
        load_dataset("cifar10", root=tmp_path)


# --- downloads ---


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_failed_download_says_what_was_tried_and_what_to_do(
    name: str, tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.raises(DownloadError, match=r"download failed .*service not known") as caught:
        load_dataset(name, root=tmp_path / "data")
    message = str(caught.value)
    root, layout = tmp_path / "data", libraries.TORCHVISION[name]
    assert str(root / f"{name}.npz") in message
    assert str(root / layout.folder) in message
    assert all(file in message for file in layout.files)
    in_idx_files = (f"{root / name} or ", str(paths.SYSTEM_DATA), "packed (.gz) or not")
    assert all((place in message) == (name != "cifar10") for place in in_idx_files)
    by_debian = "apt-get install dataset-fashion-mnist"
    assert (by_debian in message) == (name == "fashion_mnist")
    assert all(offline in message for offline in OFFLINE_NAMES)
    assert "\n" not in message
    assert isinstance(caught.value, FileNotFoundError)
    assert no_network
    assert list((tmp_path / "data").rglob("*")) == []


def serve(
    monkeypatch: pytest.MonkeyPatch, arrays: Arrays, *, break_off: BaseException | None = None
) -> None:
    """torchvision's fetch-and-unpack step, served from memory; it can break off half-way."""
    from paperlib.core.vision import torchvision

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        name = filename.removesuffix(".gz")
        content = idx_files(arrays)[name]
        Path(download_root, filename).write_bytes(gzip.compress(content))
        if break_off and name.startswith("t10k-images"):
            Path(download_root, name).write_bytes(content[:50])
            raise break_off
        Path(download_root, name).write_bytes(content)

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fetch)


def files_below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_download_is_kept_in_torchvisions_layout_and_used_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    root = tmp_path / "new" / "data"
    with monkeypatch.context() as served:
        serve(served, keras())
        with pytest.warns(UserWarning, match=UNRECOGNISED):
            first = load_dataset("mnist", root=root)
    assert files_below(root) == {f"MNIST/raw/{name}" for name in idx_files(keras())}
    assert not list(root.glob(".download-*"))
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        again = load_dataset("mnist", root=root)
    assert same(first, again)
    assert no_network == []
    assert same(first, load_dataset(save(tmp_path / "same.npz", keras())))


@pytest.mark.parametrize(
    ("break_off", "raised"),
    [
        (urllib.error.URLError("reset"), DownloadError),
        (TimeoutError("timed out"), DownloadError),
        (EOFError("Compressed file ended before the end-of-stream marker"), DownloadError),
        (OSError(28, "No space left on device"), DownloadError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_download_that_breaks_off_leaves_nothing_behind(
    break_off: BaseException,
    raised: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch, keras(), break_off=break_off)
    with pytest.raises(raised):
        load_dataset("mnist", root=tmp_path)
    assert list(tmp_path.rglob("*")) == []
    assert availability("mnist", tmp_path) == "absent"


def test_a_download_completes_what_an_earlier_one_left_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"half")
    serve(monkeypatch, keras())
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        load_dataset("mnist", root=tmp_path)
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == idx_files(keras())


def test_a_root_that_cannot_hold_a_download_is_a_failed_download(
    tmp_path: Path, no_network: list[str]
) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(DownloadError, match="download failed"):
        load_dataset("mnist", root=tmp_path / "taken")


def test_a_silent_server_is_waited_for_in_the_download_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*args: Any, **kwargs: Any) -> None:
        seen.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no")

    monkeypatch.setattr(urllib.request, "urlopen", look)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.0)
    try:
        with pytest.raises(DownloadError):
            load_dataset("fashion_mnist", root=tmp_path)
        after = socket.getdefaulttimeout()
    finally:
        socket.setdefaulttimeout(before)
    assert after == 7.0
    assert set(seen) == {libraries._TIMEOUT}


@pytest.mark.network
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_published_data_are_really_downloaded_and_recognised(name: str, tmp_path: Path) -> None:
    data = load_dataset(name, root=tmp_path)
    assert (data.name, data.image_shape) == (name, (1, 28, 28))
    assert (len(data.train_labels), len(data.test_labels)) == (60_000, 10_000)
    assert UNRECOGNISED not in data.source
    assert availability(name, tmp_path) == "torchvision"


# --- bundled ---


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [
        ("digits", 1497, 300, (1, 28, 28)),
        ("patches", 4000, 800, (1, 32, 32)),
        ("noise", 10_000, 2_000, (1, 28, 28)),
    ],
)
def test_a_bundled_data_set_has_the_promised_tensors(
    name: str, train: int, test: int, shape: tuple[int, int, int]
) -> None:
    data = load_dataset(name)
    assert (data.name, data.image_shape, len(data.classes)) == (name, shape, 10)
    assert data.train_images.shape == (train, *shape)
    assert data.test_images.shape == (test, *shape)
    assert data.train_labels.shape == (train,)
    assert data.test_labels.shape == (test,)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64
    assert set(data.train_labels.tolist()) == set(data.test_labels.tolist()) == set(range(10))
    assert all(isinstance(label, str) for label in data.classes)


def test_bundled_data_sets_need_neither_network_nor_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "nowhere"))
    monkeypatch.delenv(paths.DATA_VARIABLE, raising=False)
    assert [load_dataset(name, limit=1).name for name in OFFLINE_NAMES] == list(OFFLINE_NAMES)


def test_digits_are_scikit_learns_scaled_bilinearly() -> None:
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(small).reshape(-1, 1, 8, 8), size=(28, 28), mode="bilinear"
    )
    oracle = (large * 255 / 16).flatten(1)
    data = load_dataset("digits")
    images = torch.cat([data.train_images, data.test_images]).flatten(1).double()
    ours = torch.cat([data.train_labels, data.test_labels])
    nearest = torch.cdist(images, oracle).argmin(1)
    assert sorted(nearest.tolist()) == list(range(1797))
    assert (images - oracle[nearest]).abs().max() <= 0.5 + 1e-9
    assert torch.equal(ours, torch.from_numpy(labels)[nearest])


def test_patches_are_cut_from_their_picture_train_left_and_test_right() -> None:
    import skimage.data

    data = load_dataset("patches")
    camera = data.classes.index("camera")
    picture = skimage.data.camera()
    corners = np.lib.stride_tricks.sliding_window_view(picture, (1, 8))[:481, :481, 0]
    for images, labels, columns in (
        (data.train_images, data.train_labels, range(0, 384 - 31)),
        (data.test_images, data.test_labels, range(384, 512 - 31)),
    ):
        for patch in images[labels == camera][:40, 0].numpy():
            rows, lefts = np.nonzero((corners == patch[0, :8]).all(-1))
            places = [
                left
                for row, left in zip(rows, lefts, strict=True)
                if np.array_equal(picture[row : row + 32, left : left + 32], patch)
            ]
            assert places
            assert all(left in columns for left in places)


def test_every_patch_shows_something_and_every_picture_gives_as_many() -> None:
    data = load_dataset("patches")
    for images in (data.train_images, data.test_images):
        flat = images.flatten(1).int()
        assert (flat.amax(1) - flat.amin(1)).min() >= 16
    assert torch.bincount(data.train_labels).tolist() == [400] * 10
    assert torch.bincount(data.test_labels).tolist() == [80] * 10


def test_noise_is_uniform_and_its_labels_say_nothing() -> None:
    data = load_dataset("noise")
    levels = torch.bincount(data.train_images.flatten().int(), minlength=256).numpy()
    assert chisquare(levels).pvalue > 1e-4
    assert chisquare(torch.bincount(data.train_labels).numpy()).pvalue > 1e-4
    images = data.train_images.double().flatten(1)
    means = torch.stack([images[data.train_labels == label].mean() for label in range(10)])
    # About 1,000 images of 784 pixels with standard deviation 74 a label.
    assert (means - 127.5).abs().max() < 5 * 74 / np.sqrt(784 * 900)
