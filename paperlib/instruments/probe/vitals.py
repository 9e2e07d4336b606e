"""The vital signs of any model: how large, how alive and how different its activations are.

    from paperlib.instruments.probe.vitals import vital_signs
    signs = vital_signs(model, images, labels)
    signs["rms"]  # along the stages; signs["gradient"], signs["dead"], …

One run of at most 64 samples whose every operation is looked at, one backward pass, and two runs of
four samples: about a tenth of a probe of a few hundred images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paperlib.activations.fields import shape_of
from paperlib.activations.flow import tensors_in
from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import places
from paperlib.activations.operations import (
    Record,
    Step,
    entangled,
    one_gradient,
    operations_of,
    outline_of,
)
from paperlib.activations.tracing import Layers, ProbeError, Stage, run_once, stages_of
from paperlib.core.checks import LARGEST_SEED, checked
from paperlib.core.seeds import random_numbers

SAMPLES = 64  # that run, at most
LEAST = 8  # that run, whatever the memory
SIDE = 8  # positions along each axis of a field that are looked at
ROWS = 256  # positions of all samples from which the rank is taken
SAME = 3e-6  # of the size, below which numbers are the same: a few roundings of float32
EDGE = {"tanh": (0.98, -0.98), "sigmoid": (0.99, 0.01)}  # from where less than 4% of slope is left
STAGE_SIGNS = {
    "rms": ("root mean square of activations", "1"),
    "contrast": ("what tells samples apart, as a fraction of the size", "1"),
    "constant": ("share of units that are the same for every sample", "1"),
    "dead": ("share of units that are 0 for every sample", "1"),
    "copied": ("share of units that equal another unit", "1"),
    "saturated": ("share of the numbers of tanh or sigmoid at an end", "1"),
    "rank": ("effective rank of the units", "1"),
    "branch": ("size of the residual branch against its skip", "1"),
    "gradient": ("RMS of the gradient of activations, per sample", "1"),
}
UPDATE = ("RMS of the gradient of weights, against that of the weights", "1")
LINEAR = ("addmm", "mm", "convolution", "linear", "_convolution", "mkldnn_convolution")


@dataclass(frozen=True)
class Signs:
    """What one operation's result shows.

    Attributes:
        layer, name: where and what it is.
        units: channels of fields, features of sequences, numbers of vectors.
        numbers: of one sample.
        rms: root mean square.
        spread: the same of the deviations from the mean over samples, so of what tells them apart.
        constant, dead, copied: shares of units that are the same for every sample, that are 0 for
            every sample, and that equal another unit.
        saturated: share of the numbers of tanh or sigmoid that lie at an end.
        highest: largest magnitude.
    """

    step: Step
    units: int
    numbers: int
    rms: float
    spread: float
    constant: float
    dead: float
    copied: float
    saturated: float
    highest: float
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        return self.step.layer

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def contrast(self) -> float:
        """What tells samples apart, as a fraction of the size."""
        return self.spread / self.rms if self.rms > 0 else 0.0


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
    fresh_norms: set[str] = field(default_factory=set)  # whose scales are all 1, as at the start
    table: dict[str, Any] = field(default_factory=dict)  # of the report, by stage
    entangled: str | None = None
    loss: float | None = None
    classes: int | None = None
    ranks: dict[int, float] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)
    recurrent: dict[str, list[float]] = field(default_factory=dict)


def units_of(values: Tensor) -> Tensor:
    """Return activations (n, *shape) as (n, units, positions), of fields 8 × 8 positions at most.

    Units are channels of fields, features of sequences, and numbers of vectors.
    """
    fields = shape_of(values.shape[1:]).field(values)
    steps = [max(1, -(-size // SIDE)) for size in fields.shape[2:]]
    if fields.shape[2] == 1:
        steps[1] = max(1, -(-fields.shape[3] // SIDE**2))
    return fields[:, :, :: steps[0], :: steps[1]].flatten(2).float()


def signs_of(step: Step, values: Tensor, facts: dict[str, float]) -> Signs:
    """Return what activations (n, *shape) show."""
    units = units_of(values)
    deviations = units - units.mean(0)
    size = units.abs().amax((0, 2))  # of each unit
    rms = float(units.square().mean().sqrt())
    apart = deviations.abs().amax((0, 2))
    constant = apart <= SAME * size.clamp(min=1e-30)
    saturated = math.nan
    if step.name in EDGE:
        high, low = EDGE[step.name]
        saturated = float(((units > high) | (units < low)).float().mean())
    return Signs(
        step,
        units.shape[1],
        values[0].numel(),
        rms,
        float(deviations.square().mean().sqrt()),
        float(constant.float().mean()),
        float((size == 0).float().mean()),
        copied_share(units[:, ~constant]),
        saturated,
        float(size.max()),
        facts,
    )


def copied_share(units: Tensor) -> float:
    """Return the share of units (n, units, positions) that equal an earlier one."""
    rows = units.transpose(0, 1).flatten(1)[:, :ROWS]
    if len(rows) < 2:
        return 0.0
    # equal rows have equal projections, so that they are neighbours in their order
    generator = random_numbers("copies", 0)
    direction = torch.randn(rows.shape[1], generator=generator).to(rows)
    seen = rows @ direction / (rows.norm(dim=1).mean() * direction.norm() / rows.shape[1] ** 0.5)
    seen, order = seen.sort()
    rows = rows[order]
    equal = (rows[1:] - rows[:-1]).norm(dim=1) <= 1e-4 * rows[1:].norm(dim=1)
    return float(((seen.diff() <= 1e-4) & equal).sum()) / len(rows)


def effective_rank(units: Tensor) -> float:
    """Return exp of the entropy of the covariance's spectrum, of (n, units, positions).

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    rows = units.transpose(1, 2).flatten(0, 1)
    some = torch.randperm(len(rows), generator=random_numbers("rows", 0))[:ROWS]
    rows = rows[some.to(rows.device)].double()
    rows = rows - rows.mean(0)
    gram = rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T
    if not bool(torch.isfinite(gram).all()):
        return math.nan
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    # a residue of rounding is no rank
    values = torch.where(values > 1e-10 * values.max(), values, 0)
    if not values.sum():
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def examine(
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor | None,
    stages: Sequence[Stage],
    *,
    seed: int = 0,
    memory: float = 2**30,
) -> Examination:
    """Look at every operation of a model that is in evaluation mode, see `guard.untouched`.

    Args:
        model: in the mode in which it is to run.
        inputs: its arguments; samples spread over all of them run.
        labels: (samples,) whole numbers, or None.
        stages: where the gradient of activations is wanted.
        seed: of the random readout.
        memory: bytes, about.
    """
    found = Examination(model, gradients=[math.nan] * len(stages))
    rows = _rows(model, inputs, memory)
    values = tree_map(lambda value: value[rows.to(value.device)], inputs.values)
    outline = outline_of(model, inputs)
    found.stages = [outline.layers.get((s.layer, s.call, s.place), -1) for s in stages]
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
    found.record = operations_of(model, inputs, copied, outline, take)
    if not any(norm.running_mean is None for norm in _norms(model)):
        found.entangled = entangled(model, inputs, seed)
    found.fresh_norms = {
        name
        for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.ndim == 1
        and bool((weight == 1).all())
    }
    found.recurrent = _recurrent(model, values)
    _differentiate(found, inputs, values, labels if labels is None else labels[rows], stages, seed)
    return found


