"""What idx files are read as, packed or not, and which are refused."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_data import Arrays, idx, idx_files, keras, lay_out

from paperlib.datasets import load_dataset, load_with_fallback
from paperlib.datasets.idx import FILES, read_idx

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PACKED = pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])


@PACKED
def test_the_four_files_are_the_arrays_they_were_written_from(packed: bool, tmp_path: Path) -> None:
    arrays = keras((7, 5))
    lay_out(tmp_path / "set", arrays, packed=packed)
    found = read_idx(tmp_path / "set", "mnist")
    assert (found.name, found.source) == ("mnist", str(tmp_path / "set"))
    for split, part in (("train", found.train), ("test", found.test)):
        np.testing.assert_array_equal(part.images[:, 0], arrays[f"x_{split}"])
        np.testing.assert_array_equal(part.labels, arrays[f"y_{split}"])


def test_the_files_are_called_as_they_are_published() -> None:
    assert set(FILES) == idx_files(keras()).keys()


def test_torchvision_reads_the_same_from_such_files(tmp_path: Path) -> None:
    from paperlib.core.vision import torchvision

    lay_out(tmp_path / "MNIST/raw", keras())
    found = read_idx(tmp_path / "MNIST/raw", "mnist")
    for train, part in ((True, found.train), (False, found.test)):
        theirs = torchvision.datasets.MNIST(str(tmp_path), train=train)
        np.testing.assert_array_equal(part.images[:, 0], theirs.data.numpy())
        np.testing.assert_array_equal(part.labels, theirs.targets.numpy())


def test_a_plain_file_comes_before_the_packed_one_and_each_file_may_be_either(
    tmp_path: Path,
) -> None:
    lay_out(tmp_path / "set", keras(), packed=True)
    other = keras(seed=1)["x_train"]
    (tmp_path / "set" / IMAGES).write_bytes(idx(other))
    images = read_idx(tmp_path / "set", "mnist").train.images
    np.testing.assert_array_equal(images[:, 0], other)


def header(*shape: int, code: int = 8) -> bytes:
    return bytes([0, 0, code, len(shape)]) + np.array(shape, dtype=">u4").tobytes()


# What becomes of the 30 images of 6×5 pixels, and what the refusal says.
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", "expected an idx file .*got 0 bytes: nothing"),
    "cut header": (lambda whole: whole[:9], "header of 16 bytes .*got 9 bytes: 00 00 08 03"),
    "cut": (lambda whole: whole[:-1], r"expected 900 bytes .*\(30, 6, 5\), got 899"),
    "too long": (lambda whole: whole + b"0", r"expected 900 bytes .*\(30, 6, 5\), got more"),
    "web page": (lambda whole: b"<html>not found</html>", "begins with 00 00 08 03, got 16 bytes"),
    "floats": (lambda whole: header(30, 6, 5, code=13) + whole[16:], "unsigned bytes .*00 00 0d"),
    "labels": (lambda whole: idx(np.arange(30, dtype=np.uint8)), "3 dimensions.*00 00 08 01"),
    "no images": (lambda whole: header(0, 6, 5), r"none of them 0, got \(0, 6, 5, 1\)"),
    "too few": (lambda whole: idx(keras(train=29)["x_train"]), r"29 integer labels.*\(30,\)"),
    "other size": (lambda whole: idx(keras((5, 5))["x_train"]), r"\(1, 5, 5\) and \(1, 6, 5\)"),
    "too large": (lambda whole: header(2**16, 2**7, 2**6), "268,435,456 bytes, .*536,870,912"),
    "huge": (lambda whole: header(*[2**32 - 1] * 3) + whole, "268,435,456 .*4294967295"),
    "too many": (lambda whole: header(2**20 + 1, 1, 1), "at most 1,048,576 .*1048577, 1, 1"),
}


@PACKED
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_no_such_file_is_refused_by_name_with_what_came(
    damage: Callable[[bytes], bytes], message: str, packed: bool, tmp_path: Path
) -> None:
    lay_out(tmp_path / "mnist", keras(), packed=packed)
    spoilt = damage(idx_files(keras())[IMAGES])
    file = tmp_path / "mnist" / (f"{IMAGES}.gz" if packed else IMAGES)
    file.write_bytes(gzip.compress(spoilt) if packed else spoilt)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset("mnist", root=tmp_path)
    named = file.parent if "(1, 5, 5) and" in str(caught.value) else file
    assert str(named) in str(caught.value)


def test_labels_in_the_wrong_number_are_refused_with_both_files(tmp_path: Path) -> None:
    arrays: Arrays = keras()
    arrays["y_train"] = arrays["y_train"][:-1]
    lay_out(tmp_path / "mnist", arrays)
    with pytest.raises(ValueError, match=r"expected 30 integer labels.*\(29,\)") as caught:
        load_dataset("mnist", root=tmp_path)
    assert all(str(tmp_path / "mnist" / name) in str(caught.value) for name in (IMAGES, LABELS))


def cut_in_half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def flip_the_middle(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]


def break_the_digest(whole: bytes) -> bytes:
    return whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]


@pytest.mark.parametrize(
    "damage",
    [cut_in_half, flip_the_middle, break_the_digest, lambda whole: b"", gzip.decompress],
    ids=["cut", "flipped", "another digest", "empty", "not packed"],
)
def test_a_damaged_packing_is_refused_by_name_and_never_replaced(
    damage: Callable[[bytes], bytes], tmp_path: Path, no_network: list[str]
) -> None:
    lay_out(tmp_path / "mnist", keras(), packed=True)
    file = tmp_path / "mnist" / f"{IMAGES}.gz"
    file.write_bytes(damage(file.read_bytes()))
    for load in (load_dataset, load_with_fallback):
        with pytest.raises(ValueError, match=r"(expected|no readable) .*replace it") as caught:
            load("mnist", root=tmp_path)
        assert str(file) in str(caught.value)
    assert no_network == []


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    lay_out(tmp_path / "set", keras())
    (tmp_path / "set" / LABELS).unlink()
    with pytest.raises(ValueError, match=f"{LABELS} is no readable idx file .*FileNotFound"):
        read_idx(tmp_path / "set", "mnist")


@PACKED
def test_no_more_is_read_than_the_header_promises(packed: bool, tmp_path: Path) -> None:
    lay_out(tmp_path / "mnist", keras(), packed=packed)
    bomb = header(30, 6, 5) + bytes(2**26)
    file = tmp_path / "mnist" / (f"{IMAGES}.gz" if packed else IMAGES)
    file.write_bytes(gzip.compress(bomb, 1) if packed else bomb)
    del bomb
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"expected 900 bytes .*got more"):
            load_dataset("mnist", root=tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**22
