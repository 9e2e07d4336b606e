"""What arguments must be: each check returns its value, or raises a ValueError that names it."""

import contextlib
import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

LARGEST_SEED = 2**63 - 1  # that NumPy and torch both take
_NOUNS = {int: "a whole number", float: "a finite number", bool: "True or False"}
_LONGEST_NAME = 255  # bytes in the name of a file
_LONGEST = 120  # characters of a value that an error quotes


def checked(name: str, value: Any, kind: type, **limits: Any) -> Any:
    """`value` as `kind` (int, float, bool or str), within its limits.

    Args:
        name: of the argument.
        value: what came.
        kind: what was expected; 100.0 is an int, '100' and True are not.
        limits: `low`, `above` (exclusive), `high`, or `choices`.

    Raises:
        ValueError: another type, or a value out of its limits.
    """
    value = typed(name, value, kind)
    check_limits(name, value, limits)
    return value


def typed(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind`, where nothing is lost by it: 100.0 is an int, '100' is not."""
    if kind is bool or isinstance(value, bool):
        accepted = kind is bool and isinstance(value, bool)
    elif kind is int:
        accepted = isinstance(value, Integral) or (_is_finite(value) and float(value).is_integer())
    elif kind is float:
        accepted = _is_finite(value)
    else:
        accepted = isinstance(value, kind)
    if not accepted:
        noun = _NOUNS.get(kind, "a string")
        raise ValueError(f"{name} must be {noun}, got {quoted(value)} ({type(value).__name__})")
    return kind(value)


def check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise a ValueError where the value is out of its limits, see `checked`."""
    if "choices" in limits and value not in limits["choices"]:
        known = ", ".join(map(str, limits["choices"]))
        meant = did_you_mean(value, map(str, limits["choices"]))
        raise ValueError(f"{name} must be one of {known}; got {quoted(value)}{meant}")
    if "low" in limits and value < limits["low"]:
        raise ValueError(f"{name} must be >= {limits['low']}, got {quoted(value)}")
    if "above" in limits and value <= limits["above"]:
        raise ValueError(f"{name} must be > {limits['above']}, got {quoted(value)}")
    if "high" in limits and value > limits["high"]:
        raise ValueError(f"{name} must be <= {limits['high']}, got {quoted(value)}")


def values_of(name: str, given: Any, kind: Any, *, repeated: bool = False) -> tuple[Any, ...]:
    """Return a list setting, `tuple[kind, ...]`, of different values unless they may be repeated;
    papermill's -p gives text."""
    if isinstance(given, str) and given.startswith("["):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            given = json.loads(given.replace("'", '"'))
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | Set | np.ndarray):
        raise ValueError(f"{name} must be a sequence of values, got {quoted(given)}")
    given = np.atleast_1d(given) if isinstance(given, np.ndarray) else given
    values = tuple(typed(name, value, get_args(kind)[0]) for value in given)
    if not values or (len(set(values)) < len(values) and not repeated):
        different = "" if repeated else " and none twice"
        raise ValueError(f"{name} must hold at least one value{different}, got {quoted(given)}")
    return values


def path_of(name: str, value: Any) -> Path:
    """`value` as a Path, with `~` as the user's folder."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    try:
        path = Path(os.fsdecode(text)).expanduser()
        sizes = [len(os.fsencode(part)) for part in path.parts]
    except (UnicodeError, RuntimeError) as error:
        raise ValueError(f"{name} must be a path, got {quoted(value)}: {error}") from error
    if not text or "\0" in str(path) or max(sizes, default=0) > _LONGEST_NAME:
        raise ValueError(f"{name} must be a path, got {quoted(value)} ({type(value).__name__})")
    return path


def instance_of(name: str, value: Any, *kinds: type) -> Any:
    """`value`, which is of one of these classes."""
    if not isinstance(value, kinds):
        known = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} must be a {known}, got {quoted(value)} ({type(value).__name__})")
    return value


def is_dense(tensor: Any) -> bool:
    """Whether a tensor holds real numbers, each of them."""
    import torch

    sparse = tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized
    return not sparse and not tensor.is_complex()


def device_of(name: str, value: Any) -> Any:
    """Return the torch.device that a name such as "cpu" or "cuda:0" stands for, which is there."""
    import torch

    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (AssertionError, TypeError, RuntimeError, NotImplementedError, ValueError) as error:
        why = str(error).split("\n")[0]
        raise ValueError(
            f"{name} must be a device of this machine, got {quoted(value)}: {why}"
        ) from error
    if device.type == "meta":
        raise ValueError(f"{name} must be a device that holds numbers, got 'meta'")
    return device


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The known word that was probably meant, in brackets for an error; empty if none is close."""
    close = difflib.get_close_matches(
        str(word).lower()[:_LONGEST], [*map(str, known)], n=1, cutoff=0.5
    )
    return f" (did you mean {close[0]!r}?)" if close else ""


def quoted(value: Any) -> str:
    """Return a value as an error shows it: on one line, and shortened."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:  # an array's numbers say less
        return f"an array of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _is_finite(value: Any) -> bool:
    if isinstance(value, Integral):
        return value.bit_length() < 1000 if isinstance(value, int) else True
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # a fraction that no float can hold
        return False
