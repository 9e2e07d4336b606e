"""What people have as a model's inputs: tensors, arrays, pictures, batches, loaders, data sets."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset

from paperlib.activations.arguments import Key
from paperlib.activations.guard import same_numbers
from paperlib.activations.tracing import ProbeError

TAKEN = 256  # samples of a loader or a data set
MOST = 1000  # of its batches, where one is larger


@dataclass(frozen=True)
class Given:
    """A model's arguments, in the form in which they came.

    Attributes:
        tensors: with an axis of samples, by name or place.
        fixed: all others: None, numbers, words, tensors without axes.
        form: "alone", "places" or "names".
        labels: that came along, and are no argument.
        said: what was done to them, in sentences.
    """

    tensors: dict[Key, Tensor]
    fixed: dict[Key, Any]
    form: str
    labels: Tensor | None = None
    said: tuple[str, ...] = ()


def given(images: Any, model: nn.Module) -> Given:
    """Return a model's arguments as tensors; see `probe` for what they may be.

    Raises:
        ProbeError: nothing that holds a tensor; says what to do.
    """
    if isinstance(images, Given):
        return images
    _check_kind(images)
    said: list[str] = []
    streamed = _is_stream(images)
    if streamed:
        images = _batch_of(images, said)
        _check_kind(images)
    if isinstance(images, Mapping):
        form, items = "names", dict(images)
    elif isinstance(images, tuple | list) and not _are_samples(images, model):
        form, items = "places", dict(enumerate(images))
    else:
        form, items = "alone", {0: images}
    tensors, fixed = dict[Key, Tensor](), dict[Key, Any]()
    for name, value in items.items():
        found = _numbers(value, f"images[{name!r}]" if form != "alone" else "images")
        if isinstance(found, Tensor) and found.ndim:
            tensors[name] = _floats(name, found, said)
        else:
            fixed[name] = found
    if not tensors:
        _refuse(images, form, items)
    places = most_places(model, optional=not streamed)
    return _without_labels(Given(tensors, fixed, form, said=tuple(said)), model, places)


def _refuse(images: Any, form: str, items: dict[Key, Any]) -> None:
    if form == "alone" or not items:
        raise ProbeError(
            "images must be a tensor (n, *shape), or a dict or tuple of tensors, the model's "
            f"arguments; got {type(images).__name__}"
        )
    name, value = next(iter(items.items()))
    raise ProbeError(
        f"images[{name!r}] must be a tensor with an axis of samples, got {type(value).__name__}"
    )


def _check_kind(images: Any) -> None:
    """Refuse what has samples of several shapes, with what to do."""
    values = images if isinstance(images, tuple | list) else [images]
    if isinstance(images, PackedSequence):
        raise ProbeError(
            "images are a PackedSequence, whose samples have several lengths; give the padded "
            "tensor (n, time, features), and a model that takes it"
        )
    if any(type(value).__module__.partition(".")[0] == "torch_geometric" for value in values[:2]):
        raise ProbeError(
            f"images are graphs ({type(values[0]).__name__}), whose nodes are no samples; wrap the "
            "model in a module that holds edge_index and takes features (n, nodes, features), and "
            "give these"
        )


# -- loaders and data sets


def _is_stream(images: Any) -> bool:
    if isinstance(images, Tensor | np.ndarray | Mapping | tuple | list | str | bytes | nn.Module):
        return False
    if isinstance(images, DataLoader | Dataset) or hasattr(images, "__next__"):
        return True
    return _has_items(images) or (hasattr(images, "dataset") and hasattr(images, "__iter__"))


def _has_items(images: Any) -> bool:
    return hasattr(images, "__getitem__") and hasattr(images, "__len__") and not _is_picture(images)


def _batch_of(images: Any, said: list[str]) -> Any:
    """One batch of a loader or a data set: at least `TAKEN` samples where it has as many."""
    kind = type(images).__name__
    generators = [getattr(part, "generator", None) for part in (images, _sampler(images))]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    with same_numbers():
        try:
            if _has_items(images) and not isinstance(images, DataLoader | IterableDataset):
                count = len(images)
                places = sorted({round(x) for x in np.linspace(0, count - 1, min(count, TAKEN))})
                batch = _columns([images[place] for place in places])
                said.append(f"{len(places)} samples of the {kind}, evenly spaced, of {count}")
            elif isinstance(images, IterableDataset):
                items = list(islice(iter(images), TAKEN))
                batch = _columns(items)
                said.append(f"the first {len(items)} samples of the {kind}")
            else:
                batch = _joined(parts := list(_first_batches(images)))
                some = "batch" if len(parts) == 1 else f"{len(parts)} batches"
                said.append(f"the first {some} of the {kind}")
        finally:
            for generator, state in states:
                generator.set_state(state)
    return batch


def _sampler(images: Any) -> Any:
    return getattr(images, "sampler", None)


def _first_batches(loader: Any) -> Iterator[Any]:
    taken = 0
    for batch in loader:
        yield batch
        taken += _size(batch)
        if taken >= TAKEN:
            return


def _size(batch: Any) -> int:
    """How many samples a batch has."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, tuple | list):
        return max(map(_size, batch), default=1)
    return len(batch) if isinstance(batch, Tensor | np.ndarray) and batch.ndim else 1


