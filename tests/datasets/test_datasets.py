"""Data sets: what is loaded, in which order, under which name, and what is refused."""

import warnings
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import Arrays, keras, lay_out, pairs, reordered, same, save

from paperlib import datasets
from paperlib.core import paths
from paperlib.datasets import (
    NAMES,
    OFFLINE_NAMES,
    UNRECOGNISED,
    DownloadError,
    availability,
    load_dataset,
    load_with_fallback,
    located,
)
from paperlib.datasets import load as loading
from paperlib.datasets.libraries import TORCHVISION


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save(tmp_path / "small.npz", keras())


# --- the Dataset ---


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


@pytest.mark.parametrize(("limit", "count"), [(None, 12), (5, 5), (100, 12)])
def test_examples_are_the_first_images_and_their_labels(
    limit: int | None, count: int, small: Path
) -> None:
    data = load_dataset(small)
    images, labels = data.examples("test", limit)
    assert torch.equal(images, data.floats("test")[:count])
    assert torch.equal(labels, data.labels("test")[:count])


def test_floats_of_an_unknown_split_are_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="one of train, test; got 'validation'"):
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


@pytest.mark.parametrize("limit", [0, -1, 1.5, "5", True])
def test_a_limit_that_is_no_count_is_refused(limit: Any, small: Path) -> None:
    with pytest.raises(ValueError, match=r"limit must be (a whole number|>= 1), got"):
        load_dataset(small, limit=limit)


def test_a_limit_may_be_a_whole_float_as_in_every_configuration(small: Path) -> None:
    assert len(load_dataset(small, limit=5.0).train_images) == 5


def test_labels_are_those_of_the_split_that_is_asked_for(small: Path) -> None:
    data = load_dataset(small)
    assert torch.equal(data.labels("train"), data.train_labels)
    assert torch.equal(data.labels("test"), data.test_labels)
    with pytest.raises(ValueError, match="split must be one of train, test; got 'val'"):
        data.labels("val")


@pytest.mark.parametrize("seed", [-1, 0.5, None, False])
def test_a_seed_that_is_no_seed_is_refused(seed: Any, small: Path) -> None:
    with pytest.raises(ValueError, match=r"seed must be (a whole number|>= 0), got"):
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
    for name in ("cifar10", "mnist", "fashion_mnist"):
        monkeypatch.setitem(loading._PUBLISHED, name, (30, 12, (1, 6, 5)))
        save(tmp_path / f"{name}.npz", keras())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset("cifar10", root=tmp_path)
    assert UNRECOGNISED not in data.source
    assert data.classes[-1] == "truck"
    for name in ("mnist", "fashion_mnist"):
        with pytest.warns(UserWarning, match=UNRECOGNISED):
            load_dataset(name, root=tmp_path)


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


def test_a_relative_path_starts_at_the_callers_folder(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    assert load_dataset("small.npz").name == "small"


# --- where names are looked up ---


def test_an_npz_in_the_root_comes_before_torchvisions_layout(tmp_path: Path) -> None:
    lay_out(tmp_path / "MNIST/raw", keras(seed=1))
    assert availability("mnist", tmp_path) == "torchvision"
    path = save(tmp_path / "mnist.npz", keras())
    assert availability("mnist", tmp_path) == "npz"
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        assert load_dataset("mnist", root=tmp_path).source.startswith(str(path))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_looked_up_after_the_npz_from_the_root_to_the_system(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashed = name.replace("_", "-")
    root, system = tmp_path / "root", tmp_path / "system"
    root.mkdir()
    monkeypatch.setattr(paths, "SYSTEM_DATA", system)
    assert availability(name, root) == "absent"
    last_first = {
        system / dashed: "idx",
        root / TORCHVISION[name].folder: "torchvision",
        root / dashed: "idx",
        root / name: "idx",
    }
    for seed, (folder, where) in enumerate(last_first.items()):
        lay_out(folder, keras(seed=seed), packed=bool(seed % 2))
        assert (availability(name, root), located(name, root)) == (where, (where, folder))
        with pytest.warns(UserWarning, match=UNRECOGNISED):
            data = load_dataset(name, root=root)
        assert data.source == f"{folder} ({UNRECOGNISED})"
        assert same(data, load_dataset(save(tmp_path / "same.npz", keras(seed=seed))))
    path = save(root / f"{name}.npz", keras())
    assert located(name, root) == ("npz", path)


def test_half_the_idx_files_and_those_of_another_name_count_as_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_DATA", tmp_path / "system")
    lay_out(tmp_path / "system/fashion-mnist", keras(), packed=True)
    assert availability("fashion_mnist", tmp_path) == "idx"
    assert availability("mnist", tmp_path) == "absent"
    lay_out(tmp_path / "system/cifar10", keras())
    assert availability("cifar10", tmp_path) == "absent"
    (tmp_path / "system/fashion-mnist/train-labels-idx1-ubyte.gz").unlink()
    assert availability("fashion_mnist", tmp_path) == "absent"


def test_what_the_system_has_needs_no_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_DATA", tmp_path / "system")
    lay_out(tmp_path / "system/fashion-mnist", keras(), packed=True)
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        data = load_with_fallback("fashion_mnist", root=tmp_path / "data")
    assert data.name == "fashion_mnist"
    assert no_network == []


def test_the_fashion_images_of_debian_are_recognised(system_data: Path, tmp_path: Path) -> None:
    if not (system_data / "fashion-mnist").is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(paths, "SYSTEM_DATA", system_data)
        data = load_dataset("fashion_mnist", root=tmp_path)
    assert data.name == datasets.KNOWN[data.checksum] == "fashion_mnist"
    assert data.source == str(system_data / "fashion-mnist")
    assert (len(data.train_labels), len(data.test_labels)) == (60_000, 10_000)
    assert data.image_shape == (1, 28, 28)
    assert (data.classes[0], data.classes[-1]) == ("T-shirt/top", "ankle boot")
    # Every class has as many images, and trousers leave both sides of the picture empty.
    assert data.train_labels.bincount().tolist() == [6_000] * 10
    assert data.test_labels.bincount().tolist() == [1_000] * 10
    trousers = data.test_images[data.test_labels == data.classes.index("trouser")]
    assert trousers[..., 0].double().mean() < 1 < trousers[..., 10].double().mean()


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


def test_a_failed_download_is_not_tried_again_until_the_data_is_there(
    tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.warns(UserWarning, match="NOT mnist BUT digits"):
        load_with_fallback("mnist", root=tmp_path, limit=5)
    tries = len(no_network)
    assert tries > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_with_fallback("mnist", root=tmp_path, limit=5).name == "digits"
    assert len(no_network) == tries
    save(tmp_path / "mnist.npz", keras())
    with pytest.warns(UserWarning, match=UNRECOGNISED):
        assert load_with_fallback("mnist", root=tmp_path).name == "mnist"


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
