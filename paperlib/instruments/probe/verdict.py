"""Will it train: a probability, the signals it rests on, and the reasons in words.

    report = probe(model, images, labels)
    report.verdict.probability, report.verdict.reasons

The image must arrive, and the lesson must come back. A logistic function of few parts, each of
which can only help, says how likely it is that a network learns. What its coefficients rest on is
said in `FITTED`, and in `Verdict.source`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.instruments.probe.reasons import reasons_of
from paperlib.instruments.probe.report import Report
from paperlib.instruments.probe.signals import Signals, signals

if TYPE_CHECKING:
    import pandas as pd

STRENGTH = 1.0  # scikit-learn's C, for parts of variance 1: how far they may be trusted
FAINTEST = 1e-3  # R², and cosine, below which nothing is told apart
FARTHEST = 25.0  # |ln gain| from which on nothing is told apart


def image(numbers: Mapping[str, float]) -> float:
    """The image arrives: ln of the smallest R² along the chain, from ln 0.001 to 0."""
    return math.log(min(1.0, max(FAINTEST, numbers["r_squared_smallest"])))


def lesson(numbers: Mapping[str, float]) -> float:
    """The lesson comes back as strong as it set out: −|ln gain|, activations in their own units."""
    gain = numbers["gain_relative"]
    return -min(FARTHEST, abs(math.log(gain))) if gain > 0 else -FARTHEST


def difference(numbers: Mapping[str, float]) -> float:
    """Different images teach different things: ln(1 − cosine of their gradients)."""
    return math.log(min(1.0, max(FAINTEST, 1 - numbers["cosine"])))


def agreement(numbers: Mapping[str, float]) -> float:
    """What one image teaches helps another: ln of the cosine of their gradients."""
    return math.log(min(1.0, max(FAINTEST, numbers["cosine"])))


PARTS: dict[str, Callable[[Mapping[str, float]], float]] = {
    part.__name__: part for part in (image, lesson, difference, agreement)
}


@dataclass(frozen=True)
class Coefficients:
    """A logistic function of the parts.

    Attributes:
        intercept: its value where all parts are 0.
        weights: by part, none below 0.
        source: what they were fitted to.
    """

    intercept: float
    weights: Mapping[str, float]
    source: str

    def probability(self, numbers: Mapping[str, float]) -> float:
        """Return the probability for the numbers of `signals`."""
        value = self.intercept
        value += sum(weight * PARTS[name](numbers) for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, value))))


# What `fit_verdict` returned, and of what. None: no networks with such labels were fitted yet.
# "best" is interim, of one family only: the wide tanh networks of trainability_mnist.nc, seed 0,
# depths up to 70, σ_w² 0.6 to 3.5 (nine of its variances), rebuilt and measured on 200 training
# images, gradients of 64; learnt is an accuracy of 50% after 500 steps of SGD, whose rate falls
# with depth. With each variance left out in turn: AUC 0.996, calibration error 0.09.
FITTED: dict[str, Coefficients | None] = {
    "best": Coefficients(
        intercept=5.708,
        weights={"image": 0.3715, "lesson": 0.6481},
        source="fitted on 72 wide tanh networks on MNIST; for other kinds a guess",
    ),
    "default": None,
}


@dataclass(frozen=True)
class Verdict:
    """Whether an untrained model will train, and why.

    Attributes:
        probability: that it learns (accuracy ≥ 50%) with a well-chosen optimiser and rate.
        default_probability: the same with Adam at 1e-3; None as long as no networks that were
            trained so have been fitted.
        reasons: sentences that name layers, the worst first.
        signals: name → number, see `signals.signals`.
        source: what the probabilities were fitted to; for other kinds of models they are a guess.
    """

    probability: float
    default_probability: float | None
    reasons: tuple[str, ...]
    signals: Mapping[str, float]
    source: str

    def __str__(self) -> str:
        default = self.default_probability
        with_adam = "" if default is None else f", {default:.0%} with Adam at 1e-3"
        head = f"trains with a probability of {self.probability:.0%}{with_adam} ({self.source})"
        return "\n".join([head, *(f"- {reason}" for reason in self.reasons)])


def judge(
    report: Report, model: nn.Module, images: Any, labels: Tensor | None, **options: Any
) -> Verdict:
    """Return the verdict on a model that was probed.

    Args:
        report: of the probe.
        model, images, labels, options: as for `signals`.
    """
    return verdict_of(report, signals(model, images, labels, report=report, **options))


def verdict_of(report: Report, found: Signals) -> Verdict:
    """Return the verdict that follows from a probe and signals of the same model."""
    best, default = FITTED["best"], FITTED["default"]
    assert best is not None
    return Verdict(
        probability=best.probability(found.numbers),
        default_probability=None if default is None else default.probability(found.numbers),
        reasons=reasons_of(report, found),
        signals=found.numbers,
        source=best.source,
    )


def fit_verdict(
    table: "pd.DataFrame", learns: Sequence[bool], *, source: str, parts: Sequence[str] = ()
) -> Coefficients:
    """Fit the logistic function of the parts to networks that were trained.

    Parts that would do harm where they are large (a weight below 0) are left out, the worst first,
    so that each part can be explained: more of it is never worse.

    Args:
        table: a row for each network, its columns the numbers of `signals`.
        learns: whether each network learnt.
        source: what the networks are, in words.
        parts: names of PARTS; none are all.

    Raises:
        ValueError: no such part, rows that do not match, or networks that all learn or all do not.
    """
    from sklearn.linear_model import LogisticRegression

    names = list(parts or PARTS)
    labels = _checked_labels(learns, len(table), names)
    rows: list[Any] = table.to_dict("records")
    values = np.array([[PARTS[name](row) for name in names] for row in rows])
    spread = values.std(0)
    used = [place for place in range(len(names)) if spread[place] > 0]
    while True:
        scaled = values[:, used] / spread[used]
        fitted = LogisticRegression(C=STRENGTH, max_iter=10_000)
        if not used:
            share = float(labels.mean())
            return Coefficients(math.log(share / (1 - share)), {}, source)
        fitted.fit(scaled, labels)
        slopes = fitted.coef_[0]
        if (slopes >= 0).all():
            break
        del used[int(slopes.argmin())]
    weights = {names[p]: float(s / spread[p]) for p, s in zip(used, slopes, strict=True)}
    return Coefficients(float(fitted.intercept_[0]), weights, source)


def _checked_labels(learns: Sequence[bool], count: int, names: list[str]) -> np.ndarray:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f"parts must be among {', '.join(PARTS)}; got {unknown[0]!r}")
    labels = np.asarray(learns, bool)
    if labels.shape != (count,):
        raise ValueError(f"learns must say of each of {count} networks, got {labels.shape}")
    if labels.all() or not labels.any():
        raise ValueError("learns must be true of some networks and false of others")
    return labels


def fingerprint(model: nn.Module) -> bytes:
    """Return bytes by which one sees that a model's parameters or buffers have changed."""
    with torch.no_grad():
        sums = [
            float(part)
            for tensor in (*model.parameters(), *model.buffers())
            for part in (tensor.double().sum(), tensor.double().abs().sum())
        ]
    return np.array(sums).tobytes()
