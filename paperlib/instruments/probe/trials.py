"""Initialisations that are tried on copies of a model, each looked at by a glance.

Only weights that look drawn at random are changed. What it means for one to be good: the image
arrives, and a gradient comes back as strong as it set out.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.activations.inputs import Inputs
from paperlib.activations.tracing import Stage
from paperlib.activations.tuning import looks_drawn, unit_variance
from paperlib.core.provenance import provenance
from paperlib.core.seeds import random_numbers
from paperlib.instruments.probe.examination import SAMPLES, Examination
from paperlib.instruments.probe.glance import glance
from paperlib.instruments.probe.report import ALIVE, Report, report_of
from paperlib.instruments.probe.sizes import activation_after, fitting_for

BETTER = 0.5  # of ln R² and ln of the gradient's change together, that is worth a change
HEALTHY_BETTER = 3.0  # the same where nothing ails the model: 20-fold
FAINTEST = 1e-3  # R² below which nothing is told apart
FARTHEST = 25.0  # |ln| of a gradient's change, from which on nothing is told apart
NARROW = 8  # numbers; narrower stages are to be widened
AS_IS, KNOWN, LAYERS = "as it is", "known gains", "layer by layer"


@dataclass(frozen=True)
class Change:
    """What is done to a model's parameters.

    Attributes:
        rule: how it was found.
        factors: of weights, by name.
        drawn: standard deviations of weights that are drawn anew, by name.
        zeroed: biases that become 0.
    """

    rule: str = AS_IS
    factors: Mapping[str, float] = field(default_factory=dict)
    drawn: Mapping[str, float] = field(default_factory=dict)
    zeroed: tuple[str, ...] = ()

    @torch.no_grad()
    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model in place, and return it."""
        named = dict(model.named_parameters())
        for name, factor in self.factors.items():
            named[name].mul_(factor)
        for name, deviation in self.drawn.items():
            numbers = torch.randn(named[name].shape, generator=random_numbers(f"draw {name}", 0))
            named[name].copy_(deviation * numbers)
        for name in self.zeroed:
            named[name].zero_()
        return model


@dataclass(frozen=True)
class Aids:
    """What a probe hands on, so that other initialisations need only a glance.

    Attributes:
        values: the model's arguments, see `Inputs`.
        labels: of the samples, or None.
        stages: of the model.
        fits: σ_w² of weights as they are and as the activation behind them needs it, by name.
        stuck: weights that are all one number, or zeros that never move.
        seed, batch_norm, memory: as for `probe`.
    """

    values: Any
    labels: Tensor | None
    stages: Sequence[Stage]
    fits: Mapping[str, tuple[float, float]]
    stuck: Mapping[str, float]
    seed: int
    batch_norm: str
    memory: float

    def look(self, report: Report, model: nn.Module) -> tuple[Report, float]:
        """A report at a glance, and how a gradient changes on its way back."""
        options: dict[str, Any] = {"seed": self.seed, "batch_norm": self.batch_norm}
        table, change = glance(
            model, self.values, self.labels, self.stages, memory=self.memory, **options
        )
        given = provenance(report.result)["config"].get("cosine_of_inputs")
        found = report_of(table, None, {"config": {"cosine_of_inputs": given}})
        if "phases" in report.result.attrs:
            found.attrs["phases"] = report.result.attrs["phases"]
        return Report(found, lambda _: report, model), change

    def unit_variance(self, model: nn.Module, names: Sequence[str]) -> dict[str, float]:
        """The factors with which every layer's outputs have variance 1."""
        inputs = Inputs.in_order(self.values, model)
        values = inputs.part(0, min(SAMPLES, inputs.train))
        return unit_variance(model, values, names, seed=self.seed)