def facts_of(step: Step, value: Tensor, arguments: tuple[Any, ...]) -> dict[str, float]:
    """Return what the arguments of an operation say that rules ask for."""
    if step.name == "elu":
        numbers = [float(a) for a in arguments[1:3]]
        return dict(zip(("alpha", "scale"), numbers, strict=False))
    if step.name == "leaky_relu":
        return {"slope": float(arguments[1]) if len(arguments) > 1 else 0.01}
    if step.name == "native_layer_norm":
        return {"over": float(math.prod(arguments[1]))}
    if step.name == "_softmax":
        return {"over": float(value.shape[arguments[1]])}
    if "batch_norm" in step.name and value.ndim > 1 and isinstance(arguments[4], Tensor):
        return _staleness(*(arguments[place] for place in (0, 3, 4)))
    return {}


def _staleness(given: Tensor, mean: Tensor, variance: Tensor) -> dict[str, float]:
    """How far running statistics are from those of a batch, the median over channels."""
    rows = given.transpose(0, 1).flatten(1).float()
    scale = variance.float().clamp(min=1e-12)
    shift = (rows.mean(1) - mean).abs() / scale.sqrt()
    ratio = (rows.var(1, correction=0).clamp(min=1e-12) / scale).log()
    return {"shift": float(shift.median()), "ratio": math.exp(float(ratio.median()))}


