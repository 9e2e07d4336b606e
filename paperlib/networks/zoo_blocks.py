"""The parts that the networks of the zoo are made of, and their stages, family by family."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.networks.network import ResidualBlock, Scale


class Sine(nn.Module):
    """sin(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "sine": Sine,
}
CELLS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
EXPANSION = 2  # of the hidden layers in transformers and mixers


class Rows(nn.Module):
    """Images as tokens of `count` rows each, (n, tokens, channels · count · width); zeros fill up
    the last one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, images: Tensor) -> Tensor:
        images = nn.functional.pad(images, (0, 0, 0, -images.shape[2] % self.count))
        return images.unflatten(2, (-1, self.count)).transpose(1, 2).flatten(2)


class Patches(nn.Module):
    """Images as side × side patches, (n, tokens, channels · side²); zeros fill up the last ones."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        missing = (0, -width % self.side, 0, -height % self.side)
        images = nn.functional.pad(images, missing)
        return nn.functional.unfold(images, self.side, stride=self.side).mT


class Position(nn.Module):
    """Tokens (n, tokens, width) plus a learnt number for each position."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embedding


class Attention(nn.Module):
    """Self-attention of tokens (n, tokens, width), from Linear layers and plain products."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        # (n, heads, tokens, width of a head)
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
        found: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return found


