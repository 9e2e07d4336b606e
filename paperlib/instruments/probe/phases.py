"""Which of mean field's words a model can be given: ordered, chaotic, critical, or none of them.

The theory that defines them is one of weights and activations in turn. Norms set the scale anew,
skips lead past, attention and recurrent layers have other fixed points. A model with any of them
has no phase of this kind, and is called none.
"""

from collections.abc import Iterator

from paperlib.activations.flow import nodes_between
from paperlib.instruments.probe.examination import Examination
from paperlib.instruments.probe.findings import RECTIFIERS, is_norm
from paperlib.instruments.probe.signs import Signs

ALL = ("ordered", "chaotic", "critical", "undecided")
WITHOUT_CHAOS = ("ordered", "critical", "undecided")
NARROW = 8  # numbers; narrower layers are no mean field
_JOINING = ("add", "sub", "mul", "div", "bmm", "baddbmm", "mm", "addmm")
_OTHERS = ("attention", "lstm", "gru", "rnn", "encoder_layer", "embedding")
_PERIODIC = ("sin", "cos")


def phases_of(found: Examination) -> tuple[str, ...]:
    """Return the words that a model can be given; none where mean field does not define them.

    Rectifiers have no chaotic phase: images always come together, only sizes grow.

    Sources: Poole et al. 2016, arXiv:1606.05340, and Schoenholz et al. 2016, arXiv:1611.01232; of
    rectifiers Hayou et al. 2019, arXiv:1902.06853.
    """
    signs = list(_on_the_way(found))
    if any(_is_foreign(sign, found.record.sink) for sign in signs) or _is_narrow(found):
        return ()
    rectified = any(sign.name in (*RECTIFIERS, "leaky_relu") for sign in signs)
    return WITHOUT_CHAOS if rectified else ALL


def _on_the_way(found: Examination) -> Iterator[Signs]:
    """The operations that the output depends on."""
    if found.record.sink > 0:
        for node in nodes_between(found.record.operations, 0, found.record.sink):
            if node in found.signs:
                yield found.signs[node]


def _is_foreign(sign: Signs, sink: int) -> bool:
    """Whether an operation is none of weights, activations, means and pieces put together."""
    joins = len(sign.step.parents) > 1 and sign.name in _JOINING
    softmax = "softmax" in sign.name and sign.step.number != sink
    other = sign.name in _PERIODIC or any(part in sign.name for part in _OTHERS)
    return is_norm(sign) or joins or softmax or other


def _is_narrow(found: Examination) -> bool:
    """Whether a layer on every path has hardly any numbers; the last one may."""
    inner = [found.signs.get(weight.node) for weight in found.weights[:-1]]
    return any(
        sign is not None and sign.numbers < NARROW and sign.step.number in found.record.cuts
        for sign in inner
    )
