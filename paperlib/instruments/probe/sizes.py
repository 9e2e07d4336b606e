"""What the rules of `diagnoses` look for in sizes: of weights, of signals, along the depth."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from paperlib.instruments.probe.examination import Examination, branch_sizes
from paperlib.instruments.probe.findings import RECTIFIERS, Finding, followers, is_norm, place
from paperlib.instruments.probe.phases import phases_of
from paperlib.instruments.probe.signs import Signs
from paperlib.measures import LOST, collapse_depth

SINE = 1.0  # the pre-activations' RMS that SIREN's initialisation gives, in radians
PARALLEL = 0.14  # what images differ by where their mean cosine is 0.98: √(1 − 0.98)
FEW = 4  # numbers: one alone holds about 1/rank of the images, some hundredths, in good health
CHAOTIC = 50.0  # times as far apart as at the input, of at most some 700: gradients grow alike


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
    outputs = f"; outputs have RMS {end.rms:.2g} before training" if end and end.rms > 1 else ""
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
        if before is None or not before.spread:  # constants are told elsewhere
            continue
        if not SINE / threshold < before.spread < SINE * threshold:
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
    by_ratio = sorted(pairs, key=lambda pair: pair[0].sigma_w2 / pair[1].sigma_w2)
    typical, name = by_ratio[len(pairs) // 2]
    first = pairs[0][0]
    ratio, change = math.sqrt(typical.sigma_w2 / name.sigma_w2), _change(found)
    apart, words = _apart(found), phases_of(found)
    what = f"to {change:.1g} of its size before layer {found.weights[-1].layer!r}"
    if change * threshold < 1 and ratio < 1:
        what = f"what tells images apart shrinks {what}"
    elif change > threshold and ratio > 1:
        what = f"what tells images apart grows {what}"
    elif change < 1 and ratio < 1 and words and any(lost(found, PARALLEL)):
        what = f"the input is lost, what tells images apart shrinks {what}"
    elif apart > CHAOTIC and ratio > 1 and "chaotic" in words:
        what = f"neighbours are driven {apart:.2g} times apart"
    else:
        return
    yield Finding(
        first.layer,
        f"weights are {max(ratio, 1 / ratio):.3g} times {'smaller' if ratio < 1 else 'larger'} "
        f"than {name.name} (σ_w² = {typical.sigma_w2:.2g} instead of {name.sigma_w2:.3g}, "
        f"{len(pairs)} layers from {first.layer!r} on): {what}",
        change,
    )


def _apart(found: Examination) -> float:
    """How many times as far apart neighbours are before the head as at the input."""
    if not found.table:
        return 1.0
    return float(found.table["separation"][body_end(list(found.table["shape"])) - 1])


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


def lost(found: Examination, threshold: float) -> Iterator[Finding]:
    """An input that is lost before the head, where nothing above says why."""
    table = found.table
    if not table or any(sign.name == "sin" for sign in found.signs.values()):
        return  # sines are meant to drive coordinates apart
    end = body_end(list(table["shape"]))
    number = collapse_depth(table["r_squared"][:end])
    if number > end or min(map(numbers_in, table["shape"][:number])) < FEW:
        return
    if number == end and found.weights and found.weights[-1].moves_first:
        return  # a head of zeros, that is no narrower than the body
    layer, apart = str(table["layer"][number - 1]), _apart(found)
    sign = found.signs.get(found.stages[end - 1])
    if sign is not None and sign.contrast < threshold:
        why = f"images differ by {sign.contrast:.1g} of the size: weights are too small for biases"
    elif apart > CHAOTIC:
        why = f"neighbours are driven {apart:.2g} times apart: weights are too large"
    else:
        return
    yield Finding(
        layer,
        f"the input is lost from layer {layer!r} on (R² below {LOST:g}): {why}",
        float(table["r_squared"][end - 1]),
    )


def numbers_in(shape: str) -> int:
    """Return how many numbers an activation of a shape like 32×8×8 has."""
    return math.prod(int(size) for size in str(shape).split("×") if size)


def body_end(shapes: Sequence[str]) -> int:
    """Return the number of the last stage before the head, which is meant to reduce.

    The head is the last stage where it is narrower than the one before it, with a mean or a choice
    over positions or tokens before that.

    Args:
        shapes: of one sample at every stage, `32×8×8`.
    """
    sizes = [[int(size) for size in shape.split("×") if size] for shape in shapes]
    end = len(sizes)
    if end > 1 and numbers_in(shapes[-1]) < numbers_in(shapes[-2]):
        end -= 1
    if end > 1:
        wide = [size for size in sizes[end - 1] if size > 1]
        before = [size for size in sizes[end - 2] if size > 1]
        end -= len(wide) == 1 and len(before) > 1 and wide[0] in before
    return end


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


def activation_after(found: Examination, node: int) -> Signs | None:
    """Return the activation or norm that a weighted layer's result runs into, before others."""
    weighted = {w.node for w in found.weights}
    for sign in followers(found, node):
        if sign.step.number in weighted or is_norm(sign):
            return sign if is_norm(sign) else None
        if fitting_for(sign) is not None or sign.name == "sin":
            return sign
    return None
