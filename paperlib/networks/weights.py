"""Weights of trained networks: torchvision's downloads and local files."""

import math
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from paperlib.core import paths
from paperlib.datasets import DownloadError
from paperlib.datasets.libraries import DOWNLOAD_FAILURES, time_limit
from paperlib.datasets.readers import reason

TRAINED_ON = "IMAGENET1K_V1"
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")  # the object that torch says it refuses

State = dict[str, Tensor]


def imagenet_state(name: str) -> State:
    """Load the weights of torchvision's network `name`, e.g. `vgg16_bn`, as trained on ImageNet.

    Looked up in `weights/` in the folder of data sets, then where torch.hub keeps its downloads;
    downloaded to the former if neither has them.

    Raises:
        ValueError: the file is damaged.
        DownloadError: it is not here, and its download failed; the message says where to put it.
    """
    from paperlib.core.vision import torchvision

    url = torchvision.models.get_model_weights(name)[TRAINED_ON].url
    ours = paths.weights_file(url.rpartition("/")[2])
    hub = Path(torch.hub.get_dir(), "checkpoints", ours.name)
    found = next((file for file in (ours, hub) if file.is_file()), None)
    return read_state(found or _downloaded(url, ours))


def _downloaded(url: str, file: Path) -> Path:
    """The file, which torch.hub writes beside its place and checks against its name's digest."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = file.stem.rpartition("-")[2]
        with time_limit():
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
    except DOWNLOAD_FAILURES as error:
        raise DownloadError(
            f"the weights {file.name} are not at {file}, and their download from {url} failed "
            f"({reason(error)}); put the file there by hand, or use weights='random' or the path "
            "of a file with weights of your own"
        ) from error
    return file


def read_state(path: str | os.PathLike[str]) -> State:
    """Read the tensors of a .safetensors file, or a .pth file that `torch.save(state_dict)` wrote.

    No code in a .pth file is run: `weights_only=True`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds anything but named tensors.
    """
    file = paths.given_weights(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"no weights at {path} nor at {file}; expected 'imagenet', 'random', or the path of a "
            ".safetensors or .pth file"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{file} is damaged or holds more than named tensors ({_why(error)}); replace it by a "
            "state dict, best as .safetensors, or delete it to have torchvision's weights "
            "downloaded again"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(f"{file} holds {type(state).__name__}, not a state dict of named tensors")
    return dict(state)


def _why(error: Exception) -> str:
    """The reason on one line; torch's own would tell how to run what the file holds."""
    if "weights_only" not in str(error):
        return reason(error)[:300]
    named = _FOREIGN.search(str(error))
    return f"{named[1] if named else 'Python objects'}, which could run code and is not loaded"


def take(model: nn.Module, state: State, source: object) -> None:
    """Copy a state into the model's parameters and buffers, in place.

    Raises:
        ValueError: a tensor is missing, is not the model's, or has another shape; names the first.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{source} does not fit: {name} must be {expected.get(name, 'absent')}, got "
                f"{found.get(name, 'nothing')}; check layers, batch_norm, classes and image_shape"
            )
    model.load_state_dict(state, assign=True)


def read_at(weight: Tensor, size: tuple[int, int], *, channels: int) -> Tensor:
    """A VGG's first fully connected layer, (neurons, channels · side · side), with the average over
    side × side parts of the image before it: (neurons, channels · height · width) for size.

    torchvision's has the side 7. A layer that reads no square image is returned as it is.
    """
    side = math.isqrt(weight.shape[1] // channels)
    if weight.shape[1] != channels * side**2 or size == (side, side):
        return weight
    units = torch.eye(size[0] * size[1]).view(-1, 1, *size)
    average = nn.functional.adaptive_avg_pool2d(units, side).flatten(1).to(weight)
    return (weight.unflatten(1, (-1, side**2)) @ average.T).flatten(1)
