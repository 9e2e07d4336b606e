"""Why a model will or will not train, in sentences that name layers, the worst first."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from paperlib.instruments.probe.report import ALIVE, Report
from paperlib.instruments.probe.signals import Signals
from paperlib.measures import LOST

PARALLEL = 0.999  # mean cosine of different images' gradients; a common mean alone gives 0.99
UNRELATED = 0.01  # mean cosine of different images' gradients, below which none follows another
SHRUNK = 100.0  # times that gradients change on their way back, and no rate fits all layers
HALF = 0.5  # of Adam's full step, below which its ε holds a layer back
READ = 0.1  # of the way from chance to perfection, that a ridge reads labels at least
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

Reason = tuple[float, str]  # how bad it is, 0 for what does no harm; and a sentence


def reasons_of(report: Report, found: Signals) -> tuple[str, ...]:
    """Return what stands in a model's way, the worst first; else that nothing does.

    Args:
        report: of the probe.
        found: the signals of the same model.
    """
    reasons = [
        *_of_the_image(report, found),
        *_of_the_label(found),
        *_of_the_trial(found),
        *_of_the_way_back(report, found),
        *_of_likeness(found),
        *_of_zeros(found),
    ]
    if not any(bad for bad, _ in reasons):
        reasons.append((0.5, _nothing_in_the_way(found)))
    return tuple(sentence for _, sentence in sorted(reasons, key=lambda reason: -reason[0]))


def _of_the_image(report: Report, found: Signals) -> Iterator[Reason]:
    directly = found.numbers["r_squared_features"]
    kept = report.result["r_squared"].values[: report.end]
    number = report.cutoff_stage
    if number is not None and number <= report.end:
        where = f"from layer {report.cutoff} on (stage {number} of {len(kept)})"
        if directly < ALIVE:
            yield 4.0, f"the image is lost {where}: R² stays below {LOST:g}"
        else:
            yield (
                1.5,
                f"the image is lost {where} at the resolution of the probe; faint beside what all "
                f"images share, it is still there: R² {directly:.2f} in units of what varies",
            )
    elif kept.min() < ALIVE:
        layer = _name(report, int(kept.argmin()))
        yield 2.0, f"little of the image arrives: R² falls to {kept.min():.2f} at layer {layer}"


def _of_the_label(found: Signals) -> Iterator[Reason]:
    read, chance = found.numbers.get("label_features"), found.numbers.get("chance", 1.0)
    if read is not None and read < chance + READ * (1 - chance):
        yield (
            2.5,
            f"no label can be read before the head: {read:.0%} by a ridge, {chance:.0%} by chance",
        )


def _of_the_trial(found: Signals) -> Iterator[Reason]:
    if found.stopped:
        yield 6.0, f"in training mode the model stops: {found.stopped}"
    learnt, chance = found.numbers.get("trial_accuracy"), found.numbers.get("chance", 1.0)
    if learnt is not None and learnt < chance + READ * (1 - chance):
        yield (
            2.2,
            f"short trainings, of steps in units of the weights, learn nothing: {learnt:.0%} of "
            f"unseen images right, {chance:.0%} by chance",
        )


def _of_the_way_back(report: Report, found: Signals) -> Iterator[Reason]:
    gain = found.numbers["gain_relative"]
    if gain == 0:
        yield 5.0, f"no gradient comes back to layer {_first_that_none_reaches(report, found)}"
        return
    change, bad = max(gain, 1 / gain), 1 + abs(math.log10(gain)) / 3
    way = f"{fold(change)}-fold from {found.way[0]} to {found.way[1]}"
    if change < SHRUNK:
        return
    if not found.way[0].startswith("layer"):  # one layer's calls or tokens, which share its weights
        ends = "too strong" if gain > 1 else "lost"
        grow = "grow" if gain > 1 else "shrink"
        yield bad, f"gradients {grow} {way}: what the first could teach is {ends}"
    elif gain > 1:
        too_large = "a rate that moves the last layers is too large for the first"
        yield bad, f"gradients grow {way}: {too_large}"
    elif found.numbers["adam_share"] < HALF:
        held = "SGD will not move the first layers, and they lie below Adam's ε, too"
        yield bad + 1, f"gradients shrink {way}: {held}"
    else:
        yield bad, f"gradients shrink {way}: SGD will not move the first layers, Adam may"


def _first_that_none_reaches(report: Report, found: Signals) -> str:
    """The last stage, from the input on, to which no gradient comes back."""
    silent = np.flatnonzero(found.stages["slope"].values[: report.end] == 0)
    return _name(report, int(silent[-1]) if len(silent) else 0)


def _of_likeness(found: Signals) -> Iterator[Reason]:
    run = longest_run((found.layers["cosine"] > PARALLEL).tolist())
    names = found.layers.index
    if found.numbers["cosine"] > PARALLEL and run:
        layers = f"layer {names[run[0]]}"
        layers += f" to {names[run[-1]]} learn" if len(run) > 1 else " learns"
        yield 3.0, f"gradients of different images are parallel: {layers} one thing"
    if found.numbers.get("cosine_within", found.numbers["cosine"]) < UNRELATED:
        yield (
            3.0,
            "gradients of different images are unrelated: every image pulls another way, even one "
            "of the same class" if "cosine_within" in found.numbers else
            "gradients of different images are unrelated: every image pulls another way",
        )  # fmt: skip


def _of_zeros(found: Signals) -> Iterator[Reason]:
    for layer in found.drawn:
        yield 0.0, f"the last layer, {layer}, is all zeros: fine, it moves first"
    others = list(found.layers.index[found.layers["zero"] == 1])
    if others and found.numbers["gain_relative"] > 0:
        yield 0.0, f"all zeros: {', '.join(others)}; fine, a path leads past"


def _nothing_in_the_way(found: Signals) -> str:
    gain = found.numbers["gain_relative"]
    return (
        f"the image arrives (R² {found.numbers['r_squared_end']:.2f} before the head), and the "
        f"lesson comes back (gradients change {fold(max(gain, 1 / gain))}-fold on the way)"
    )


def longest_run(flags: Sequence[bool]) -> range:
    """Return the places of the longest run of true values, the first of equals; empty if none."""
    best, begin = range(0), 0
    for place, flag in enumerate([*flags, False]):
        if not flag:
            best = max(best, range(begin, place), key=len)
            begin = place + 1
    return best


def fold(factor: float) -> str:
    """Return a factor in words' size: 1.4, 250, or 10⁶."""
    if factor < 1000:
        return f"{factor:.2g}" if factor < 10 else f"{factor:.0f}"
    return "10" + str(round(math.log10(factor))).translate(_RAISED)


def _name(report: Report, place: int) -> str:
    return str(report.result["layer"].values[place])
