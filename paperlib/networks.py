"""The paper's networks, cut into the stages that a cascade inverts, and their initialisation."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.core.checks import LARGEST_SEED, checked, instance_of, path_of, quoted
from paperlib.kinds import ACTIVATIONS, BLOCKS, PADDINGS, SHAPES, VGG_LAYERS
from paperlib.weights import imagenet_state, read_at, read_state, take

HEAD_WIDTH = 400  # of the wide MLP's classifier, as published
VGG_POOLINGS = 5  # each halves the image
VGG_CHANNELS = 512  # at the last of them
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue, as torchvision's weights expect
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
DEEPEST, WIDEST = 10_000, 100_000  # stages; neurons, channels, classes or pixels a side
LARGEST_VARIANCE = 1e30  # of which float32 can hold the root times a normal number
LOGIT_SCALE = 4.0  # of the shrinking MLP, whose ten tanh outputs are bounded by 1


class Erf(nn.Module):
    """erf(x), the activation with closed-form mean-field kernels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Scale(nn.Module):
    """A head without weights: the last stage's outputs times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Normalise(nn.Module):
    """Each channel minus its mean, by its deviation: constants, not statistics of a batch."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class ResidualBlock(nn.Module):
    """x + body(x). What follows the sum, as the published block's tanh, is no part of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Network(nn.Module):
    """A classifier as stages and a head: `head(stages(images))` are its logits.

    Attributes:
        stages: what a cascade inverts; level l is the output of the first l stages.
        stem: stages that come before depth 1 (0 for MLPs); depth = level - stem.
        head: from the last stage's output to logits.
        image_shape: (channels, height, width) of the images it takes.
    """

    def __init__(
        self, stages: nn.Sequential, head: nn.Module, *, image_shape: Sequence[int], stem: int = 0
    ) -> None:
        super().__init__()
        self.stages = instance_of("stages", stages, nn.Sequential)
        self.head = instance_of("head", head, nn.Module)
        self.stem = checked("stem", stem, int, low=0, high=len(stages))
        self.image_shape = _checked_shape(image_shape)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stages(images))


def activation_module(name: str) -> nn.Module:
    """The activation called `name`: tanh, erf, relu, gelu or linear.

    Raises:
        ValueError: another name.
    """
    modules = {
        "tanh": nn.Tanh,
        "erf": Erf,
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "linear": nn.Identity,
    }
    return modules[checked("activation", name, str, choices=ACTIVATIONS)]()


def mlp(
    image_shape: Sequence[int],
    *,
    depth: int,
    width: int | None = None,
    shape: str = "wide",
    activation: str = "tanh",
    classes: int = 10,
) -> Network:
    """A multilayer perceptron of `depth` stages (Linear, activation), and its head.

    Args:
        image_shape: (channels, height, width); the first stage flattens.
        depth: number of stages, at least 1.
        width: neurons per stage of the "wide" shape; None is one per pixel.
        shape: "wide" keeps its width and has the head Linear 400, activation, Linear;
            "shrinking" falls linearly from the pixels to the classes, and its head only scales.
        activation: tanh, erf, relu, gelu or linear.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range; the message names it.

    Source: arXiv:2406.12916; the logits' scale is ours (the published code trains softmax twice).
    """
    image_shape = _checked_shape(image_shape)
    pixels = math.prod(image_shape)
    depth = checked("depth", depth, int, low=1, high=DEEPEST)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    shape = checked("shape", shape, str, choices=SHAPES)
    if width is not None:
        width = checked("width", width, int, low=1, high=WIDEST)
    if shape == "wide":
        widths = [pixels] + [width or pixels] * depth
        _check_memory(
            "image_shape, width and depth", [pixels * widths[1], (depth - 1) * widths[1] ** 2]
        )
        head: nn.Module = nn.Sequential(
            nn.Linear(widths[-1], HEAD_WIDTH),
            activation_module(activation),
            nn.Linear(HEAD_WIDTH, classes),
        )
    else:
        if width is not None:
            raise ValueError(f"width is given by the shape 'shrinking', got {width}; leave it out")
        widths = [round(pixels + (classes - pixels) * i / depth) for i in range(depth + 1)]
        _check_memory("image_shape and depth", [a * b for a, b in pairwise(widths)])
        head = Scale(LOGIT_SCALE)
    stages = [
        _linear_stage(fan_in, fan_out, activation, flatten=i == 0)
        for i, (fan_in, fan_out) in enumerate(pairwise(widths))
    ]
    return Network(nn.Sequential(*stages), head, image_shape=image_shape)


def cnn(
    image_shape: Sequence[int],
    *,
    depth: int,
    channels: int = 128,
    activation: str = "tanh",
    padding: str = "circular",
    classes: int = 10,
) -> Network:
    """Build a convolutional network of `depth` stages (3×3 convolution, activation), and its head.

    Before them a stem of three stages: a convolution from the image's channels, and two of stride 2
    that halve its sides (28 → 14 → 7), rounded up. The stem pads with zeros, the `depth` stages
    circularly. The head is a convolution, the average over the image, and a Linear layer.

    Args:
        image_shape: (channels, height, width), any size from one pixel on.
        depth: number of stages after the stem, at least 1.
        channels: of every convolution, at least 1.
        activation: tanh, erf, relu, gelu or linear.
        padding: "circular" pads before each convolution, so that a stage commutes with shifts of
            the image; "published" convolves first (7×7 → 5×5) and pads the result circularly, so
            that the first stage loses the border and every later one works on a 5×5 torus.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range, or "published" where the stem leaves fewer than 3×3
            positions; the message names it.

    Source: arXiv:2406.12916; "published" is the padding of its authors' code.
    """
    channels = checked("channels", channels, int, low=1, high=WIDEST)
    padding = checked("padding", padding, str, choices=PADDINGS)
    if padding == "published":
        _check_published(image_shape)
    stage = partial(_hidden_stage, channels, activation, padding)
    return _convolutional(stage, image_shape, depth, channels, activation, classes)


def resnet(
    image_shape: Sequence[int],
    *,
    depth: int,
    channels: int = 32,
    activation: str = "tanh",
    block: str = "plain",
    classes: int = 10,
) -> Network:
    """Build a residual network of `depth` blocks of two 3×3 convolutions each, and its head.

    The stem and the head are those of `cnn`.

    Args:
        image_shape: (channels, height, width), any size from one pixel on.
        depth: number of residual blocks, two convolutions each, at least 1.
        channels: of every convolution, at least 1.
        activation: tanh, erf, relu, gelu or linear.
        block: "published" is φ(x + f(x)), f = convolution, circular padding, φ, convolution,
            circular padding, so that its values stay bounded; "plain" is x + f(x) with the padding
            before each convolution, so that it commutes with shifts of the image.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range, or "published" where the stem leaves fewer than 3×3
            positions; the message names it.

    Source: arXiv:2406.12916; "published" is the block of its authors' code.
    """
    channels = checked("channels", channels, int, low=1, high=WIDEST)
    block = checked("block", block, str, choices=BLOCKS)
    if block == "published":
        _check_published(image_shape)
    stage = partial(_residual_block, channels, activation, block)
    return _convolutional(stage, image_shape, depth, channels, activation, classes)


def residual_mlp(
    image_shape: Sequence[int],
    *,
    depth: int,
    width: int | None = None,
    activation: str = "tanh",
    classes: int = 10,
) -> Network:
    """A fully connected residual network of `depth` stages φ(x + [Linear, φ, Linear](x)).

    Before them a stem of one stage, Linear and φ, from the pixels to the width. The head is that of
    the wide `mlp`: Linear to 400, φ, Linear.

    Args:
        image_shape: (channels, height, width); the stem flattens.
        depth: number of residual blocks, two Linear layers each, at least 1.
        width: neurons of every layer; None is one per pixel.
        activation: φ; tanh, erf, relu, gelu or linear.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range; the message names it.

    Source: the residual block of arXiv:2406.12916, which ends in its activation, with Linear layers
    for convolutions.
    """
    image_shape = _checked_shape(image_shape)
    pixels = math.prod(image_shape)
    depth = checked("depth", depth, int, low=1, high=DEEPEST)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    width = pixels if width is None else checked("width", width, int, low=1, high=WIDEST)
    weights = [pixels * width, 2 * depth * width**2, HEAD_WIDTH * (width + classes)]
    _check_memory("image_shape, width and depth", weights)
    stages = [_linear_stage(pixels, width, activation, flatten=True)]
    stages += [_residual_linear_stage(width, activation) for _ in range(depth)]
    head = nn.Sequential(
        nn.Linear(width, HEAD_WIDTH), activation_module(activation), nn.Linear(HEAD_WIDTH, classes)
    )
    return Network(nn.Sequential(*stages), head, image_shape=image_shape, stem=1)


def vgg16(
    weights: str | os.PathLike[str] = "imagenet",
    *,
    image_shape: Sequence[int] = (3, 224, 224),
    layers: int = 16,
    batch_norm: bool = False,
    classes: int | None = None,
    seed: int = 0,
) -> Network:
    """torchvision's VGG, with 16 layers or others, as stages; its logits are the last level.

    A stage is a convolution with batch norm and ReLU, a max-pooling, the flattening, or a fully
    connected layer with ReLU and dropout. So, of 16 layers, the levels 3, 6, 10, 14 and 18 are the
    poolings, 19 is flat, and 22 the logits; the head does nothing. Images are those in [0, 1] of
    every network here: the first stage normalises them as torchvision's weights expect.

    At 224×224 torchvision's average pooling to 7×7 does nothing, and there is no stage for it. At
    other sizes it is merged into the first fully connected layer: the network is the same function.
    So are weights that were trained on images of another size, such as 32×32: what their first
    fully connected layer reads is averaged to the size that it was trained at.

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
    _check_memory("image_shape", [512 * size[0] * size[1] * 4096])
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


