"""The vital signs of any model: how large, how alive and how different its activations are.

    from paperlib.instruments.probe.vitals import vital_signs
    signs = vital_signs(model, images, labels)
    signs["rms"]  # along the stages; signs["gradient"], signs["dead"], …

One run of at most 64 samples (of large models 8), whose every operation is looked at, one backward
pass of these, and a few runs of two to five samples.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor, nn

from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import stages_in
from paperlib.activations.tracing import Layers, ProbeError, Stage
from paperlib.core.checks import LARGEST_SEED, checked
from paperlib.instruments.probe.examination import SAMPLES, Examination, branch_sizes, examine

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
            most 64, of large models 8 to 2, spread over all, are looked at.
        labels: (n,) whole numbers: gradients are then those of the cross-entropy, and the loss at
            the start stands in the attributes beside ln(classes). None: of a random readout.
        layers: as for `probe`.
        seed: of the readout, and of the model's random numbers meanwhile.
        batch_norm: statistics of batch norms, as for `probe`.

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
    with untouched(model, seed):
        inputs = Inputs.for_looking(images, model)
        own = take_statistics(model, runner(model), inputs.batches(SAMPLES), batch_norm)
        stages = stages_in(model, inputs, layers, operations=True)
        labels = checked_labels(labels, inputs)
        found = examine(model, inputs, labels, stages, seed=seed, own=own)
    return dataset_of(found, stages)


def checked_labels(labels: Tensor | None, inputs: Inputs) -> Tensor | None:
    """Return the labels that were given, or that came along with the images; None without any.

    Raises:
        ProbeError: labels were given that are not one whole number for each image.
    """
    if labels is None:
        return inputs.classes
    check_labels(labels, len(inputs.source))
    return labels


def check_labels(labels: Any, count: int) -> None:
    """Raise a ProbeError where labels are not one whole number for each of `count` images."""
    came = type(labels).__name__
    if isinstance(labels, Tensor):
        came = f"{tuple(labels.shape)} of {labels.dtype}"
        if labels.shape == (count,) and not labels.is_floating_point():
            return
    raise ProbeError(f"labels must be a tensor of {count} whole numbers, got {came}")
