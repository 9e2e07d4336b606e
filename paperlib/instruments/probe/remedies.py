"""Which initialisation would save a model: one factor for all weights, known gains, or from data.

    suggestion = probe(model, images).suggest()
    suggestion.apply(model)

Each one is tried on a copy and looked at by a glance; the best is probed. Only weights that look
drawn at random are changed. What it means for an initialisation to be good: the image arrives, and
a gradient comes back as strong as it set out.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.activations.inputs import Inputs
from paperlib.activations.tracing import Stage
from paperlib.activations.tuning import looks_drawn, unit_variance
from paperlib.core.progress import Progress
from paperlib.core.provenance import provenance
from paperlib.core.seeds import random_numbers
from paperlib.core.threads import one_thread
from paperlib.instruments.probe.examination import SAMPLES, Examination
from paperlib.instruments.probe.glance import glance
from paperlib.instruments.probe.report import ALIVE, OVERFLOWS, WORDS, Report, report_of, short
from paperlib.instruments.probe.sizes import activation_after, fitting_for

if TYPE_CHECKING:
    import pandas as pd

GAINS = tuple(2.0**power for power in range(-2, 4))  # factors of the weights' variance
BETTER = 0.5  # of ln R² and ln of the gradient's change together, that is worth a change
HEALTHY_BETTER = 3.0  # the same where nothing ails the model: 20-fold
FAINTEST = 1e-3  # R² below which nothing is told apart
FARTHEST = 25.0  # |ln| of a gradient's change, from which on nothing is told apart
LOST_LESSON = 1e4  # times that a gradient changes, and no rate fits all layers
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


@dataclass(frozen=True)
class Suggestion:
    """An initialisation, and what it rests on.

    Attributes:
        rule: "as it is", "one factor" for all weights, "known gains" of the activations, or "layer
            by layer", from data.
        gain: the factor of the weights' variance, the median over weights that it changes; 1 where
            nothing else is better.
        sigma_w2: the variance times fan-in that it gives, the median over weights.
        table: by one factor of all weights, the gain's root: σ_w², R² at the end or before a
            narrower head, the stage from which the input is lost, the phase; at a glance, of at
            most 128 images.
        others: the same by rule, with the smallest and largest factor of a weight.
        change: of the parameters, by name.
        notes: what else to know, in sentences.
        report: the probe of the changed copy.
    """

    rule: str
    gain: float
    sigma_w2: float
    table: "pd.DataFrame"
    others: "pd.DataFrame"
    change: Change
    notes: tuple[str, ...]
    report: Report

    @property
    def factor(self) -> float:
        """What the weights are multiplied by: the root of the gain."""
        return math.sqrt(self.gain)

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's weights, and biases where the rule says so, in place; return it."""
        return self.change.apply(model)

    def __str__(self) -> str:
        size = f"σ_w² = {self.sigma_w2:.3g}, variance times fan-in"
        drawn = f", draw {len(self.change.drawn)} weights anew" if self.change.drawn else ""
        factors = self.change.factors.values()
        times = f"times {min(factors):.3g} to {max(factors):.3g}" if factors else "as they are"
        heads = {
            AS_IS: "no other variance of the weights is better than the one there is",
            KNOWN: f"take the gains of the activations: weights {times}, biases 0{drawn}",
            LAYERS: f"scale layer by layer to outputs of variance 1: weights {times}, biases 0",
        }
        head = heads.get(self.rule, f"multiply the weights by {self.factor:.3g}")
        tables = [self.table.rename(index="{:.3g}".format), self.others]
        parts = [
            found.to_string(float_format=short, formatters={"σ_w²": "{:.3g}".format})
            for found in tables
            if len(found)
        ]
        return "\n\n".join(["\n".join([f"{head} ({size})", *self.notes]), *parts, WORDS])

    def __repr__(self) -> str:
        return str(self)


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
class _Tried:
    change: Change
    report: Report | None
    score: float


class _Trial:
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
        self.tried: dict[Any, _Tried] = {}

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
        self.tried[key] = _Tried(change, report, score_of(report, gain))

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


