"""Data sets: what is loaded, in which order, under which name, and what is refused."""

import gzip
import pickle
import socket
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from paperlib import datasets, paths
from paperlib.datasets import (
    NAMES,
    OFFLINE_NAMES,
    UNRECOGNISED,
    Dataset,
    DownloadError,
    availability,
    load_dataset,
    load_with_fallback,
)

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


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save(tmp_path / "small.npz", keras())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request fails as on a machine without a network; the list holds what was asked for."""
    asked: list[str] = []

    def refuse(request: Any, *args: Any, **kwargs: Any) -> None:
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


# --- the Dataset ---


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


def test_a_data_set_cannot_be_reassigned(small: Path) -> None:
    data = load_dataset(small)
    with pytest.raises(FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


def test_its_representation_is_one_short_line(small: Path) -> None:
    text = repr(load_dataset(small))
    assert "small" in text
    assert "30 train + 12 test images of 1×6×5" in text
    assert "\n" not in text


def test_floats_are_the_pixels_over_255(small: Path) -> None:
    data = load_dataset(small)
    before = data.train_images.clone()
    floats = data.floats("train")
    assert floats.dtype == torch.float32
    np.testing.assert_allclose(floats.numpy(), before.numpy().astype(np.float64) / 255, rtol=1e-6)
    floats.zero_()
    assert torch.equal(data.train_images, before)


def test_floats_of_the_test_split_are_the_test_images(small: Path) -> None:
    data = load_dataset(small)
    assert torch.equal(data.floats("test", flat=True), data.test_images.flatten(1) / 255)


def test_grey_floats_have_the_luma_of_pillow(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "colour.npz", keras((8, 8, 3))))
    grey = data.floats("train")
    assert grey.shape == (30, 1, 8, 8)
    colour = data.train_images.permute(0, 2, 3, 1).contiguous().numpy()
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])
    assert np.abs(255 * grey[:, 0].numpy() - pillow).max() < 1.01


def test_grey_floats_weigh_the_channels_as_itu_r_601_does(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "colour.npz", keras((8, 8, 3))))
    red, green, blue = data.test_images.double().unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    torch.testing.assert_close(data.floats("test")[:, 0].double(), luma, rtol=0, atol=1e-6)


def test_white_stays_within_one_in_grey(tmp_path: Path) -> None:
    arrays = keras((4, 4, 3))
    arrays["x_train"][:] = 255
    floats = load_dataset(save(tmp_path / "white.npz", arrays)).floats("train")
    assert floats.max() <= 1
    torch.testing.assert_close(floats, torch.ones_like(floats))


def test_colour_floats_keep_three_channels_and_flatten_all_of_them(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "colour.npz", keras((8, 7, 3))))
    assert data.image_shape == (3, 8, 7)
    assert data.floats("train", grey=False).shape == (30, 3, 8, 7)
    assert data.floats("train", grey=False, flat=True).shape == (30, 3 * 8 * 7)
    assert data.floats("train", flat=True).shape == (30, 8 * 7)


def test_floats_of_an_unknown_split_are_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="'train' or 'test', got 'validation'"):
        load_dataset(small).floats("validation")


# --- order, limit, seed, checksum ---


def test_nothing_is_lost_or_relabelled(tmp_path: Path) -> None:
    arrays = keras()
    data = load_dataset(save(tmp_path / "a.npz", arrays))
    assert pairs(data.train_images, data.train_labels) == pairs(
        arrays["x_train"], arrays["y_train"]
    )
    assert pairs(data.test_images, data.test_labels) == pairs(arrays["x_test"], arrays["y_test"])


def test_another_file_order_gives_the_same_data_set(tmp_path: Path) -> None:
    first = load_dataset(save(tmp_path / "a.npz", keras()), limit=7, seed=3)
    second = load_dataset(save(tmp_path / "b.npz", reordered(keras())), limit=7, seed=3)
    assert first.checksum == second.checksum
    assert same(first, second)


def test_equal_images_with_different_labels_are_ordered_by_label(tmp_path: Path) -> None:
    arrays = keras()
    arrays["x_train"][:] = arrays["x_train"][0]
    arrays["y_train"] = np.arange(30) * 17 % 300  # some need more than one byte
    first = load_dataset(save(tmp_path / "a.npz", arrays))
    second = load_dataset(save(tmp_path / "b.npz", reordered(arrays)))
    assert first.checksum == second.checksum
    assert same(first, second)


def test_the_checksum_depends_on_neither_name_nor_limit_nor_seed(tmp_path: Path) -> None:
    first = load_dataset(save(tmp_path / "a.npz", keras()))
    second = load_dataset(save(tmp_path / "b.npz", keras()), limit=2, seed=5)
    assert first.checksum == second.checksum
    assert len(first.checksum) == 64


def flip_a_bit(arrays: Arrays) -> None:
    arrays["x_test"][0, 0, 0] ^= 1


def change_a_label(arrays: Arrays) -> None:
    arrays["y_train"][0] += 1


def swap_two_labels(arrays: Arrays) -> None:
    arrays["y_train"][[0, 1]] = arrays["y_train"][[1, 0]]


def exchange_the_splits(arrays: Arrays) -> None:
    for name in "xy":
        first, second = f"{name}_train", f"{name}_test"
        arrays[first], arrays[second] = arrays[second], arrays[first]


def transpose_the_shape(arrays: Arrays) -> None:
    for split in ("x_train", "x_test"):
        arrays[split] = arrays[split].reshape(-1, 5, 6)


@pytest.mark.parametrize(
    "change",
    [flip_a_bit, change_a_label, swap_two_labels, exchange_the_splits, transpose_the_shape],
)
def test_the_checksum_sees_every_change_of_contents(
    change: Callable[[Arrays], None], tmp_path: Path
) -> None:
    arrays = keras()
    original = load_dataset(save(tmp_path / "a.npz", arrays)).checksum
    change(arrays)
    assert load_dataset(save(tmp_path / "b.npz", arrays)).checksum != original


def test_the_same_seed_gives_the_same_order_and_another_seed_another(small: Path) -> None:
    first, again, other = (load_dataset(small, seed=seed) for seed in (0, 0, 1))
    assert same(first, again)
    assert not torch.equal(first.train_images, other.train_images)
    assert pairs(first.train_images, first.train_labels) == pairs(
        other.train_images, other.train_labels
    )


def test_a_limit_keeps_the_first_images_of_both_splits(small: Path) -> None:
    whole, part = load_dataset(small), load_dataset(small, limit=10)
    assert torch.equal(part.train_images, whole.train_images[:10])
    assert torch.equal(part.train_labels, whole.train_labels[:10])
    assert torch.equal(part.test_images, whole.test_images[:10])
    assert part.classes == whole.classes


def test_a_limit_beyond_the_size_keeps_everything(small: Path) -> None:
    assert same(load_dataset(small, limit=20), load_dataset(small, limit=20))
    assert len(load_dataset(small, limit=20).test_images) == 12
    assert same(load_dataset(small, limit=10**6), load_dataset(small))


def test_a_leading_slice_is_a_fair_sample_not_the_darkest_images(tmp_path: Path) -> None:
    arrays = keras((2, 2), train=256, test=4)
    arrays["x_train"][:] = np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    data = load_dataset(save(tmp_path / "ramp.npz", arrays), limit=64)
    brightness = data.train_images.double().mean()
    # 64 of 256 grey levels without replacement: standard error 8.
    assert 127.5 - 40 < brightness < 127.5 + 40


# --- what ships with the libraries ---


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


# --- .npz files ---


def test_a_path_gives_its_stem_as_the_name_and_itself_as_the_source(small: Path) -> None:
    data = load_dataset(small)
    assert (data.name, data.source) == ("small", str(small))
    assert same(data, load_dataset(str(small)))


def test_a_relative_path_starts_at_the_callers_folder(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    assert load_dataset("small.npz").name == "small"


def test_channels_last_becomes_channels_first(tmp_path: Path) -> None:
    arrays = keras((4, 5, 3), train=1, test=1)
    data = load_dataset(save(tmp_path / "colour.npz", arrays))
    for row, column, channel in np.ndindex(4, 5, 3):
        expected = arrays["x_train"][0, row, column, channel]
        assert data.train_images[0, channel, row, column] == expected


def test_labels_in_a_column_as_keras_keeps_cifar10_are_taken(tmp_path: Path) -> None:
    arrays = keras()
    flat = load_dataset(save(tmp_path / "a.npz", arrays))
    arrays["y_train"] = arrays["y_train"][:, np.newaxis]
    assert same(flat, load_dataset(save(tmp_path / "b.npz", arrays)))


def test_classes_of_a_file_are_its_numbered_labels(small: Path) -> None:
    assert load_dataset(small).classes == ("0", "1", "2", "3")


def without(name: str) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.pop(name)


def put(name: str, make: Callable[[np.ndarray], Any]) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.update({name: make(arrays[name])})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("y_test"), "expected the arrays x_train, y_train, x_test, y_test, found x_train"),
        (put("x_train", lambda x: x / 255), "must be uint8 .* got float64; scale to 0…255"),
        (put("x_train", lambda x: x.astype(np.int64)), "must be uint8 .* got int64"),
        (put("x_train", lambda x: x.reshape(30, -1)), r"must be \(N, height, width\).*\(30, 30\)"),
        (put("x_train", lambda x: np.stack([x] * 4, -1)), r"1 or 3\).*\(30, 6, 5, 4\)"),
        (put("x_train", lambda x: np.stack([x] * 3, 1)), r"1 or 3\).*\(30, 3, 6, 5\)"),
        (put("x_test", lambda x: x[:0]), r"none of them 0, got \(0, 6, 5, 1\)"),
        (put("x_test", lambda x: x[:, :5]), r"must have one .*\(1, 6, 5\) and \(1, 5, 5\)"),
        (put("y_train", lambda y: y[:-1]), "expected 30 integer labels.*shape \\(29,\\)"),
        (put("y_train", lambda y: y.astype(np.float32)), "integer labels.*got float32"),
        (put("y_train", lambda y: np.eye(4)[y].astype(int)), r"integer labels.*\(30, 4\)"),
        (put("y_train", lambda y: y.astype(np.int64) - 1), "number the classes from 0.*got -1 to"),
        (put("y_train", lambda y: y.astype(np.int64) + 10**9), "from 0.*got 1000000000 to"),
        (put("y_train", lambda y: y.astype(object)), "no readable .npz.*Object arrays"),
    ],
)
def test_an_unusable_npz_is_refused_by_name_with_what_was_found(
    spoil: Callable[[Arrays], Any], message: str, tmp_path: Path
) -> None:
    arrays = keras()
    spoil(arrays)
    path = save(tmp_path / "bad.npz", arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(path)
    assert str(path) in str(caught.value)


def cut_in_half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def flip_the_middle(whole: bytes) -> bytes:
    middle = len(whole) // 3
    return (
        whole[:middle]
        + bytes(255 - byte for byte in whole[middle : middle + 40])
        + whole[middle + 40 :]
    )


@pytest.mark.parametrize(
    "damage",
    [cut_in_half, flip_the_middle, lambda whole: b"", lambda whole: b"<html>not found</html>"],
    ids=["cut", "flipped", "empty", "web page"],
)
def test_a_damaged_npz_is_refused_and_never_replaced(
    damage: Callable[[bytes], bytes], tmp_path: Path, no_network: list[str]
) -> None:
    path = save(tmp_path / "mnist.npz", keras())
    path.write_bytes(damage(path.read_bytes()))
    for load in (load_dataset, load_with_fallback):
        with pytest.raises(ValueError, match=r"no readable \.npz file.*replace it"):
            load("mnist", root=tmp_path)
    assert no_network == []


def test_a_plain_npy_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", keras()["x_train"])
    with pytest.raises(ValueError, match=r"no readable \.npz file"):
        load_dataset(tmp_path / "x.npy")


# --- names ---


@pytest.mark.parametrize("name", ["minst", "MNIST", "FashionMNIST", "cifar-10", "digit"])
def test_an_unknown_name_is_refused_with_all_names_and_the_closest(name: str) -> None:
    closest = {"minst": "mnist", "MNIST": "mnist", "FashionMNIST": "fashion_mnist"}
    closest |= {"cifar-10": "cifar10", "digit": "digits"}
    with pytest.raises(ValueError, match=f"did you mean '{closest[name]}'") as caught:
        load_dataset(name)
    assert all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize("name", ["", 5, None, "imagenet1k-of-nobody"])
def test_what_is_no_name_at_all_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="unknown data set"):
        load_dataset(name)


def test_a_missing_path_is_refused_without_fallback(tmp_path: Path) -> None:
    for load in (load_dataset, load_with_fallback):
        with pytest.raises(FileNotFoundError, match=r"no file or folder .*gone\.npz") as caught:
            load(tmp_path / "gone.npz")
        assert not isinstance(caught.value, DownloadError)


@pytest.mark.parametrize("limit", [0, -1, 1.5, 100.0, "5", True])
def test_a_limit_that_is_no_count_is_refused(limit: Any, small: Path) -> None:
    with pytest.raises(ValueError, match="limit must be a whole number >= 1, got"):
        load_dataset(small, limit=limit)


@pytest.mark.parametrize("seed", [-1, 0.5, None, False])
def test_a_seed_that_is_no_seed_is_refused(seed: Any, small: Path) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number >= 0, got"):
        load_dataset(small, seed=seed)


def test_known_contents_carry_their_true_name_whatever_the_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "mnist.npz", keras())
    checksum = load_dataset(save(tmp_path / "other.npz", keras())).checksum
    monkeypatch.setitem(datasets.KNOWN, checksum, "cifar10_grey_jpeg")
    data = load_dataset("mnist", root=tmp_path)
    assert (data.name, data.source) == ("cifar10_grey_jpeg", str(path))
    assert data.classes[0] == "airplane"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_unrecognised_contents_load_under_their_name_with_a_warning(
    name: str, tmp_path: Path
) -> None:
    path = save(tmp_path / f"{name}.npz", keras())
    for given, root in ((name, tmp_path), (path, None)):
        with pytest.warns(UserWarning, match=f"not the published {name}: {UNRECOGNISED}"):
            data = load_dataset(given, root=root)
        assert data.name == name
        assert data.source == f"{path} ({UNRECOGNISED})"
        assert data.classes == ("0", "1", "2", "3")


def test_a_published_set_without_a_recorded_checksum_is_recognised_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(datasets._PUBLISHED, "fashion_mnist", (30, 12, (1, 6, 5)))
    monkeypatch.setitem(datasets._PUBLISHED, "mnist", (30, 12, (1, 6, 5)))
    save(tmp_path / "fashion_mnist.npz", keras())
    save(tmp_path / "mnist.npz", keras())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset("fashion_mnist", root=tmp_path)
    assert UNRECOGNISED not in data.source
    assert data.classes[-1] == "ankle boot"
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "name", "train", "test"),
    [("mnist", "mnist", 60_000, 10_000), ("cifar10", "cifar10_grey_jpeg", 20_000, 4_000)],
)
def test_the_development_data_are_named_for_what_they_are(
    file: str, name: str, train: int, test: int
) -> None:
    if not (paths.data_root() / f"{file}.npz").is_file():
        pytest.skip(f"no {file}.npz on this machine")
    data = load_dataset(file)
    assert data.name == name
    assert (len(data.train_labels), len(data.test_labels)) == (train, test)
    assert UNRECOGNISED not in data.source


# --- where names are looked up ---


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


def lay_out(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, content in idx_files(arrays).items():
        (folder / name).write_bytes(content)


def test_an_npz_in_the_root_comes_before_torchvisions_layout(tmp_path: Path) -> None:
    lay_out(tmp_path / "MNIST/raw", keras(seed=1))
    assert availability("mnist", tmp_path) == "torchvision"
    path = save(tmp_path / "mnist.npz", keras())
    assert availability("mnist", tmp_path) == "npz"
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        assert load_dataset("mnist", root=tmp_path).source.startswith(str(path))


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
    from paperlib.vision import torchvision

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
    for name in datasets._TORCHVISION["cifar10"].files:
        (folder / name).write_bytes(b"not what its checksum says")
    with pytest.raises(ValueError, match="cifar-10-batches-py is damaged"):
        load_dataset("cifar10", root=tmp_path)


def test_the_root_comes_from_the_environment_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "mnist.npz", keras())
    monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path))
    assert availability("mnist") == "npz"
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        assert len(load_dataset("mnist").train_labels) == 30


@pytest.mark.parametrize("name", OFFLINE_NAMES)
def test_offline_names_are_bundled(name: str, tmp_path: Path) -> None:
    assert availability(name, tmp_path) == "bundled"


def test_half_a_layout_counts_as_absent(tmp_path: Path) -> None:
    lay_out(tmp_path / "MNIST/raw", keras())
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    assert availability("mnist", tmp_path) == "absent"
    assert availability("cifar10", tmp_path / "gone") == "absent"
    assert not (tmp_path / "gone").exists()


def test_the_availability_of_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'mnist'"):
        availability("mnits", tmp_path)


# --- downloads ---


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_failed_download_says_what_was_tried_and_what_to_do(
    name: str, tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.raises(DownloadError, match=r"download failed .*service not known") as caught:
        load_dataset(name, root=tmp_path / "data")
    message = str(caught.value)
    assert str(tmp_path / "data" / f"{name}.npz") in message
    assert all(offline in message for offline in OFFLINE_NAMES)
    assert "\n" not in message
    assert isinstance(caught.value, FileNotFoundError)
    assert no_network
    assert list((tmp_path / "data").rglob("*")) == []


def serve(
    monkeypatch: pytest.MonkeyPatch, arrays: Arrays, *, break_off: BaseException | None = None
) -> None:
    """torchvision's fetch-and-unpack step, served from memory; it can break off half-way."""
    from paperlib.vision import torchvision

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
    assert set(seen) == {datasets._TIMEOUT}


