"""Activations of any model as fields (channels, height, width) of a bounded size.

Larger activations are averaged over squares of 2, 4, 8 … positions and projected on their principal
channels. So what can be read from a field is a lower bound on what the activation holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GRID = 32  # positions along an axis, at most
CHANNELS = 128  # at most, where there is more than one position
IN_FRONT = (0, 1, 2, 5)  # tokens that belong to no place: of the class, of a teacher, registers
_ROWS = 4096  # positions whose channels the principal ones are found from


@dataclass(frozen=True)
class Shape:
    """How the numbers of one sample are arranged into a field.

    Attributes:
        raw: as the layer returns them.
        channels, height, width: of the field, before it is made smaller.
        channels_last: the last axis of `raw` counts channels.
        skipped: tokens in front that are left out.
    """

    raw: tuple[int, ...]
    channels: int
    height: int = 1
    width: int = 1
    channels_last: bool = False
    skipped: int = 0

    @property
    def positions(self) -> int:
        """The number of places in the field."""
        return self.height * self.width

    @property
    def kind(self) -> str:
        """vector, sequence or field."""
        return "field" if self.height > 1 else "sequence" if self.width > 1 else "vector"

    def field(self, values: Tensor) -> Tensor:
        """The numbers (n, *raw) as (n, channels, height, width)."""
        if self.channels_last:
            values = values.flatten(1, -2)[:, self.skipped :].transpose(1, 2)
        return values.reshape(len(values), self.channels, self.height, self.width)


def shape_of(
    raw: Sequence[int], *, image: Sequence[int] | None = None, channels_first: bool = False
) -> Shape:
    """Return the field that numbers of one sample make.

    Three axes are channels, height and width, or height, width and channels where the first two are
    equal and the third is not. Two axes are tokens or times and their features (the other way round
    with `channels_first`, after one-dimensional convolutions); tokens that make a grid as an image
    cut into squares does are put in their places.

    Args:
        raw: without the batch.
        image: of the input, where that is (channels, height, width).
        channels_first: of two axes, the first counts channels.
    """
    raw = tuple(raw)
    if len(raw) < 2:
        return Shape(raw, raw[0] if raw else 1)
    if len(raw) == 2:
        if channels_first:
            return Shape(raw, raw[0], 1, raw[1])
        tokens, features = raw
        placed = _grid(tokens, image)
        if placed is None:
            return Shape(raw, features, 1, tokens, channels_last=True)
        return Shape(raw, features, *placed[:2], channels_last=True, skipped=placed[2])
    if len(raw) == 3 and raw[0] == raw[1] != raw[2]:
        return Shape(raw, raw[2], raw[0], raw[1], channels_last=True)
    return Shape(raw, raw[0], math.prod(raw[1:-1]), raw[-1])


def _grid(tokens: int, image: Sequence[int] | None) -> tuple[int, int, int] | None:
    """Rows and columns of the tokens of an image cut into squares, and how many are left over."""
    if image is None or len(image) != 3:
        return None
    sides = [s for s in range(2, min(image[1:])) if image[1] % s == 0 and image[2] % s == 0]
    for skipped in IN_FRONT:
        for side in sides:
            rows, columns = image[1] // side, image[2] // side
            if rows * columns == tokens - skipped:
                return rows, columns, skipped
    return None


@dataclass
class Level:
    """A place in a model, what is kept of its activations, and what they measured.

    Attributes:
        shape: of the activations.
        numbers: of one sample, that may be kept.
        square: of the activations, summed, their own sum, and how many numbers that were.
    """

    shape: Shape
    numbers: int
    pool: int = 1
    channels: int = 0
    basis: Tensor | None = None
    square: float = 0.0
    total: float = 0.0
    counted: int = 0

    def __post_init__(self) -> None:
        shape = self.shape
        self.channels = shape.channels
        if shape.positions > 1:
            self.channels = min(shape.channels, CHANNELS)
        while max(self.height, self.width) > GRID:
            self.pool *= 2
        while self.channels * self.height * self.width > self.numbers:
            if self.channels > 16 or self.height * self.width == 1:
                self.channels = max(1, self.channels // 2)
            else:
                self.pool *= 2

    @property
    def height(self) -> int:
        """Of the field that is kept."""
        return -(-self.shape.height // self.pool)

    @property
    def width(self) -> int:
        """Of the field that is kept."""
        return -(-self.shape.width // self.pool)

    @property
    def kept_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what is kept of one sample."""
        return self.channels, self.height, self.width

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        shape = self.shape
        return self.kept_shape == (shape.channels, shape.height, shape.width) and not shape.skipped

    @property
    def mean_square(self) -> float:
        """Of all activations that were taken in."""
        return self.square / self.counted if self.counted else 0.0

    @property
    def variance(self) -> float:
        """Of all activations that were taken in, among samples and units."""
        if not self.counted:
            return 0.0
        return max(0.0, self.mean_square - (self.total / self.counted) ** 2)

    def take(self, values: Tensor) -> Tensor:
        """What is kept of activations (n, *raw): (n, *kept_shape), copied, on the CPU in float32.

        The principal channels are those of the first activations that are taken.
        """
        flat = values.flatten()
        self.square += float(torch.linalg.vector_norm(flat, dtype=torch.float64)) ** 2
        self.total += float(flat.sum(dtype=torch.float64))
        self.counted += flat.numel()
        fields = self.shape.field(values.float())
        if self.pool > 1:
            sides = (min(self.pool, self.shape.height), min(self.pool, self.shape.width))
            fields = nn.functional.avg_pool2d(fields, sides, ceil_mode=True)
        if self.channels < self.shape.channels:
            if self.basis is None:
                self.basis = principal(fields.transpose(0, 1).flatten(1).T, self.channels)
            fields = torch.einsum("nchw,ck->nkhw", fields, self.basis)
        kept = fields.cpu().contiguous()
        return kept.clone() if kept.data_ptr() == values.data_ptr() else kept


def principal(rows: Tensor, count: int) -> Tensor:
    """Return the `count` directions (features, count) in which rows (n, features) vary most.

    Where there are fewer rows than that, further directions are zero.
    """
    step = max(1, -(-len(rows) // _ROWS))
    rows = rows[::step] - rows[::step].mean(0)
    if len(rows) >= rows.shape[1]:
        _, vectors = torch.linalg.eigh(rows.T @ rows)
        return vectors[:, -count:].flip(1)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    count_found = min(count, len(rows))
    values, vectors = values[-count_found:].flip(0), vectors[:, -count_found:].flip(1)
    found = rows.T @ vectors / values.clamp(min=1e-12 * max(float(values[0]), 1e-30)).sqrt()
    missing = found.new_zeros(len(found), count - count_found)
    return torch.cat([found, missing], 1)
