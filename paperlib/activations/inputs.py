"""A model's arguments, sample by sample: what is fitted, what is held out, and neighbours."""

import hashlib
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paperlib.activations.arguments import (
    EMBEDDED,
    Arguments,
    How,
    Key,
    Output,
    Values,
    arguments_of,
    picked,
    runner,
)
from paperlib.activations.flow import tensors_in
from paperlib.activations.giving import Given, given, is_mask
from paperlib.activations.tracing import ProbeError, called_with, output_of
from paperlib.core.checks import is_dense, quoted
from paperlib.core.seeds import random_numbers

LEAST_IMAGES = 10
FEW_IMAGES = 50  # below, R² says more about the images than about the model
HELD_OUT = 100  # images that R² is measured on, at most; a fifth of all otherwise

__all__ = ["Inputs", "runner"]


@dataclass(frozen=True)
class Inputs:
    """A model's arguments, with all samples that are fitted before those that are held out.

    Attributes:
        values: the arguments: a tensor, a dict, a tuple, or `Arguments` where there is more to it.
        device: the model's.
        place: of the tensor among them that is reconstructed.
        train: how many samples are fitted.
        labels: that came along.
        said: what was done to the arguments, in sentences.
    """

    values: Values
    device: torch.device
    place: Key
    train: int
    labels: Tensor | None = None
    said: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        images: Any,
        model: nn.Module,
        seed: int,
        batch_axis: int | Mapping[Key, int] = 0,
        output: Output = None,
    ) -> "Inputs":
        """The arguments on the model's device and in its precision, checked.

        A model that takes words is run once; it is to be in a mode in which that does no harm.
        """
        found, axes = _samples_first(given(images, model), batch_axis)
        place = _reconstructed(found.tensors)
        if place is None and not any(map(_may_be_words, found.tensors.items())):
            raise _refusal(found.tensors)
        first = next(iter(found.tensors)) if place is None else place
        count = len(found.tensors[first])
        found = _with_masks_fixed(found, count)
        _check_count(count, found.tensors, found.tensors[first])
        order = torch.randperm(count, generator=random_numbers("held out", seed))
        tensors = {name: value[order.to(value.device)] for name, value in found.tensors.items()}
        labels = found.labels
        if labels is not None and len(labels) == count:
            labels = labels[order.to(labels.device)]
        found = replace(found, tensors=tensors, labels=labels)
        inputs = cls._of(
            found, model, first, count - min(HELD_OUT, max(2, count // 5)), axes, output
        )
        return inputs if place is not None else inputs._embedded(model)

    @classmethod
    def in_order(
        cls,
        images: Any,
        model: nn.Module,
        batch_axis: int | Mapping[Key, int] = 0,
        output: Output = None,
    ) -> "Inputs":
        """Return the arguments in their own order, as the model takes them, with none held out.

        Raises:
            ProbeError: no samples, or arguments with several numbers of them.
        """
        if isinstance(images, Arguments):
            return cls._again(images, model)
        found, axes = _samples_first(given(images, model), batch_axis)
        place = _reconstructed(found.tensors)
        if place is None:
            words = (k for k in found.tensors.items() if _may_be_words(k))
            place = next(words, next(iter(found.tensors.items())))[0]
        count = len(found.tensors[place])
        if not count:
            raise ProbeError("images must hold at least one sample, got none")
        found = _with_masks_fixed(found, count)
        _check_lengths(count, found.tensors)
        return cls._of(found, model, place, count, axes, output)

    @classmethod
    def for_looking(
        cls,
        images: Any,
        model: nn.Module,
        batch_axis: int | Mapping[Key, int] = 0,
        output: Output = None,
    ) -> "Inputs":
        """Return the arguments as `in_order` does, with what a look at the model's inside needs.

        Words come with their vectors, and of several outputs that which counts is picked. The model
        is run on a few samples; it is to be in a mode in which that does no harm.
        """
        inputs = cls.in_order(images, model, batch_axis, output)
        if not inputs.source.is_floating_point() and inputs.place != EMBEDDED:
            inputs = inputs._embedded(model, required=False)
        two, run = inputs.few(2), runner(model)
        number = output_of(model, run, two, inputs.source_of(two))[1]
        found = arguments_of(inputs.values)
        how = found.how
        if number > 0:
            how = replace(how, output=partial(_counting, how.output, number))
        return replace(inputs, values=replace(found, how=how))

    def without_vectors(self) -> "Inputs":
        """The same without the vectors of words, so that gradients reach the table itself."""
        if self.place != EMBEDDED:
            return self
        found = arguments_of(self.values)
        tensors = {name: value for name, value in found.tensors.items() if name != EMBEDDED}
        values = Arguments(tensors, replace(found.how, call=None))
        return replace(self, values=values, place=next(iter(tensors)))

    @property
    def classes(self) -> Tensor | None:
        """Labels that came along, where they are one whole number for each sample."""
        labels = self.labels
        if labels is None or labels.shape != (len(self.source),):
            return None
        kinds = labels.is_floating_point(), labels.is_complex(), labels.dtype == torch.bool
        return None if any(kinds) else labels

    @property
    def source(self) -> Tensor:
        """The samples that are reconstructed."""
        return self.source_of(self.values)

    def source_of(self, values: Values) -> Tensor:
        """The tensor that is reconstructed, among such arguments."""
        if isinstance(values, Arguments):
            return values.tensors[self.place]
        return values if isinstance(values, Tensor) else values[self.place]

    def part(self, first: int, end: int) -> Values:
        """Return the arguments of some samples, copied: a model may write into them."""
        return tree_map(lambda value: value[first:end].clone(), self.values)

    def pick(self, numbers: Sequence[int] | Tensor) -> Values:
        """Return these samples' arguments, counted from the start again where they are fewer."""
        places = torch.as_tensor(numbers)
        return tree_map(lambda value: value[places.to(value.device) % len(value)], self.values)

    def few(self, count: int) -> Values:
        """Return the arguments of the first samples, from the start again where they are fewer."""
        return self.pick(range(count))

    def batches(self, size: int) -> Iterator[Values]:
        """The arguments of the samples that are fitted, `size` at a time."""
        for first in range(0, self.train, size):
            if min(first + size, self.train) - first > 1 or size == 1:
                yield self.part(first, min(first + size, self.train))

    def runs(self, size: int) -> Iterator[tuple[int, int]]:
        """Where parts of all samples begin and end, `size` in each; a last one goes with those
        before it, as some operations are left out for a single sample: see `Tensor.contiguous`."""
        count = len(self.source)
        begins = [first for first in range(0, count, size) if size == 1 or count - first != 1]
        yield from itertools.pairwise([*begins, count] if begins else [0, count])

    def moved(self, first: int, end: int, step: float) -> Values:
        """The arguments of some samples, each `step` of the way to the one before it."""
        values = self.part(first, end)
        source = self.source_of(values)
        here = source.float() if source.dtype.itemsize < 4 else source.clone()
        source.copy_(here + step * (here.roll(1, 0) - here))
        return values

    def about(self) -> dict[str, Any]:
        """What is said of the samples in a result."""
        numbers = self.source.detach().cpu().float().numpy()
        said = {"said": list(self.said)} if self.said else {}
        return said | {
            "name": "images",
            "shape": list(self.source.shape[1:]),
            "checksum": hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest(),
            "train_images": self.train,
            "test_images": len(self.source) - self.train,
        }

    @classmethod
    def _again(cls, found: Arguments, model: nn.Module) -> "Inputs":
        """Arguments that were made before, for another call."""
        place = EMBEDDED if EMBEDDED in found.tensors else _reconstructed(found.tensors)
        if place is None:
            place = next(iter(found.tensors))
        count = len(found.tensors[place])
        _check_lengths(count, found.tensors)
        like = _like(model, found.tensors)
        how = replace(found.how, fixed=_moved(found.how.fixed, like))
        return cls(Arguments(_moved(found.tensors, like), how), like.device, place, count)

    @classmethod
    def _of(
        cls,
        found: Given,
        model: nn.Module,
        place: Key,
        train: int,
        axes: dict[Key, int],
        output: Output,
    ) -> "Inputs":
        """The arguments on the model's device, in its precision."""
        like = _like(model, found.tensors)
        tensors, fixed = _moved(found.tensors, like), _moved(found.fixed, like)
        values: Values = tensors
        if fixed or axes or output is not None:
            values = Arguments(tensors, How(found.form, fixed, axes, output))
        elif found.form != "names":
            values = tensors[0] if found.form == "alone" else tuple(tensors.values())
        return cls(values, like.device, place, train, found.labels, found.said)

    def _embedded(self, model: nn.Module, *, required: bool = True) -> "Inputs":
        """The same words, and what the model's own table makes of them to be reconstructed."""
        here = arguments_of(self.values)
        run, words = runner(model), [k for k, v in here.tensors.items() if _may_be_words((k, v))]
        for name in sorted(words, key=lambda name: name != "input_ids"):
            two = self.few(2)
            call = called_with(model, run, two, arguments_of(two).tensors[name], nn.Embedding)
            if call is not None:
                table = model.get_submodule(call.layer)
                made = torch.cat([table(part) for part in here.tensors[name].split(64)])
                what = f"images[{name!r}] are words; their vectors from {call.layer!r} are rebuilt"
                return replace(
                    self,
                    values=Arguments(
                        {**here.tensors, EMBEDDED: made}, replace(here.how, call=call)
                    ),
                    place=EMBEDDED,
                    said=(*self.said, what),
                )
        if required:
            raise _refusal(here.tensors)
        return self


def _counting(output: Output, number: int, result: Any) -> Any:
    """Of the part of an output that is picked, the floating-point tensor of this number."""
    found = [t for t in tensors_in(picked(result, output)) if t.is_floating_point()]
    return found[number]


def _like(model: nn.Module, tensors: Mapping[Key, Tensor]) -> Tensor:
    """A tensor on the model's device, in its precision."""
    floating = (v for v in (*model.parameters(), *tensors.values()) if v.is_floating_point())
    return next(floating, next(iter(tensors.values())))


def _moved(values: Mapping[Key, Any], like: Tensor) -> dict[Key, Any]:
    """Arguments on another's device, and in its precision."""

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)
        return value.clone() if value.is_inference() else value

    return {name: moved(value) for name, value in values.items()}


def _samples_first(found: Given, axis: int | Mapping[Key, int]) -> tuple[Given, dict[Key, int]]:
    """The arguments with their axis of samples in front, and where it was if it was elsewhere."""
    axes: dict[Key, int] = {}
    tensors = dict(found.tensors)
    for name, value in found.tensors.items():
        its = axis.get(name, 0) if isinstance(axis, Mapping) else axis if value.ndim > 1 else 0
        if isinstance(its, bool) or not isinstance(its, int) or not -value.ndim <= its < value.ndim:
            raise ProbeError(
                f"batch_axis must be an axis of images, or a dict of them by argument; got "
                f"{quoted(axis)} for images of shape {tuple(value.shape)}"
            )
        if its % value.ndim:
            axes[name], tensors[name] = its % value.ndim, value.movedim(its, 0)
    return replace(found, tensors=tensors), axes


def _reconstructed(tensors: dict[Key, Tensor]) -> Key | None:
    """The argument that is reconstructed: the first in floating point, a mask only if need be."""
    floating = [k for k, v in tensors.items() if v.is_floating_point() and v.ndim > 1]
    if len(tensors) == 1 and floating:
        return floating[0]
    for name in floating:
        if not is_mask(name) and not _is_zeros_and_ones(tensors[name]):
            return name
    if any(map(_may_be_words, tensors.items())):
        return None
    return floating[0] if floating else None


def _is_zeros_and_ones(value: Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def _may_be_words(item: tuple[Key, Tensor]) -> bool:
    name, value = item
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return whole and value.ndim > 1 and not is_mask(name)


def _refusal(tensors: dict[Key, Tensor]) -> ProbeError:
    kinds = ", ".join(f"{tuple(v.shape)} of {v.dtype}" for v in tensors.values()) or "none"
    return ProbeError(
        "images must hold a dense floating-point tensor (n, *shape), which is reconstructed, or "
        f"words that the model looks up in an nn.Embedding; got {kinds}; turn pixels into floats "
        "in [0, 1], and words into their embeddings"
    )


def _with_masks_fixed(found: Given, count: int) -> Given:
    """Masks of positions by positions, the same for all samples, are no samples."""
    same = {n: v for n, v in found.tensors.items() if is_mask(n) and len(v) != count}
    tensors = {name: value for name, value in found.tensors.items() if name not in same}
    return replace(found, tensors=tensors, fixed=found.fixed | same)


def _check_lengths(count: int, tensors: dict[Key, Tensor]) -> None:
    for name, value in tensors.items():
        if len(value) != count:
            raise ProbeError(
                f"all arguments must have as many samples; images[{name!r}] has {len(value)}, the "
                f"first in floating point {count}"
            )


def _check_count(count: int, tensors: dict[Key, Tensor], source: Tensor | None) -> None:
    _check_lengths(count, tensors)
    if not all(map(is_dense, tensors.values())):
        raise _refusal(tensors)
    if count < LEAST_IMAGES:
        shape = tuple(next(iter(tensors.values())).shape if source is None else source.shape)
        raise ProbeError(
            f"a probe needs at least {LEAST_IMAGES} images to fit and hold out, got {count} "
            f"(images are (n, *shape), here {shape}); a few hundred are better"
        )
    if source is not None and not source.isfinite().all():
        raise ProbeError("images hold NaN or infinite values; remove them first")
    if count < FEW_IMAGES:
        warnings.warn(
            f"only {count} images: R² is then a rough lower bound; give a few hundred",
            UserWarning,
            stacklevel=4,
        )
