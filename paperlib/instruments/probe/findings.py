"""What the rules of `diagnoses` look for in layers: functions of an examination and a threshold.

A finding is a layer, a sentence that names it, and the number that was held against the threshold.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from paperlib.instruments.probe.examination import Examination
from paperlib.instruments.probe.signs import Signs

RECTIFIERS = ("relu", "threshold", "clamp_min", "hardtanh", "clamp", "relu6")
NORMS = ("norm", "rsqrt")  # parts of the names of operations that set the scale anew
SINGLE = {"_softmax": "softmax", "native_layer_norm": "LayerNorm", "native_group_norm": "GroupNorm"}
ALIKE = 1e-5  # what tells samples apart, of the size: less is a few roundings of float32
DIFFERENT = 1e-4  # where they still can be told apart


@dataclass(frozen=True)
class Finding:
    """What a rule found, and where."""

    layer: str
    sentence: str
    value: float


def followers(found: Examination, node: int, steps: int = 4) -> list[Signs]:
    """Return the operations that come next, nearest first, a few steps far."""
    seen: list[int] = []
    edge = [node]
    for _ in range(steps):
        edge = [child for at in edge for child in found.children.get(at, []) if child not in seen]
        seen += edge
    return [found.signs[number] for number in dict.fromkeys(seen) if number in found.signs]


def is_norm(sign: Signs) -> bool:
    return any(part in sign.name for part in NORMS)


def place(sign: Signs) -> str:
    """A layer in words: its name, or the operation in the forward() of a layer."""
    return f"layer {sign.layer!r}" if sign.layer else f"the model's own {sign.name}"


def listed(names: list[str]) -> str:
    """Up to three layers in words."""
    names = list(dict.fromkeys(names))
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def entangled(found: Examination, threshold: float) -> Iterator[Finding]:
    """Samples of a batch that influence each other."""
    if found.mixed is not None:
        yield Finding(
            found.mixed.layer,
            f"{found.mixed}, the answer to one sample changes when another sample changes",
            1.0,
        )


def single_feature(found: Examination, threshold: float) -> Iterator[Finding]:
    """A norm or a softmax over one number."""
    for sign in found.signs.values():
        same = sign.contrast < ALIKE or sign.rms < ALIKE
        if sign.facts.get("over", math.inf) <= threshold and same:
            kind = SINGLE.get(sign.name, "norm")
            what = f"{sign.rms:.3f}" if kind == "softmax" else "constant"
            yield Finding(
                sign.layer,
                f"{place(sign)} is a {kind} over one feature: it is {what} for every image, and no "
                "gradient passes it",
                sign.facts["over"],
            )


def dead_units(found: Examination, threshold: float) -> Iterator[Finding]:
    """Rectifiers that are 0 for every sample, but for gates of zeros."""
    for sign in found.signs.values():
        if sign.name in RECTIFIERS and sign.dead >= threshold and weights_before(found, sign):
            count = round(sign.dead * sign.units)
            yield Finding(
                sign.layer,
                f"{count} of {sign.units} units of {place(sign)} are dead: 0 for every image, and "
                f"so is their gradient; {_why_dead(found, sign)}",
                sign.dead,
            )


def _why_dead(found: Examination, sign: Signs) -> str:
    before = found.signs.get(sign.step.parents[0])
    if before is None or before.contrast > 0.5:
        return "the ReLU's inputs are below 0"
    return "its bias holds the ReLU's inputs below 0"


def weights_before(found: Examination, sign: Signs) -> bool:
    """Whether an operation's input is anything but the result of weights that are all 0."""
    before = found.signs.get(sign.step.parents[0])
    return before is None or before.rms > 0


def zero_gates(found: Examination, threshold: float) -> Iterator[Finding]:
    """Weights of zeros before a rectifier, whose slope at 0 is 0."""
    zeros = {w.node: w for w in found.weights if w.rms <= threshold}
    for node in zeros:
        for sign in followers(found, node, 2):
            if sign.name in RECTIFIERS and sign.dead == 1 and node in sign.step.parents:
                yield Finding(
                    sign.layer,
                    f"{place(sign)} is a gate of zeros before a ReLU: 0 for every image, its "
                    f"gradient too, so that the weights of {zeros[node].layer!r} never move",
                    0.0,
                )


def copies(found: Examination, threshold: float) -> Iterator[Finding]:
    """Layers all of whose units are copies of each other."""
    for weight in found.weights:
        sign = found.signs.get(weight.node)
        if sign is None or sign.units < 2 or weight.rms == 0:
            continue
        distinct = 1 if weight.same_rows else round((1 - sign.copied) * sign.units)
        if distinct <= max(1, threshold * sign.units) and sign.constant < 1:
            yield Finding(
                weight.layer,
                f"the {sign.units} units of {place(sign)} are copies of each other: rank "
                f"{distinct} of {sign.units}, and they get the same gradient",
                distinct / sign.units,
            )


