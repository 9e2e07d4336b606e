"""Signals of an untrained model: whether the image arrives, and whether the lesson comes back.

    from paperlib.instruments.probe.signals import signals

    found = signals(model, images, labels)
    found.numbers["r_squared_smallest"], found.numbers["gain"]
    found.layers  # by layer: its gradient, how alike those of different images are

Gradients count in units of what they belong to, weights or activations, so that a rescaled layer
changes nothing; but for `gain`, `gain_norm`, and what holds sgd or adam in its name.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paperlib.activations.factors import Dense
from paperlib.activations.goals import outputs_in
from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.kernels import grams_by_goal
from paperlib.activations.looking import samples_that_fit, stages_in, visit_whole
from paperlib.activations.losses import Loss, Parameters
from paperlib.activations.slopes import visit_slopes
from paperlib.activations.tracing import Layers, Stage
from paperlib.core.seeds import random_numbers
from paperlib.instruments.probe import grams
from paperlib.instruments.probe.lessons import (
    awake,
    decades,
    feeding,
    finite,
    in_steps,
    in_units,
    layer_of,
    moved,
    ratio,
    repeated,
    units_of,
    update,
    weights_by_name,
)
from paperlib.instruments.probe.report import Report
from paperlib.instruments.probe.trial import StopsLearning, trial_of
from paperlib.instruments.probe.vitals import checked_labels

if TYPE_CHECKING:
    import pandas as pd

SAMPLES, LEAST = 256, 32  # whose gradients are compared; fewer where memory is short
READ = 1000  # from whose activations image and label are read, at most
RESOLUTION = 1e-3  # λ of these reads, in units of the variance of what is read
COARSER = 7  # powers of ten of that λ, of which the best is taken: samples may be few
NOISE = 1e-3  # of the tangent kernel's mean diagonal, in which an alignment is lost
SLOW = 0.01  # of the fastest direction's speed, below which some hundred steps learn nothing
PENALTY = 0.1  # of the tangent kernel's ridge, in units of its mean diagonal


@dataclass(frozen=True)
class Signals:
    """What was measured of an untrained model.

    Attributes:
        numbers: name → number, all finite; see `signals`. What cannot be said is left out.
        stages: by stage, `r_squared` (of the probe), and the root mean squares of the activations,
            `size`, and of the gradient of random cotangents on the outputs, `slope`.
        layers: by layer with weights, in the model's order: `gradient`, the root mean square;
            `update_sgd` and `update_adam`, of the weights' root mean square, at rate 1;
            `sensitivity`, the lengths of gradient and weights multiplied; `cosine` of two images'
            gradients, and with labels `cosine_within` and `cosine_between` classes; `zero`, whether
            all weights are.
        drawn: layers that end the model in nothing but zeros; the gradients are those of a copy in
            which they are drawn, as the first step of training would.
        way: from where to where the gains were measured, in words.
        stopped: why the model stops in training mode; empty where it does not, or was not tried.
    """

    numbers: Mapping[str, float]
    stages: "pd.DataFrame"
    layers: "pd.DataFrame"
    drawn: tuple[str, ...] = ()
    way: tuple[str, str] = ("the last stage", "the first")
    stopped: str = ""


def signals(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    report: Report | None = None,
    layers: Layers = "auto",
    seed: int = 0,
    samples: int = SAMPLES,
    batch_norm: str = "auto",
    memory: float = 2**30,
    trial: bool = True,
) -> Signals:
    """Measure what an untrained model makes of images, and what comes back of a lesson.

    Cost: a probe, where no report is given; one forward pass of at most 1000 images; and of at most
    `samples` images two passes forward and back, three with labels (and as many again where their
    gradients do not fit into memory), of half of them one more and one forward, of the other half
    two forward; with labels a `trial`, too. The model is left exactly as it was.

    Numbers, of the image: `r_squared_smallest`, `r_squared_end` along the probe's chain up to the
    stage before a narrower head; `r_squared_features`, `r_squared_output`, read directly from
    there and from the outputs by a ridge (λ = 1e-3 of the variance of a number, or coarser by
    powers of ten where that predicts better; each image is read by a fit to all others); with
    labels `label_features`, `label_output`, how often such a ridge names the class, and `chance`,
    the share of the most frequent one.

    Of the lesson: `gain`, the gradient of random cotangents at the first stage over that at the
    last, by root mean squares, `gain_norm`, by lengths, and `gain_relative`, by root mean squares
    in units of the activations' own; where a layer is called again and again, or recurrent, that
    along its calls or its tokens if it differs more from 1; decades between the largest and the
    smallest of the layers' `update_sgd`, `update_adam` and `sensitivity` (`sgd_decades`, …), and
    `adam_share`, the smallest share of Adam's full step that a layer moves; `cosine` of two images'
    gradients, with labels `cosine_within`, `cosine_between` classes. Of the tangent kernel in which
    each parameter counts in units of its own length: `tangent_top` (the share of the largest
    eigenvalue), `tangent_rank` (of the centred kernel, relative to the most there can be),
    `tangent_condition` (ln, centred), and with labels `tangent_alignment` (above a noise of 1e-3 of
    the mean diagonal), `tangent_accuracy` (of its ridge, penalty 0.1 of the mean diagonal, each
    image left out). Of the kernel of steps that move every parameter by the same share of its own
    length, and of a ridge that leaves out what learns a hundred times more slowly than its fastest
    direction: `step_r_squared`, what such steps can learn of the image itself, and with labels
    `step_accuracy`, of the class; each image is left out in its turn.

    With labels: `trial_accuracy` and `trial_loss` of a few short trainings, see `trial_of`; they
    are left out where they would take too long. `loss`, and `step_gain`, the share of it that one
    step takes away on images that the step has not seen. All parameters move by the same share of
    their own length, such that a linear loss would fall by a tenth on the images that it has seen,
    and by 0.1 at most.

    Args:
        model: any module whose samples do not see each other.
        images: (n, *shape), n >= 10; or a dict or tuple of tensors, as for `probe`.
        labels: (n,), whole numbers; the model's outputs are then (n, classes).
        report: of a probe of this model with these images and layers; None probes it.
        layers: the stages, as for `probe`.
        seed: of which images are chosen, of random cotangents, and of the probe.
        samples: whose gradients are compared, at most.
        batch_norm: as for `probe`.
        memory: bytes that activations and gradients may take, about.
        trial: make a trial where labels are given and it does not take too long.

    Raises:
        ValueError: as `probe`; labels that do not fit; a batch norm that averages over samples.

    Source: issue "Will it train?"; the kernel's alignment is that of arXiv:1203.0550.
    """
    from paperlib.instruments.probe.probe import probe

    model = plain_module(model)
    if report is None:
        options: dict[str, Any] = {"batch_norm": batch_norm, "memory": memory}
        report = probe(model, images, layers=layers, seed=seed, **options)
    with untouched(model, seed):
        inputs = Inputs.for_looking(images, model)
        labels = checked_labels(labels, inputs)
        size = samples_that_fit(model, inputs, memory)
        take_statistics(model, runner(model), inputs.batches(size), batch_norm)
        subject, drawn = awake(model, inputs, seed)
        work = _Work(subject, inputs, labels, report, layers, seed, size, memory)
        work.read()
        work.follow_back(samples)
        work.compare(samples)
        work.move()
        if trial:
            work.try_out()
    return work.found(drawn)


@dataclass
class _Some:
    """Some of the samples, in a random order, and their labels."""

    values: Any
    labels: Tensor | None
    count: int


@dataclass
class _Work:
    """What is measured of one model, one after the other."""

    model: nn.Module
    inputs: Inputs
    labels: Tensor | None
    report: Report
    layers: Layers
    seed: int
    size: int
    memory: float
    numbers: dict[str, float] = field(default_factory=dict)
    stages: dict[str, Any] = field(default_factory=dict)
    table: dict[str, dict[str, float]] = field(default_factory=dict)
    way: tuple[str, str] = ("", "")
    stopped: str = ""

    def some(self, count: float) -> _Some:
        """The same samples, or the first of them, at every call."""
        order = torch.randperm(self.inputs.train, generator=random_numbers("signals", self.seed))
        order = order[: int(min(max(count, LEAST), READ))]
        values = self.inputs.pick(order)
        labels = None if self.labels is None else self.labels[order.to(self.labels.device)]
        return _Some(values, labels, len(order))

    def read(self) -> None:
        """The image, and the label, that can be read before the head and from the outputs."""
        kept = self.report.result["r_squared"].values[: self.report.end]
        self.numbers["r_squared_smallest"] = float(kept.min())
        self.numbers["r_squared_end"] = float(kept[-1])
        stages = stages_in(self.model, self.inputs, self.layers, operations=True)
        stage = stages[self.report.end - 1]
        per_sample = math.prod(stage.shape) + self.inputs.source[0].numel()
        some = self.some(self.memory / 8 / per_sample)
        if some.labels is not None:
            self.numbers["chance"] = float(some.labels.unique(return_counts=True)[1].max())
            self.numbers["chance"] /= some.count
        pictures = self.inputs.source_of(some.values).flatten(1).double().cpu()
        for name, values in zip(("features", "output"), self._at(stage, some), strict=True):
            gram, penalties = _readable(values)
            self.numbers[f"r_squared_{name}"] = grams.r_squared_left_out(gram, pictures, *penalties)
            if some.labels is not None:
                read = grams.accuracy_left_out(gram, some.labels.to(gram.device), *penalties)
                self.numbers[f"label_{name}"] = read

    def follow_back(self, samples: int) -> None:
        """How the gradient of random cotangents changes on its way back."""
        some = self.some(samples)
        slopes = self._slopes(some, self.layers)
        for name in ("slope", "size"):
            self.stages[name] = [at[name] for at in slopes]
        names = self.report.result["layer"].values
        words = f"layer {names[self.report.end - 1]}", f"layer {names[0]}"
        ways = [(words, slopes[: self.report.end]), *self._through_time(some)]
        gains = [(words, _gains(along)) for words, along in ways]
        self.way, found = max(gains, key=lambda each: _change(each[1]["gain"]))
        self.numbers |= found

    def compare(self, samples: int) -> None:
        """How alike the gradients of different samples are, layer by layer and in all."""
        some = self.some(samples)
        options: dict[str, Any] = {"memory": self.memory, "seed": self.seed, "least": LEAST}
        units = units_of(self.model)
        goals = [(None, None)] + ([] if some.labels is None else [(some.labels, None)])
        found, *of_labels = grams_by_goal(self.model, some.values, goals, **options)
        kernel, steps = in_units(found, units), in_steps(found, units)
        some = self.some(len(kernel))
        slow = max(SLOW * float(torch.linalg.eigvalsh(steps)[-1]), 1e-300)
        self.numbers |= _spectrum(kernel)
        self._note("cosine", found, None)
        pictures = self.inputs.source_of(some.values).flatten(1).double().to(kernel.device)
        self.numbers["step_r_squared"] = grams.r_squared_left_out(steps, pictures, slow)
        if some.labels is None:
            return
        self.numbers["step_accuracy"] = grams.accuracy_left_out(
            steps, some.labels.to(kernel.device), slow
        )
        mean = float(kernel.diagonal().mean())
        self.numbers["tangent_alignment"] = grams.alignment(kernel, some.labels, floor=NOISE)
        self.numbers["tangent_accuracy"] = grams.accuracy_left_out(
            kernel, some.labels.to(kernel.device), max(PENALTY * mean, 1e-300)
        )
        lessons, same = of_labels[0], grams.same_class(some.labels).to(kernel.device)
        for name, pairs in (("cosine_within", same), ("cosine_between", ~same)):
            self.numbers[name] = grams.mean_cosine(in_units(lessons, units), pairs)
            self._note(name, lessons, pairs)

    def move(self) -> None:
        """The gradient of the mean loss, layer by layer, and what one step along it does."""
        some = self.some(SAMPLES)
        half = max(1, some.count // 2)
        seen, unseen = (
            _Some(
                tree_map(lambda value, part=part: value[part], some.values),
                None if some.labels is None else some.labels[part],
                0,
            )
            for part in (slice(half), slice(half, None))
        )
        options: dict[str, Any] = {"seed": self.seed, "batch_size": self.size}
        loss = Loss(self.model, seen.values, seen.labels, **options)
        value, gradient = loss.value_and_gradient()
        self._updates(loss.parameters, gradient)
        if unseen.labels is not None:
            there = Loss(self.model, unseen.values, unseen.labels, **options)
            before = there.value()
            units = units_of(self.model)
            after = there.value(moved(loss.parameters, gradient, units, value))
            self.numbers |= {"loss": before, "step_gain": finite((before - after) / before)}

    def try_out(self) -> None:
        """What a few short trainings have learnt at their end."""
        some = self.some(READ)
        if some.labels is not None:
            inputs = Inputs.in_order(some.values, self.model)
            try:
                self.numbers |= trial_of(self.model, inputs, some.labels, seed=self.seed)
            except StopsLearning as stopped:
                self.stopped = str(stopped)

    def found(self, drawn: tuple[str, ...]) -> Signals:
        """All of it."""
        import pandas as pd

        result = self.report.result
        stages = {"r_squared": result["r_squared"].values, **self.stages}
        numbers = {name: value for name, value in self.numbers.items() if math.isfinite(value)}
        index = pd.Index(result["layer"].values, name="stage")
        layers = pd.DataFrame.from_dict(self.table, orient="index").rename_axis("layer")
        along = pd.DataFrame(stages, index=index)
        return Signals(numbers, along, layers, drawn, self.way, self.stopped)

    def _at(self, stage: Stage, some: _Some) -> tuple[Tensor, Tensor]:
        """Activations (n, numbers) at a stage, and outputs, on the CPU."""
        at: list[Tensor] = []
        outputs: list[Tensor] = []
        for first in range(0, some.count, self.size):
            values = tree_map(
                lambda value, first=first: value[first : first + self.size].clone(), some.values
            )

            def take(_: int, value: Tensor) -> None:
                at.append(stage.samples(value).flatten(1).cpu().clone())

            result = visit_whole(self.model, values, {0: stage}, take)
            outputs.append(outputs_in(result).flatten(1).cpu())
        return torch.cat(at), torch.cat(outputs)

    def _slopes(
        self, some: _Some, layers: Layers, *, tokens: bool = False
    ) -> list[dict[str, float]]:
        """At each stage the root mean squares of gradients and activations, and how many numbers
        there are; or at each token of the one stage."""
        squares: dict[str, dict[int, Tensor]] = {"slope": {}, "size": {}}

        def add(name: str, number: int, value: Tensor) -> None:
            rows = value.flatten(2) if tokens else value.flatten(1)[:, None]
            found = torch.linalg.vector_norm(rows, dim=2, dtype=torch.float64).square().sum(0)
            squares[name][number] = squares[name].get(number, 0) + found.cpu()

        stages = visit_slopes(
            self.model, some.values, None, partial(add, "slope"), seen=partial(add, "size"),
            layers=layers, operations=True, cotangent=self._cotangents(some), seed=self.seed,
            batch_size=self.size,
        )  # fmt: skip
        found = []
        for number, stage in enumerate(stages):
            count = math.prod(stage.shape[1:] if tokens else stage.shape)
            pairs = zip(squares["slope"][number], squares["size"][number], strict=True)
            for slope, size in pairs:
                if tokens:  # all are in one unit, and some may be black
                    size = squares["size"][number].mean()
                rms = {"slope": slope, "size": size, "numbers": some.count * count * count}
                found.append({k: math.sqrt(float(v) / some.count / count) for k, v in rms.items()})
        return found

    def _cotangents(self, some: _Some) -> Tensor:
        """Random numbers for every output of every sample."""
        with torch.no_grad():
            two = tree_map(lambda value: value[:2].clone(), some.values)
            shape = outputs_in(runner(self.model)(two)).shape[1:]
        generator = random_numbers("cotangents", self.seed)
        return torch.randn(some.count, *shape, generator=generator)

    def _through_time(
        self, some: _Some
    ) -> Iterator[tuple[tuple[str, str], list[dict[str, float]]]]:
        """The way back through the calls of a layer that is called again and again, and through
        the tokens that a recurrent layer reads."""
        cell, fed = repeated(self.model, self.inputs), feeding(self.model, self.inputs)
        if cell is not None:
            yield (f"the last call of {cell}", "the first"), self._slopes(some, [cell])
        if fed is not None:
            along = self._slopes(some, [fed], tokens=True)
            yield (f"the last token behind {fed}", "the first"), along

    def _note(self, column: str, found: Parameters, pairs: Tensor | None) -> None:
        for name in weights_by_name(self.model):
            if name in found:
                row = self.table.setdefault(layer_of(name), {})
                row[column] = grams.mean_cosine(found[name], pairs)

    def _updates(self, parameters: Parameters, gradient: Parameters) -> None:
        names = [name for name in weights_by_name(self.model) if name in parameters]
        rows = {layer_of(name): update(parameters[name], gradient[name]) for name in names}
        for layer, row in rows.items():
            self.table[layer] = {**row, **self.table.get(layer, {})}
        able = [row for row in rows.values() if not row["zero"]]
        for name in ("sgd", "adam"):
            self.numbers[f"{name}_decades"] = decades([row[f"update_{name}"] for row in able])
        self.numbers["sensitivity_decades"] = decades([row["sensitivity"] for row in able])
        self.numbers["adam_share"] = min((row["share"] for row in able), default=0.0)


def _gains(way: list[dict[str, float]]) -> dict[str, float]:
    """The gradient where a way back ends over that where it begins, in three units."""
    units: dict[str, Callable[[dict[str, float]], float]] = {
        "gain": lambda at: at["slope"],
        "gain_norm": lambda at: at["slope"] * math.sqrt(at["numbers"]),
        "gain_relative": lambda at: at["slope"] * at["size"],
    }
    return {name: ratio(unit(way[0]), unit(way[-1])) for name, unit in units.items()}


def _change(gain: float) -> float:
    return abs(math.log(gain)) if gain > 0 else math.inf


def _readable(values: Tensor) -> tuple[Tensor, list[float]]:
    """The products of what is read less its mean, and the ridge's penalties in their unit."""
    width = values.shape[1]
    rounding = 4 * torch.finfo(values.dtype).eps
    square = float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2 / width
    gram = Dense((values - values.mean(0)).contiguous()).gram()
    penalty = RESOLUTION * float(gram.trace()) / width + rounding**2 * square
    return gram, [max(penalty, 1e-300) * 10.0**power for power in range(COARSER)]


def _spectrum(kernel: Tensor) -> dict[str, float]:
    largest, total = float(torch.linalg.eigvalsh(kernel)[-1]), float(kernel.trace())
    return {
        "cosine": grams.mean_cosine(kernel),
        "tangent_top": largest / total if total else 1.0,
        "tangent_rank": grams.effective_rank(kernel) / max(1, len(kernel) - 1),
        "tangent_condition": grams.log_condition(kernel),
    }
