"""A model's arguments, sample by sample: what is fitted, what is held out, and neighbours."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.activations.tracing import ProbeError, Run
from paperlib.core.checks import is_dense
from paperlib.core.seeds import random_numbers

LEAST_IMAGES = 10
FEW_IMAGES = 50  # below, R² says more about the images than about the model
HELD_OUT = 100  # images that R² is measured on, at most; a fifth of all otherwise


@dataclass(frozen=True)
class Inputs:
    """A model's arguments, with all samples that are fitted before those that are held out.

    Attributes:
        values: the arguments: a tensor, a dict or a tuple.
        device: the model's.
        place: of the tensor among them that is reconstructed.
        train: how many samples are fitted.
    """

    values: Any
    device: torch.device
    place: Any
    train: int

    @classmethod
    def of(cls, images: Any, model: nn.Module, seed: int) -> "Inputs":
        """The arguments on the model's device and in its precision, checked."""
        given = _named(images)
        place = next((k for k, v in given.items() if v.is_floating_point() and v.ndim > 1), None)
        if place is None or not all(map(is_dense, given.values())):
            kinds = ", ".join(f"{tuple(v.shape)} of {v.dtype}" for v in given.values()) or "none"
            raise ProbeError(
                "images must hold a dense floating-point tensor (n, *shape), which is "
                f"reconstructed; got {kinds}; turn pixels into floats in [0, 1], and words into "
                "their embeddings"
            )
        count = len(given[place])
        _check_count(count, given, given[place])
        order = torch.randperm(count, generator=random_numbers("held out", seed))
        given = {name: value[order.to(value.device)] for name, value in given.items()}
        held_out = min(HELD_OUT, max(2, count // 5))
        return cls(*_for_model(images, given, model), place, count - held_out)

    @classmethod
    def in_order(cls, images: Any, model: nn.Module) -> "Inputs":
        """Return the arguments in their own order, as the model takes them, with none held out.

        Raises:
            ProbeError: no samples, or arguments with several numbers of them.
        """
        given = _named(images)
        place = next(
            (k for k, v in given.items() if v.is_floating_point()), next(iter(given), None)
        )
        count = 0 if place is None else len(given[place])
        if not count:
            raise ProbeError("images must hold at least one sample, got none")
        _check_lengths(count, given)
        return cls(*_for_model(images, given, model), place, count)

    @property
    def source(self) -> Tensor:
        """The samples that are reconstructed."""
        return self.source_of(self.values)

    def source_of(self, values: Any) -> Tensor:
        """The tensor that is reconstructed, among such arguments."""
        return values if isinstance(values, Tensor) else values[self.place]

    def part(self, first: int, end: int) -> Any:
        """Return the arguments of some samples, copied: a model may write into them."""
        return _mapped(self.values, lambda value: value[first:end].clone())

    def few(self, count: int) -> Any:
        """Return the arguments of the first samples, from the start again where they are fewer."""
        return _mapped(self.values, lambda value: value[torch.arange(count) % len(value)])

    def batches(self, size: int) -> Iterator[Any]:
        """The arguments of the samples that are fitted, `size` at a time."""
        for first in range(0, self.train, size):
            if min(first + size, self.train) - first > 1 or size == 1:
                yield self.part(first, min(first + size, self.train))

    def moved(self, first: int, end: int, step: float) -> Any:
        """The arguments of some samples twice, the second time `step` of the way to the next."""
        both = _mapped(self.part(first, end), lambda value: torch.cat([value, value]))
        source = self.source_of(both)
        here = source[: end - first].float()
        source[end - first :] = (here + step * (here.roll(1, 0) - here)).to(source.dtype)
        return both

    def about(self) -> dict[str, Any]:
        """What is said of the samples in a result."""
        numbers = self.source.detach().cpu().float().numpy()
        return {
            "name": "images",
            "shape": list(self.source.shape[1:]),
            "checksum": hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest(),
            "train_images": self.train,
            "test_images": len(self.source) - self.train,
        }


def runner(model: nn.Module) -> Run:
    """Return the function that calls a model with such arguments: a tensor, a dict or a tuple."""

    def run(values: Any) -> Any:
        if isinstance(values, dict):
            return model(**values)
        return model(values) if isinstance(values, Tensor) else model(*values)

    return run


def _named(images: Any) -> dict[Any, Tensor]:
    """The tensors among a model's arguments by name or place."""
    if isinstance(images, Tensor):
        return {0: images}
    if isinstance(images, dict):
        given: dict[Any, Any] = dict(images)
    elif isinstance(images, tuple | list):
        given = dict(enumerate(images))
    else:
        raise ProbeError(
            "images must be a tensor (n, *shape), or a dict or tuple of tensors, the model's "
            f"arguments; got {type(images).__name__}"
        )
    for name, value in given.items():
        if not isinstance(value, Tensor) or not value.ndim:
            raise ProbeError(
                f"images[{name!r}] must be a tensor with an axis of samples, "
                f"got {type(value).__name__}"
            )
    return given


def _for_model(images: Any, given: dict[Any, Tensor], model: nn.Module) -> tuple[Any, torch.device]:
    """The arguments in the form in which they came, on the model's device, in its precision."""
    floating = (v for v in (*model.parameters(), *given.values()) if v.is_floating_point())
    like = next(floating, next(iter(given.values())))
    moved = {
        name: value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)
        for name, value in given.items()
    }
    values: Any = moved if isinstance(images, dict) else tuple(moved.values())
    return values[0] if isinstance(images, Tensor) else values, like.device


def _check_lengths(count: int, given: dict[Any, Tensor]) -> None:
    for name, value in given.items():
        if len(value) != count:
            raise ProbeError(
                f"all arguments must have as many samples; images[{name!r}] has {len(value)}, the "
                f"first in floating point {count}"
            )


def _check_count(count: int, given: dict[Any, Tensor], source: Tensor) -> None:
    _check_lengths(count, given)
    if count < LEAST_IMAGES:
        raise ProbeError(
            f"a probe needs at least {LEAST_IMAGES} images to fit and hold out, got {count} "
            f"(images are (n, *shape), here {tuple(source.shape)}); a few hundred are better"
        )
    if not source.isfinite().all():
        raise ProbeError("images hold NaN or infinite values; remove them first")
    if count < FEW_IMAGES:
        warnings.warn(
            f"only {count} images: R² is then a rough lower bound; give a few hundred",
            UserWarning,
            stacklevel=4,
        )


def _mapped(values: Any, change: Any) -> Any:
    if isinstance(values, dict):
        return {name: change(value) for name, value in values.items()}
    return change(values) if isinstance(values, Tensor) else tuple(map(change, values))
