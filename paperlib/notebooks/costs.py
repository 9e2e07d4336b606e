"""What the notebooks cost: measured by `benchmarks/notebooks.py`, shown by `paperlib list`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paperlib.core import paths
from paperlib.notebooks.runner import Notebook

COLUMNS = ("figure", "notebook", "command", "time: quick", "time: paper", "memory", "hardware")
UNKNOWN = "not measured"


@dataclass(frozen=True)
class Cost:
    """What one notebook costs in its quick and its paper profile."""

    quick_seconds: float  # wall clock
    quick_gigabytes: float  # peak of all its processes together
    paper_seconds: float | None  # wall clock; None: not measured
    paper_estimated: bool  # from shorter runs; else measured
    busy: bool  # others used the machine, so that it took longer than it would have
    hardware: str

    @property
    def times(self) -> tuple[str, str]:
        """Quick and paper, in words."""
        measured = "under " if self.busy else ""
        quick = measured + duration(self.quick_seconds)
        if self.paper_seconds is None:
            return quick, UNKNOWN
        paper = "about " if self.paper_estimated else measured
        return quick, paper + duration(self.paper_seconds)


def load_costs() -> dict[str, Cost]:
    """Load the measured costs by notebook; empty where nothing has been measured.

    Raises:
        ValueError: a file that is damaged.
    """
    file = paths.costs_file()
    if not file.exists():
        return {}
    try:
        measured = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {name: Cost(**_flat(about)) for name, about in measured.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({' '.join(str(error).split())}); "
            "measure anew: python benchmarks/notebooks.py"
        ) from error


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    paper = about.get("paper", {"seconds": None, "how": "not at all"})
    seconds = paper["seconds"]
    return {
        "quick_seconds": float(about["quick"]["seconds"]),
        "quick_gigabytes": float(about["quick"]["gigabytes"]),
        "paper_seconds": None if seconds is None else float(seconds),
        "paper_estimated": paper["how"] != "measured",
        "busy": bool(about["busy"]),
        "hardware": str(about["hardware"]),
    }


def duration(seconds: float) -> str:
    """Return a time in the unit that a person would use: "40 s", "12 min", "3 h", "6 days"."""
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if round(seconds / length) < limit:
            return f"{max(1, round(seconds / length))} {unit}"
    return f"{round(seconds / 86_400)} days"


def markdown(found: Sequence[Notebook], costs: Mapping[str, Cost]) -> str:
    """Return the README's table: a row for each notebook, with links to it and to its figures."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *("| " + " | ".join(_row(n, costs)) + " |" for n in found)])


def _row(notebook: Notebook, costs: Mapping[str, Cost]) -> Sequence[str]:
    cost = costs.get(notebook.name)
    times = cost.times if cost else (UNKNOWN, UNKNOWN)
    return (
        _links(notebook.name),
        f"[{notebook.title}]({paths.NOTEBOOKS}/{notebook.name}.ipynb)",
        f"`paperlib run {notebook.name[:2]}`",
        *times,
        f"{cost.quick_gigabytes:.1f} GB" if cost else UNKNOWN,
        cost.hardware if cost else UNKNOWN,
    )


def _links(name: str) -> str:
    """The canonical figures of a notebook: the first by its name, the others by what follows."""
    figures = sorted(paths.figures_folder().glob(f"{name}*.png"), key=lambda path: path.stem)
    return ", ".join(_link(path, "…" + path.stem[len(name) :] if i else name)
                     for i, path in enumerate(figures)) or "none"  # fmt: skip


def _link(figure: Path, words: str) -> str:
    return f"[{words}]({paths.FIGURES}/{figure.name})"
