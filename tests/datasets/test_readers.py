"""What .npz files and folders of pictures are read as, and which are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import Arrays, keras, pairs, same, save

from paperlib.datasets import availability, load_dataset, load_with_fallback


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save(tmp_path / "small.npz", keras())


# --- .npz files ---


def test_a_path_gives_its_stem_as_the_name_and_itself_as_the_source(small: Path) -> None:
    data = load_dataset(small)
    assert (data.name, data.source) == ("small", str(small))
    assert same(data, load_dataset(str(small)))


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
        # Not more: unrefused, every number up to it would become a class and fill the memory.
        (put("y_train", lambda y: y.astype(np.int64) + 10**5), "from 0.*got 100000 to"),
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


def test_pictures_in_subfolders_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png", seed=1)
    picture(tmp_path / "b/deep/er/0.png")
    data = load_dataset(tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.train_labels) + len(data.test_labels) == 2


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """Twelve pictures in two classes."""
    for number in range(12):
        picture(tmp_path / f"set/{'ab'[number % 2]}/{number}.png", seed=number)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("again", "."),  # itself
        ("a/again", ".."),  # upwards
        ("a/self", "."),
        ("c", "b"),  # another class
        ("a/copy.png", "../b/1.png"),
        ("out", "../elsewhere"),
        ("a/out.png", "../../elsewhere/x/0.png"),
        ("broken", "nowhere"),
        ("a/broken.png", "nowhere.png"),
        ("loop", "loop"),
    ],
)
def test_a_link_in_a_folder_of_pictures_changes_nothing_and_is_named(
    link: str, target: str, twelve: Path
) -> None:
    picture(twelve.parent / "elsewhere/x/0.png", seed=99)
    before = load_dataset(twelve)
    (twelve / link).symlink_to(target)
    with pytest.warns(UserWarning, match=f"skipped {link}: links are not followed"):
        after = load_dataset(twelve)
    assert same(before, after)
    assert after.classes == ("a", "b")


def test_the_folder_itself_may_be_a_link(twelve: Path) -> None:
    (twelve.parent / "linked").symlink_to(twelve)
    assert load_dataset(twelve.parent / "linked").checksum == load_dataset(twelve).checksum


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_split_behind_a_link_is_refused_for_it_may_hold_the_other_one(
    name: str, twelve: Path
) -> None:
    for split in {"train", "test", "val"} - {name}:
        picture(twelve / split / "a/0.png")
    if name == "val":
        (twelve / "test").rename(twelve / "unused")
    (twelve / name).symlink_to("a")
    with pytest.raises(ValueError, match=f"{name} is a link.* not followed.* name .*/a as"):
        load_dataset(twelve)


def test_many_skipped_links_are_counted(twelve: Path) -> None:
    for number in range(8):
        (twelve / f"a/link{number}.png").symlink_to("1.png")
    with pytest.warns(UserWarning, match=r"link4\.png and 3 more: links"):
        load_dataset(twelve)


def test_a_pipe_that_is_called_a_picture_is_named_and_not_waited_for(twelve: Path) -> None:
    before = load_dataset(twelve)
    os.mkfifo(twelve / "a/x.png")
    with pytest.warns(UserWarning, match=r"skipped a/x\.png: .*only files are read"):
        assert same(before, load_dataset(twelve))


def test_a_pipe_that_is_called_a_data_set_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"x\.npz is neither a file nor a folder"):
        load_dataset(tmp_path / "x.npz")
    os.mkfifo(tmp_path / "mnist.npz")
    assert availability("mnist", tmp_path) == "absent"


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