def untrained(
    point: Any, image_shape: Sequence[int], classes: int, *, grey: bool = True
) -> Network:
    """The network that a point of an experiment describes, initialised.

    Args:
        point: its settings; see paperlib.experiment.
        image_shape: of the data set.
        classes: number of logits.
        grey: the network takes grey images; else it takes all channels.
    """
    shared = {"depth": point.depth, "activation": point.activation, "classes": classes}
    seen = (1, *image_shape[1:]) if grey else tuple(image_shape)
    with torch.random.fork_rng(devices=[]):  # which layers draw from before they are initialised
        if point.architecture == "mlp":
            network = mlp(seen, width=point.width or None, shape=point.shape, **shared)
        else:
            shared |= {"channels": point.channels}
            if point.architecture == "cnn":
                network = cnn(seen, padding=point.padding, **shared)
            else:
                network = resnet(seen, block=point.block, **shared)
    initialise(network, sigma_w2=point.sigma_w2, sigma_b2=point.sigma_b2, seed=point.seed)
    return network


def _checked_shape(image_shape: Any) -> tuple[int, int, int]:
    try:
        sizes = [checked("image_shape", n, int, low=1, high=WIDEST) for n in islice(image_shape, 4)]
        channels, height, width = sizes
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"image_shape must be (channels, height, width), each 1 to {WIDEST:,}; "
            f"got {quoted(image_shape)}"
        ) from error
    return channels, height, width