def aids_of(found: Examination, inputs: Inputs, labels: Tensor | None, **how: Any) -> Aids:
    """Return what is needed of an examination; `how` holds the rest of `Aids`."""
    fits: dict[str, tuple[float, float]] = {}
    stuck: dict[str, float] = {}
    for weight in found.weights:
        after = activation_after(found, weight.node)
        fit = None if after is None else fitting_for(after)
        wanted = 1.0 if fit is None else fit.sigma_w2
        if weight.same_rows or (weight.rms == 0 and not weight.gradient > 0):
            stuck[weight.parameter] = math.sqrt(wanted / weight.fan_in)
        elif fit is not None and weight.rms > 0:
            fits[weight.parameter] = weight.sigma_w2, fit.sigma_w2
    return Aids(inputs.values, labels, fits=fits, stuck=stuck, **how)


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that are drawn with a variance: two axes or more, no embeddings."""
    return list(named_weights(model).values())


def named_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return these weights by name, each once."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
            for name, parameter in module.named_parameters(recurse=False):
                if "weight" in name and parameter.ndim > 1 and parameter.is_floating_point():
                    whole = f"{prefix}.{name}" if prefix else name
                    found.setdefault(id(parameter), (whole, parameter))
    return dict(found.values())


@dataclass
class Tried:
    change: Change
    report: Report | None
    score: float


class Trial:
    """Initialisations that are tried on copies of a model."""

    def __init__(
        self,
        report: Report,
        model: nn.Module,
        probed: Callable[[nn.Module], Report],
        aids: Aids | None,
    ) -> None:
        self.report, self.model, self.probed, self.aids = report, model, probed, aids
        named = named_weights(model)
        if not named:
            raise ValueError(
                f"{type(model).__name__} has no weight with two axes or more to rescale; rescale "
                "its own parameters and probe it again"
            )
        free = {name: w for name, w in named.items() if w.requires_grad and looks_drawn(w)}
        self.trained = [name for name in named if name not in free]
        self.weights = free
        self.tried: dict[Any, Tried] = {}

    def look(self, key: Any, change: Change) -> None:
        """Try a change, unless its key was tried."""
        if key in self.tried:
            return
        copied = change.apply(copy.deepcopy(self.model))
        report, gain = None, math.nan
        try:
            if self.aids is None:
                report = self.report if change.rule == AS_IS else self.probed(copied)
            else:
                report, gain = self.aids.look(self.report, copied)
        except (ValueError, RuntimeError):  # it overflows
            pass
        self.tried[key] = Tried(change, report, score_of(report, gain))

    @property
    def narrow(self) -> str | None:
        """The layer that is too narrow for any variance to help; None where none is."""
        report = self.report
        numbers = report.result["numbers"].values[: report.end]
        place = int(numbers.argmin())
        if numbers[place] >= NARROW or report.phase_numbers["r_squared"] > ALIVE:
            return None
        return str(report.result["layer"].values[place])

    def scaled(self, gain: float) -> Change:
        """All weights by one factor."""
        if gain == 1:
            return Change()
        return Change("one factor", {name: math.sqrt(gain) for name in self.weights})

    def by_rules(self) -> Iterator[Change]:
        """The known gains, and those that data say."""
        if self.aids is None or not self.weights:
            return
        fits = {n: fit for n, fit in self.aids.fits.items() if n in self.weights}
        stuck = {n: std for n, std in self.aids.stuck.items() if n in self.weights}
        known = {n: math.sqrt(wanted / now) for n, (now, wanted) in fits.items()}
        if known or stuck:
            yield Change(KNOWN, known, stuck, self._biases([*known, *stuck]))
        try:
            found = self.aids.unit_variance(self.model, list(self.weights))
        except (ValueError, RuntimeError):
            return
        if found:
            yield Change(LAYERS, found, {}, self._biases(list(found)))

    def _biases(self, weights: Sequence[str]) -> tuple[str, ...]:
        names = [name.removesuffix("weight") + "bias" for name in weights]
        learning = {name for name, p in self.model.named_parameters() if p.requires_grad}
        return tuple(name for name in names if name in learning)

    def best(self) -> Any:
        """The key of the best; of nothing changed where none is clearly better."""
        if self.narrow is not None:
            return 1.0
        best = max(self.tried, key=lambda key: self.tried[key].score)
        known = self.tried.get(KNOWN)
        if known is not None and known.score > self.tried[best].score - BETTER:
            best = KNOWN  # what is known to train is taken where it is about as good
        ill = self.report.cutoff is not None or any(d.ill for d in self.report.diagnoses)
        margin = BETTER if ill else HEALTHY_BETTER
        return best if self.tried[best].score > self.tried[1.0].score + margin else 1.0

    def sigma_w2(self, change: Change) -> float:
        """The variance times fan-in, the median over weights."""
        found = []
        for name, weight in named_weights(self.model).items():
            fan_in = weight[0].numel()
            square = float(weight.detach().double().square().mean())
            square *= change.factors.get(name, 1.0) ** 2
            found.append(fan_in * change.drawn.get(name, math.sqrt(square)) ** 2)
        return float(np.median(found))


def score_of(report: Report | None, gain: float) -> float:
    """Return how good an initialisation is: ln R² before the head, less |ln gain|.

    Args:
        report: None where numbers were too large.
        gain: of the gradient on its way back; NaN where that is not known.
    """
    if report is None or report.overflow is not None:
        return -math.inf
    kept = report.phase_numbers["r_squared"]
    image = math.log(min(1.0, max(FAINTEST, 0.0 if math.isnan(kept) else kept)))
    if math.isnan(gain):
        return image
    return image - (min(FARTHEST, abs(math.log(gain))) if gain > 0 else FARTHEST)
