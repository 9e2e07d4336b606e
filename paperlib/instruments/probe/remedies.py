"""Which initialisation would save a model: one factor for all weights, known gains, or from data.

    suggestion = probe(model, images).suggest()
    suggestion.apply(model)

Each one is tried on a copy and looked at by a glance, see `trials`; the best is probed.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from paperlib.core.progress import Progress
from paperlib.core.threads import one_thread
from paperlib.instruments.probe.report import OVERFLOWS, WORDS, Report, short
from paperlib.instruments.probe.trials import AS_IS, KNOWN, LAYERS, NARROW, Aids, Change, Trial

if TYPE_CHECKING:
    import pandas as pd

GAINS = tuple(2.0**power for power in range(-2, 4))  # factors of the weights' variance
LOST_LESSON = 1e4  # times that a gradient changes, and no rate fits all layers


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
    trial = Trial(report, model, probed, aids)
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


def _probed(trial: Trial, change: Change) -> Report:
    """The whole probe of a changed copy."""
    return trial.probed(change.apply(copy.deepcopy(trial.model)))


def _notes(trial: Trial, grid: Sequence[float], best: Any, last: Report) -> Iterator[str]:
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


def _tables(trial: Trial, report: Report) -> tuple["pd.DataFrame", "pd.DataFrame"]:
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
