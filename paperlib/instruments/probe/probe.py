"""`probe(model, images)`: at which layer of any PyTorch model the input is lost.

    from paperlib import probe
    report = probe(model, images)  # any nn.Module, untrained or trained
    print(report)  # in Jupyter: report

The paper's method, with stages that are found by running the model. A stage ends where all paths
from the input to the output meet. An affine inverse leads from there to the end of the stage
before, and the inverses are chained. From a layer that some path bypasses, the input is predicted
directly, by one regression.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib import measures
from paperlib.activations.fields import Level, shape_of
from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import places, samples_that_fit, visit
from paperlib.activations.tracing import Layers, ProbeError, Stage, stages_of
from paperlib.cascade import Cascade
from paperlib.cascade.fitting import EXACT_BELOW, OVERFLOW, default_resolution
from paperlib.core.checks import LARGEST_SEED, checked, quoted
from paperlib.core.provenance import stamp
from paperlib.instruments.probe.examination import examine
from paperlib.instruments.probe.level_inverses import LevelInverse, inverse_between
from paperlib.instruments.probe.report import Report, report_of, with_vital_signs
from paperlib.instruments.probe.verdict import Verdict, fingerprint, judge
from paperlib.instruments.probe.vitals import check_labels
from paperlib.networks import Erf, Network
from paperlib.networks.kinds import RESOLUTION

NEIGHBOURS = 16  # images whose activations are compared, and moved a little
STEP = 1e-3  # by which they are moved, of the way to another image
COARSE_STEP = 3e-2  # for models in half precision
PARTS = 6  # of the memory, for a level of all images


def probe(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    layers: Layers = "auto",
    seed: int = 0,
    resolution: float | None = None,
    batch_norm: str = "auto",
    memory: float = 2**30,
) -> Report:
    """Report how much of its input a model still holds at each of its stages.

    R² of a stage is the fraction of held-out images that an affine cascade brings back from there:
    a lower bound on what the activation holds, and on large activations of less than all of it: see
    `activations.fields`. The model is run in evaluation mode, without gradients, and is left
    exactly as it was.

    Example:
        >>> import torch
        >>> from paperlib import initialise, probe
        >>> from torch import nn
        >>> layers = [layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.Tanh())]
        >>> model = nn.Sequential(nn.Flatten(), *layers)
        >>> initialise(model, sigma_w2=0.01, sigma_b2=1.0, seed=0)  # hardly looks at its input
        >>> images = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> report = probe(model, images)
        >>> report.phase, report.cutoff
        ('ordered', '4')

    Args:
        model: any module; a compiled one is looked at as it was before.
        images: (n, *shape), floating point, n >= 10 (a few hundred are better); or a dict or
            tuple of tensors with n samples each, the model's arguments, of which the first in
            floating point is reconstructed.
        labels: (n,) whole numbers, for which the model returns (n, classes): gradients are then
            those of the cross-entropy, the loss at the start is reported, and the report's
            `verdict` says more. None: of a random readout.
        layers: "auto", every place where all paths meet; or dotted names (`relu#2` is the second
            call of `relu`), or a function of name and module that picks layers.
        seed: of which images are held out, and of the model's random numbers while it is probed.
        resolution: λ, what lies below its square root is lost: in squared units of bounded
            activations, in units of the mean square of others. None is 1e-3, and 3e-6 for
            convolutional models with a layer tanh or erf.
        batch_norm: statistics of batch norms: "running" as they are, "batch" of these images, or
            "auto", of these images where none were ever taken.
        memory: bytes that activations may take, about; less makes them coarser.

    Raises:
        ValueError: no such layer, images that the model does not take, a layer that returns NaN;
            names the layer and the shape.

    Source: arXiv:2406.12916; cuts, tokens and sequences are this package's.
    """
    options: dict[str, Any] = {"layers": layers, "seed": seed, "resolution": resolution}
    options |= {"batch_norm": batch_norm, "memory": memory}
    model = plain_module(model)
    check_options(layers, seed, resolution, memory)
    inputs = Inputs.of(images, model, seed)
    if labels is not None:
        check_labels(labels, len(inputs.source))
    judged = _judge_later(model, images, labels, layers, seed, batch_norm, memory)
    resolution = _default_resolution(model) if resolution is None else float(resolution)
    with untouched(model, seed):
        work = _Work(model, inputs, layers, resolution, memory)
        size = samples_that_fit(model, inputs, memory)
        statistics = take_statistics(model, work.run, inputs.batches(size), batch_norm)
        work.look()
        if work.has_cascade:
            kept, pictures = work.by_its_cascade()
        else:
            kept, pictures = work.by_chained_inverses(size)
        correlation, separation = work.neighbours(size)
        in_order = Inputs.in_order(images, model)
        examined = examine(model, in_order, labels, work.stages, seed=seed)
    about = {
        "config": work.settings() | {"seed": seed, "batch_norms_of_these_images": statistics},
        "data": inputs.about(),
        "computed": [{**stamp(), "device": str(inputs.device), "points": 1}],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    table = work.table() | {
        "r_squared": kept,
        "correlation": correlation,
        "separation": separation,
    }
    found = with_vital_signs(report_of(table, pictures, about), examined, work.stages)
    return Report(found, lambda other: probe(other, images, labels, **options), model, judged)


def _judge_later(
    model: nn.Module, images: Any, labels: Tensor | None, *options: Any
) -> Callable[[Report], Verdict]:
    """What judges the model as long as it is what it is now."""
    names = ("layers", "seed", "batch_norm", "memory")
    now = fingerprint(model)

    def judged(report: Report) -> Verdict:
        if fingerprint(model) != now:
            raise ProbeError(
                f"{type(model).__name__} has changed since it was probed; probe it again, and ask "
                "for the verdict before it is trained"
            )
        return judge(report, model, images, labels, **dict(zip(names, options, strict=True)))

    return judged


class _Work:
    """One probe: what is found on the way."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, layers: Layers, resolution: float, memory: float
    ) -> None:
        self.model, self.inputs, self.run = model, inputs, runner(model)
        self.has_cascade = layers == "auto" and _has_cascade(model, inputs)
        self.layers = places(model, layers)
        self.resolution, self.memory = resolution, memory
        self.stages: list[Stage] = []
        self.levels: list[Level] = []

    def look(self) -> None:
        """Find the stages, and how many numbers of each fit into memory."""
        two, three = (self.inputs.part(0, count) for count in (2, 3))
        source = self.inputs.source_of(two)
        self.stages = stages_of(self.model, self.run, (two, three), source, self.layers)
        image = tuple(source.shape[1:])
        most = max(64, int(self.memory / (4 * PARTS * len(self.inputs.source))))
        shapes = [shape_of(image, channels_first=_channels_first(self.model, image))]
        for stage in self.stages:
            first = _channels_first(self.model, stage.shape)
            shapes.append(shape_of(stage.shape, image=image, channels_first=first))
        self.levels = [Level(shape, most) for shape in shapes]

    def by_its_cascade(self) -> tuple[np.ndarray, Tensor]:
        """R² of every stage by the cascade of a network of this package, and the first held-out
        image as it comes back."""
        train, test = self._images()
        stages: Any = self.model.stages
        cascade = Cascade.for_network(stages, train[:1]).fit(train, resolution=self.resolution)
        pictures = cascade.reconstruct(test)
        kept = measures.r_squared(test, pictures, mean=train.mean(0))
        return kept.cpu().numpy(), torch.cat([test[:1], pictures[:, 0]])

    def by_chained_inverses(self, size: int) -> tuple[np.ndarray, Tensor]:
        """R² of every stage, and the first held-out image as it comes back."""
        source = self.inputs.source
        images = torch.cat([self.levels[0].take(part) for part in source.split(size)])
        train, test = images[: self.inputs.train], images[self.inputs.train :]
        mean = train.mean(0)
        chain: list[LevelInverse] = []
        below, below_level = train, self.levels[0]
        kept, pictures = np.full(len(self.stages), np.nan), [test[:1]]
        for group in self._groups():
            codes = self._captured(group, size)
            for number in group:
                found = codes.pop(number)
                level, stage = self.levels[number + 1], self.stages[number]
                lower, target = (below_level, below) if stage.cut else (self.levels[0], train)
                inverse = inverse_between(level, lower, len(train))
                inverse.fit(found[: len(train)], target, self._penalty(number), self._dtype)
                back = inverse(found[len(train) :])
                if stage.cut:
                    for earlier in reversed(chain):
                        back = earlier(back)
                    chain.append(inverse)
                    below, below_level = found[: len(train)], level
                kept[number] = float(measures.r_squared(test, back, mean=mean))
                pictures.append(back[:1])
        return kept, torch.cat(pictures)

    def neighbours(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """For every stage, the mean cosine of two images' activations, and how far apart those of
        neighbours are, relative to their length, as a multiple of the same at the input."""
        half = self.inputs.source.dtype.itemsize < 4
        step, pairs = COARSE_STEP if half else STEP, max(2, size // 2)
        end = min(NEIGHBOURS, len(self.inputs.source))
        found: list[list[tuple[float, float]]] = [[] for _ in self.stages]
        at_input: list[float] = []
        for first in range(0, end - 1, pairs):
            moved = self.inputs.moved(first, min(first + pairs, end), step)
            at_input.append(_geometry(self.inputs.source_of(moved).flatten(1))[1])

            def take(number: int, value: Tensor) -> None:
                found[number].append(_geometry(value.flatten(1)))

            self._visit(range(len(self.stages)), moved, take)
        cosines, distances = np.moveaxis(np.array([np.mean(f, 0) for f in found]), 1, 0)
        return cosines, distances / max(float(np.mean(at_input)), 1e-30)

    def table(self) -> dict[str, Any]:
        """What is known of each stage by its name, before anything is measured."""
        return {
            "layer": [stage.name for stage in self.stages],
            "shape": ["×".join(map(str, stage.shape)) for stage in self.stages],
            "read": [
                ("cascade" if stage.cut else "direct")
                + ("" if level.whole or self.has_cascade else ", in part")
                for stage, level in zip(self.stages, self.levels[1:], strict=True)
            ],
            "numbers": [math.prod(stage.shape) for stage in self.stages],
        }

    def settings(self) -> dict[str, Any]:
        """What is said of the computation in a result."""
        target = self.levels[0]
        whole = target.whole or self.has_cascade
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "resolution": self.resolution,
            "memory": self.memory,
            "target": list(target.shape.raw if whole else target.kept_shape),
            "target_is_whole": whole,
        }

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.resolution < EXACT_BELOW else torch.float32

    def _images(self) -> tuple[Tensor, Tensor]:
        source = self.inputs.source
        return source[: self.inputs.train], source[self.inputs.train :]

    def _penalty(self, number: int) -> float:
        if self.stages[number].bounded:
            return self.resolution
        return max(self.resolution * self.levels[number + 1].mean_square, 1e-30)

    def _groups(self) -> Iterator[Sequence[int]]:
        """Runs of stages whose activations of all images can be held together."""
        group: list[int] = []
        held = 0.0
        for number, level in enumerate(self.levels[1:]):
            size = 4.0 * math.prod(level.kept_shape) * len(self.inputs.source)
            if group and held + size > self.memory / 2:
                yield group
                group, held = [], 0.0
            group.append(number)
            held += size
        yield group

    def _captured(self, group: Sequence[int], size: int) -> dict[int, Tensor]:
        """What is kept of all samples' activations at some stages."""
        parts: dict[int, list[Tensor]] = {number: [] for number in group}

        def take(number: int, value: Tensor) -> None:
            parts[number].append(self.levels[number + 1].take(value))

        count = len(self.inputs.source)
        for first in range(0, count, size):
            self._visit(group, self.inputs.part(first, min(first + size, count)), take)
        return {number: torch.cat(found) for number, found in parts.items()}

    def _visit(self, group: Sequence[int], values: Any, take: Any) -> None:
        """Give `take` the activations (n, *shape) at each of some stages, none of them NaN."""

        def taken(number: int, value: Tensor) -> None:
            _check_finite(self.stages[number], value)
            take(number, value)

        visit(self.model, values, {number: self.stages[number] for number in group}, taken)


def _has_cascade(model: nn.Module, inputs: Inputs) -> bool:
    """Whether it is a network of this package, of stages that all have inverses of their own."""
    if not isinstance(model, Network):
        return False
    return Cascade.for_network(model.stages, inputs.source[:1]).has_inverses()


def _geometry(values: Tensor) -> tuple[float, float]:
    """The mean cosine of the first half's rows with each other, and the mean distance of each row
    of the second half from its like in the first, relative to its length.

    Rows without length count as parallel.
    """
    rows, near = values.double().chunk(2)
    norms = rows.norm(dim=1)
    if not norms.all():
        return 1.0, 0.0
    count = len(rows)
    total = float((rows / norms[:, None]).sum(0).square().sum())
    moved = (near - rows).norm(dim=1) / norms
    return (total - count) / (count * (count - 1)), float(moved.mean())


def _channels_first(model: nn.Module, shape: Sequence[int]) -> bool:
    """Whether two axes are channels and times, as a one-dimensional convolution has them."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv1d)]
    widths = {width for layer in layers for width in (layer.in_channels, layer.out_channels)}
    return len(shape) == 2 and shape[0] in widths


def check_options(layers: Any, seed: Any, resolution: Any = None, memory: Any = 2**30) -> None:
    """Raise a ProbeError where an option is none that a probe takes."""
    names = [layers] if isinstance(layers, str) else layers
    if not callable(layers) and not (
        isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    ):
        raise ProbeError(
            f"layers must be 'auto', dotted names, or a function of name and module; got "
            f"{quoted(layers)}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ProbeError(f"seed must be a whole number >= 0, got {quoted(seed)}")
    if resolution is not None:
        checked("resolution", resolution, float, above=0)
    if not isinstance(memory, int | float) or not 2**20 <= memory <= 2**60:
        raise ProbeError(f"memory must be at least 2**20 bytes, got {quoted(memory)}")


def _check_finite(stage: Stage, value: Tensor) -> None:
    low, high = value.aminmax() if value.numel() else (value.new_zeros(()), value.new_zeros(()))
    if not (low > -OVERFLOW and high < OVERFLOW):  # NaN compares false
        raise ProbeError(
            f"layer {stage.name!r} returns NaN or values beyond {OVERFLOW:g} in a tensor of shape "
            f"{tuple(value.shape)}; use a smaller initialisation, or more precision"
        )


def _default_resolution(model: nn.Module) -> float:
    """λ where none is given; see `probe`."""
    if isinstance(model, Network):
        return default_resolution(model.stages)
    kinds = [type(module) for module in model.modules()]
    bounded = any(issubclass(kind, nn.Tanh | Erf) for kind in kinds)
    return RESOLUTION["cnn" if bounded and nn.Conv2d in kinds else "mlp"]