class AcrossTokens(nn.Module):
    """A body that mixes tokens where it would mix channels."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.mT).mT


class Recurrent(nn.Module):
    """One recurrent layer along the tokens: all its outputs, (n, tokens, width)."""

    def __init__(self, cell: str, fan_in: int, width: int, activation: str) -> None:
        super().__init__()
        options = {"nonlinearity": activation} if cell == "rnn" else {}
        self.cell = CELLS[cell](fan_in, width, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class LastToken(nn.Module):
    """The last of the tokens, (n, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


class MeanToken(nn.Module):
    """The mean over the tokens, (n, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


Stages = tuple[list[nn.Module], nn.Module]  # and the head


def mlp(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return `depth` stages (Linear, norm, φ) and the head."""
    widths = [math.prod(image_shape), *[d.width] * d.depth]
    stages: list[nn.Module] = [
        _chain(nn.Linear(a, b), _norm(d.norm, b), _activation(d)) for a, b in pairwise(widths)
    ]
    stages[0] = _chain(nn.Flatten(), stages[0])
    return stages, nn.Linear(d.width, classes)


def cnn(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return a stem of patches, and `depth` stages (convolution, norm, φ)."""
    stages = [
        _chain(_convolution(d), _norm2d(d.norm, d.width), _activation(d)) for _ in range(d.depth)
    ]
    return [_stem(d, image_shape), *stages], _pooled(d, image_shape, classes)


def residual_mlp(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return a stem and `depth` blocks x + f(x) of two Linear layers each, and the head."""
    stem = _chain(nn.Flatten(), nn.Linear(math.prod(image_shape), d.width))
    blocks = [_residual(d, _norm, lambda: nn.Linear(d.width, d.width)) for _ in range(d.depth)]
    return [stem, *blocks], _chain(*_end(d, _norm), nn.Linear(d.width, classes))


def residual_cnn(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return a stem and `depth` blocks x + f(x) of two convolutions each, and the head."""
    blocks = [_residual(d, _norm2d, lambda: _convolution(d)) for _ in range(d.depth)]
    head = _chain(*_end(d, _norm2d), *_pooled(d, image_shape, classes))
    return [_stem(d, image_shape), *blocks], head


def transformer(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return an embedding and `depth` blocks of attention and an MLP each, and the head."""
    stem, _ = _tokens(d, image_shape)
    blocks = [
        _chain(
            _sublayer(d, Attention(d.width, d.heads)),
            _sublayer(d, _two_layers(d, d.width)),
        )
        for _ in range(d.depth)
    ]
    return [stem, *blocks], _token_head(d, classes)


def recurrent(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return `depth` recurrent layers over the image's rows, and the head on the last state."""
    channels, _, columns = image_shape
    fans = [channels * d.rows * columns, *[d.width] * (d.depth - 1)]
    stages: list[nn.Module] = [Recurrent(d.cell, fan, d.width, d.activation) for fan in fans]
    stages[0] = _chain(Rows(d.rows), stages[0])
    return stages, _chain(LastToken(), nn.Linear(d.width, classes))


def mixer(d: Any, image_shape: Sequence[int], classes: int) -> Stages:
    """Return an embedding and `depth` blocks that mix tokens, then channels, and the head."""
    stem, tokens = _tokens(d, image_shape)
    blocks = [
        _chain(
            _sublayer(d, AcrossTokens(_two_layers(d, tokens))),
            _sublayer(d, _two_layers(d, d.width)),
        )
        for _ in range(d.depth)
    ]
    return [stem, *blocks], _token_head(d, classes)


BUILDERS: dict[str, Callable[[Any, Sequence[int], int], Stages]] = {
    "mlp": mlp,
    "cnn": cnn,
    "residual mlp": residual_mlp,
    "residual cnn": residual_cnn,
    "transformer": transformer,
    "recurrent": recurrent,
    "mixer": mixer,
}


def _chain(*modules: nn.Module) -> nn.Sequential:
    """Modules one after the other, without those that do nothing."""
    return nn.Sequential(*(module for module in modules if not isinstance(module, nn.Identity)))


def _activation(d: Any) -> nn.Module:
    return ACTIVATIONS[d.activation]()


def _norm(kind: str, width: int) -> nn.Module:
    """Of features (n, width) or tokens (n, tokens, width)."""
    kinds = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    return kinds[kind](width)


def _norm2d(kind: str, channels: int) -> nn.Module:
    """Of images (n, channels, height, width); "layer" is over all their numbers."""
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


def _convolution(d: Any) -> nn.Module:
    return nn.Conv2d(d.width, d.width, 3, padding=1)


def _stem(d: Any, image_shape: Sequence[int]) -> nn.Module:
    """A convolution of `stride` × `stride` patches side by side."""
    channels, *sides = image_shape
    padding = tuple(-(-(-side % d.stride) // 2) for side in sides)
    patches = nn.Conv2d(channels, d.width, d.stride, stride=d.stride, padding=padding)
    return _chain(patches, _norm2d(d.norm, d.width), _activation(d))


def _pooled(d: Any, image_shape: Sequence[int], classes: int) -> nn.Sequential:
    """A head on the mean over the image, or on all its positions."""
    if d.pooling == "mean":
        return _chain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(d.width, classes))
    positions = math.prod(-(-side // d.stride) for side in image_shape[1:])
    return _chain(nn.Flatten(), nn.Linear(d.width * positions, classes))


def _residual(
    d: Any, norm: Callable[[str, int], nn.Module], weights: Callable[[], nn.Module]
) -> nn.Module:
    """x + scale · f(x): norm, φ and weights twice; or φ(x + scale · f(x)), norms after weights."""
    norms = [norm(d.norm, d.width) for _ in range(2)]
    if d.placement == "pre":
        body = _chain(norms[0], _activation(d), weights(), norms[1], _activation(d), weights())
        return ResidualBlock(_chain(*body, _scale(d)))
    body = _chain(weights(), norms[0], _activation(d), weights(), norms[1])
    return _chain(ResidualBlock(_chain(*body, _scale(d))), _activation(d))


def _end(d: Any, norm: Callable[[str, int], nn.Module]) -> list[nn.Module]:
    """What closes a sum of branches that begin with norm and φ."""
    return [norm(d.norm, d.width), _activation(d)] if d.placement == "pre" else []


def _scale(d: Any) -> nn.Module:
    return nn.Identity() if d.branch == 1 else Scale(d.branch)


def _sublayer(d: Any, body: nn.Module) -> nn.Module:
    """A body with its LayerNorm before it, after the sum or not at all; 0 is without the skip."""
    norm = _norm(d.norm, d.width)
    inner = _chain(norm, body) if d.placement == "pre" else _chain(body)
    outer = ResidualBlock(_chain(*inner, _scale(d))) if d.branch else inner
    return _chain(outer, norm) if d.placement == "post" else outer


def _two_layers(d: Any, width: int) -> nn.Module:
    hidden = EXPANSION * width
    return _chain(nn.Linear(width, hidden), _activation(d), nn.Linear(hidden, width))


def _tokens(d: Any, image_shape: Sequence[int]) -> tuple[nn.Module, int]:
    """The stem that makes tokens of an image, and their number."""
    channels, height, columns = image_shape
    cut: nn.Module
    if d.rows:
        cut, fan_in, tokens = Rows(d.rows), channels * d.rows * columns, -(-height // d.rows)
    else:
        side = -(-height // d.patches)
        cut, fan_in = Patches(side), channels * side**2
        tokens = -(-height // side) * -(-columns // side)
    position = Position(tokens, d.width) if d.family == "transformer" else nn.Identity()
    return _chain(cut, nn.Linear(fan_in, d.width), position), tokens


def _token_head(d: Any, classes: int) -> nn.Module:
    norm = _norm(d.norm, d.width) if d.placement == "pre" else nn.Identity()
    return _chain(norm, MeanToken(), nn.Linear(d.width, classes))