@pytest.mark.network
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_published_data_are_really_downloaded_and_recognised(name: str, tmp_path: Path) -> None:
    data = load_dataset(name, root=tmp_path)
    assert (data.name, data.image_shape) == (name, (1, 28, 28))
    assert (len(data.train_labels), len(data.test_labels)) == (60_000, 10_000)
    assert UNRECOGNISED not in data.source
    assert availability(name, tmp_path) == "torchvision"


# --- fallbacks ---


@pytest.mark.parametrize(
    ("name", "used", "warned"),
    [
        ("fashion_mnist", "digits", ["NOT fashion_mnist BUT mnist", "NOT mnist BUT digits"]),
        ("mnist", "digits", ["NOT mnist BUT digits"]),
        ("cifar10", "patches", ["NOT cifar10 BUT patches"]),
    ],
)
def test_a_missing_data_set_falls_back_loudly_to_one_that_ships(
    name: str, used: str, warned: list[str], tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.warns(UserWarning, match="IS USED") as caught:
        data = load_with_fallback(name, root=tmp_path, limit=5, seed=2)
    assert data.name == used
    assert same(data, load_dataset(used, limit=5, seed=2))
    messages = [str(warning.message) for warning in caught]
    assert [
        message[: len(start)] for message, start in zip(messages, warned, strict=True)
    ] == warned


def test_fashion_falls_back_to_mnist_where_that_is_at_hand(
    tmp_path: Path, no_network: list[str]
) -> None:
    save(tmp_path / "mnist.npz", keras())
    with (
        pytest.warns(UserWarning, match="NOT fashion_mnist BUT mnist IS USED"),
        pytest.warns(UserWarning, match=UNRECOGNISED),
    ):
        data = load_with_fallback("fashion_mnist", root=tmp_path)
    assert data.name == "mnist"
    assert len(data.train_labels) == 30


def test_what_is_at_hand_needs_no_fallback_and_no_warning(small: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load_with_fallback(small, limit=3), load_dataset(small, limit=3))
        assert load_with_fallback("noise", limit=3).name == "noise"


def test_without_the_word_fallback_nothing_falls_back(
    tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.raises(DownloadError):
        load_dataset("fashion_mnist", root=tmp_path)


def test_errors_other_than_a_failed_download_pass_the_fallback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set"):
        load_with_fallback("fashion_minst", root=tmp_path)
    with pytest.raises(ValueError, match="limit must be"):
        load_with_fallback("mnist", root=tmp_path, limit=0)


# --- folders of pictures ---


def picture(path: Path, *, size: tuple[int, int] = (8, 8), mode: str = "L", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_a_folder_with_its_own_split_is_read_as_it_is(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / f"train/{'ab'[number % 2]}/{number}.png", seed=number)
    kept = picture(tmp_path / "val/b/9.png", seed=9)
    data = load_dataset(tmp_path)
    assert data.name == tmp_path.name
    assert data.classes == ("a", "b")
    assert data.train_images.shape == (6, 1, 8, 8)
    assert data.train_labels.bincount().tolist() == [3, 3]
    assert data.test_labels.tolist() == [1]
    np.testing.assert_array_equal(data.test_images[0, 0].numpy(), np.asarray(Image.open(kept)))


def test_a_class_of_one_split_alone_counts_for_both(tmp_path: Path) -> None:
    picture(tmp_path / "train/b/0.png")
    picture(tmp_path / "test/a/0.png")
    data = load_dataset(tmp_path)
    assert data.classes == ("a", "b")
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([1], [0])


def test_the_test_folder_comes_before_the_validation_folder(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(count):
            picture(tmp_path / split / "a" / f"{number}.png", seed=number)
    assert len(load_dataset(tmp_path).test_labels) == 2


def test_a_folder_without_split_is_split_the_same_way_under_any_file_names(
    tmp_path: Path,
) -> None:
    for number in range(10):
        label = "ab"[number % 2]
        picture(tmp_path / f"one/{label}/{number}.png", seed=number)
        picture(tmp_path / f"two/{label}/{9 - number}.bmp", seed=number)
    one, two, seeded = (
        load_dataset(tmp_path / "one"),
        load_dataset(tmp_path / "two"),
        load_dataset(tmp_path / "one", seed=1),
    )
    assert (len(one.train_labels), len(one.test_labels)) == (8, 2)
    assert same(one, two)
    assert one.checksum == two.checksum == seeded.checksum
    assert pairs(one.test_images, one.test_labels) == pairs(seeded.test_images, seeded.test_labels)


def test_two_pictures_are_one_to_train_and_one_to_test(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / f"a/{number}.png", seed=number)
    data = load_dataset(tmp_path)
    assert (len(data.train_labels), len(data.test_labels)) == (1, 1)


def test_pictures_of_all_sizes_become_squares_of_the_median_shorter_side(tmp_path: Path) -> None:
    for number, size in enumerate([(40, 20), (30, 60), (25, 500), (12, 12), (90, 80)]):
        picture(tmp_path / f"a/{number}.png", size=size, seed=number)
    assert load_dataset(tmp_path).image_shape == (1, 25, 25)


def test_large_pictures_are_scaled_to_224_pixels(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / f"a/{number}.png", size=(300, 260), seed=number)
    assert load_dataset(tmp_path).image_shape == (1, 224, 224)


def test_a_crop_keeps_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30), dtype=np.uint8)
    pixels[:, 10:20] = 200
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "wide.png")
    assert (load_dataset(tmp_path).train_images == 200).all()


def test_a_photograph_is_turned_upright_as_its_camera_says(tmp_path: Path) -> None:
    file = picture(tmp_path / "test/a/0.png")
    picture(tmp_path / "train/a/0.png", seed=1)
    upright = load_dataset(tmp_path).test_images
    turn = Image.Exif()
    turn[0x0112] = 3  # the EXIF tag "orientation": upside down
    with Image.open(file) as image:
        image.save(file, exif=turn)
    assert torch.equal(load_dataset(tmp_path).test_images, upright.flip(2, 3))


def test_one_colour_picture_makes_all_of_them_colour(tmp_path: Path) -> None:
    grey = picture(tmp_path / "train/a/grey.png")
    colour = picture(tmp_path / "test/a/colour.png", mode="RGB")
    data = load_dataset(tmp_path)
    assert data.image_shape == (3, 8, 8)
    expected = np.asarray(Image.open(colour)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.test_images[0].numpy(), expected)
    for channel in data.train_images[0].numpy():
        np.testing.assert_array_equal(channel, np.asarray(Image.open(grey)))


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"a/{number}.png", seed=number)
    picture(tmp_path / "a/.hidden.png")
    picture(tmp_path / ".cache/x.png")
    picture(tmp_path / "loose.png")
    (tmp_path / "a/notes.txt").write_text("nothing", encoding="utf-8")
    data = load_dataset(tmp_path)
    assert len(data.train_labels) + len(data.test_labels) == 3
    assert data.classes == ("a",)


