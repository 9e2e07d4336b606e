"""A model examined: every operation of one run, its weights, its gradients."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paperlib.activations.flow import tensors_in
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.operations import (
    Record,
    Step,
    entangled,
    operations_of,
    outline_of,
)
from paperlib.activations.slopes import one_gradient
from paperlib.activations.tracing import Stage, run_once
from paperlib.core.seeds import random_numbers
from paperlib.instruments.probe.samples import Mixed
from paperlib.instruments.probe.signs import Signs, effective_rank, facts_of, signs_of, units_of

SAMPLES = 64  # that run, at most
LEAST = 8  # that run of large models
NUMBERS = 2**23  # in the activations of the samples that run, about
LARGEST = 2**26  # in the result of one operation, at most, but of two samples
SEEN = ("rms", "contrast", "constant", "dead", "copied")  # of `Signs`, at every stage
LINEAR = ("addmm", "mm", "convolution", "linear", "_convolution", "mkldnn_convolution")


@dataclass(frozen=True)
class Weighted:
    """A layer with weights: what it was drawn with, and what becomes of its result."""

    node: int
    layer: str
    parameter: str
    fan_in: int
    sigma_w2: float  # mean square of the weights times fan-in
    rms: float
    same_rows: bool  # every unit has the same weights
    gradient: float = math.nan  # RMS, of the mean over samples

    @property
    def moves_first(self) -> bool:
        """Whether the weights are zeros that learn in the first step."""
        return self.rms == 0 and self.gradient > 0


@dataclass
class Examination:
    """All that rules may ask for."""

    model: nn.Module
    signs: dict[int, Signs] = field(default_factory=dict)
    weights: list[Weighted] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    record: Record = field(default_factory=Record)
    gradients: list[float] = field(default_factory=list)  # by stage
    zero_norms: dict[str, float] = field(default_factory=dict)  # scales of 0: their gradient
    own_statistics: Collection[str] = ()  # batch norms that were given those of these samples
    fresh_norms: set[str] = field(default_factory=set)  # whose scales are all 1, as at the start
    table: dict[str, Any] = field(default_factory=dict)  # of the report, by stage
    mixed: Mixed | None = None  # samples that influence each other
    loss: float | None = None
    classes: int | None = None
    ranks: dict[int, float] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)
    recurrent: dict[str, list[float]] = field(default_factory=dict)


def examine(
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor | None,
    stages: Sequence[Stage],
    *,
    seed: int = 0,
    mixed: Mixed | None = None,
    own: Collection[str] = (),
) -> Examination:
    """Look at every operation of a model that is in evaluation mode, see `guard.untouched`.

    Args:
        model: in the mode in which it is to run.
        inputs: its arguments; samples spread over all of them run.
        labels: (samples,) whole numbers, or None.
        stages: where the gradient of activations is wanted.
        seed: of the random readout.
        mixed: what is known of samples that influence each other.
        own: batch norms that have been given the statistics of these inputs.
    """
    found = Examination(model, gradients=[math.nan] * len(stages), own_statistics=own)
    outline = outline_of(model, inputs)
    rows = _rows(inputs, outline)
    values = inputs.pick(rows)
    found.stages = [outline.node_of(stage) for stage in stages]
    looked_at = set(found.stages)
    names = {p.data_ptr(): name for name, p in model.named_parameters()}

    def take(step: Step, value: Tensor, arguments: tuple[Any, ...]) -> None:
        samples = step.samples(value) if value.is_floating_point() else None
        if samples is not None and len(samples) == len(rows):
            found.signs[step.number] = signs_of(step, samples, facts_of(step, value, arguments))
            if step.number in looked_at:
                found.ranks[step.number] = effective_rank(units_of(samples))
        for parent in step.parents:
            found.children.setdefault(parent, []).append(step.number)
        if step.name in LINEAR and len(step.parents) == 1:
            found.weights.extend(_weighted(step, arguments, names))

    source = inputs.source_of(values)
    if source.is_floating_point():
        found.signs[0] = signs_of(Step(0, "input", "", (), 0, 1), source, {})
    copied = tree_map(Tensor.clone, values)
    folded = {stage.rows: stage.inner for stage in stages if stage.rows > 1}
    found.record = operations_of(model, inputs, copied, outline, take, folded=folded)
    if not any(norm.running_mean is None for norm in _norms(model)):
        layer = entangled(model, inputs, seed)
        if layer is not None:
            mixed = Mixed("" if mixed is None else mixed.which, layer)
    found.mixed = mixed
    found.fresh_norms = {
        name
        for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.ndim == 1
        and bool((weight == 1).all())
    }
    found.recurrent = _recurrent(model, values)
    _differentiate(found, values, labels if labels is None else labels[rows], stages, seed)
    return found


def _weighted(step: Step, arguments: tuple[Any, ...], names: dict[int, str]) -> list[Weighted]:
    weight = arguments[2] if step.name == "addmm" else arguments[1]
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        return []
    transposed = "convolution" in step.name and len(arguments) > 6 and arguments[6] is True
    fan_in = weight[0].numel() if "mm" not in step.name else weight.shape[0]
    if transposed:
        fan_in = weight.numel() // weight.shape[1] // max(1, math.prod(arguments[3]))
    square = float(torch.linalg.vector_norm(weight.detach().float())) ** 2 / weight.numel()
    name = names.get(weight.data_ptr(), f"{step.layer}.weight")
    rows = weight.detach().T if "mm" in step.name else weight.detach()
    same = len(rows) > 1 and not transposed and torch.equal(rows[0], rows[-1])
    same = same and bool((rows == rows[:1]).all())
    return [Weighted(step.number, step.layer, name, fan_in, square * fan_in, square**0.5, same)]


def _rows(inputs: Inputs, outline: Record) -> Tensor:
    """Which samples run, spread over all: fewer of large models, of which an outline tells."""
    numbers = sum(math.prod(outline.shapes.get(node, (0,))) for node in outline.layers.values()) / 3
    largest = max(map(math.prod, outline.shapes.values())) / 3
    count = min(SAMPLES, max(LEAST, int(NUMBERS / max(1, numbers))), int(LARGEST / max(1, largest)))
    given = len(inputs.source)
    count = min(count, max(4, given)) if count > 3 else 2  # an outline is of three
    return torch.linspace(0, given - 1, count).long().clamp(max=given - 1)


def _norms(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _recurrent(model: nn.Module, values: Any) -> dict[str, list[float]]:
    """By recurrent layer, what tells samples apart in the last state of each of its layers."""
    found: dict[str, list[float]] = {}
    kinds = {name: m for name, m in model.named_modules() if isinstance(m, nn.RNNBase)}
    if not kinds:
        return found

    def record(layer: str, call: int, outputs: Any) -> None:
        if layer in kinds:
            states = list(tensors_in(outputs))[1].float()  # (layers, n, units)
            apart = (states - states.mean(1, keepdim=True)).square().mean((1, 2)).sqrt()
            found[layer] = (apart / states.square().mean((1, 2)).sqrt().clamp(min=1e-30)).tolist()

    run_once(model, runner(model), tree_map(Tensor.clone, values), record)
    return found


def _differentiate(
    found: Examination,
    values: Any,
    labels: Tensor | None,
    stages: Sequence[Stage],
    seed: int,
) -> None:
    """Add the gradients: of the cross-entropy, or of a random readout without classes."""

    goal = _Goal(labels, seed)
    try:
        slopes = one_gradient(found.model, values, stages, goal)
    except RuntimeError:  # quantised or frozen: there is no gradient
        return
    found.gradients = [_rms(slope) for slope in slopes.stages]
    found.zero_norms = {
        name.rpartition(".")[0]: _rms(slope)
        for name, slope in slopes.parameters.items()
        if slope.ndim == 1 and name.endswith("weight") and not found.model.get_parameter(name).any()
    }
    found.classes = goal.classes
    found.loss = slopes.value if found.classes else None
    found.weights = [
        replace(w, gradient=_rms(slopes.parameters[w.parameter]))
        if w.parameter in slopes.parameters
        else w
        for w in found.weights
    ]


class _Goal:
    """Of outputs: their cross-entropy; a random readout where labels are no classes of theirs."""

    def __init__(self, labels: Tensor | None, seed: int) -> None:
        self.labels, self.seed = labels, seed
        self.classes: int | None = None

    def __call__(self, outputs: Tensor) -> Tensor:
        wanted = _classes(outputs, self.labels)
        if wanted is not None:
            self.classes = outputs.shape[1]
            return nn.functional.cross_entropy(outputs.float(), wanted, reduction="sum")
        readout = torch.randn(outputs.shape, generator=random_numbers("readout", self.seed))
        return (outputs * readout.to(outputs)).sum()


def stage_signs(
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor | None,
    stages: Sequence[Stage],
    *,
    seed: int,
) -> dict[str, Any]:
    """Return the vital signs of stages alone, by name, from one forward and one backward pass.

    Args:
        model: in the mode in which it is to run.
        inputs, labels: see `examine`.
        stages: where to look.
        seed: of the random readout.
    """
    rows = torch.linspace(0, inputs.train - 1, min(SAMPLES, inputs.train)).long()
    values = inputs.pick(rows)
    goal = _Goal(labels if labels is None else labels[rows], seed)
    slopes = one_gradient(model, values, stages, goal)
    signs = [signs_of(Step(0, "", "", (), 0, 1), a, {}) for a in slopes.activations]
    found: dict[str, Any] = {name: [getattr(sign, name) for sign in signs] for name in SEEN}
    found["rank"] = [effective_rank(units_of(a)) for a in slopes.activations]
    found["gradient"] = [_rms(slope) for slope in slopes.stages]
    return found | ({"loss": slopes.value} if goal.classes else {})


def _classes(outputs: Tensor, labels: Tensor | None) -> Tensor | None:
    """Labels as classes of these outputs (n, classes); None where they are not."""
    if labels is None or outputs.ndim != 2 or outputs.shape[1] < 2 or labels.ndim != 1:
        return None
    if labels.is_floating_point() or len(labels) != len(outputs):
        return None
    inside = int(labels.min()) >= 0 and int(labels.max()) < outputs.shape[1]
    return labels.long().to(outputs.device) if inside else None


def _rms(values: Tensor) -> float:
    if not values.numel():
        return math.nan
    return float(torch.linalg.vector_norm(values.detach().float())) / values.numel() ** 0.5


def branch_sizes(found: Examination) -> dict[int, float]:
    """Return, by the number of each addition to a skip, the branch's size against the skip's.

    An addition is to a skip where one of its two terms was computed from the other.
    """
    ancestors: dict[int, set[int]] = {}
    sizes: dict[int, float] = {}
    for step in found.record.steps[1:]:
        parents = step.parents
        ancestors[step.number] = set(parents).union(*(ancestors.get(p, set()) for p in parents))
        if step.name == "add" and len(parents) == 2:
            skip, branch = parents
            signs = found.signs.get(skip), found.signs.get(branch)
            if skip in ancestors.get(branch, set()) and signs[0] and signs[1] and signs[0].rms > 0:
                sizes[step.number] = signs[1].rms / signs[0].rms
    return sizes
