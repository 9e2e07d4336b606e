"""A probe at a glance: each stage read by one regression of few images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from paperlib.activations.guard import take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.tracing import Stage
from paperlib.instruments.probe import grams
from paperlib.instruments.probe.examination import stage_signs
from paperlib.instruments.probe.reading import Work

READ = 128  # samples that R² is read from, at most
STAGES = 12  # that are read, evenly spaced
RESOLUTION = 1e-3  # λ, in the unit of bounded activations, or of the variance of others
COARSER = 7  # powers of ten of it, of which the best is taken: samples are few


def glance(
    model: nn.Module,
    images: Any,
    labels: Tensor | None,
    stages: Sequence[Stage],
    *,
    seed: int,
    batch_norm: str,
    memory: float,
) -> tuple[dict[str, Any], float]:
    """Return a table as a probe makes it, and how a gradient changes on its way back.

    That is the gradient at the first stage over that before the head, activations in their own
    units; 0 or NaN where none comes back.

    Args:
        model: any module.
        images: its arguments, see `Inputs`.
        labels: (n,) whole numbers, or None.
        stages: where to look.
        seed, batch_norm, memory: as for `probe`.
    """
    with untouched(model, seed):
        inputs = Inputs.in_order(images, model)
        take_statistics(model, runner(model), inputs.batches(READ), batch_norm)
        work = Work(model, inputs, "auto", None, memory)
        work.has_cascade, work.stages = False, list(stages)
        kept = _read(work)
        correlation, separation = work.neighbours(READ)
        signs = stage_signs(model, inputs, labels, stages, seed=seed)
    table: dict[str, Any] = {
        "layer": [stage.name for stage in stages],
        "shape": ["×".join(map(str, stage.shape)) for stage in stages],
        "read": [work.way_at_a_glance(number) for number in range(len(stages))],
        "numbers": [math.prod(stage.shape) for stage in stages],
        "r_squared": kept,
        "correlation": correlation,
        "separation": separation,
    }
    sizes = [s * a for s, a in zip(signs["gradient"], signs["rms"], strict=True)]
    end = len(stages) - (len(stages) > 1 and table["numbers"][-1] < table["numbers"][-2])
    return table, sizes[0] / sizes[end - 1] if sizes[end - 1] else math.nan


def _read(work: Work) -> np.ndarray:
    """R² of some stages, each image read by a regression on all others; NaN where numbers are too
    large, and in between."""
    values = work.inputs.part(0, min(READ, work.inputs.train))
    images = work.inputs.source_of(values).flatten(1).double().cpu()
    kept = np.full(len(work.stages), np.nan)

    last = len(work.stages) - 1
    some = {round(place) for place in np.linspace(0, last, min(last + 1, STAGES))}
    some |= {last, max(0, last - 1)}  # before a head, too

    def take(number: int, value: Tensor) -> None:
        if number not in some:
            return
        rows = value.flatten(1).double().cpu()
        gram = (rows - rows.mean(0)) @ (rows - rows.mean(0)).T
        unit = len(rows) if work.stages[number].bounded else float(gram.trace()) / rows.shape[1]
        penalties = [max(RESOLUTION * unit, 1e-30) * 10.0**power for power in range(COARSER)]
        kept[number] = grams.r_squared_left_out(gram, images, *penalties)

    work.visit(range(len(work.stages)), values, take)
    return kept
