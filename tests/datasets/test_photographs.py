"""Colour photographs: which files are read, and what becomes of unusual ones."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from paperlib.datasets import DownloadError
from paperlib.datasets.photographs import BUNDLED, IMAGENETTE, load_photographs, read_photograph


def save(file: Path, pixels: np.ndarray, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


def plain(colour: int | tuple[int, ...], shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    pixels = np.array(colour, dtype=np.uint8)
    return np.broadcast_to(pixels, (*shape, *pixels.shape)).copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, the grey level of each its number, in two classes and one beside them."""
    for number in range(10):
        place = "." if number == 9 else f"class{number % 2}"
        save(tmp_path / place / f"{number}.png", plain(number))
    return tmp_path


def numbers(photographs: torch.Tensor) -> list[int]:
    return [round(float(picture.mean()) * 255) for picture in photographs]


def test_a_photograph_has_three_channels_in_0_to_1(tmp_path: Path) -> None:
    picture = read_photograph(save(tmp_path / "a.png", plain((255, 51, 0))), side=32)
    expected = torch.tensor([1.0, 0.2, 0.0])[:, None, None].expand(3, 32, 32)
    torch.testing.assert_close(picture, expected)


def test_a_grey_picture_gets_three_equal_channels(tmp_path: Path) -> None:
    picture = read_photograph(save(tmp_path / "a.png", plain(51)), side=32)
    torch.testing.assert_close(picture, torch.full((3, 32, 32), 0.2))


@pytest.mark.parametrize(("colour", "expected"), [
    ((255, 0, 0, 0), (1.0, 1.0, 1.0)),
    ((255, 0, 0, 255), (1.0, 0.0, 0.0)),
    ((0, 51), (0.8, 0.8, 0.8)),
])  # fmt: skip
def test_transparent_pixels_lie_on_white(colour, expected, tmp_path: Path) -> None:
    picture = read_photograph(save(tmp_path / "a.png", plain(colour)), side=32)
    torch.testing.assert_close(picture.mean((1, 2)), torch.tensor(expected))


def test_the_centre_of_a_wide_picture_is_kept(tmp_path: Path) -> None:
    pixels = plain(0, (40, 120))
    pixels[:, 40:80] = 255
    picture = read_photograph(save(tmp_path / "a.png", pixels), side=40)
    torch.testing.assert_close(picture, torch.ones(3, 40, 40))


def test_a_rotated_picture_stands_upright(tmp_path: Path) -> None:
    pixels = plain(0)
    pixels[:20] = 255  # the top half is white, and the camera lay on its side
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    picture = read_photograph(save(tmp_path / "a.png", pixels, exif=exif), side=40)
    assert float(picture[:, :, 21:].min()) == 1
    assert float(picture[:, :, :19].max()) == 0


def test_a_tiny_picture_is_enlarged_with_a_warning(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", plain(51, (8, 8)))
    with pytest.warns(UserWarning, match=r"a\.png has only 8×8 pixels and is enlarged to 32×32"):
        picture = read_photograph(file, side=32)
    torch.testing.assert_close(picture, torch.full((3, 32, 32), 0.2))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + 50 * b"x"])
def test_a_corrupt_picture_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png is no readable 8-bit picture"):
        read_photograph(file)


def test_a_picture_that_breaks_off_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = save(tmp_path / "broken.png", noise)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"broken\.png is no readable 8-bit picture"):
        read_photograph(file)


def test_a_missing_picture_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no picture at .*none\.png"):
        read_photograph(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match=r"no folder .*none"):
        load_photographs(tmp_path / "none")


def test_every_picture_is_in_one_split(folder: Path) -> None:
    train, test = (load_photographs(folder, split, side=32) for split in ("train", "test"))
    assert train.shape == (8, 3, 32, 32)
    assert train.dtype == torch.float32
    assert sorted(numbers(train) + numbers(test)) == list(range(10))


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_folder_with_a_split_of_its_own_keeps_it(held_out: str, tmp_path: Path) -> None:
    save(tmp_path / "train" / "x" / "a.png", plain(1))
    save(tmp_path / held_out / "x" / "b.png", plain(2))
    assert numbers(load_photographs(tmp_path, side=32)) == [1]
    assert numbers(load_photographs(tmp_path, "test", side=32)) == [2]


