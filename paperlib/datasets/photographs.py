"""Colour photographs of one size: of folders and files, Imagenette, scikit-image."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from paperlib.core import paths
from paperlib.core.checks import checked
from paperlib.datasets.libraries import DOWNLOAD_FAILURES, inside_only, time_limit
from paperlib.datasets.load import DownloadError
from paperlib.datasets.places import PHOTOGRAPHS, photographs_folder
from paperlib.datasets.readers import PICTURE_SUFFIXES, opened, own_folder, pictures_in, reason

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENETTE = "imagenette2-320"  # torchvision's folder of the pictures with 320 pixels
SPLITS = {"train": ("train",), "test": ("test", "val")}
_TEST_SHARE = 5  # one in so many, where a folder has no split of its own

BUNDLED = {"train": list(PHOTOGRAPHS[:-2]), "test": list(PHOTOGRAPHS[-2:])}
_CROPS = {"train": 200, "test": 20}
_SMALLEST_CROP = 0.4  # of a photograph's shorter side


def load_photographs(
    name: str | os.PathLike[str] = "imagenette",
    split: str = "train",
    *,
    side: int = 224,
    limit: int | None = None,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> Tensor:
    """Colour photographs (n, 3, side, side), float32 in [0, 1], scaled and cropped to the centre.

    Only the pictures that `limit` chooses are read, so that the folder may be ImageNet's.

    Args:
        name: a folder, perhaps in that of data sets, with pictures anywhere below it, or below
            train/ and test/ or val/ in it; or "imagenette", ten classes of ImageNet:
            <root>/imagenette2-320, downloaded by torchvision if need be; or "bundled", random crops
            of scikit-image's photographs, 200 and 20 unless there is a limit, grey ones with three
            equal channels.
        split: "train" or "test"; without folders of its own, one picture in five is for testing.
        side: of the images, in pixels.
        limit: at most so many, a random choice; a larger limit extends a smaller one.
        seed: of the choice and the order.
        root: the folder of data sets. Default: $PAPERLIB_DATA, else `data/`.

    Raises:
        ValueError: an argument out of range, no pictures, or one that cannot be read; names it.
        FileNotFoundError: no such folder; DownloadError, if a download failed.
    """
    split = checked("split", split, str, choices=SPLITS)
    side = checked("side", side, int, low=1)
    if limit is not None:
        limit = checked("limit", limit, int, low=1)
    if name == "bundled":
        return _bundled(split, side, limit or _CROPS[split], seed)
    place = paths.data_root(root)
    folder = _imagenette(place) if name == "imagenette" else photographs_folder(name, root)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {name} in {Path.cwd()} or {place}; expected a folder of pictures, "
            "'imagenette', or 'bundled'"
        )
    files = _files(folder, split)
    order = np.random.default_rng(seed).permutation(len(files))[:limit]
    return torch.stack([read_photograph(files[number], side=side) for number in order])


def read_photograph(path: str | os.PathLike[str], *, side: int = 224) -> Tensor:
    """One picture in colour, (3, side, side), float32 in [0, 1], scaled and cropped to the centre.

    Grey pictures get three equal channels, transparent ones a white ground, rotated ones stand
    upright; pictures smaller than `side` are enlarged, and a warning says so.

    Args:
        path: of a file, or the name of one of scikit-image's: astronaut, brick, camera, chelsea …
        side: of the image, in pixels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: side < 1, or no readable 8-bit picture.
    """
    side = checked("side", side, int, low=1)
    if path in PHOTOGRAPHS:
        return _square(_of_scikit_image(str(path)), side, str(path))
    file = Path(path).expanduser()
    if not file.is_file():
        names = ", ".join(sorted(PHOTOGRAPHS))
        raise FileNotFoundError(f"no picture at {file}; expected a file, or one of {names}")
    with opened(file) as picture:
        return _square(picture, side, str(file))


def _of_scikit_image(name: str) -> "Image":
    import skimage.data
    from PIL import Image

    return Image.fromarray(getattr(skimage.data, name)())


def _square(picture: "Image", side: int, name: str) -> Tensor:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    if min(upright.size) < side:
        width, height = upright.size
        warnings.warn(
            f"{name} has only {width}×{height} pixels and is enlarged to {side}×{side}",
            UserWarning,
            stacklevel=3,
        )
    if upright.has_transparency_data:
        ground = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(ground, upright.convert("RGBA"))
    colour = upright.convert("RGB")
    square = ImageOps.fit(colour, (side, side), method=Image.Resampling.BICUBIC)
    return _floats(square)


def _floats(picture: "Image") -> Tensor:
    """(3, height, width) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(torch.float32) / 255


def _bundled(split: str, side: int, count: int, seed: int) -> Tensor:
    """Random square crops of scikit-image's photographs, of one after the other."""
    from PIL import Image

    pictures = [_of_scikit_image(name) for name in BUNDLED[split]]
    random = np.random.default_rng((seed, sorted(BUNDLED).index(split)))
    crops = []
    for number in range(count):
        picture = pictures[number % len(pictures)].convert("RGB")
        shorter = min(picture.size)
        size = int(random.integers(int(_SMALLEST_CROP * shorter), shorter + 1))
        left, top = (int(random.integers(0, length - size + 1)) for length in picture.size)
        box = (left, top, left + size, top + size)
        crops.append(_floats(picture.resize((side, side), Image.Resampling.BICUBIC, box=box)))
    return torch.stack(crops)


def _files(folder: Path, split: str) -> list[Path]:
    """The pictures of a split, in the order of their names."""
    folders = {name: own_folder(folder, *names) for name, names in SPLITS.items()}
    divided = all(folders.values())
    files = pictures_in((divided and folders[split]) or folder)
    if not divided:
        order = np.random.default_rng(0).permutation(len(files))
        held_out = -(-len(files) // _TEST_SHARE)
        chosen = order[:held_out] if split == "test" else order[held_out:]
        files = [files[number] for number in sorted(chosen)]
    if not files:
        raise ValueError(
            f"{folder}: no pictures to {split} (endings {' '.join(sorted(PICTURE_SUFFIXES))}); "
            "expected at least two, or train/* with test/* or val/*"
        )
    return files


def _imagenette(root: Path) -> Path:
    """The folder of Imagenette, downloaded beside its place first if it is missing."""
    folder = root / IMAGENETTE
    if folder.is_dir():
        return folder
    from paperlib.core.vision import torchvision

    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as staging:
            with time_limit(), inside_only():
                torchvision.datasets.Imagenette(staging, size="320px", download=True)
            os.replace(Path(staging, IMAGENETTE), folder)
    except DOWNLOAD_FAILURES as error:
        raise DownloadError(
            f"imagenette is not at {folder}, and its download failed ({reason(error)}); unpack "
            f"{IMAGENETTE}.tgz there by hand, or name a folder of pictures"
        ) from error
    return folder
