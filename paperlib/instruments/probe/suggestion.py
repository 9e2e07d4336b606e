"""Which initialisation is better than a model's own: by what it learns, or by what arrives.

suggestion = probe(model, images, labels).suggest()
suggestion.apply(model)
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from paperlib.activations.guard import untouched
from paperlib.activations.tuning import weights_of
from paperlib.core.progress import Progress
from paperlib.core.threads import one_thread
from paperlib.instruments.probe.remedies import (
    AS_IS,
    KNOWN,
    LAYERS,
    LSUV,
    Change,
    Patient,
    best_of,
    changes_of,
    guessing,
    loss_after,
    steps_for,
)
from paperlib.instruments.probe.report import OVERFLOWS, WORDS, Report, short

if TYPE_CHECKING:
    import pandas as pd

GAINS = tuple(2.0**power for power in range(-2, 4))  # factors of the weights' variance
ROUNDS = 2  # of factors between them, after that
BETTER = 0.02  # of R² at the end, that another variance must gain
ONE_FACTOR = "one factor"
READ = "R² read directly"  # at the end, or before a narrower head
HEADS = {
    KNOWN: "take the gains that are known to fit the activations, biases 0",
    LAYERS: "scale layer by layer until outputs have variance 1, biases 0",
    LSUV: "draw orthonormal weights, then scale layer by layer until outputs have variance 1, "
    "biases 0 (LSUV)",
}


@dataclass(frozen=True)
class Suggestion:
    """A better initialisation, and what it rests on.

    Attributes:
        gain: the factor of the weights' variance, the median over weights; 1 where nothing else is
            better.
        sigma_w2: the variance times fan-in that it gives, the median over weights.
        table: with labels, by rule: σ_w², and the loss after a short training, infinite where it
            diverges. Else by the factor of the weights, the gain's root: σ_w², R² at the end or
            before a narrower head, read directly, and the phase.
        change: of the parameters; its `rule` says how it was found.
    """

    gain: float
    sigma_w2: float
    table: "pd.DataFrame"
    change: Change
    _probed: Callable[[], Report]

    @cached_property
    def report(self) -> Report:
        """The probe of a copy with this initialisation, made when it is first asked for; nothing
        trained since then is in it."""
        return self._probed()

    @property
    def factor(self) -> float:
        """What the weights are multiplied by: the root of the gain."""
        return math.sqrt(self.gain)

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's weights, and biases where the rule says so, in place; return it."""
        return self.change.apply(model)

    def __str__(self) -> str:
        by_rule = self.table.index.name == "rule"
        if self.change.rule == AS_IS:
            tried = "initialisation" if by_rule else "variance of the weights"
            head = f"no other {tried} is better than the one there is"
        else:
            head = HEADS.get(self.change.rule, f"multiply the weights by {self.factor:.3g}")
        table = self.table if by_rule else self.table.rename(index="{:.3g}".format)
        said = table.to_string(float_format=short, formatters={"σ_w²": "{:.3g}".format})
        words = "" if by_rule else f"\n\n{WORDS}"
        return f"{head} (σ_w² = {self.sigma_w2:.3g}, variance times fan-in)\n\n{said}{words}"

    def __repr__(self) -> str:
        return str(self)


def suggestion_by_learning(
    report: Report,
    model: nn.Module,
    probed: Callable[[nn.Module], Report],
    patient: Patient,
) -> Suggestion | None:
    """Return the initialisation that learns fastest; None where that takes too long, where copies
    of the model cannot learn, and where none learns anything."""
    import pandas as pd

    try:
        with one_thread(), untouched(model, patient.seed):
            steps = steps_for(model, patient)
            if not steps:
                return None
            tried = list(changes_of(model, patient))
            losses, sizes = {}, {}
            with Progress(len(tried), "rules") as progress:
                for change in tried:
                    network = change.apply(copy.deepcopy(model))
                    sizes[change.rule] = _sizes(network)
                    losses[change.rule] = loss_after(network, patient, steps)
                    progress.advance()
    except Exception:  # whatever somebody's module does in training mode, or when it is copied
        return None
    rule = best_of(losses, guessing(patient.labels))
    if rule is None:
        return None
    best = next(change for change in tried if change.rule == rule)
    rows = [[float(np.median(list(sizes[rule].values()))), losses[rule]] for rule in losses]
    table = pd.DataFrame(rows, list(losses), ["σ_w²", f"loss after {steps} steps"])
    before, after = sizes[AS_IS], sizes[best.rule]
    gains = [after[n] / before[n] for n in (*best.drawn, *best.factors) if before[n] > 0]
    return Suggestion(
        float(np.median(gains)) if gains else 1.0,
        float(np.median(list(after.values()))),
        table.rename_axis("rule"),
        best,
        _later(report, model, probed, best),
    )


