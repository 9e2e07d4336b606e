"""The cascade: one inverse per stage, chained from any depth back to an image."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.activations.stages import FixedStage, of_stages
from paperlib.cascade import archive
from paperlib.cascade.convolutions import CircularInverse, filtered
from paperlib.cascade.fitting import (
    ARITHMETICS,
    ENDS,
    PRECISIONS,
    SOLVERS,
    ProgressCallback,
    Stop,
    channels_last,
    default_resolution,
    fit_adam,
    fit_ridge,
)
from paperlib.cascade.foreign import recognised
from paperlib.cascade.inverses import bounds_of, inverse_of
from paperlib.cascade.linear import Inverse
from paperlib.core.checks import LARGEST_SEED, checked, is_dense, path_of, quoted
from paperlib.measures import LOST, STD_FLOOR, differential_entropy_published, r_squared

MOST = 10**9  # steps, or images in a batch
JUDGED_IMAGES = 100  # that say whether a fit may end
LOOK_EVERY, LOOK_EVERY_PART = 5, 10  # levels between two looks, or a tenth of the level
FADED_LOOKS = 3  # in a row that find R² below LOST: it scatters about that, and comes back once
COLLAPSED = math.log(STD_FLOOR) + 0.5 * math.log(2 * math.pi * math.e) + 0.01  # nats per pixel
WORKSPACE = 2**26  # numbers at a level that are held at once: 256 MiB in float32
_HEADER = ("format", "shapes", "network", "inverses")  # what a file says besides its solver


class Cascade:
    """The inverses c_1 … c_L of a network's stages; C^l = c_1 ∘ … ∘ c_l maps level l to an image.

    Level l is the output of the first l stages, l = 1 … L.
    Build one with `for_network`, then `fit`.

    Example:
        >>> import torch
        >>> from paperlib import Cascade, initialise, mlp
        >>> network = mlp((1, 4, 4), depth=2, activation="linear")
        >>> initialise(network, sigma_w2=1.0, sigma_b2=0.05, seed=0)
        >>> images = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> cascade = Cascade.for_network(network, images[:1]).fit(images)
        >>> cascade.depth, cascade.image_shape
        (2, (1, 4, 4))
        >>> tuple(cascade.reconstruct(images[:10]).shape)  # (levels, batch, *image_shape)
        (2, 10, 1, 4, 4)
        >>> tuple(cascade.from_channel(images[:10], 2, channel=5).shape)
        (10, 1, 4, 4)
        >>> activations = network.stages(images[:10])  # at level 2
        >>> back = cascade.from_activation(activations, 2)
        >>> bool(back.isclose(cascade.reconstruct(images[:10], levels=2)[0], atol=1e-5).all())
        True
    """

    def __init__(self, stages: Sequence[nn.Module], shapes: Sequence[Sequence[int]]) -> None:
        self._stages = list(stages)
        self._shapes = [tuple(shape) for shape in shapes]  # of the images, then of every level
        self._inverses: list[Inverse] = []
        self._solver: dict[str, Any] = {}
        self._losses: list[float] = []

    @classmethod
    @torch.no_grad()
    def for_network(cls, network: nn.Module | Iterable[nn.Module], example_images: Tensor) -> Self:
        """Return an unfitted cascade; one pass of the examples finds the shapes of all levels.

        A stage may be one Linear; convolutions, poolings and paddings one after the other, or
        transposed convolutions, along one, two or three axes; what only arranges its input anew; a
        residual block; or anything that commutes with cyclic shifts of the image (ridge only).
        Activations and batch norms stand beside them. A residual block of another package, whose
        forward adds a skip, is found by one run. Adam inverts it as published, by the inverses of
        its convolutions without the skip; where they do not run one after the other, by one
        transposed convolution, 3 wide along every axis, times the stride. The closed form regresses
        neighbourhoods of as many positions.

        Args:
            network: a Network (its `stages`), an nn.Sequential, or any sequence of modules.
            example_images: (batch, *image_shape); one image is enough.

        Raises:
            ValueError: no stages, or a stage that rejects the output of the one before.
        """
        found: Any = getattr(network, "stages", network)
        stages = (
            list(found) if isinstance(found, nn.Sequential | nn.ModuleList | list | tuple) else []
        )
        if not stages or not all(isinstance(stage, nn.Module) for stage in stages):
            raise ValueError(
                "network must be one with stages, an nn.Sequential or a list of modules, at least "
                f"one; got {quoted(network)} ({type(network).__name__})"
            )
        activations = _floating("example_images", example_images, stages)
        shapes = [activations.shape[1:]]
        for level, stage in enumerate(stages, start=1):
            try:
                inputs, activations = activations, FixedStage(stage)(activations)
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                raise ValueError(
                    f"stage {level} ({type(stage).__name__}) does not take an input of shape "
                    f"{tuple(activations.shape)}: {error}; example_images have the shape "
                    f"{tuple(example_images.shape)}"
                ) from error
            shapes.append(activations.shape[1:])
            stages[level - 1] = recognised(stage, FixedStage(stage), inputs[:1])
        return cls(stages, shapes)

    @property
    def depth(self) -> int:
        """The number of stages, and so of levels."""
        return len(self._stages)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of an activation at every level; that of level 0 is the image's."""
        return [tuple(shape) for shape in self._shapes]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of the images it reconstructs."""
        return self._shapes[0]

    @property
    def losses(self) -> list[float]:
        """The mean squared error that the fit left each inverse, from a stage's output to its
        input, on the first hundred images that it was fitted to; empty if loaded from a file."""
        return list(self._losses)

    def fit(
        self,
        images: Tensor,
        *,
        solver: str = "ridge",
        seed: int = 0,
        resolution: float | None = None,
        affine: bool = True,
        arithmetic: str = "auto",
        steps: int | None = None,
        batch_size: int = 64,
        precision: str = "float32",
        weight_decay: float = 0.0,
        progress: ProgressCallback | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        until: str = "deepest",
        held_out: Tensor | None = None,
    ) -> Self:
        """Fit every inverse to the images' activations, and return this cascade.

        Args:
            images: (n, *image_shape), n >= 2, values in [0, 1].
            solver: "ridge", in closed form, or "adam", as published.
            seed: of the inverses' initial weights and of the order of batches (adam).
            resolution: ridge only; λ in squared activation units, see `fitting.fit_ridge`. None is
                1e-3, and 3e-6 for convolutions with bounded activations.
            affine: ridge only; False gives inverses the published activation (tanh and erf nets).
            arithmetic: ridge only; of the second moments, see `fitting.fit_ridge`.
            steps: adam only; batches, None is one epoch.
            batch_size: adam only.
            precision: adam only; of the products of a step, "float32" or "bfloat16" (weights and
                sums stay in float32; faster on CPUs with instructions for it).
            weight_decay: adam only; times an inverse's parameters, added to their gradient. Faint
                signals are lost to it, as they are to a coarse resolution of the closed form.
            progress: called with the number of stages finished since its last call.
            checkpoint: a folder of this fit's own, where finished stages are written, a file each.
                The same fit, started again, goes on from there; the files may then be deleted.
            until: "deepest" stage; or "lost": end where the images have collapsed to one, which no
                deeper stage undoes; or "r_squared": end there too where R² of the held-out images
                has stayed below 0.02, for in the chaotic phase they come back as wrong pictures
                that differ. The cascade then is as deep as that.
            held_out: (m, *image_shape), for until="r_squared": images that are not fitted;
                the first hundred are looked at.

        Raises:
            ValueError: an argument out of range, images of another shape, a stage without a known
                inverse, or a network that overflows; the message names it.

        Source: arXiv:2406.12916 (adam); the closed form is this package's.
        """
        images = self._checked(images)
        if len(images) < 2:
            raise ValueError(f"a fit needs at least 2 images, got {len(images)}")
        solver = checked("solver", solver, str, choices=SOLVERS)
        arithmetic = checked("arithmetic", arithmetic, str, choices=ARITHMETICS)
        affine = checked("affine", affine, bool)
        seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
        resolution = default_resolution(self._stages) if resolution is None else resolution
        resolution = checked("resolution", resolution, float, above=0)
        batch_size = checked("batch_size", batch_size, int, low=1, high=MOST)
        if steps is not None:
            steps = checked("steps", steps, int, low=1, high=MOST)
        if progress is not None and not callable(progress):
            raise ValueError(f"progress must be a function, got {quoted(progress)}")
        if checkpoint is not None:
            checkpoint = path_of("checkpoint", checkpoint)
        precision = checked("precision", precision, str, choices=PRECISIONS)
        weight_decay = checked("weight_decay", weight_decay, float, low=0)
        until = checked("until", until, str, choices=ENDS)
        if (until == "r_squared") != (held_out is not None):
            raise ValueError(
                "until='r_squared' looks at images that are not fitted: give both or none of it "
                f"and held_out; got until={until!r} and held_out={quoted(held_out)}"
            )
        if held_out is not None:
            held_out = self._checked(held_out)
            held_out = held_out.to(torch.promote_types(held_out.dtype, torch.float32))
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        inverses = self._new_inverses(solver, affine=affine, seed=seed)
        for inverse in inverses:
            inverse.to(images.device, images.dtype)
        walkers = [FixedStage(stage) for stage in self._stages]
        if solver == "ridge":
            about = {"solver": solver, "resolution": resolution, "affine": affine}
            options: dict[str, Any] = {"resolution": resolution, "arithmetic": arithmetic}
            fit_inverses: Any = fit_ridge
        else:
            about = {"solver": solver, "steps": steps, "batch_size": batch_size}
            options = {"steps": steps, "batch_size": batch_size, "seed": seed}
            if precision != "float32":
                about["precision"] = options["precision"] = precision
            if weight_decay:
                about["weight_decay"] = options["weight_decay"] = weight_decay
            fit_inverses = fit_adam
        callbacks = [progress] if progress else []
        if checkpoint is not None:
            saved = self._checkpoint(checkpoint, inverses, images, {**about, **options})
            options["fitted"] = saved.restore()
            for callback in callbacks:
                callback(saved.finished)
            callbacks.insert(0, saved.advance)
        options["progress"] = lambda stages: [callback(stages) for callback in callbacks]
        if until != "deepest":
            judged = (images if held_out is None else held_out)[:JUDGED_IMAGES]
            options["stop"] = self._end(until, inverses, judged, images.mean(dim=0))
        losses = fit_inverses(walkers, inverses, images, **options)
        # only now: a failed fit leaves the old one
        self._inverses, self._solver, self._losses = inverses[: len(losses)], about, losses
        del self._stages[len(losses) :], self._shapes[len(losses) + 1 :]
        return self

    def _end(self, until: str, inverses: Sequence[Inverse], judged: Tensor, mean: Tensor) -> Stop:
        """What says whether a fit may end at a level, from how these images come back from it."""
        seen, activations, due = 0, judged, LOOK_EVERY  # level of the last look, and of the next
        below: list[bool] = []  # what the looks found

        @torch.no_grad()
        def stop(level: int) -> bool:
            nonlocal seen, activations, due
            if level < due or level == self.depth:
                return False
            for stage in self._stages[seen:level]:
                activations = FixedStage(stage)(activations)
            # a look costs as much as its level is deep: so the deeper, the rarer
            seen, due = level, level + max(LOOK_EVERY, level // LOOK_EVERY_PART)
            part = Cascade(self._stages[:level], self._shapes[: level + 1])
            part._inverses = list(inverses[:level])
            pictures = part.from_activation(activations, level)
            if is_collapsed(pictures):
                return True
            if until == "lost":
                return False
            below.append(not float(r_squared(judged, pictures, mean=mean)) >= LOST)  # NaN: below
            return len(below) >= FADED_LOOKS and all(below[-FADED_LOOKS:])

        return stop

    def _checkpoint(
        self,
        folder: str | os.PathLike[str],
        inverses: Sequence[Inverse],
        images: Tensor,
        settings: dict[str, Any],
    ) -> archive.Checkpoint:
        """What keeps this fit's finished inverses; its digest covers all that they depend on."""
        weights = self._weights_digest()
        depends_on = json.dumps([weights, self._shapes, str(inverses), settings], sort_keys=True)
        fit = archive.digest_of([images, torch.tensor(list(depends_on.encode()))])
        return archive.Checkpoint(folder, inverses, fit)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, *, levels: Sequence[int] | int | None = None) -> Tensor:
        """Reconstruct the images from each level: (levels, batch, *image_shape).

        Args:
            images: (batch, *image_shape).
            levels: 1-based, in any order; None is all of them, a number is that one alone.

        Raises:
            ValueError: a level outside 1 … depth, images of another shape, or no fit yet.
        """
        wanted = self._checked_levels(levels)
        images = self._checked(images)
        if self._is_shorter(dict.fromkeys(wanted, len(images))):
            pictures = self._compose(self._activations(images, set(wanted)))
            return torch.stack([pictures[level] for level in wanted])
        parts = [
            self._descend(self._activations(part, set(wanted)))
            for part in images.split(self._fitting(max(wanted)))
        ]
        return torch.stack([torch.cat([part[level] for part in parts]) for level in wanted])

    @torch.no_grad()
    def from_activation(self, activation: Tensor, level: int, *, to: int = 0) -> Tensor:
        """Reconstruct images (batch, *image_shape) from activations at one level.

        Args:
            activation: (batch, *shape of that level).
            level: 1-based.
            to: stop at this level, 0 … level, and return what was estimated of its activation.

        Raises:
            ValueError: a level outside 1 … depth, an activation of another shape, or no fit yet.
        """
        (level,) = self._checked_levels([level], name="level")
        to = checked("to", to, int, low=0, high=level)
        activation = self._checked_activation("activation", activation, level)
        if to:
            return self._chain(activation, level, to=to)
        return self._descend({level: activation})[level]

    @torch.no_grad()
    def from_channel(
        self, images: Tensor, level: int, channel: int | Sequence[int], *, each: bool = False
    ) -> Tensor:
        """Reconstruct the images (batch, *image_shape) from one channel of a level alone.

        Args:
            images: (batch, *image_shape).
            level: 1-based.
            channel: which channel (or neuron) stays, or several; all others are set to zero.
            each: every channel of several alone, in one pass: (channels, batch, *image_shape).

        Raises:
            ValueError: a level or channel that does not exist, images of another shape, or no fit.
        """
        (level,) = self._checked_levels([level], name="level")
        each = checked("each", each, bool)
        kept = self._checked_channels(channel, level)
        whole = self._activations(self._checked(images), {level})[level]
        groups = torch.tensor(kept).view(-1, 1) if each else torch.tensor(kept).view(1, -1)
        at_once = max(1, self._fitting(level) // max(1, len(images)))
        pictures = []
        for some in groups.split(at_once):
            alone = whole.new_zeros(len(some), *whole.shape)
            for picture, group in zip(alone, some, strict=True):
                picture[:, group] = whole[:, group]
            back = self.from_activation(alone.flatten(0, 1), level)
            pictures.append(back.unflatten(0, (len(some), len(images))))
        return torch.cat(pictures) if each else pictures[0][0]

    def ideal_input(self, target: Tensor) -> Tensor:
        """Return the images (batch, *image_shape) that the cascade makes of outputs set by hand.

        Args:
            target: (batch, *shape of the last level), e.g. 1 for one class and -1 for the others.

        Raises:
            ValueError: a target of another shape, or no fit yet.
        """
        self._checked_levels(None)
        target = self._checked_activation("target", target, self.depth)
        return self.from_activation(target, self.depth)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted inverses to a .safetensors file, complete or not at all.

        Raises:
            ValueError: no fit yet.
        """
        self._checked_levels(None)
        file = path_of("path", path)
        if file.is_dir():
            raise ValueError(f"path must be that of a file, got the folder {file}")
        tensors = {
            f"{level}.{name}": value
            for level, inverse in enumerate(self._inverses, start=1)
            for name, value in inverse.state_dict().items()
        }
        about = {"shapes": self._shapes, "network": self._weights_digest(), **self._solver}
        archive.write(file, tensors, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str], network: nn.Module | Iterable[nn.Module]) -> Self:
        """Load the cascade that `save` wrote, for the network it was fitted to.

        Args:
            path: a file written by `save`.
            network: the same network; its stages' shapes are compared with the file's.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a saved cascade, a damaged one, or one of another network.
        """
        about, tensors = archive.read(path_of("path", path))
        if "shapes" not in about:
            raise ValueError(f"{path} is no saved cascade but another archive; see Cascade.save")
        shapes = [tuple(shape) for shape in about["shapes"]]
        cascade = cls.for_network(network, torch.zeros(1, *shapes[0]))
        weights = [p for stage in cascade._stages for p in stage.parameters()]
        if cascade._shapes != shapes:
            raise ValueError(
                f"{path} belongs to a network with levels {shapes}, got one with {cascade._shapes}"
            )
        if about["network"] != cascade._weights_digest():
            raise ValueError(f"{path} belongs to a network with other weights; fit a new cascade")
        cascade._solver = {k: v for k, v in about.items() if k not in _HEADER}
        cascade._inverses = cascade._new_inverses(
            cascade._solver["solver"], affine=cascade._solver.get("affine", False)
        )
        for level, inverse in enumerate(cascade._inverses, start=1):
            for name, parameter in inverse.named_parameters():
                parameter.data = tensors[f"{level}.{name}"].to(
                    next(iter(weights), parameter).device
                )
        return cascade

    def has_inverses(self) -> bool:
        """Return whether an inverse is known for every stage, so that `fit` will find one."""
        try:
            self._new_inverses("ridge", affine=False)
        except ValueError:
            return False
        return True

    def _new_inverses(self, solver: str, *, affine: bool, seed: int | None = None) -> list[Inverse]:
        """Untrained inverses; the published ones end in what bounded their stage's input.

        Only what Adam starts from is drawn; a closed form and a file overwrite what memory holds.
        """
        bounds = bounds_of(self._stages)[:-1]
        published = solver == "adam"
        drawn = published and seed is not None
        with torch.random.fork_rng(devices=[]), torch.device("cpu" if drawn else "meta"):
            torch.default_generator.manual_seed(seed or 0)
            inverses = [
                inverse_of(
                    FixedStage(stage),
                    f"stage {level}",
                    output_shape=outputs,
                    input_shape=inputs,
                    activation=None if affine and not published else bound,
                    published=published,
                )
                for level, (stage, bound, (inputs, outputs)) in enumerate(
                    zip(self._stages, bounds, pairwise(self._shapes), strict=True), start=1
                )
            ]
        return inverses if drawn else [inverse.to_empty(device="cpu") for inverse in inverses]

    @property
    def _affine(self) -> bool:
        return all(inverse.affine for inverse in self._inverses)

    @property
    def _pixels(self) -> int:
        return torch.Size(self.image_shape).numel()

    def _weights_digest(self) -> str:
        return archive.digest_of(
            values for stage in self._stages for values in (*stage.parameters(), *stage.buffers())
        )

    def _activations(self, images: Tensor, levels: set[int]) -> dict[int, Tensor]:
        """The activations at the wanted levels, in the inverses' precision."""
        found = of_stages(self._stages, images, levels, batch_size=self._fitting(max(levels)))
        return {level: values.to(self._inverse_weight) for level, values in found.items()}

    @property
    def _inverse_weight(self) -> Tensor:
        """A parameter of the inverses, for their device and precision."""
        weights = (p for inverse in self._inverses for p in inverse.parameters())
        return next(weights, torch.empty(0))

    def _descend(self, activations: dict[int, Tensor]) -> dict[int, Tensor]:
        """Images from every level, each inverse applied once to the stack of all deeper ones.

        Where the stack would outgrow WORKSPACE, it goes down to the images in parts.
        """
        deepest_first = sorted(activations, reverse=True)
        activations = {level: channels_last(values) for level, values in activations.items()}
        stack = activations[deepest_first[0]][:0]
        pictures: list[Tensor] = []
        for level in range(deepest_first[0], 0, -1):
            if level in activations:
                stack = torch.cat([stack, activations[level]])
            if len(stack) * torch.Size(self._shapes[level - 1]).numel() > WORKSPACE:
                pictures += [self._chain(part, level) for part in stack.split(self._fitting(level))]
                stack = stack.new_empty(0, *self._shapes[level - 1])
            else:
                stack = self._inverses[level - 1](stack)
        batches = torch.cat([*pictures, stack]).split([len(activations[x]) for x in deepest_first])
        return dict(zip(deepest_first, batches, strict=True))

    def _chain(self, codes: Tensor, level: int, *, to: int = 0) -> Tensor:
        """The images of activations at one level, or what they say of a level above 0."""
        for inverse in reversed(self._inverses[to:level]):
            codes = inverse(codes)
        return codes

    def _is_shorter(self, batches: Mapping[int, int]) -> bool:
        """Whether it takes fewer rows to compose the inverses than to apply each to the batches of
        so many codes from all levels above it."""
        deepest = max(batches)
        base = self._below_filters(deepest)
        of_matrix = self._shapes[base][0]
        if base == deepest:
            base, of_matrix = 0, self._pixels
        rows = sum(number * (level - base) for level, number in batches.items() if level > base)
        return self._affine and rows > (deepest - base) * of_matrix

    def _below_filters(self, level: int) -> int:
        """The level that circular inverses alone lead to from this one; 0 if all are."""
        while level and isinstance(self._inverses[level - 1], CircularInverse):
            level -= 1
        return level

    def _compose(self, activations: dict[int, Tensor]) -> dict[int, Tensor]:
        """Images from every level by C^l = C^(l-1) ∘ c_l, one filter or matrix updated once per
        stage: by filters down to the level that circular inverses alone lead to, from there by a
        matrix or inverse by inverse, whichever takes fewer rows."""
        base = self._below_filters(max(activations))
        if base == max(activations):
            return self._compose_matrix(activations)
        filtered_down = self._compose_filters(activations, base)
        if base == 0:
            return filtered_down
        shallow = {level: codes for level, codes in activations.items() if level <= base}
        arrived = {base: shallow.pop(base), **filtered_down} if base in shallow else filtered_down
        stacks = {**shallow, base: torch.cat([*arrived.values()])}
        shorter = self._is_shorter({level: len(codes) for level, codes in stacks.items()})
        pictures = self._compose_matrix(stacks) if shorter else self._descend(stacks)
        parts = pictures.pop(base).split([len(codes) for codes in arrived.values()])
        return {**pictures, **dict(zip(arrived, parts, strict=True))}

    def _compose_filters(self, activations: dict[int, Tensor], base: int) -> dict[int, Tensor]:
        """What the codes of levels above `base` say of the activations there: inverses that are
        circular convolutions are one together, at each frequency the product of their gains."""
        channels, *size = self._shapes[base]
        gain = torch.eye(channels).to(self._inverse_weight)[:, :, None, None]
        gain = gain.expand(-1, -1, size[0], size[1] // 2 + 1) + 0j
        offset = self._inverse_weight.new_zeros(self._shapes[base])
        found: dict[int, Tensor] = {}
        for level in range(base + 1, max(activations) + 1):
            inverse: Any = self._inverses[level - 1]
            offset = offset + filtered(inverse.bias[None], gain, inverse.size)[0]
            gain = torch.einsum("bqhw,qphw->bphw", gain, inverse.gain())
            if level in activations:
                parts = activations[level].split(self._fitting(level))
                found[level] = torch.cat([filtered(x, gain, inverse.size) for x in parts]) + offset
        return found

    def _compose_matrix(self, activations: dict[int, Tensor]) -> dict[int, Tensor]:
        """The same for any affine inverses.

        The matrix leads to the narrowest level that all codes pass, perhaps the images themselves;
        from there the images come back stage by stage.
        """
        numbers = [torch.Size(shape).numel() for shape in self._shapes[: min(activations) + 1]]
        base = numbers.index(min(numbers))
        shape = self._shapes[base]
        rows = torch.eye(numbers[base]).to(self._inverse_weight).unflatten(1, shape)
        parts = [
            self._composed(part, base, activations)
            for part in rows.split(self._fitting(max(activations)))
        ]
        return {
            level: self._chain(
                torch.cat([part[level] for part in parts], 1).unflatten(1, shape), base
            )
            for level in activations
        }

    def _composed(
        self, rows: Tensor, base: int, activations: dict[int, Tensor]
    ) -> dict[int, Tensor]:
        """The numbers at level `base` that these rows of its identity stand for, from every
        level."""
        offset = rows.new_zeros(len(rows))
        found: dict[int, Tensor] = {}
        for level in range(base, max(activations) + 1):
            if level > base:
                inverse = self._inverses[level - 1]
                nothing = rows.new_zeros(1, *self._shapes[level])
                offset = offset + rows.flatten(1) @ inverse(nothing).flatten()
                rows = inverse.adjoint(rows)
            if level in activations:
                codes = activations[level].flatten(1)
                found[level] = torch.addmm(offset, codes, rows.flatten(1).T)
        return found

    def _fitting(self, level: int) -> int:
        """How many rows of any shape up to a level fit into WORKSPACE; one at least."""
        return max(1, WORKSPACE // max(torch.Size(s).numel() for s in self._shapes[: level + 1]))

    def _checked(self, images: Tensor) -> Tensor:
        floating = _floating("images", images, self._stages)
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must have the shape (batch, {_spelt(self.image_shape)}), "
                f"got ({_spelt(images.shape)})"
            )
        return floating

    def _checked_levels(
        self, levels: Sequence[int] | int | None, *, name: str = "levels"
    ) -> list[int]:
        if not self._inverses:
            raise ValueError("this cascade has no inverses yet; call fit(images) first")
        wanted = range(1, self.depth + 1) if levels is None else levels
        noun = "levels are" if name == "levels" else f"{name} must be one of"
        return _numbers(f"{noun} 1 … {self.depth}", wanted, range(1, self.depth + 1))

    def _checked_channels(self, channel: int | Sequence[int], level: int) -> list[int]:
        last = self._shapes[level][0] - 1
        must = f"channel: level {level} has the channels 0 … {last}"
        return _numbers(must, channel, range(last + 1))

    def _checked_activation(self, name: str, activation: Any, level: int) -> Tensor:
        expected = self._shapes[level]
        try:
            tensor = torch.as_tensor(activation)
        except (TypeError, ValueError, RuntimeError) as error:
            kind = type(activation).__name__
            raise ValueError(f"{name} must be a tensor of numbers, got {kind}: {error}") from error
        if not is_dense(tensor):
            raise ValueError(f"{name} must be a dense tensor of real numbers, got {tensor.dtype}")
        if tuple(tensor.shape[1:]) != expected or not len(tensor):
            raise ValueError(
                f"{name} at level {level} must have the shape (batch, {_spelt(expected)}), "
                f"got ({_spelt(tensor.shape)})"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"the {name} holds NaN or infinite values")
        return tensor.detach().to(self._inverse_weight)


def is_collapsed(pictures: Tensor) -> bool:
    """Return whether a batch (n, *image_shape) has come back as one picture."""
    return float(differential_entropy_published(pictures)) < COLLAPSED


def _numbers(must: str, given: Any, allowed: range) -> list[int]:
    """A whole number, or several, of those that are allowed; else an error that says `must`."""
    if isinstance(given, Tensor):
        given = given.tolist() if is_dense(given) and given.ndim < 2 else str(given.layout)
    if isinstance(given, np.ndarray):
        given = given.tolist()
    several = list(given) if isinstance(given, Sequence | Set) else [given]
    if isinstance(given, str | bytes) or not several:
        raise ValueError(f"{must}, got {quoted(given) if several else 'none'}")
    try:
        return [checked("", n, int, low=allowed[0], high=allowed[-1]) for n in several]
    except ValueError as error:
        raise ValueError(f"{must}, got {quoted(given)}") from error


def _floating(name: str, images: Any, stages: Iterable[nn.Module]) -> Tensor:
    """Finite images in the precision and on the device of the stages' weights."""
    if not isinstance(images, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(images).__name__}")
    if not images.is_floating_point() or not is_dense(images):
        raise ValueError(f"{name} must be dense floating point in [0, 1], got {images.dtype}")
    if images.ndim < 2 or not images.numel():
        raise ValueError(
            f"{name} must have the shape (batch, *image_shape), got ({_spelt(images.shape)})"
        )
    if not images.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values; remove them first")
    weights = next((p for stage in stages for p in stage.parameters()), images)
    return images.detach().to(weights.device, weights.dtype)


def _spelt(shape: Iterable[int]) -> str:
    return ", ".join(str(n) for n in shape)