def _weighted(step: Step, arguments: tuple[Any, ...], names: dict[int, str]) -> list[Weighted]:
    weight = arguments[2] if step.name == "addmm" else arguments[1]
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        return []
    transposed = "convolution" in step.name and len(arguments) > 6 and arguments[6] is True
    fan_in = weight[0].numel() if "mm" not in step.name else weight.shape[0]
    if transposed:
        fan_in = weight.numel() // weight.shape[1] // max(1, math.prod(arguments[3]))
    square = float(weight.detach().double().square().mean())
    name = names.get(weight.data_ptr(), f"{step.layer}.weight")
    rows = weight.detach().T if "mm" in step.name else weight.detach()
    same = len(rows) > 1 and not transposed and bool((rows == rows[:1]).all())
    return [Weighted(step.number, step.layer, name, fan_in, square * fan_in, square**0.5, same)]


def _rows(model: nn.Module, inputs: Inputs, memory: float) -> Tensor:
    """Which samples run: as many as half the memory holds, spread over all."""
    two, numbers = inputs.few(2), 0

    def record(layer: str, call: int, outputs: Any) -> None:
        nonlocal numbers
        numbers += sum(tensor.numel() for tensor in tensors_in(outputs))

    run_once(model, runner(model), two, record)
    count = min(SAMPLES, max(LEAST, int(memory / 2 / (4 * max(1, numbers / 2)))))
    given = len(inputs.source)
    return torch.linspace(0, given - 1, min(count, max(4, given))).long().clamp(max=given - 1)


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
    inputs: Inputs,
    values: Any,
    labels: Tensor | None,
    stages: Sequence[Stage],
    seed: int,
) -> None:
    """Add the gradients: of the cross-entropy, or of a random readout without classes."""

    def goal(outputs: Tensor) -> Tensor:
        wanted = _classes(outputs, labels)
        if wanted is not None:
            found.classes = outputs.shape[1]
            return nn.functional.cross_entropy(outputs.float(), wanted, reduction="sum")
        generator = random_numbers("readout", seed)
        return (outputs * torch.randn(outputs.shape, generator=generator).to(outputs)).sum()

    try:
        slopes = one_gradient(found.model, inputs, values, stages, goal)
    except RuntimeError:  # quantised or frozen: there is no gradient
        return
    found.gradients = [_rms(slope) for slope in slopes.stages]
    found.zero_norms = {
        name.rpartition(".")[0]: _rms(slope)
        for name, slope in slopes.parameters.items()
        if slope.ndim == 1 and name.endswith("weight") and not found.model.get_parameter(name).any()
    }
    found.loss = slopes.value if found.classes else None
    found.weights = [
        replace(w, gradient=_rms(slopes.parameters[w.parameter]))
        if w.parameter in slopes.parameters
        else w
        for w in found.weights
    ]


def _classes(outputs: Tensor, labels: Tensor | None) -> Tensor | None:
    """Labels as classes of these outputs (n, classes); None where they are not."""
    if labels is None or outputs.ndim != 2 or outputs.shape[1] < 2 or labels.ndim != 1:
        return None
    if labels.is_floating_point() or len(labels) != len(outputs):
        return None
    inside = int(labels.min()) >= 0 and int(labels.max()) < outputs.shape[1]
    return labels.long().to(outputs.device) if inside else None


def _rms(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt()) if values.numel() else math.nan


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