def _joined(parts: Sequence[Any]) -> Any:
    """Several batches as one, part by part."""
    first = parts[0] if parts else None
    if first is None:
        raise ProbeError("images must hold at least one batch, got none")
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple | list) and not all(isinstance(value, str) for value in first):
        return tuple(_joined(column) for column in zip(*parts, strict=True))
    if isinstance(first, Tensor | np.ndarray) and first.ndim:
        values = [torch.as_tensor(part) for part in parts]
        if len({value.shape[1:] for value in values}) > 1:
            raise ProbeError(
                "images: the batches of the loader have samples of several shapes; give one batch"
            )
        return torch.cat(values)[:MOST]
    return first


def _columns(items: Sequence[Any]) -> Any:
    """Samples of a data set as a batch: each part of theirs in a list."""
    first = items[0] if items else None
    if first is None:
        raise ProbeError("images must hold at least one sample, got none")
    if isinstance(first, Mapping):
        return {name: [item[name] for item in items] for name in first}
    if isinstance(first, tuple | list):
        return tuple(list(column) for column in zip(*items, strict=True))
    return _numbers(list(items), "images")


# -- arrays, lists and pictures


def _is_picture(value: Any) -> bool:
    """Whether it is one of PIL's images, which this package need not have."""
    return hasattr(value, "getbands") and hasattr(value, "convert")


def _are_samples(values: Sequence[Any], model: nn.Module) -> bool:
    """Whether a list holds samples, one by one, and not a model's arguments."""
    if not values or not all(isinstance(v, Tensor | np.ndarray) or _is_picture(v) for v in values):
        return False
    if all(_is_picture(value) for value in values):
        return True
    shapes = {tuple(np.shape(value)) for value in values}
    return len(shapes) == 1 and len(values) > most_places(model)


def _numbers(value: Any, name: str) -> Any:
    """A tensor of an array, a picture, or a list of these or of numbers; others as they are."""
    if isinstance(value, Tensor):
        return value
    if _is_picture(value):
        value = np.array(value if value.mode in ("L", "RGB") else value.convert("RGB"))
        return torch.as_tensor(value[None] if value.ndim == 2 else value.transpose(2, 0, 1).copy())
    if isinstance(value, np.ndarray):
        try:  # torch takes the machine's own order of bytes only
            native = value.astype(value.dtype.newbyteorder("="), copy=False)
            return torch.as_tensor(np.ascontiguousarray(native))
        except (TypeError, ValueError) as error:
            raise ProbeError(f"{name} must hold numbers, got an array of {value.dtype}") from error
    if isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        return _stacked(value, name)
    return value


def _stacked(values: Sequence[Any], name: str) -> Any:
    if all(isinstance(value, bool | int | float) for value in values):
        return torch.as_tensor(values)
    parts = [_numbers(value, name) for value in values]
    if not all(isinstance(part, Tensor) for part in parts):
        return values
    shapes = sorted({tuple(part.shape) for part in parts})
    if len(shapes) > 1:
        raise ProbeError(
            f"{name}: samples must have one shape, got {shapes[0]} and {shapes[1]}; resize "
            "pictures, and pad sequences (padding=True in a tokenizer)"
        )
    return torch.stack(parts)


def _floats(name: Key, value: Tensor, said: list[str]) -> Tensor:
    """Pixels in bytes as floating-point numbers in [0, 1]."""
    if value.dtype != torch.uint8 or value.ndim < 2 or is_mask(name):
        return value
    said.append("pixels in bytes, 0 to 255, were divided by 255")
    return value.float() / 255


def is_mask(name: Key) -> bool:
    """Whether an argument's name says that it only goes along with another."""
    words = ("mask", "bias", "position", "token_type", "label")
    return isinstance(name, str) and any(word in name.lower() for word in words)


# -- which of them the model takes


def _parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return {}


def most_places(model: nn.Module, *, optional: bool = True) -> float:
    """Return how many arguments a model takes in order, with those that it need not be given."""
    parameters = [p for p in _parameters(model).values() if optional or p.default is p.empty]
    kinds = [parameter.kind for parameter in parameters]
    if not kinds or inspect.Parameter.VAR_POSITIONAL in kinds:
        return float("inf")
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return sum(kind not in by_name for kind in kinds)


def _without_labels(found: Given, model: nn.Module, places: float) -> Given:
    """The same, less labels that came along and that the model does not take."""
    if found.form == "places":
        last = len(found.tensors) + len(found.fixed) - 1
        labels, first = found.tensors.get(last), found.tensors.get(0)
        fits = labels is not None and first is not None and len(labels) == len(first)
        return _less(found, last) if fits and last and last >= places else found
    parameters = _parameters(model)
    kinds = [parameter.kind for parameter in parameters.values()]
    if found.form == "alone" or not kinds or inspect.Parameter.VAR_KEYWORD in kinds:
        return found
    unknown = [name for name in found.tensors if name not in parameters]
    flat = [n for n in unknown if found.tensors[n].ndim == 1 and len(found.tensors) > 1]
    for name in flat[:1]:
        found = _less(found, name)
    unknown = [name for name in unknown if name in found.tensors]
    leading = next(iter(parameters))
    if len(unknown) == 1 and not (leading in found.tensors or leading in found.fixed):
        tensors = {leading if n == unknown[0] else n: v for n, v in found.tensors.items()}
        return replace(found, tensors=tensors)
    return found


def _less(found: Given, name: Key) -> Given:
    tensors = {other: value for other, value in found.tensors.items() if other != name}
    what = f"images[{name!r}] is no argument of the model and taken for the labels"
    return replace(found, tensors=tensors, labels=found.tensors[name], said=(*found.said, what))
