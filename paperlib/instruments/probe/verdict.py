"""Will it train: a probability, the signals it rests on, and the reasons in words.

    report = probe(model, images, labels)
    report.verdict.probability, report.verdict.reasons

The image must arrive, and the lesson must come back. A logistic function of few parts, each of
which can only help, says how likely it is that a network learns; without labels, of those parts
that need none. What its coefficients rest on is said in `FITTED`, and in `Verdict.source`.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.instruments.probe.reasons import HALF, reasons_of
from paperlib.instruments.probe.report import Report
from paperlib.instruments.probe.signals import Signals, signals

if TYPE_CHECKING:
    import pandas as pd

STRENGTH = 1.0  # scikit-learn's C, for parts of variance 1: how far they may be trusted
FAINTEST = 1e-3  # R², and shares, below which nothing is told apart
DIMMEST = 0.02  # share above chance, and R², that a few hundred samples tell from nothing
SMALLEST_STEP, LARGEST_STEP = 1e-5, 0.03  # shares of the loss; beyond them nothing is told apart
FARTHEST = 25.0  # ln of a loss over that of guessing, from which on nothing is told apart


def image(numbers: Mapping[str, float]) -> float:
    """The image arrives: ln of the smallest R² along the chain, from ln 0.001 to 0."""
    return math.log(min(1.0, max(FAINTEST, numbers["r_squared_smallest"])))


def lesson(numbers: Mapping[str, float]) -> float:
    """The lesson comes back to all layers alike: −ln of the largest over the smallest sensitivity,
    |weights|·|gradient|, which rescaling a layer and its successor does not change."""
    return max(math.log(FAINTEST), -math.log(10) * numbers["sensitivity_decades"])


def learnable_class(numbers: Mapping[str, float]) -> float:
    """Steps that move all parameters alike learn the class: ln of how far above chance."""
    return _above_chance(numbers["step_accuracy"], numbers["chance"])


def trial(numbers: Mapping[str, float]) -> float:
    """Short trainings in units of the parameters learn the class: ln of how far above chance."""
    return _above_chance(numbers["trial_accuracy"], numbers["chance"])


def learnable_image(numbers: Mapping[str, float]) -> float:
    """Steps that move all parameters alike learn the image: ln of their R²."""
    return math.log(min(1.0, max(DIMMEST, numbers["step_r_squared"])))


def calm(numbers: Mapping[str, float]) -> float:
    """The outputs are not far off before the first step: −ln of the loss over that of guessing."""
    return -min(FARTHEST, math.log(max(1.0, numbers["loss"] / _guessing(numbers))))


def moves(numbers: Mapping[str, float]) -> float:
    """Adam's ε holds no layer back by half or more: ln of twice the smallest share that moves."""
    return math.log(min(1.0, max(FAINTEST, numbers["adam_share"] / HALF)))


def step(numbers: Mapping[str, float]) -> float:
    """One step that moves all parameters alike helps: ln of the share of the loss on other images
    that it takes away."""
    return math.log(min(LARGEST_STEP, max(SMALLEST_STEP, numbers["step_gain"])) / LARGEST_STEP)


def fits(numbers: Mapping[str, float]) -> float:
    """Short trainings bring the loss down on what they see: ln of the share of guessing's that
    they take away."""
    loss = numbers.get("trial_loss", math.inf)  # without it all have diverged
    if math.isnan(loss):
        return math.log(DIMMEST)
    return math.log(min(1.0, max(DIMMEST, 1 - loss / _guessing(numbers))))


def _guessing(numbers: Mapping[str, float]) -> float:
    """The loss of guessing."""
    return max(FAINTEST, -math.log(max(FAINTEST, numbers["chance"])))


def _above_chance(accuracy: float, chance: float) -> float:
    above = (accuracy - chance) / max(FAINTEST, 1 - chance)
    return math.log(min(1.0, max(DIMMEST, above)))