def dataset_of(found: Examination, stages: Sequence[Stage]) -> xr.Dataset:
    """Return the vital signs as a table along `stage`, and along `weight` for layers with weights.

    Args:
        found: see `examine`.
        stages: that it was given.
    """
    columns = {name: np.full(len(stages), np.nan) for name in STAGE_SIGNS}
    branches, nodes = branch_sizes(found), found.stages
    for number, node in enumerate(nodes):
        sign = found.signs.get(node)
        if sign is not None:
            for name in ("rms", "contrast", "constant", "dead", "copied", "saturated"):
                columns[name][number] = getattr(sign, name)
            columns["rank"][number] = found.ranks.get(node, math.nan)
        first = nodes[number - 1] if number else 0
        within = [size for at, size in branches.items() if first < at <= node]
        columns["branch"][number] = within[-1] if within else math.nan
    if found.gradients:
        columns["gradient"] = np.array(found.gradients)
    result = xr.Dataset({name: ("stage", values) for name, values in columns.items()})
    result = result.assign_coords(
        stage=np.arange(1, len(stages) + 1), layer=("stage", [stage.name for stage in stages])
    )
    result = result.assign_coords(weight=[weight.parameter for weight in found.weights])
    for name in ("fan_in", "sigma_w2", "gradient"):
        values = [float(getattr(weight, name)) for weight in found.weights]
        result[f"weight_{name}"] = ("weight", np.array(values, dtype=float))
    updates = [w.gradient / w.rms if w.rms > 0 else math.nan for w in found.weights]
    result["update"] = ("weight", np.array(updates, dtype=float))
    for name, (meaning, units) in (STAGE_SIGNS | {"update": UPDATE}).items():
        result[name].attrs.update(long_name=meaning, units=units)
    if found.loss is not None and found.classes:
        result.attrs.update(loss=found.loss, ln_classes=math.log(found.classes))
    return result


def vital_signs(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    layers: Layers = "auto",
    seed: int = 0,
    batch_norm: str = "auto",
    memory: float = 2**30,
) -> xr.Dataset:
    """Return how large, how alive and how different activations and gradients are, by stage.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from paperlib.instruments.probe.vitals import vital_signs
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> _ = nn.init.constant_(model[0].bias, -100)  # no image is larger than that
        >>> signs = vital_signs(model, torch.rand(20, 4))
        >>> signs["dead"].sel(stage=1).item()
        1.0

    Args:
        model: any module; left as it was.
        images: (n, *shape); or a dict or tuple of tensors with n samples each, its arguments. At
            most 64, spread over all, are looked at.
        labels: (n,) whole numbers: gradients are then those of the cross-entropy, and the loss at
            the start stands in the attributes beside ln(classes). None: of a random readout.
        layers: as for `probe`.
        seed: of the readout, and of the model's random numbers meanwhile.
        batch_norm: statistics of batch norms, as for `probe`.
        memory: bytes that activations may take, about; less means fewer samples.

    Returns:
        along `stage`: `rms`; `contrast`, what tells samples apart as a fraction of it; the shares
        of units that are `constant`, `dead` and `copied`, and of numbers that are `saturated`;
        `rank`, the effective rank of the units; `branch`, a residual branch's size against its
        skip's; `gradient`, RMS per sample. Along `weight`: `weight_sigma_w2`, mean square times
        fan-in; `weight_gradient`; `update`, the gradient's RMS against the weight's.

    Raises:
        ProbeError: no such layer, or images that the model does not take; names the layer.
    """
    model = plain_module(model)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    memory = checked("memory", memory, float, low=2**20, high=2**60)
    inputs = Inputs.in_order(images, model)
    with untouched(model, seed):
        take_statistics(model, runner(model), inputs.batches(SAMPLES), batch_norm)
        two, three = inputs.few(2), inputs.few(3)
        source = inputs.source_of(two)
        stages = stages_of(model, runner(model), (two, three), source, places(model, layers))
        checked_labels(labels, inputs.train)
        found = examine(model, inputs, labels, stages, seed=seed, memory=memory)
    return dataset_of(found, stages)


def checked_labels(labels: Any, count: int) -> None:
    """Raise a ProbeError where labels are not a tensor with one entry per sample."""
    if labels is not None and not (isinstance(labels, Tensor) and labels.shape[:1] == (count,)):
        came = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ProbeError(
            f"labels must be a tensor of one entry for each of {count} samples, got {came}"
        )