def _later(
    report: Report, model: nn.Module, probed: Callable[[nn.Module], Report], change: Change
) -> Callable[[], Report]:
    """What probes a changed copy of the model as it is now."""
    if change.rule == AS_IS:
        return lambda: report
    copied = change.apply(copy.deepcopy(model))
    return lambda: probed(copied)


def _sizes(model: nn.Module) -> dict[str, float]:
    """The variance of each weight, times its fan-in."""
    return {
        name: float(weight.detach().double().square().mean()) * weight[0].numel()
        for name, weight in weights_of(model).items()
    }


def suggestion_by_factor(
    report: Report,
    model: nn.Module,
    probed: Callable[[nn.Module], Report],
    end_of: Callable[[nn.Module], Report],
    gains: Sequence[float],
) -> Suggestion:
    """Return the factor of all weights with which most of the image arrives at the end."""
    import pandas as pd

    if not gains or any(not math.isfinite(gain) or gain <= 0 for gain in gains):
        raise ValueError(f"gains must be finite factors > 0 of the variance, got {list(gains)}")
    weights = weights_of(model)
    if not weights:
        raise ValueError(
            f"{type(model).__name__} has no weight with two axes or more to rescale; rescale its "
            "own parameters and probe it again"
        )
    variance = float(np.median(list(_sizes(model).values())))
    reports: dict[float, Report | None] = {}

    def scaled(gain: float) -> Change:
        return Change(ONE_FACTOR, factors=dict.fromkeys(weights, math.sqrt(gain)))

    def look(gain: float) -> None:
        if gain not in reports:
            try:
                reports[gain] = end_of(scaled(gain).apply(copy.deepcopy(model)))
            except ValueError:  # it overflows
                reports[gain] = None

    tried = sorted({1.0, *gains})
    is_level = False
    # beside other programs, threads that wait for each other take minutes
    with one_thread(), Progress(len(tried), "factors") as progress:
        for gain in sorted(tried, key=lambda gain: gain not in (tried[0], 1, tried[-1])):
            if len(reports) == 3 and report.phase == "none":
                is_level = _is_level(reports)
            if not is_level:
                look(gain)
            progress.advance()
        for _ in range(0 if is_level else ROUNDS):
            for other in _between(reports):
                look(other)
    best = _best(reports)
    rows = {math.sqrt(g): _row(g * variance, found) for g, found in sorted(reports.items())}
    columns = ["σ_w²", READ, "phase"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("weights ×")
    change = Change() if best == 1 else scaled(best)
    later = _later(report, model, probed, change)
    return Suggestion(best, best * variance, table, change, later)


def _best(reports: Mapping[float, Report | None]) -> float:
    """The factor with which most is left at the end; 1 where that is hardly more."""
    left = {gain: _left(report) for gain, report in reports.items()}
    best = max(left, key=lambda gain: left[gain])
    return best if left[best] > left[1.0] + BETTER else 1.0


def _left(report: Report | None) -> float:
    finite = report is not None and report.overflow is None
    kept = report.phase_numbers["r_squared"] if report is not None and finite else -math.inf
    return -math.inf if math.isnan(kept) else kept


def _is_level(reports: Mapping[float, Report | None]) -> bool:
    """Whether as much is left whatever the factor."""
    left = [_left(report) for report in reports.values()]
    return max(left) - min(left) <= BETTER


def _between(reports: Mapping[float, Report | None]) -> list[float]:
    """Factors to try next: halfway from the best to its neighbours; where nothing is left with any,
    halfway from the largest that is ordered to the next."""
    tried = sorted(reports)
    place = tried.index(max(tried, key=lambda gain: _left(reports[gain])))
    if not _left(reports[tried[place]]) > BETTER:
        ordered = [gain for gain in tried if getattr(reports[gain], "phase", "") == "ordered"]
        if not ordered or ordered[-1] == tried[-1]:
            return []
        place = tried.index(ordered[-1])
        return [math.sqrt(tried[place] * tried[place + 1])]
    beside = [tried[i] for i in (place - 1, place + 1) if 0 <= i < len(tried)]
    return [math.sqrt(tried[place] * other) for other in beside]


def _row(sigma_w2: float, report: Report | None) -> list[Any]:
    if report is None or report.overflow is not None:
        return [sigma_w2, math.nan, OVERFLOWS]
    return [sigma_w2, report.phase_numbers["r_squared"], report.phase]
