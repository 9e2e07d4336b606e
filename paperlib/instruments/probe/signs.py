"""What the result of one operation shows: its size, and whether its units live and differ."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from paperlib.activations.fields import shape_of
from paperlib.activations.operations import Step
from paperlib.core.seeds import random_numbers

SIDE = 8  # positions along each axis of a field that are looked at
ROWS = 256  # positions of all samples from which the rank is taken
SAME = 3e-6  # of the size, below which numbers are the same: a few roundings of float32
FEWEST = 32  # values of a channel, from which its mean and variance can be told
EDGE = {"tanh": (0.98, -0.98), "sigmoid": (0.99, 0.01)}  # from where less than 4% of slope is left


@dataclass(frozen=True)
class Signs:
    """What one operation's result shows.

    Attributes:
        layer, name: where and what it is.
        units: channels of fields, features of sequences, numbers of vectors.
        numbers: of one sample.
        rms: root mean square.
        spread: the same of the deviations from the mean over samples, so of what tells them apart.
        constant, dead, copied: shares of units that are the same for every sample, that are 0 for
            every sample, and that equal another unit.
        saturated: share of the numbers of tanh or sigmoid that lie at an end.
        highest: largest magnitude.
    """

    step: Step
    units: int
    numbers: int
    rms: float
    spread: float
    constant: float
    dead: float
    copied: float
    saturated: float
    highest: float
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        return self.step.layer

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def contrast(self) -> float:
        """What tells samples apart, as a fraction of the size."""
        return self.spread / self.rms if self.rms > 0 else 0.0


def units_of(values: Tensor) -> Tensor:
    """Return activations (n, *shape) as (n, units, positions), of fields 8 × 8 positions at most.

    Units are channels of fields, features of sequences, and numbers of vectors.
    """
    fields = shape_of(values.shape[1:]).field(values)
    steps = [max(1, -(-size // SIDE)) for size in fields.shape[2:]]
    if fields.shape[2] == 1:
        steps[1] = max(1, -(-fields.shape[3] // SIDE**2))
    return fields[:, :, :: steps[0], :: steps[1]].flatten(2).float()


def signs_of(step: Step, values: Tensor, facts: dict[str, float]) -> Signs:
    """Return what activations (n, *shape) show."""
    units = units_of(values)
    deviations = units - units.mean(0)
    size = units.abs().amax((0, 2))  # of each unit
    rms = float(units.square().mean().sqrt())
    apart = deviations.abs().amax((0, 2))
    constant = apart <= SAME * size.clamp(min=1e-30)
    saturated = math.nan
    if step.name in EDGE:
        high, low = EDGE[step.name]
        saturated = float(((units > high) | (units < low)).float().mean())
    return Signs(
        step,
        units.shape[1],
        values[0].numel(),
        rms,
        float(deviations.square().mean().sqrt()),
        float(constant.float().mean()),
        float((size == 0).float().mean()),
        copied_share(units[:, ~constant]),
        saturated,
        float(size.max()),
        facts,
    )


def copied_share(units: Tensor) -> float:
    """Return the share of units (n, units, positions) that equal an earlier one."""
    rows = units.transpose(0, 1).flatten(1)[:, :ROWS]
    if len(rows) < 2:
        return 0.0
    # equal rows have equal projections, so that they are neighbours in their order
    generator = random_numbers("copies", 0)
    direction = torch.randn(rows.shape[1], generator=generator).to(rows)
    seen = rows @ direction / (rows.norm(dim=1).mean() * direction.norm() / rows.shape[1] ** 0.5)
    seen, order = seen.sort()
    rows = rows[order]
    equal = (rows[1:] - rows[:-1]).norm(dim=1) <= 1e-4 * rows[1:].norm(dim=1)
    return float(((seen.diff() <= 1e-4) & equal).sum()) / len(rows)


def effective_rank(units: Tensor) -> float:
    """Return exp of the entropy of the covariance's spectrum, of (n, units, positions).

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    rows = units.transpose(1, 2).flatten(0, 1)
    some = torch.randperm(len(rows), generator=random_numbers("rows", 0))[:ROWS]
    rows = rows[some.to(rows.device)].double()
    rows = rows - rows.mean(0)
    gram = rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T
    if not bool(torch.isfinite(gram).all()):
        return math.nan
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    # a residue of rounding is no rank
    values = torch.where(values > 1e-10 * values.max(), values, 0)
    if not values.sum():
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def facts_of(step: Step, value: Tensor, arguments: tuple[Any, ...]) -> dict[str, float]:
    """Return what the arguments of an operation say that rules ask for."""
    if step.name == "elu":
        numbers = [float(a) for a in arguments[1:3]]
        return dict(zip(("alpha", "scale"), numbers, strict=False))
    if step.name == "leaky_relu":
        return {"slope": float(arguments[1]) if len(arguments) > 1 else 0.01}
    if step.name == "native_layer_norm":
        return {"over": float(math.prod(arguments[1]))}
    if step.name == "native_group_norm":
        channels, positions, groups = (int(number) for number in arguments[4:7])
        return {"over": channels * positions / groups}
    if step.name == "_softmax":
        return {"over": float(value.shape[arguments[1]])}
    if "batch_norm" in step.name and value.ndim > 1 and isinstance(arguments[4], Tensor):
        return _staleness(*(arguments[place] for place in (0, 3, 4)))
    return {}


def _staleness(given: Tensor, mean: Tensor, variance: Tensor) -> dict[str, float]:
    """How far running statistics are from those of a batch, the median over channels; nothing where
    a channel has so few values that their own variance is a guess."""
    rows = given.transpose(0, 1).flatten(1).float()
    if rows.shape[1] < FEWEST:
        return {}
    scale = variance.float().clamp(min=1e-12)
    shift = (rows.mean(1) - mean).abs() / scale.sqrt()
    ratio = (rows.var(1, correction=0).clamp(min=1e-12) / scale).log()
    return {"shift": float(shift.median()), "ratio": math.exp(float(ratio.median()))}