def test_a_class_behind_a_link_and_pictures_in_subfolders_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere/deep/0.png")
    picture(tmp_path / "set/a/1.png", seed=1)
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    data = load_dataset(tmp_path / "set")
    assert data.classes == ("a", "b")
    assert len(data.train_labels) + len(data.test_labels) == 2


def test_folders_without_enough_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected at least two pictures.*found 0 to train"):
        load_dataset(tmp_path)
    picture(tmp_path / "loose.png")
    with pytest.raises(ValueError, match="found 0 to train and 0 to test"):
        load_dataset(tmp_path)
    picture(tmp_path / "a/alone.png")
    with pytest.raises(ValueError, match="found 1 to train and 0 to test"):
        load_dataset(tmp_path)


def test_a_split_with_an_empty_half_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"train/a/{number}.png", seed=number)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="found 3 to train and 0 to test"):
        load_dataset(tmp_path)


def test_a_damaged_picture_is_refused_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "a/good.png")
    bad = picture(tmp_path / "a/bad.png", size=(64, 64), seed=1)
    whole = bad.read_bytes()
    for content in (whole[:-1000], whole[:20], b"", b"text"):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.png is no readable 8-bit picture.*replace"):
            load_dataset(tmp_path)


def test_a_sixteen_bit_picture_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    picture(tmp_path / "a/0.png")
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(tmp_path / "a/deep.png")
    with pytest.raises(ValueError, match=r"deep\.png .*more than 8 bits"):
        load_dataset(tmp_path)
