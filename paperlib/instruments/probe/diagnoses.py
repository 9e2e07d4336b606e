"""What ails a model, in words: a small table of rules, each with its threshold and its remedy.

report = probe(model, images)
report.diagnoses  # worst first
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from paperlib.instruments.probe import findings, sizes
from paperlib.instruments.probe.examination import Examination
from paperlib.instruments.probe.findings import Finding

HEALTHY = "nothing here keeps it from training: look at labels, rate and loss"


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was found.

    Attributes:
        kind: the rule's name.
        layer: where it begins; "" is the model or its input.
        sentence: what was found, with the layer's name.
        remedy: what to do.
        ill: whether it keeps the model from training, or slows it; otherwise it is meant so.
        value: what was held against the `threshold`.
        threshold: of the rule.
        layers: in how many layers it was found.
    """

    kind: str
    layer: str
    sentence: str
    remedy: str
    ill: bool
    value: float
    threshold: float
    layers: int = 1

    def __str__(self) -> str:
        more = f" (and in {self.layers - 1} more)" if self.layers > 1 else ""
        return f"{self.sentence}{more}" + (f"; {self.remedy}" if self.remedy else "")

    def to_dict(self) -> dict[str, object]:
        """Return all of it by name."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
        kind: its name.
        find: from an examination and the threshold to what it found.
        threshold: and its `reason`.
        remedy: what to do.
        ill: False for what is meant so.
        echo: whether it follows from any other, and is said only where none was found.
    """

    kind: str
    find: Callable[[Examination, float], Iterator[Finding]]
    threshold: float
    reason: str
    remedy: str
    ill: bool = True
    echo: bool = False


RULES = (
    Rule(
        "samples influence each other",
        findings.entangled,
        0.25,
        "one of four samples was changed, so a quarter of the rows may change",
        "look for attention without batch_first=True, and for reshape where permute is meant",
    ),
    Rule(
        "norm over one feature",
        findings.single_feature,
        1,
        "one number minus its own mean is 0; one exponential over itself is 1",
        "take the norm out, or widen the layer before it; for one output use a sigmoid",
    ),
    Rule(
        "zero gate",
        findings.zero_gates,
        0,
        "the slope of a ReLU at 0 is 0, so that zeros stay",
        "draw the gate's weights with a small variance, or use an activation with a slope at 0",
    ),
    Rule(
        "copies",
        findings.copies,
        0.05,
        "random weights never make two equal units; a twentieth allows for twins by design",
        "draw the weights at random: equal units get equal gradients and stay equal",
    ),
    Rule(
        "inputs of the wrong size",
        sizes.large_inputs,
        10,
        "initialisations assume inputs of RMS 1; images in [0, 1] or standardised have 0.1 to 3",
        "scale the inputs to [0, 1], or to mean 0 and variance 1",
    ),
    Rule(
        "stale batch norms",
        findings.stale,
        4,
        "twice the deviation, or a mean one deviation away",
        "train a few more steps, use a larger momentum, or take statistics anew before evaluation",
    ),
    Rule(
        "dead units",
        findings.dead_units,
        0.9,
        "an untrained ReLU is off for half of the images, in deep networks for the same half of its"
        " units; nine tenths come from a bias or a step that was too large",
        "start this layer's biases at 0; if it was trained, use a smaller rate",
    ),
    Rule(
        "sines",
        sizes.sines,
        3,
        "below a quarter of a period, ± π/2, a sine is nearly a line; later layers keep variance 1",
        "draw the first layer uniformly within ± 1/fan-in, later ones within ± √(6/fan-in)/ω",
    ),
    Rule(
        "recurrent bottleneck",
        findings.recurrent,
        0.01,
        "images that differ by 1% of the size are lost beside the biases",
        "take fewer layers, wider ones, or skips between them",
    ),
    Rule(
        "constant",
        findings.constant,
        findings.ALIKE,
        "less of the size than a few roundings of float32",
        "nothing after it can tell images apart: change or remove this layer",
        echo=True,
    ),
    Rule(
        "residual growth",
        sizes.residual_growth,
        100,
        "with norms the trunk grows as the root of the depth, 10-fold in 100 blocks",
        "normalise before each branch, or start the branches' last layers at 0 or scaled by depth",
    ),
    Rule(
        "post-norm",
        sizes.post_norm,
        0.05,
        "6 layers by Glorot's rule, which train, leave 13% of the skip; 12, which need care, 1.5%",
        "put the norms before the branches (norm_first=True), or warm the rate up",
    ),
    Rule(
        "size of weights",
        sizes.weights_size,
        1000,
        "a factor of 1000 in what tells images apart is one of 1000 in the first layers' gradients",
        "draw the weights by that initialisation, or normalise between the layers",
        echo=True,
    ),
    Rule(
        "bottleneck",
        findings.bottleneck,
        1,
        "fewer numbers than a binary code of the classes has digits",
        "widen this layer",
    ),
    Rule(
        "saturated",
        findings.saturated,
        0.5,
        "half of the gradient is multiplied by less than a twenty-fifth",
        "scale the weights or the inputs down, or use ReLU",
    ),
    Rule(
        "softmax before the loss",
        findings.softmax_output,
        1,
        "of one output it is the rule on single features",
        "return the numbers before the softmax, or use the negative log-likelihood of their log",
    ),
    Rule(
        "input lost",
        sizes.lost,
        sizes.PARALLEL,
        "what images differ by where their mean cosine is 0.98, the phase's bound: √(1 − 0.98)",
        "try report.suggest(), norms or skips",
        echo=True,
    ),
    Rule(
        "intended zeros",
        findings.intended_zeros,
        0,
        "their own gradient is not 0",
        "",
        ill=False,
    ),
)


def diagnose(found: Examination) -> list[Diagnosis]:
    """Return what the rules find, worst first; that nothing keeps it from training, otherwise.

    Each rule speaks once, of the first layer that it found.

    Args:
        found: see `examination.examine`.
    """
    diagnoses: list[Diagnosis] = []
    for rule in RULES:
        if rule.echo and any(diagnosis.ill for diagnosis in diagnoses):
            continue
        seen = list(rule.find(found, rule.threshold))
        if seen:
            first, layers = seen[0], len({finding.layer for finding in seen})
            diagnoses.append(
                Diagnosis(
                    rule.kind,
                    first.layer,
                    first.sentence,
                    rule.remedy,
                    rule.ill,
                    float(first.value),
                    rule.threshold,
                    layers,
                )
            )
    if not any(diagnosis.ill for diagnosis in diagnoses):
        diagnoses.insert(0, Diagnosis("healthy", "", HEALTHY, "", False, 0.0, 0.0))
    return diagnoses