def test_links_and_pipes_among_photographs_are_skipped_and_named(folder: Path) -> None:
    before = numbers(load_photographs(folder, side=32))
    (folder / "class0/again").symlink_to("..")
    (folder / "class1/copy.png").symlink_to("1.png")
    os.mkfifo(folder / "pipe.png")
    with pytest.warns(UserWarning, match=r"class0/again, class1/copy\.png, pipe\.png: links"):
        assert numbers(load_photographs(folder, side=32)) == before


def test_photographs_behind_a_link_called_train_are_refused(folder: Path) -> None:
    (folder / "test").mkdir()
    (folder / "train").symlink_to("class0")
    with pytest.raises(ValueError, match=r"train is a link, and links .* are not followed"):
        load_photographs(folder, side=32)


def test_a_larger_limit_extends_a_smaller_one_and_reads_no_other_file(folder: Path) -> None:
    every = numbers(load_photographs(folder, side=32))
    assert every != sorted(every)
    assert numbers(load_photographs(folder, side=32, limit=3)) == every[:3]
    assert numbers(load_photographs(folder, side=32, seed=1)) != every
    for file in folder.rglob(f"{every[-1]}.png"):
        file.write_bytes(b"broken")
    assert numbers(load_photographs(folder, side=32, limit=7)) == every[:7]
    with pytest.raises(ValueError, match="is no readable 8-bit picture"):
        load_photographs(folder, side=32)


def test_a_folder_without_pictures_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"no pictures to train .*\.png.*; expected"):
        load_photographs(tmp_path)


@pytest.mark.parametrize(("options", "message"), [
    ({"split": "val"}, "split must be one of train, test; got 'val'"),
    ({"limit": 0}, "limit must be >= 1, got 0"),
    ({"limit": "5"}, "limit must be a whole number, got '5'"),
    ({"side": 0}, "side must be >= 1, got 0"),
    ({"side": 32.5}, "side must be a whole number, got 32.5"),
])  # fmt: skip
def test_a_bad_argument_is_named(options: dict, message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_photographs(folder, **options)


def test_imagenette_is_asked_for_and_a_failed_download_leaves_nothing(
    tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.raises(DownloadError, match=rf"imagenette is not at .*{IMAGENETTE}, and its down"):
        load_photographs(root=tmp_path)
    assert [Path(str(url)).name for url in no_network] == [f"{IMAGENETTE}.tgz"]
    assert list(tmp_path.iterdir()) == []


def test_imagenette_is_read_where_torchvision_puts_it(tmp_path: Path) -> None:
    save(tmp_path / IMAGENETTE / "train" / "n01440764" / "a.JPEG", plain(7))
    save(tmp_path / IMAGENETTE / "val" / "n01440764" / "b.JPEG", plain(9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(load_photographs(root=tmp_path, side=40)) == [7]


def test_crops_of_bundled_photographs_need_neither_files_nor_a_network() -> None:
    few, more, test = (
        load_photographs("bundled", split, side=32, limit=limit)
        for split, limit in (("train", 5), ("train", 12), ("test", 4))
    )
    assert few.shape == (5, 3, 32, 32)
    assert torch.equal(more[:5], few)
    assert len({picture.numpy().tobytes() for picture in [*more, *test]}) == 16
    assert float(more.amin()) >= 0
    assert float(more.amax()) <= 1
    deviations = torch.cat([more, test]).flatten(1).std(1)
    assert float(deviations.min()) > 0.01  # they show something
    assert not set(BUNDLED["train"]) & set(BUNDLED["test"])
    other = load_photographs("bundled", side=32, limit=5, seed=1)
    assert not torch.equal(other, few)
