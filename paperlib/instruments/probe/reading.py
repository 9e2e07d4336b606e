"""How much of its input each stage of a model still holds, and where activations lie: one probe."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib import measures
from paperlib.activations.arguments import parts_of, runner
from paperlib.activations.cutting import HELD
from paperlib.activations.fields import Level, shape_of
from paperlib.activations.guard import same_numbers
from paperlib.activations.inputs import Inputs
from paperlib.activations.looking import stages_in, visit
from paperlib.activations.tracing import Layers, ProbeError, Stage, output_of
from paperlib.cascade import Cascade
from paperlib.cascade.fitting import EXACT_BELOW, OVERFLOW, default_resolution
from paperlib.instruments.probe.clouds import Cloud
from paperlib.instruments.probe.level_inverses import Chain
from paperlib.instruments.probe.report import OVERFLOWS, has_head
from paperlib.instruments.probe.samples import Mixed, first_of_all
from paperlib.networks import Network
from paperlib.networks.kinds import RESOLUTION

NEIGHBOURS = 16  # images whose activations are compared, and moved a little
STEP = 1e-3  # by which they are moved, of the way to another image
COARSE_STEP = 3e-2  # for models in half precision
PARTS = 6  # of the memory, for a level of all images


class Work:
    """One probe: what is found on the way."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        layers: Layers,
        resolution: float | None,
        memory: float,
    ) -> None:
        self.model, self.inputs, self.run = model, inputs, runner(model)
        self.has_cascade = layers == "auto" and _has_cascade(model, inputs)
        self.layers = layers
        self.resolution = None if resolution is None else float(resolution)
        self.memory = memory
        self.stages: list[Stage] = []
        self.levels: list[Level] = []
        self.ways: dict[int, str] = {}  # how a stage was read, where not by the chain
        self.overflows: set[int] = set()
        self.parallel = 0.0  # the mean cosine of two images
        self.first: list[str] = []  # what is said before all else
        self.mixed: Mixed | None = None  # samples that influence each other
        self.said: list[str] = []  # and after

    def look(self) -> None:
        """Find the stages, and how many numbers of each fit into memory."""
        self.stages = stages_in(self.model, self.inputs, self.layers, operations=True)
        image = tuple(self.inputs.source.shape[1:])
        most = max(64, int(self.memory / (4 * PARTS * len(self.inputs.source))))
        shapes = [shape_of(image, channels_first=_channels_first(self.model, image))]
        for stage in self.stages:
            first = _channels_first(self.model, stage.shape)
            shapes.append(shape_of(stage.shape, image=image, channels_first=first))
        self.levels = [Level(shape, most) for shape in shapes]
        found = first_of_all(self.model, self.inputs, self.stages, self._devices())
        self.first, self.mixed = found
        self.said = self._outputs()

    def by_its_cascade(self, size: int) -> tuple[np.ndarray, Tensor]:
        """R² of every stage by the cascade of a network of this package, and the first held-out
        image as it comes back; by chained inverses, where it cannot be fitted."""
        train, test = self._images()
        stages: Any = self.model.stages
        cascade = Cascade.for_network(stages, train[:1])
        try:
            cascade.fit(train, resolution=self._resolution(0))
        except ValueError:  # it overflows, or a stage has an inverse for some images only
            self.has_cascade = False
            return self.by_chained_inverses(size)
        pictures = cascade.reconstruct(test)
        kept = measures.r_squared(test, pictures, mean=train.mean(0))
        return kept.cpu().numpy(), torch.cat([test[:1], pictures[:, 0]])

    def at_the_end(self, size: int) -> np.ndarray:
        """R² of the last stage, or of that before a narrower head, read directly; NaN of others."""
        self.has_cascade = False
        last = len(self.stages) - 1
        end = last - has_head([math.prod(stage.shape) for stage in self.stages])
        return self.by_chained_inverses(size, range(end, end + 1))[0]

    def by_chained_inverses(
        self, size: int, numbers: range | None = None
    ) -> tuple[np.ndarray, Tensor]:
        """R² of every stage, and the first held-out image as it comes back; or of some stages."""
        source = self.inputs.source
        images = torch.cat([self.levels[0].take(part) for part in source.split(size)])
        chain = Chain(images, self.inputs.train, self.levels[0])
        kept, pictures = np.full(len(self.stages), np.nan), [images[self.inputs.train :][:1]]
        for group in self._groups(numbers or range(len(self.stages))):
            codes = self._captured(group, size)
            for number in group:
                found = codes.pop(number)
                if number in self.overflows:
                    pictures.append(torch.full_like(pictures[0], math.nan))
                    continue
                settings = self._penalty(number), self._dtype(number)
                read = chain.read(
                    found, self.levels[number + 1], *settings, self.stages[number].cut
                )
                kept[number], self.ways[number] = read.r_squared, read.way
                pictures.append(read.picture)
        if len(self.overflows) == len(self.stages):
            _refuse_overflow(self.stages[0])
        return kept, torch.cat(pictures)

    def neighbours(self, size: int) -> dict[str, np.ndarray]:
        """For every stage, the mean cosine of two images' activations, `correlation`, and how far
        apart those of neighbours are, relative to all images' spread, as a multiple of the same at
        the input, `separation`."""
        half = self.inputs.source.dtype.itemsize < 4
        step, pairs = COARSE_STEP if half else STEP, max(2, size // 2)
        end = min(NEIGHBOURS, len(self.inputs.source))
        clouds = [Cloud() for _ in range(len(self.stages) + 1)]  # the input's first
        for first in range(0, end - 1, pairs):
            last = min(first + pairs, end)
            here, near = self.inputs.part(first, last), self.inputs.moved(first, last, step)
            with same_numbers(self._devices()):  # a model that draws some draws the same twice
                found = self._all(here)
            for number, value in self._all(near).items():
                clouds[number].add(found[number], value)
        apart, self.parallel = clouds[0].separation, clouds[0].parallel
        separations = np.array([cloud.separation for cloud in clouds[1:]])
        return {
            "correlation": np.array([cloud.cosine for cloud in clouds[1:]]),
            "separation": separations / max(apart, 1e-30),
        }

    def _all(self, values: Any) -> dict[int, Tensor]:
        """What the input, 0, and all stages, from 1, hold of samples, (n, numbers)."""
        found = {0: self.inputs.source_of(values).flatten(1).cpu()}
        found[0] = found[0].float() if found[0].dtype.itemsize < 4 else found[0]

        def take(number: int, value: Tensor) -> None:
            value = value.flatten(1).cpu().clone()
            found[number + 1] = value.float() if value.dtype.itemsize < 4 else value

        self._visit(range(len(self.stages)), values, take)
        missing = set(range(len(self.stages))) & self.overflows
        return found | {number + 1: torch.full((2, 1), math.nan) for number in missing}

    def table(self) -> dict[str, Any]:
        """What is known of each stage by its name, before anything is measured."""
        return {
            "layer": [stage.name for stage in self.stages],
            "shape": ["×".join(map(str, stage.shape)) for stage in self.stages],
            "read": [self._way(number) for number in range(len(self.stages))],
            "numbers": [math.prod(stage.shape) for stage in self.stages],
        }

    def settings(self) -> dict[str, Any]:
        """What is said of the computation in a result."""
        target = self.levels[0]
        whole = target.whole or self.has_cascade
        resolutions = Counter(map(self._resolution, range(len(self.stages))))
        said = {"first": self.first, "said": self._held() + self.said}
        return {name: found for name, found in said.items() if found} | {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "resolution": resolutions.most_common(1)[0][0],
            "memory": self.memory,
            "cosine_of_inputs": self.parallel,
            "target": list(target.shape.raw if whole else target.kept_shape),
            "target_is_whole": whole,
        }

    def _held(self) -> list[str]:
        """Which stages hold many weights, with nothing to look at inside."""
        found: list[str] = []
        inside = False
        for stage in self.stages:
            if stage.cut and stage.weights > HELD and not inside:
                names = [n for n, m in self.model.named_modules() if n and not list(m.children())]
                some = ", ".join(map(repr, names[:: max(1, len(names) // 3)][:3]))
                found.append(
                    f"stage {stage.name!r} holds {stage.weights} weights; to look inside, name "
                    f"layers, as in layers=[{some}]"
                )
            inside = not stage.cut
        return found

    def _outputs(self) -> list[str]:
        """Which of several outputs is looked at."""
        two = self.inputs.pick((0, 1))
        result, number = output_of(self.model, self.run, two, self.inputs.source_of(two))
        names = [name for name, tensor in parts_of(result) if tensor.is_floating_point()]
        if len(names) < 2:
            return []
        some = ", ".join(map(repr, names[:6])) + (", …" if len(names) > 6 else "")
        return [
            f"of the model's outputs {some}, {names[number]!r} is looked at; output= picks another"
        ]

    def _way(self, number: int) -> str:
        if number in self.overflows:
            return OVERFLOWS
        way = self.ways.get(number, "cascade" if self.stages[number].cut else "direct")
        return way + ("" if self.levels[number + 1].whole or self.has_cascade else ", in part")

    def _resolution(self, number: int) -> float:
        """λ of a stage, see `probe`."""
        if self.resolution is not None:
            return self.resolution
        if self.has_cascade:
            return default_resolution(self.model.stages)  # type: ignore[arg-type]
        stage, field = self.stages[number], self.levels[number + 1].shape.kind == "field"
        convolved = any(earlier.convolved for earlier in self.stages[: number + 1])
        return RESOLUTION["cnn" if stage.bounded and field and convolved else "mlp"]

    def _dtype(self, number: int) -> torch.dtype:
        return torch.float64 if self._resolution(number) < EXACT_BELOW else torch.float32

    def _devices(self) -> list[int]:
        device = self.inputs.device
        return [device.index or 0] if device.type == "cuda" else []

    def _images(self) -> tuple[Tensor, Tensor]:
        source = self.inputs.source
        return source[: self.inputs.train], source[self.inputs.train :]

    def _penalty(self, number: int) -> float:
        if self.stages[number].bounded:
            return self._resolution(number)
        return max(self._resolution(number) * self.levels[number + 1].variance, 1e-30)

    def _groups(self, numbers: range) -> Iterator[Sequence[int]]:
        """Runs of these stages whose activations of all images can be held together."""
        group: list[int] = []
        held = 0.0
        for number in numbers:
            size = 4.0 * math.prod(self.levels[number + 1].kept_shape) * len(self.inputs.source)
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
            if number not in self.overflows:
                parts[number].append(self.levels[number + 1].take(value))

        for first, end in self.inputs.runs(size):
            self._visit(group, self.inputs.part(first, end), take)
        nothing = torch.empty(0)
        return {
            number: nothing if number in self.overflows else torch.cat(found)
            for number, found in parts.items()
        }

    def _visit(self, group: Sequence[int], values: Any, take: Any) -> None:
        """Give `take` the activations (n, *shape) at each of some stages, none of them NaN: those
        that are too large or NaN are noted as such."""

        def taken(number: int, value: Tensor) -> None:
            if _is_finite(value):
                take(number, value)
            else:
                self.overflows.add(number)

        visit(self.model, values, {number: self.stages[number] for number in group}, taken)


def _has_cascade(model: nn.Module, inputs: Inputs) -> bool:
    """Whether it is a network of this package, of stages that all have inverses of their own."""
    if not isinstance(model, Network):
        return False
    return Cascade.for_network(model.stages, inputs.source[:1]).has_inverses()


def _channels_first(model: nn.Module, shape: Sequence[int]) -> bool:
    """Whether two axes are channels and times, as a one-dimensional convolution has them."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv1d)]
    widths = {width for layer in layers for width in (layer.in_channels, layer.out_channels)}
    return len(shape) == 2 and shape[0] in widths


def _is_finite(value: Tensor) -> bool:
    if not value.numel():
        return True
    low, high = value.aminmax()
    return bool(low > -OVERFLOW and high < OVERFLOW)  # NaN compares false


def _refuse_overflow(stage: Stage) -> None:
    raise ProbeError(
        f"layer {stage.name!r} returns NaN or values beyond {OVERFLOW:g} in a tensor of shape "
        f"{stage.shape} for each image; use a smaller initialisation, or more precision"
    )