_OF_ALL = (image, lesson, learnable_image, moves)
_OF_LABELS = (calm,)  # need labels
_OF_STEP, _OF_TRIAL = (learnable_class, step), (trial, fits)  # a trial says more than a first step
PARTS: dict[str, Callable[[Mapping[str, float]], float]] = {
    part.__name__: part for part in (*_OF_ALL, *_OF_LABELS, *_OF_STEP, *_OF_TRIAL)
}
WITH_TRIAL = tuple(part.__name__ for part in (*_OF_ALL, *_OF_LABELS, *_OF_TRIAL))
WITHOUT_TRIAL = tuple(part.__name__ for part in (*_OF_ALL, *_OF_LABELS, *_OF_STEP))
WITHOUT_LABELS = tuple(part.__name__ for part in _OF_ALL)


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


SOURCE = "fitted on 348 networks of seven families, really trained on MNIST"
# What `zoo_scores.verdicts_of` returns of the shipped zoo; a test compares them.
FITTED: dict[str, Coefficients] = {
    "best": Coefficients(
        9.098,
        {
            "image": 0.07657,
            "lesson": 0.2482,
            "learnable_image": 0.5065,
            "moves": 0.2371,
            "calm": 0.2451,
            "trial": 0.6663,
            "fits": 0.6031,
        },
        SOURCE,
    ),
    "default": Coefficients(
        7.816,
        {
            "image": 0.208,
            "lesson": 0.1501,
            "learnable_image": 0.7178,
            "moves": 0.2647,
            "calm": 0.219,
            "trial": 0.213,
            "fits": 0.6038,
        },
        SOURCE,
    ),
    "best without a trial": Coefficients(
        7.07,
        {
            "image": 0.05448,
            "lesson": 0.1758,
            "learnable_image": 0.8553,
            "moves": 0.287,
            "calm": 0.3225,
            "learnable_class": 0.3405,
            "step": 0.01267,
        },
        SOURCE,
    ),
    "default without a trial": Coefficients(
        6.7,
        {
            "image": 0.1803,
            "lesson": 0.13,
            "learnable_image": 0.9048,
            "moves": 0.3163,
            "calm": 0.2807,
            "learnable_class": 0.2993,
            "step": 0.009302,
        },
        SOURCE,
    ),
    "best without labels": Coefficients(
        4.763,
        {
            "image": 0.1832,
            "lesson": 0.08074,
            "learnable_image": 0.6993,
            "moves": 0.2001,
        },
        SOURCE,
    ),
    "default without labels": Coefficients(
        4.965,
        {
            "image": 0.2652,
            "lesson": 0.08325,
            "learnable_image": 0.8029,
            "moves": 0.232,
        },
        SOURCE,
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Whether an untrained model will train, and why.

    Attributes:
        probability: that it learns (accuracy ≥ 50%) with a well-chosen optimiser and rate.
        default_probability: the same with Adam at 1e-3.
        reasons: sentences that name layers, the worst first.
        signals: name → number, see `signals.signals`.
        source: what the probabilities were fitted to; for other kinds of models they are a guess.
    """

    probability: float
    default_probability: float
    reasons: tuple[str, ...]
    signals: Mapping[str, float]
    source: str

    def __str__(self) -> str:
        head = (
            f"trains with a probability of {self.probability:.0%}, with Adam at 1e-3 "
            f"{self.default_probability:.0%} ({self.source})"
        )
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
    suffix = " without labels"
    if "loss" in found.numbers:
        suffix = "" if "trial_accuracy" in found.numbers else " without a trial"
    best, default = FITTED[f"best{suffix}"], FITTED[f"default{suffix}"]
    return Verdict(
        probability=best.probability(found.numbers),
        default_probability=default.probability(found.numbers),
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
        parts: names of PARTS; none are `WITH_TRIAL`.

    Raises:
        ValueError: no such part, rows that do not match, or networks that all learn or all do not.
    """
    from sklearn.linear_model import LogisticRegression

    names = list(parts or WITH_TRIAL)
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
    parts = (*model.parameters(), *model.buffers())
    return np.array([zlib.crc32(_bytes_of(part.detach())) for part in parts]).tobytes()


def _bytes_of(values: Tensor) -> Any:
    dense = values if values.layout == torch.strided else values.to_dense()
    plain = dense.resolve_conj().resolve_neg().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy()
