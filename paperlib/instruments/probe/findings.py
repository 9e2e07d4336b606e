"""What each rule of `diagnoses` looks for: functions of an examination and a threshold.

A finding is a layer, a sentence that names it, and the number that was held against the threshold.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from paperlib.instruments.probe.vitals import Examination, Signs, branch_sizes
from paperlib.measures import LOST, collapse_depth

RECTIFIERS = ("relu", "threshold", "clamp_min", "hardtanh", "clamp", "relu6")
NORMS = ("norm", "rsqrt")  # parts of the names of operations that set the scale anew
ALIKE = 1e-5  # what tells samples apart, of the size: less is a few roundings of float32
DIFFERENT = 1e-4  # where they still can be told apart
SINE = 1.0  # the pre-activations' RMS that SIREN's initialisation gives, in radians


@dataclass(frozen=True)
class Finding:
    """What a rule found, and where."""

    layer: str
    sentence: str
    value: float


@dataclass(frozen=True)
class Fitting:
    """The initialisation that fits an activation: variance times fan-in, and its name."""

    sigma_w2: float
    name: str


def fitting_for(activation: Signs) -> Fitting | None:
    """Return the initialisation that keeps the size of signals through an activation.

    Sources: He et al. 2015 (ReLU and leaky ReLU; taken for GELU and SiLU, too), LeCun et al. 1998
    (tanh, SELU by Klambauer et al. 2017), Glorot and Bengio 2010 (four times that for sigmoid,
    whose slope is 1/4).
    """
    name, facts = activation.name, activation.facts
    if name in RECTIFIERS:
        return Fitting(2.0, "He's initialisation for ReLU")
    if name == "leaky_relu":
        return Fitting(2 / (1 + facts["slope"] ** 2), "He's initialisation for leaky ReLU")
    if name in ("gelu", "silu", "mish", "hardswish"):
        return Fitting(2.0, f"He's initialisation, taken for {name.upper()}")
    if name == "elu":
        kind = "SELU" if abs(facts.get("scale", 1) - 1.0507) < 1e-3 else "ELU"
        return Fitting(1.0 if kind == "SELU" else 1.55, f"LeCun's initialisation for {kind}")
    if name in ("tanh", "erf"):
        return Fitting(1.0, f"LeCun's initialisation for {name}")
    if name == "sigmoid":
        return Fitting(16.0, "Glorot's initialisation for sigmoid")
    return None


def followers(found: Examination, node: int, steps: int = 4) -> list[Signs]:
    """Return the operations that come next, nearest first, a few steps far."""
    seen: list[int] = []
    edge = [node]
    for _ in range(steps):
        edge = [child for at in edge for child in found.children.get(at, []) if child not in seen]
        seen += edge
    return [found.signs[number] for number in dict.fromkeys(seen) if number in found.signs]


def activation_after(found: Examination, node: int) -> Signs | None:
    """Return the activation or norm that a weighted layer's result runs into, before others."""
    weighted = {w.node for w in found.weights}
    for sign in followers(found, node):
        if sign.step.number in weighted or is_norm(sign):
            return sign if is_norm(sign) else None
        if fitting_for(sign) is not None or sign.name == "sin":
            return sign
    return None


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
    if found.entangled is not None:
        layer = found.entangled
        yield Finding(
            layer,
            f"samples of a batch influence each other from layer {layer!r} on: the answer to one "
            "sample changes when another sample changes",
            1.0,
        )


def single_feature(found: Examination, threshold: float) -> Iterator[Finding]:
    """A norm or a softmax over one number."""
    for sign in found.signs.values():
        if sign.facts.get("over", math.inf) <= threshold and sign.contrast < ALIKE:
            kind = "softmax" if sign.name == "_softmax" else "LayerNorm"
            what = f"{sign.rms:.3f}" if kind == "softmax" else "constant"
            yield Finding(
                sign.layer,
                f"{place(sign)} is a {kind} over one feature: it is {what} for every image, and no "
                "gradient passes it",
                sign.facts["over"],
            )