def _check_memory(names: str, weights: Iterable[int]) -> None:
    """Nothing; a ValueError where so many weights, in float32, are more than this machine holds."""
    needed = 4 * sum(weights)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            f"a network of this {names} needs {needed / 2**30:,.0f} GiB for its weights, this "
            f"machine has {memory / 2**30:,.0f} GiB; make it smaller, or scale the images down"
        )


def _linear_stage(fan_in: int, fan_out: int, activation: str, *, flatten: bool) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if flatten:
        modules["flatten"] = nn.Flatten()
    modules["linear"] = nn.Linear(fan_in, fan_out)
    modules["activation"] = activation_module(activation)
    return nn.Sequential(modules)


def _residual_linear_stage(width: int, activation: str) -> nn.Sequential:
    body = nn.Sequential(
        nn.Linear(width, width), activation_module(activation), nn.Linear(width, width)
    )
    block, end = ResidualBlock(body), activation_module(activation)
    return nn.Sequential(OrderedDict([("block", block), ("activation", end)]))


def _convolutional(
    stage: Callable[[], nn.Module],
    image_shape: Sequence[int],
    depth: int,
    channels: int,
    activation: str,
    classes: int,
) -> Network:
    """The network with `depth` such stages between the published stem and head."""
    image_shape = _checked_shape(image_shape)
    depth = checked("depth", depth, int, low=1, high=DEEPEST)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    _check_memory("channels and depth", [9 * channels**2 * (depth + 3)])
    stem = [
        _convolution_stage(image_shape[0], channels, activation),
        _convolution_stage(channels, channels, activation, stride=2),
        _convolution_stage(channels, channels, activation, stride=2),
    ]
    head = nn.Sequential(
        _convolution_stage(channels, channels, activation, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )
    stages = nn.Sequential(*stem, *(stage() for _ in range(depth)))
    return Network(stages, head, image_shape=image_shape, stem=len(stem))


def _convolution_stage(
    channels_in: int, channels_out: int, activation: str, **options: Any
) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["convolution"] = nn.Conv2d(channels_in, channels_out, 3, padding=1, **options)
    modules["activation"] = activation_module(activation)
    return nn.Sequential(modules)


def _hidden_stage(channels: int, activation: str, padding: str) -> nn.Sequential:
    """A convolution that keeps the image's size, and its activation."""
    if padding == "circular":
        return _convolution_stage(channels, channels, activation, padding_mode="circular")
    return nn.Sequential(
        OrderedDict(
            [
                ("convolution", nn.Conv2d(channels, channels, 3)),
                ("padding", nn.CircularPad2d(1)),
                ("activation", activation_module(activation)),
            ]
        )
    )


def _check_published(image_shape: Sequence[int]) -> None:
    """Raise a ValueError where the stem leaves too few positions for an unpadded convolution."""
    size = [-(-side // 4) for side in _checked_shape(image_shape)[1:]]
    if min(size) < 3:
        raise ValueError(
            f"the published padding needs images of at least 9×9, of which the stem leaves 3×3; "
            f"got {tuple(image_shape)}; take the other padding or block, or larger images"
        )


def _vgg_size(image_shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the last pooling's output."""
    channels, height, width = _checked_shape(image_shape)
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
    """Nothing; gives a model without numbers those of weights="random", in place."""
    model.to_empty(device="cpu")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    initialise(model, sigma_w2=2.0, sigma_b2=0.0, seed=seed)


def _residual_block(channels: int, activation: str, block: str) -> nn.Module:
    if block == "plain":
        first, second = (
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular") for _ in range(2)
        )
        return ResidualBlock(nn.Sequential(first, activation_module(activation), second))
    first, second = (nn.Conv2d(channels, channels, 3) for _ in range(2))
    body = (first, nn.CircularPad2d(1), activation_module(activation), second, nn.CircularPad2d(1))
    parts = [("block", ResidualBlock(nn.Sequential(*body)))]
    return nn.Sequential(OrderedDict([*parts, ("activation", activation_module(activation))]))


@torch.no_grad()
def initialise(network: nn.Module, *, sigma_w2: float, sigma_b2: float, seed: int) -> None:
    """Nothing; draws every weight and bias anew, in place: N(0, sigma_w2/fan_in), N(0, sigma_b2).

    The numbers are drawn on the CPU in float32, so that a network is the same on every device.

    Args:
        network: any module; its Linear and convolutional layers are drawn, stages and head.
        sigma_w2: weight variance times fan_in; fan_in of a convolution is in_channels times
            kernel area.
        sigma_b2: bias variance.
        seed: of this network's own random numbers; the global generator is not touched.

    Raises:
        ValueError: a variance or seed that is negative or no float32 can hold.

    Source: arXiv:1611.01232.
    """
    network = instance_of("network", network, nn.Module)
    sigma_w2 = checked("sigma_w2", sigma_w2, float, low=0, high=LARGEST_VARIANCE)
    sigma_b2 = checked("sigma_b2", sigma_b2, float, low=0, high=LARGEST_VARIANCE)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            fan_in = module.weight[0].numel()
            _draw(module.weight, (sigma_w2 / fan_in) ** 0.5, generator)
            if module.bias is not None:
                _draw(module.bias, sigma_b2**0.5, generator)


def _draw(parameter: Tensor, deviation: float, generator: torch.Generator) -> None:
    parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
