"""A zoo of networks by number: seven families, eleven activations, good and bad initialisations.

A number stands for the same network for ever, and describes itself:

    from paperlib.networks.zoo import describe, zoo_network

    print(describe(12))
    network = zoo_network(12, (1, 28, 28), 10)

The families come in turn; all else is drawn by lot. Depths and widths are drawn on a logarithmic
scale, depths with more weight on deep networks. Costs are bounded: `step_cost` estimates the
milliseconds of one training step of 32 MNIST images on one core, from the multiplications and from
what every block costs, however small. A limit is drawn from `AFFORDABLE`, then a depth that the
narrowest network can afford, then a width that this depth can.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from paperlib.core.checks import LARGEST_SEED, checked
from paperlib.core.seeds import random_numbers
from paperlib.networks.network import WIDEST, Network, checked_shape
from paperlib.networks.zoo_blocks import ACTIVATIONS, BUILDERS, CELLS, EXPANSION
from paperlib.networks.zoo_weights import PRESERVING_GAIN, draw_weights

FAMILIES = tuple(BUILDERS)
DEPTHS = {  # of blocks; a residual block has two layers with weights, a transformer's more
    "mlp": (2, 100),
    "cnn": (2, 100),
    "residual mlp": (2, 50),
    "residual cnn": (2, 50),
    "transformer": (2, 24),
    "recurrent": (1, 4),  # layers; through time it is as deep as the image has rows
    "mixer": (2, 24),
}
NARROWEST, WIDTHS = 16, 300
SIDE = 28  # of the images that costs are estimated for
# Milliseconds that a training step may take, with their shares: few networks are dear.
AFFORDABLE = {6.0: 0.6, 12.0: 0.25, 30.0: 0.15}
DEAREST = max(AFFORDABLE)
HARD_DEPTH = 8  # blocks, see `hard_numbers`
RATE = {  # multiplications per image and millisecond, in a step of 32 images
    "mlp": 2e5,
    "cnn": 1.8e5,
    "residual mlp": 2e5,
    "residual cnn": 2e5,
    "transformer": 8e4,
    "recurrent": 2e5,
    "mixer": 1.2e5,
}
OVERHEAD = {  # milliseconds per block, however small; of a recurrent layer per token
    "mlp": 0.1,
    "cnn": 0.4,
    "residual mlp": 0.25,
    "residual cnn": 0.8,
    "transformer": 1.2,
    "rnn": 0.07,
    "gru": 0.2,
    "lstm": 0.1,
    "mixer": 0.7,
}


@dataclass(frozen=True, kw_only=True)
class ZooDescription:
    """What a number of the zoo stands for.

    Attributes:
        number: of the network.
        family: one of `FAMILIES`.
        depth: blocks of the family, see `DEPTHS`; the stem and the head are not counted.
        width: neurons, channels or numbers per token.
        activation: φ; of recurrent networks, that of an rnn; gru and lstm have their own.
        norm: "none", "batch" or "layer"; "layer" in convolutional networks is over all numbers of
            an image.
        placement: "pre" (before the weights, inside a branch), "post" (after the weights in plain
            and residual networks; after the sum in transformers and mixers) or "none".
        branch: factor of residual branches; 0 where nothing is skipped.
        pooling: before the head, "mean" or "flat"; of convolutional networks.
        stride: of the stem, which takes patches of that side; of convolutional networks.
        rows: of the image in each token; 0 where tokens are patches.
        patches: along each side of the image, one token each; 0 where tokens are rows.
        heads: of attention.
        cell: "rnn", "gru" or "lstm"; of recurrent networks.
        scheme: one of `zoo_weights.SCHEMES`.
        gain: of the scheme.
        bias: deviation of the biases; 0: those of the scheme.
        zeroed: weights that are zero, one of `zoo_weights.ZEROED`.
        odd_layer: factor on the weights of one layer, drawn by lot; 1 is none.
    """

    number: int
    family: str
    depth: int
    width: int
    activation: str
    norm: str = "none"
    placement: str = "none"
    branch: float = 0.0
    pooling: str = ""
    stride: int = 0
    rows: int = 0
    patches: int = 0
    heads: int = 0
    cell: str = ""
    scheme: str = "default"
    gain: float = 1.0
    bias: float = 0.0
    zeroed: str = "none"
    odd_layer: float = 1.0

    def __str__(self) -> str:
        parts = [
            f"{self.cell or self.family} of depth {self.depth} and width {self.width}",
            self.activation,
            f"{self.placement}-{self.norm} norm" if self.norm != "none" else "no norm",
            *([f"branches × {self.branch:g}"] if self.branch not in (0, 1) else []),
            *(
                ["no skips"]
                if (self.rows or self.patches) and not (self.cell or self.branch)
                else []
            ),
            f"{self.scheme} weights" + (f" of gain {self.gain:g}" if self.gain != 1 else ""),
            *([f"biases of deviation {self.bias:g}"] if self.bias else []),
            *([f"zeroed: {self.zeroed}"] if self.zeroed != "none" else []),
            *([f"one layer × {self.odd_layer:g}"] if self.odd_layer != 1 else []),
        ]
        return f"{self.number}: {', '.join(parts)}"


def zoo_network(
    number: int, image_shape: Sequence[int] = (1, SIDE, SIDE), classes: int = 10
) -> Network:
    """Build the network of the zoo with this number, initialised.

    Example:
        >>> import torch
        >>> from paperlib.networks.zoo import zoo_network
        >>> network = zoo_network(12, (1, 28, 28), 10)
        >>> tuple(network(torch.zeros(2, 1, 28, 28)).shape)
        (2, 10)

    Args:
        number: any whole number from 0 on; the same network for ever, however it is called.
        image_shape: (channels, height, width); the description does not depend on it.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range; the message names it.
    """
    d = describe(number)
    image_shape = checked_shape(image_shape)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    generator = random_numbers("zoo", d.number)
    with torch.random.fork_rng(devices=[]):  # which layers draw their default weights from
        torch.default_generator.manual_seed(generator.initial_seed())
        stages, head = BUILDERS[d.family](d, image_shape, classes)
    network = Network(torch.nn.Sequential(*stages), head, image_shape=image_shape)
    draw_weights(network, d, generator)
    return network


def describe(number: int) -> ZooDescription:
    """Return what a number of the zoo stands for.

    Example:
        >>> from paperlib.networks.zoo import describe
        >>> describe(12).family
        'recurrent'

    Raises:
        ValueError: a number that is negative or not whole.
    """
    number = checked("number", number, int, low=0, high=LARGEST_SEED)
    lot = _Lot(number)
    shape = _shape(lot, FAMILIES[number % len(FAMILIES)])
    weights = _weights(lot, shape)
    d = ZooDescription(number=number, depth=2, width=NARROWEST, **shape, **weights)
    return _sized(lot, d)


def hard_numbers(each: int, *, first: int = 300) -> tuple[int, ...]:
    """Return numbers whose networks are deep and have no norm before their weights.

    They have `HARD_DEPTH` blocks or more, so fewer of them train than of all numbers. Recurrent
    networks are never so deep.

    Example:
        >>> from paperlib.networks.zoo import describe, hard_numbers
        >>> sorted({describe(number).family for number in hard_numbers(1)})
        ['cnn', 'mixer', 'mlp', 'residual cnn', 'residual mlp', 'transformer']

    Args:
        each: networks of each family, the lowest numbers that there are.
        first: the lowest number.
    """
    found: dict[str, list[int]] = {
        family: [] for family in FAMILIES if DEPTHS[family][1] > HARD_DEPTH
    }
    for number in itertools.count(first):
        if all(len(numbers) == each for numbers in found.values()):
            break
        d = describe(number)
        deep = d.depth >= HARD_DEPTH and d.placement != "pre"
        if deep and len(found[d.family]) < each:
            found[d.family].append(number)
    return tuple(sorted(number for numbers in found.values() for number in numbers))


def step_cost(d: ZooDescription) -> float:
    """Return about how many milliseconds a training step of 32 MNIST images takes on one core."""
    overhead = OVERHEAD[d.cell] * SIDE / d.rows if d.cell else OVERHEAD[d.family]
    return overhead * d.depth + _multiplications(d) / RATE[d.family]


class _Lot:
    """Draws by lot, from uniform numbers alone: what else is drawn may differ between Pythons."""

    def __init__(self, number: int) -> None:
        self.uniform = random.Random(f"zoo {number}").random

    def between(self, low: float, high: float, *, power: float = 1.0) -> float:
        """A number of three digits, log-uniform; powers below 1 favour large ones."""
        drawn = math.exp(math.log(low) + self.uniform() ** power * math.log(high / low))
        return float(f"{drawn:.3g}")

    def one(self, choices: Mapping[Any, float] | Sequence[Any]) -> Any:
        """One of several, by their weights or evenly."""
        if not isinstance(choices, Mapping):
            return choices[int(self.uniform() * len(choices))]
        place = self.uniform() * sum(choices.values())
        for choice, weight in choices.items():
            place -= weight
            if place < 0:
                return choice
        return choice


def _shape(lot: _Lot, family: str) -> dict[str, Any]:
    """All of a description but its size and its weights."""
    drawn: dict[str, Any] = {"family": family, "activation": lot.one(tuple(ACTIVATIONS))}
    if family in ("mlp", "cnn"):
        drawn["norm"] = lot.one({"none": 0.7, "batch": 0.15, "layer": 0.15})
        drawn["placement"] = "none" if drawn["norm"] == "none" else "post"
    elif family.startswith("residual"):
        drawn["norm"] = lot.one({"none": 0.4, "batch": 0.3, "layer": 0.3})
        drawn["placement"] = lot.one({"pre": 0.6, "post": 0.4})
        drawn["branch"] = lot.one({1.0: 0.6, 0.3: 0.2, 0.05: 0.1, 3.0: 0.1})
    elif family in ("transformer", "mixer"):
        drawn["placement"] = lot.one({"pre": 0.4, "post": 0.3, "none": 0.3})
        drawn["norm"] = "none" if drawn["placement"] == "none" else "layer"
        drawn["branch"] = lot.one({1.0: 0.65, 0.0: 0.2, 0.3: 0.15})
        drawn |= lot.one(({"patches": 3}, {"patches": 4}, {"patches": 5}, {"rows": 2}))
        drawn["heads"] = lot.one((1, 2, 4)) if family == "transformer" else 0
    else:
        drawn |= {"cell": lot.one(tuple(CELLS)), "rows": lot.one((1, 2))}
        drawn["activation"] = lot.one(("tanh", "relu")) if drawn["cell"] == "rnn" else "tanh"
    if family.endswith("cnn"):
        drawn |= {"pooling": lot.one(("mean", "flat")), "stride": lot.one((4, 8))}
    return drawn


def _weights(lot: _Lot, shape: Mapping[str, Any]) -> dict[str, Any]:
    """How the weights are initialised: as they come, well, or badly in one or several ways."""
    shares = {"default": 0.25, "preserving": 0.12, "normal": 0.25, "orthogonal": 0.13}
    shares |= {"fan_out": 0.05, "fixed": 0.08, "constant": 0.06, "sparse": 0.06}
    drawn: dict[str, Any] = {"scheme": lot.one(shares)}
    if drawn["scheme"] == "preserving":
        drawn["gain"] = PRESERVING_GAIN[shape["activation"]]
    elif drawn["scheme"] != "default":
        drawn["gain"] = lot.between(0.1, 10)
    if lot.uniform() < 0.15:
        drawn["bias"] = lot.between(0.1, 10)
    if lot.uniform() < 0.1:
        drawn["zeroed"] = lot.one(("head", "first", "middle", "branches"))
    if lot.uniform() < 0.12:
        drawn["odd_layer"] = lot.between(1e-4, 1e4)
    return drawn


def _sized(lot: _Lot, d: ZooDescription) -> ZooDescription:
    """The description with a depth and a width that it can afford."""
    limit = lot.one(AFFORDABLE)
    shallow, deep = DEPTHS[d.family]
    while deep > shallow and step_cost(replace(d, depth=deep)) > limit:
        deep -= 1
    d = replace(d, depth=round(lot.between(shallow, deep, power=0.6)))
    wide = WIDTHS
    while wide > NARROWEST and step_cost(replace(d, width=wide)) > limit:
        wide -= 4
    return replace(d, width=4 * round(lot.between(NARROWEST, wide) / 4))  # heads divide it


def _multiplications(d: ZooDescription) -> float:
    """About how many multiplications the logits of one image take."""
    depth, width = d.depth, d.width
    if d.family.endswith("mlp"):
        layers = 2 * depth if d.branch else depth
        return SIDE**2 * width + layers * width**2
    if d.family.endswith("cnn"):
        layers = 2 * depth if d.branch else depth
        return SIDE**2 * width + 9 * layers * math.ceil(SIDE / d.stride) ** 2 * width**2
    if d.family == "recurrent":
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[d.cell]
        return gates * (SIDE**2 * width + SIDE / d.rows * (2 * depth - 1) * width**2)
    tokens = SIDE / d.rows if d.rows else d.patches**2
    channel_layers = 2 * EXPANSION * tokens * width**2
    if d.family == "transformer":
        return depth * (channel_layers + 4 * tokens * width**2 + 2 * tokens**2 * width)
    return depth * (channel_layers + 2 * EXPANSION * tokens**2 * width)
