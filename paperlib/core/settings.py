"""Settings that are frozen, typed, checked before any work, and hashed."""

import ast
import dataclasses
import hashlib
import json
import types
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from paperlib.core.checks import check_limits, checked, did_you_mean, quoted, values_of

PROFILES = ("smoke", "quick", "reference", "paper")
PAPERMILLS = "# Parameters"  # what the cell that papermill injects begins with


def option(default: Any, **limits: Any) -> Any:
    """A field with its limits, `low`, `above` (exclusive), `high`, or `choices`.

    `repeated` says that a list may hold a value twice, `zero` what 0 stands for, and `before` the
    value that stood for a setting before there was one: a point that has it keeps the identity that
    it had then.
    """
    return field(default=default, metadata=limits)


class Checked:
    """Validation on construction, and the ways in and out, shared by every configuration."""

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):  # type: ignore[arg-type]
            name, kind = setting.name, setting.type
            value = getattr(self, name)
            if kind in (int, float, bool, str):
                value = checked(name, value, kind, **setting.metadata)
            else:
                repeated = setting.metadata.get("repeated", False)
                value = values_of(name, value, kind, repeated=repeated)
                for each in value:
                    check_limits(name, each, setting.metadata)
            object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings, in order."""
        return tuple(setting.name for setting in dataclasses.fields(cls))  # type: ignore[arg-type]

    @classmethod
    def zeros(cls) -> dict[str, str]:
        """What 0 stands for, of the settings where it stands for something else."""
        found = {setting.name: setting.metadata.get("zero") for setting in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return {name: zero for name, zero in found.items() if zero}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The configuration with these settings; the rest keep their defaults.

        Raises:
            ValueError: a name that is unknown, or a value of the wrong type or out of its range.
        """
        for name, value in settings.items():
            if name not in cls.names():
                raise ValueError(
                    f"unknown parameter {name!r} = {quoted(value)}"
                    f"{did_you_mean(name, cls.names())}; "
                    f"the parameters are: {', '.join(cls.names())}"
                )
        return cls(**settings)

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """The configuration in a notebook's globals(), as its parameters cell and papermill left
        it.

        Papermill injects a misspelt parameter as a variable that nobody reads; so every name in the
        parameters cell, and in papermill's below it, must be a parameter here. What other cells
        assign does not count, so that a notebook can run twice in one kernel. Outside IPython,
        which knows its cells, every public variable that holds a literal must be a parameter.

        Raises:
            ValueError: an unknown name, a wrong type or a value out of range.
        """
        literals = (int, float, str, bool, list, dict, tuple, types.NoneType)
        names = given_by_cells(namespace.get("In", ()), cls.names())
        if names is None:
            names = [
                name
                for name, value in namespace.items()
                if name not in ("In", "Out") and isinstance(value, literals)
            ]
        return cls.from_dict(
            {n: namespace[n] for n in names if n in namespace and not n.startswith("_")}
        )

    def as_dict(self) -> dict[str, Any]:
        """Every setting by name, in the types that JSON and YAML know."""
        return {name: getattr(self, name) for name in self.names()}

    def shared_with(self, kind: type["Checked"]) -> dict[str, Any]:
        """Return the settings that both have, with their values here."""
        return {name: getattr(self, name) for name in self.names() if name in kind.names()}


class Measured(Checked):
    """Settings of one computation, and all that a sweep must know of it.

    Attributes:
        code_version: raised when a change to the code changes a point's numbers.
        fields: what `measure` returns, with the dims that each has besides the grid's.
        shared: what it returns that is the same in every point of a sweep.
        added: fields that came later: a point without them is finished too.
        watched: the field by which an adaptive sweep decides where to measure; empty: it cannot.
    """

    code_version: ClassVar[int] = 1
    fields: ClassVar[Mapping[str, tuple[str, ...]]]
    shared: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    added: ClassVar[Collection[str]] = ()
    watched: ClassVar[str] = ""

    @classmethod
    def fields_in(cls, available: Container[Any]) -> list[str]:
        """Return the fields to read from a point or a result, without later ones that it lacks."""
        return [name for name in cls.fields if name in available or name not in cls.added]

    def measure(self, data: Any, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return the numbers: the arrays of `fields` and `shared` by name."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is measured")

    @classmethod
    def measure_together(
        cls, points: Sequence[Self], data: Any, *, device: str = "cpu"
    ) -> list[dict[str, np.ndarray]]:
        """Return the numbers of points that are `alike`; one after the other, unless they can be
        computed as one program."""
        return [point.measure(data, device=device) for point in points]

    def alike(self, device: str) -> Any:
        """Return what the points of a sweep that are computed as one program have in common; the
        point itself: each is computed alone."""
        return self

    def computed_with(self, device: str) -> dict[str, str]:
        """Return what else is noted of how the numbers are computed on this device."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Parameters(Checked):
    """What every notebook about one data set asks for."""

    profile: str = option("quick", choices=PROFILES)
    dataset: str = "mnist"
    fallback: bool = False

    def identifying(self) -> dict[str, Any]:
        """The settings that decide the numbers, given the data's checksum."""
        unread = ("profile", "dataset", "fallback")
        return {name: value for name, value in self.as_dict().items() if name not in unread}


def given_by_cells(cells: Sequence[str], known: Container[str]) -> list[str] | None:
    """Return the names that a notebook's parameters cell assigns, and papermill's cell below it;
    None where no such cell has run.

    Of cells that ran more than once, the last counts, and papermill's only if it ran after the
    notebook's own.

    Args:
        cells: the code of every cell that has run, in order, as IPython's `In`.
        known: names of parameters; the notebook's own cell holds at least one.
    """
    own: list[str] | None = None
    injected: list[str] = []
    for cell in cells:
        lines = _assignments(cell)
        names = [target for target, _ in lines]
        if any(annotated and name in known for name, annotated in lines):
            own, injected = names, []
        elif lines and cell.lstrip().startswith(PAPERMILLS):
            injected = names
    return None if own is None else [*own, *(name for name in injected if name not in own)]


def _assignments(cell: str) -> list[tuple[str, bool]]:
    """The names that a cell of assignments gives values to, and whether it says their types; none
    of a cell that does anything else."""
    try:
        lines = ast.parse(cell).body
    except (SyntaxError, ValueError):
        return []
    found = []
    for line in lines:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        assigns = isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None
        if not assigns or len(targets) != 1 or not isinstance(targets[0], ast.Name):
            return []
        found.append((targets[0].id, isinstance(line, ast.AnnAssign)))
    return found


def digest(settings: Mapping[str, Any]) -> str:
    """Return the sha256 of settings in their canonical form, in hex."""
    canonical = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def subclasses(base: type) -> Iterator[Any]:
    """Yield every class below another one that has been imported, those next to it first."""
    found: list[Any] = base.__subclasses__()
    yield from found
    for kind in found:
        yield from subclasses(kind)