def constant(found: Examination, threshold: float) -> Iterator[Finding]:
    """Where what tells samples apart vanishes at once, on every path."""
    cuts = found.record.cuts
    harmless = {w.node for w in found.weights if w.rms == 0 and w.gradient > 0}
    for number, sign in found.signs.items():
        if number not in cuts or number in harmless or sign.contrast > threshold:
            continue
        before = [found.signs[p] for p in sign.step.parents if p in found.signs]
        if before and max(s.contrast for s in before) > DIFFERENT:
            yield Finding(
                sign.layer,
                f"{place(sign)} is the same for every image (constant, "
                f"{sign.rms:.3g} in size): {_why_constant(found, number)}",
                sign.contrast,
            )


def _why_constant(found: Examination, number: int) -> str:
    if any(w.node == number and w.rms == 0 for w in found.weights):
        return "its weights are all 0, and so is their gradient"
    return f"{found.signs[number].name.strip('_')} loses what tells them apart"


def recurrent(found: Examination, threshold: float) -> Iterator[Finding]:
    """Recurrent layers stacked so that the last one hardly depends on the sample."""
    modules = dict(found.model.named_modules())
    for name, contrasts in found.recurrent.items():
        if contrasts[-1] < threshold and len(contrasts) > 1:
            size = getattr(modules[name], "hidden_size", 0)
            kind = type(modules[name]).__name__
            yield Finding(
                name,
                f"layer {name!r} is a {kind} of {len(contrasts)} layers of {size} units, a "
                f"bottleneck: images differ by {contrasts[0]:.2g} of the size in its layer 1, by "
                f"{contrasts[-1]:.1g} in layer {len(contrasts)}",
                contrasts[-1],
            )


def bottleneck(found: Examination, threshold: float) -> Iterator[Finding]:
    """Layers on every path with fewer numbers than tell the classes apart."""
    end, start = found.signs.get(found.record.sink), found.signs.get(0)
    if end is None or start is None or end.numbers >= start.numbers or end.step.rows > 1:
        return
    cuts, needed = found.record.cuts, threshold * math.log2(max(2, end.numbers))
    for weight in found.weights[:-1]:
        sign = found.signs.get(weight.node)
        if sign is not None and weight.node in cuts and sign.numbers < needed:
            yield Finding(
                sign.layer,
                f"{place(sign)} is a bottleneck: {sign.numbers} numbers, of {start.numbers:,} at "
                f"the input, for {end.numbers} outputs",
                sign.numbers,
            )


def saturated(found: Examination, threshold: float) -> Iterator[Finding]:
    """Sigmoids and tanhs at their ends, but for gates and the output."""
    for number, sign in found.signs.items():
        gate = any(s.name == "mul" for s in followers(found, number, 1))
        if sign.saturated > threshold and not gate and number != found.record.sink:
            yield Finding(
                sign.layer,
                f"{sign.saturated:.0%} of the numbers of {place(sign)} are saturated: the "
                f"{sign.name} lies at an end, where its slope is nearly 0",
                sign.saturated,
            )


def softmax_output(found: Examination, threshold: float) -> Iterator[Finding]:
    """A model that ends in a softmax."""
    sign = found.signs.get(found.record.sink)
    if sign is not None and sign.name == "_softmax" and sign.facts.get("over", 0) > threshold:
        yield Finding(
            sign.layer,
            f"the output is a softmax ({place(sign)}): cross-entropy applies its own, and a "
            "softmax before the loss shrinks its gradients",
            sign.facts["over"],
        )


def stale(found: Examination, threshold: float) -> Iterator[Finding]:
    """Batch norms whose running statistics, of a training, are not those of the batch."""
    for sign in found.signs.values():
        if "ratio" not in sign.facts or sign.layer in found.own_statistics:
            continue
        shift, ratio = sign.facts["shift"], sign.facts["ratio"]
        off = max(ratio, 1 / ratio, (1 + shift) ** 2)
        if off > threshold:
            yield Finding(
                sign.layer,
                f"the running statistics of the batch norm {sign.layer!r} are stale: the batch's "
                f"variance is {ratio:.2g} times theirs, its mean {shift:.2g} standard deviations "
                "away",
                off,
            )


def intended_zeros(found: Examination, threshold: float) -> Iterator[Finding]:
    """Zeros that learn in the first step: last layers of residual branches, heads."""
    heads = [w for w in found.weights if w.moves_first]
    norms = [name for name, norm in found.zero_norms.items() if norm > 0]
    if heads:
        yield Finding(
            heads[0].layer,
            f"the weights of {listed([w.layer for w in heads])} are zero-initialised, and their "
            "gradient is not: harmless, they move in the first step",
            0.0,
        )
    if norms:
        yield Finding(
            norms[0],
            f"the scales of {listed(norms)} are zero-initialised, as of the last norm of a residual"
            " branch: harmless, they move in the first step",
            0.0,
        )