def large_inputs(found: Examination, threshold: float) -> Iterator[Finding]:
    """Inputs far from the size that initialisations are made for."""
    sign = found.signs.get(0)
    if sign is None or not found.weights:
        return
    near = [s for s in followers(found, 0, 3) if is_norm(s)]
    after = activation_after(found, found.weights[0].node)
    if near or (after is not None and is_norm(after)):
        return
    end = found.signs.get(found.record.sink)
    outputs = f"; outputs have RMS {end.rms:.2g} before training" if end else ""
    if sign.rms > threshold:
        yield Finding(
            "",
            f"inputs reach {sign.highest:.4g} (RMS {sign.rms:.3g}), where weights expect about 1"
            f"{outputs}",
            sign.rms,
        )
    elif 0 < sign.highest < 1 / threshold**2:
        yield Finding(
            "",
            f"inputs are at most {sign.highest:.2g}, where weights expect about 1: biases outweigh "
            f"them{outputs}",
            sign.rms,
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
                f"{sign.rms:.3g} in size): {sign.name.strip('_')} loses what tells them apart",
                sign.contrast,
            )


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


def sines(found: Examination, threshold: float) -> Iterator[Finding]:
    """Sine layers whose inputs have other sizes than SIREN's initialisation gives."""
    seen = [s for s in found.signs.values() if s.name == "sin"]
    inputs = [found.signs.get(s.step.parents[0]) for s in seen]
    if len(seen) < 2 or inputs[0] is None:
        return
    first = inputs[0]
    if first.spread < math.pi / 2:
        # a uniform variable reaches √3 standard deviations to each side
        reach = math.sqrt(3) * first.spread
        yield Finding(
            seen[0].layer,
            f"the sines of {place(seen[0])} see ± {reach:.2g} over the input, {reach / math.pi:.2g}"
            " periods: their frequencies are too low for a SIREN",
            first.spread,
        )
    for sign, before in zip(seen[1:], inputs[1:], strict=True):
        if before is not None and not SINE / threshold < before.spread < SINE * threshold:
            small = before.spread < SINE
            times = SINE / before.spread if small else before.spread / SINE
            yield Finding(
                sign.layer,
                f"weights before the sines of {place(sign)} are {times:.2g} times "
                f"{'smaller' if small else 'larger'} than SIREN's initialisation gives",
                before.spread,
            )
            return