def suggestion_of(
    report: Report,
    model: nn.Module,
    probed: Callable[[nn.Module], Report],
    aids: Aids | None,
    gains: Sequence[float],
) -> Suggestion:
    """See `Report.suggest`."""
    if not gains or any(not math.isfinite(gain) or gain <= 0 for gain in gains):
        raise ValueError(f"gains must be finite factors > 0 of the variance, got {list(gains)}")
    trial = _Trial(report, model, probed, aids)
    grid = sorted({1.0, *map(float, gains)})
    with one_thread(), Progress(len(grid) + 5, "looks") as progress:
        for gain in grid:
            trial.look(gain, trial.scaled(gain))
            progress.advance()
        top = max(grid, key=lambda gain: trial.tried[gain].score)
        for gain in _halfway(grid, top):
            trial.look(gain, trial.scaled(gain))
            progress.advance()
        for change in trial.by_rules():
            trial.look(change.rule, change)
            progress.advance()
        best = trial.best()
        chosen = trial.tried[best]
        change = chosen.change
        last = report if best == 1.0 else _probed(trial, change)
        while progress.done < progress.total:
            progress.advance()
    table, others = _tables(trial, report)
    changed = [*change.factors.values()]
    gain = float(np.median(changed)) ** 2 if changed else 1.0
    notes = tuple(_notes(trial, grid, best, last))
    sigma_w2 = trial.sigma_w2(change)
    return Suggestion(change.rule, gain, sigma_w2, table, others, change, notes, last)


def _probed(trial: _Trial, change: Change) -> Report:
    """The whole probe of a changed copy."""
    return trial.probed(change.apply(copy.deepcopy(trial.model)))


def _notes(trial: _Trial, grid: Sequence[float], best: Any, last: Report) -> Iterator[str]:
    if trial.trained:
        some = ", ".join(map(repr, trial.trained[:3]))
        more = f" and {len(trial.trained) - 3} more" if len(trial.trained) > 3 else ""
        yield f"left as they are, since they look trained or do not learn: {some}{more}"
    if best != 1.0 and best in (grid[0], grid[-1]):
        yield (
            "the best factor is the last one that was tried; look further with "
            f"suggest(gains=({best:g}, {best * 4 if best > 1 else best / 4:g}))"
        )
    lost_lesson = trial.tried[best].score < -math.log(LOST_LESSON)
    if trial.narrow is not None:
        yield f"no variance helps a layer of less than {NARROW} numbers: widen {trial.narrow!r}"
    elif last.cutoff is not None or last.overflow is not None or lost_lesson:
        yield (
            "no variance of the weights that was tried helps: put norms between the layers, or "
            "skips past them"
        )


def _tables(trial: _Trial, report: Report) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    import pandas as pd

    kept = "R² before the head" if report.has_head else "R² at the end"
    columns = ["σ_w²", kept, "lost from stage", "phase"]
    rows: dict[float, list[Any]] = {}
    others: dict[str, list[Any]] = {}
    for key, tried in trial.tried.items():
        row = _row(trial.sigma_w2(tried.change), tried.report)
        if isinstance(key, str):
            factors = list(tried.change.factors.values()) or [1.0]
            others[key] = [*row, min(factors), max(factors)]
        else:
            rows[math.sqrt(key)] = row
    table = pd.DataFrame.from_dict(dict(sorted(rows.items())), orient="index", columns=columns)
    more = [*columns, "least factor", "largest"]
    by_rule = pd.DataFrame.from_dict(others, orient="index", columns=more)
    return table.rename_axis("weights ×"), by_rule.rename_axis("rule")


def _halfway(tried: Sequence[float], best: float) -> list[float]:
    """The geometric means of a factor and its neighbours."""
    place = tried.index(best)
    beside = [tried[i] for i in (place - 1, place + 1) if 0 <= i < len(tried)]
    return [math.sqrt(best * other) for other in beside]


def _row(sigma_w2: float, report: Report | None) -> list[Any]:
    if report is None or report.overflow is not None:
        return [sigma_w2, math.nan, OVERFLOWS, "none"]
    kept = report.phase_numbers["r_squared"]
    return [sigma_w2, kept, report.cutoff_stage or "never", report.phase]
