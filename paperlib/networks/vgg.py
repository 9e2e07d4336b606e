"""torchvision's VGG, cut into stages."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.core.checks import LARGEST_SEED, checked, path_of
from paperlib.networks.initialisation import initialise
from paperlib.networks.kinds import VGG_LAYERS
from paperlib.networks.network import WIDEST, Network, Normalise, check_memory, checked_shape
from paperlib.networks.weights import imagenet_state, read_at, read_state, take

VGG_POOLINGS = 5  # each halves the image
VGG_CHANNELS = 512  # at the last of them
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue, as torchvision's weights expect
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def vgg16(
    weights: str | os.PathLike[str] = "imagenet",
    *,
    image_shape: Sequence[int] = (3, 224, 224),
    layers: int = 16,
    batch_norm: bool = False,
    classes: int | None = None,
    seed: int = 0,
) -> Network:
    """Build torchvision's VGG, of 16 layers or others, as stages; its logits are the last level.

    A stage is a convolution with batch norm and ReLU, a max-pooling, the flattening, or a fully
    connected layer with ReLU and dropout. So, of 16 layers, the levels 3, 6, 10, 14 and 18 are the
    poolings, 19 is flat, and 22 the logits; the head does nothing. Images are those in [0, 1] of
    every network here: the first stage normalises them as torchvision's weights expect.

    At 224×224 torchvision's average pooling to 7×7 does nothing, and there is no stage for it. At
    other sizes it is merged into the first fully connected layer: the network is the same function.
    So are weights that were trained on images of another size, such as 32×32: what their first
    fully connected layer reads is averaged to the size that it was trained at.

    Example:
        >>> from paperlib import vgg16
        >>> network = vgg16("random", image_shape=(3, 32, 32), layers=11, classes=10)
        >>> len(network.stages)
        17

    Args:
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded if need be); "random", weights
            of variance 2/fan_in (He) and no biases, as `initialise` draws them; or the path of a
            state dict, .safetensors or .pth, with torchvision's names or this network's own.
        image_shape: (3, height, width), each side at least 32.
        layers: 11, 13, 16 or 19.
        batch_norm: the variant with it.
        classes: number of logits; None is what the weights have, 1000 for random ones.
        seed: of random weights.

    Raises:
        ValueError: an argument out of range, or weights of another network; the message names it.
        FileNotFoundError: no such file; DownloadError, if a download failed.

    Source: arXiv:1409.1556; levels as in arXiv:2406.12916.
    """
    size = _vgg_size(image_shape)
    layers = checked("layers", layers, int, choices=VGG_LAYERS)
    batch_norm = checked("batch_norm", batch_norm, bool)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    if classes is not None:
        classes = checked("classes", classes, int, low=1, high=WIDEST)
    check_memory("image_shape", [512 * size[0] * size[1] * 4096])
    name = f"vgg{layers}" + ("_bn" if batch_norm else "")
    state = None
    if not isinstance(weights, str) or weights != "random":
        imagenet = isinstance(weights, str) and weights == "imagenet"
        state = imagenet_state(name) if imagenet else read_state(path_of("weights", weights))
    if classes is None:
        classes = 1000 if state is None else _classes_of(state, layers)
    model = _vgg_model(name, size, classes)
    network = Network(nn.Sequential(*_vgg_stages(model)), nn.Identity(), image_shape=image_shape)
    if state is None:
        _draw_vgg(model, seed)
        return network
    theirs = dict(zip(network.state_dict(), model.state_dict(), strict=True))
    state = {theirs.get(name, name): value for name, value in state.items()}
    first = state.get("classifier.0.weight")
    if first is not None and first.ndim == 2:
        state["classifier.0.weight"] = read_at(first, size, channels=VGG_CHANNELS)
    take(model, state, weights)
    return network


def _vgg_size(image_shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the last pooling's output."""
    channels, height, width = checked_shape(image_shape)
    least = 2**VGG_POOLINGS
    if channels != 3 or min(height, width) < least:
        raise ValueError(
            f"VGG takes colour images, image_shape (3, height, width) with sides >= {least}, got "
            f"{tuple(image_shape)}; repeat a grey channel, enlarge small images"
        )
    return height // least, width // least


def _vgg_model(name: str, size: tuple[int, int], classes: int) -> Any:
    """torchvision's model without its numbers, whose classifier reads images of that size."""
    from paperlib.core.vision import torchvision

    with torch.device("meta"):
        model = getattr(torchvision.models, name)(init_weights=False, num_classes=classes)
        inputs, outputs = VGG_CHANNELS * size[0] * size[1], model.classifier[0].out_features
        model.classifier[0] = nn.Linear(inputs, outputs)
    return model


def _vgg_stages(model: Any) -> list[nn.Module]:
    """The model's own layers, in the stages that `vgg16` describes."""
    names = {
        nn.Conv2d: "convolution",
        nn.BatchNorm2d: "norm",
        nn.Linear: "linear",
        nn.ReLU: "activation",
        nn.Dropout: "dropout",
    }
    stages: list[nn.Module] = []
    for layer in [*model.features, nn.Flatten(), *model.classifier]:
        if isinstance(layer, nn.MaxPool2d | nn.Flatten):
            stages.append(layer)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            stages.append(nn.Sequential(OrderedDict([(names[type(layer)], layer)])))
        else:
            stages[-1].add_module(names[type(layer)], layer)
    normalise = Normalise(IMAGENET_MEAN, IMAGENET_DEVIATION)
    first = OrderedDict([("normalise", normalise), *stages[0].named_children()])
    return [nn.Sequential(first), *stages[1:]]


def _classes_of(state: dict[str, Tensor], layers: int) -> int:
    """The number of logits of a VGG's state dict, with either kind of names."""
    biases = (state.get(f"{name}.bias") for name in ("classifier.6", f"stages.{layers + 5}.linear"))
    return next((bias.numel() for bias in biases if bias is not None), 1000)


def _draw_vgg(model: nn.Module, seed: int) -> None:
    """Fill a model on the meta device with the numbers of weights="random", in place."""
    model.to_empty(device="cpu")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    initialise(model, sigma_w2=2.0, sigma_b2=0.0, seed=seed)