def weights_size(found: Examination, threshold: float) -> Iterator[Finding]:
    """Weights that shrink or blow up what tells samples apart, layer by layer."""
    judged = [(w, activation_after(found, w.node)) for w in found.weights]
    fits = [(w, fitting_for(a)) for w, a in judged if a is not None]
    pairs = [(w, fit) for w, fit in fits if fit is not None and w.rms > 0]
    if len(pairs) < 2:
        return
    change = _change(found)
    if 1 / threshold < change < threshold:
        return
    ratios = [math.sqrt(w.sigma_w2 / fit.sigma_w2) for w, fit in pairs]
    ratio = float(np.median(ratios))
    if (change < 1) != (ratio < 1):
        return
    name = pairs[len(pairs) // 2][1]
    sigma = float(np.median([w.sigma_w2 for w, _ in pairs]))
    times = 1 / ratio if ratio < 1 else ratio
    last = found.weights[-1].layer
    yield Finding(
        pairs[0][0].layer,
        f"weights are {times:.3g} times {'smaller' if ratio < 1 else 'larger'} than {name.name} "
        f"(σ_w² = {sigma:.2g} instead of {name.sigma_w2:.3g}, {len(pairs)} layers): what tells "
        f"images apart {'shrinks' if ratio < 1 else 'grows'} to {change:.1g} of its size before "
        f"layer {last!r}",
        change,
    )


def _change(found: Examination) -> float:
    """What tells samples apart before the last layer with weights, of that after the first."""
    first, last = (found.signs.get(w.node) for w in (found.weights[0], found.weights[-1]))
    if first is None or last is None:
        return 1.0
    before = [found.signs[p] for p in last.step.parents if p in found.signs]
    if not before or first.spread == 0:
        return 1.0
    return max(max(s.spread for s in before), 1e-45) / first.spread


def residual_growth(found: Examination, threshold: float) -> Iterator[Finding]:
    """A trunk that grows with every addition and is nowhere normalised."""
    joins = [found.signs[n] for n in branch_sizes(found) if n in found.signs]
    if len(joins) < 2 or joins[0].rms == 0:
        return
    growth = joins[-1].rms / joins[0].rms
    if growth > threshold:
        sizes = list(branch_sizes(found).values())
        yield Finding(
            joins[-1].layer,
            f"the scale grows {growth:.2g}-fold through {len(joins)} residual additions up to "
            f"{place(joins[-1])}: each branch is {np.median(sizes):.2g} times its skip, and "
            "nothing normalises it",
            growth,
        )


def post_norm(found: Examination, threshold: float) -> Iterator[Finding]:
    """Norms after residual additions, each of which scales the skip down."""
    cuts, fresh = found.record.cuts, found.fresh_norms
    sizes, kept = branch_sizes(found), 1.0
    norms = [
        sign
        for number, sign in found.signs.items()
        if is_norm(sign) and number in cuts and sign.layer in fresh
    ]
    behind = {parent: sign for sign in norms for parent in sign.step.parents if parent in sizes}
    for parent in behind:
        kept /= math.sqrt(1 + sizes[parent] ** 2)
    if behind and kept < threshold:
        first = next(iter(behind.values()))
        yield Finding(
            first.layer,
            f"a post-norm stack from {place(first)} on: {len(behind)} norms come after the "
            f"additions, so that {kept:.1g} of the skip, and of the gradient along it, is left"
            f"{_block_gradients(found, [sign.step.number for sign in behind.values()])}",
            kept,
        )


def _block_gradients(found: Examination, norms: list[int]) -> str:
    at = dict(zip(found.stages, found.gradients, strict=True))
    sizes = [at[number] for number in norms if number in at]
    if len(sizes) < 2 or not sizes[-1] > 0:
        return ""
    return f"; first against last block, the gradient is {sizes[0] / sizes[-1]:.2g}"


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
    """Batch norms whose running statistics are not those of the batch."""
    for sign in found.signs.values():
        if "ratio" not in sign.facts:
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
    heads = [w for w in found.weights if w.rms <= threshold and w.gradient > 0]
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


def lost(found: Examination, threshold: float) -> Iterator[Finding]:
    """An input that is lost before the head, where nothing above says why."""
    table = found.table
    if not table or any(sign.name == "sin" for sign in found.signs.values()):
        return  # sines are meant to drive coordinates apart
    end = body_end(list(table["shape"]))
    number = collapse_depth(table["r_squared"][:end])
    if number > end:
        return
    at = {name: float(table[name][end - 1]) for name in ("correlation", "separation")}
    layer = str(table["layer"][number - 1])
    if at["correlation"] > threshold:
        why = "different images become parallel: weights are too small for their biases"
    elif at["separation"] > 1:
        why = f"neighbours are driven {at['separation']:.2g} times apart: weights are too large"
    else:
        return
    yield Finding(
        layer,
        f"the input is lost from layer {layer!r} on (R² below {LOST:g}): {why}",
        float(table["r_squared"][end - 1]),
    )


def body_end(shapes: Sequence[str]) -> int:
    """Return the number of the last stage before the head, which is meant to reduce.

    The head is the last stage where it is narrower than the one before it, with a mean or a choice
    over positions or tokens before that.

    Args:
        shapes: of one sample at every stage, `32×8×8`.
    """
    sizes = [[int(size) for size in shape.split("×") if size] for shape in shapes]
    end = len(sizes)
    if end > 1 and math.prod(sizes[-1]) < math.prod(sizes[-2]):
        end -= 1
    if end > 1:
        wide = [size for size in sizes[end - 1] if size > 1]
        before = [size for size in sizes[end - 2] if size > 1]
        end -= len(wide) == 1 and len(before) > 1 and wide[0] in before
    return end
