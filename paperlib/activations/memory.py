"""What a model holds, remembered and put back: tensors, attributes, hooks, and what these hold."""

import random
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 2  # plain objects, such as a cache, that are looked into behind a module

Undo = Callable[[], Any]


def remember(model: nn.Module) -> Undo:
    """Remember all that a model holds, and return the function that puts it back.

    Parameters, buffers and gradients keep their memory: only numbers that changed are written. Of
    attributes, lists, dicts, sets, arrays, generators of random numbers and plain objects are
    looked into, the objects two deep.
    """
    undo: list[Undo] = []
    seen: dict[int, Any] = {}  # also keeps them alive, so that no id is given twice
    waiting: list[tuple[Any, int]] = [(model, DEPTH)]
    waiting += [(tensor, DEPTH) for tensor in (*model.parameters(), *model.buffers())]
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        back, parts = _kept(value)
        if back is not None:
            undo.append(back)
        waiting += [(part, depth) for part in parts]
        if isinstance(value, nn.Module):
            waiting.append((vars(value), DEPTH))
        elif depth and back is None and _is_plain_object(value):
            waiting.append((vars(value), depth - 1))

    def put_back() -> None:
        for back in undo:
            back()

    return put_back


def _kept(value: Any) -> tuple[Undo | None, Iterable[Any]]:
    """How a value is put back, and what it holds; modules and plain objects are not looked into."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, dict):
        return _dict(value), value.values()
    if isinstance(value, list | deque | set):
        return _collection(value), () if isinstance(value, set) else value
    if isinstance(value, tuple):
        return None, value
    if isinstance(value, np.ndarray):
        return _array(value), ()
    return _generator(value), ()


def _tensor(tensor: Tensor) -> tuple[Undo | None, Iterable[Any]]:
    if tensor.is_meta:
        return None, ()
    with torch.no_grad():
        memory, numbers = tensor.detach(), tensor.detach().clone()
    learns, leaf = tensor.requires_grad, tensor.is_leaf
    grad = tensor.grad if leaf else None

    def back() -> None:
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            if not _is_same_memory(tensor, memory):
                tensor.data = memory
            if not _is_equal(tensor, numbers):
                tensor.copy_(numbers)
        if leaf and tensor.requires_grad != learns:
            tensor.requires_grad_(learns)
        if leaf and tensor.grad is not grad:
            tensor.grad = grad

    return back, () if grad is None else (grad,)


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided:
        return True
    places = [(t.data_ptr(), tuple(t.shape), t.stride(), t.dtype) for t in (one, other)]
    return places[0] == places[1]


def _is_equal(one: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(one, other)
    except (RuntimeError, NotImplementedError):  # of layouts that cannot be compared
        return False


def _dict(values: dict[Any, Any]) -> Undo:
    items = list(values.items())

    def back() -> None:
        now = list(values.items())
        same = len(now) == len(items) and all(
            a is c and b is d for (a, b), (c, d) in zip(now, items, strict=True)
        )
        if not same:
            values.clear()
            values.update(items)

    return back


def _collection(values: Any) -> Undo:
    items = list(values)

    def back() -> None:
        now = list(values)
        if len(now) != len(items) or any(a is not b for a, b in zip(now, items, strict=True)):
            values.clear()
            (values.update if isinstance(values, set) else values.extend)(items)

    return back


def _array(array: np.ndarray) -> Undo:
    numbers = array.copy()

    def back() -> None:
        if array.flags.writeable and not np.array_equal(array, numbers):
            array[...] = numbers

    return back


def _generator(value: Any) -> Undo | None:
    """How a generator of random numbers is put back; None of anything else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.Generator):
        source = value.bit_generator
        return partial(setattr, source, "state", source.state)
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    return None


def _is_plain_object(value: Any) -> bool:
    kinds = (type, FunctionType, ModuleType)
    return not isinstance(value, kinds) and isinstance(getattr(value, "__dict__", None), dict)
