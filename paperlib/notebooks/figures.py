"""What a figure file says of itself: the provenance of every result that is drawn in it."""

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from paperlib import instruments
from paperlib.core import paths
from paperlib.core.checks import did_you_mean
from paperlib.core.settings import subclasses
from paperlib.networks.experiment import ImageExperiment

SUFFIXES = (".png", ".pdf")
_NEEDED = {"config", "data", "computed", "finished_at"}
_NAME_WIDTH = 16  # of the left column
_PAGE_WIDTH = 100
# As matplotlib writes the Info dictionary: text in brackets, and those inside it escaped.
_KEYWORDS = re.compile(rb"/Keywords\s*\(((?:\\.|[^\\()])*)\)", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def find_figure(name: str) -> Path:
    """Return the file of a figure: a path, or a name in figures/ with or without its ending.

    Raises:
        FileNotFoundError: there is none; says which name is close.
    """
    places = [Path(name).expanduser()]
    if not places[0].is_absolute():
        places.append(paths.figures_folder() / name)
    for place in places:
        for file in (place, *(Path(f"{place}{suffix}") for suffix in SUFFIXES)):
            if file.is_file():
                return file
    known = sorted({file.stem for file in paths.figures_folder().glob("*.png")})
    begun = [stem for stem in known if name and stem.startswith(name)]
    close = f" (there are: {', '.join(begun)})" if begun else did_you_mean(name, known)
    raise FileNotFoundError(f"no figure {name!r}{close}: expected a .png or .pdf file or its name")


def provenance_of(file: Path) -> list[dict[str, Any]]:
    """Return the provenance of each result drawn in a figure that `plots.save` wrote, PNG or PDF.

    Raises:
        ValueError: no PNG or PDF, or one without provenance.
    """
    readers = dict(zip(SUFFIXES, (_text_in_png, _text_in_pdf), strict=True))
    if file.suffix.lower() not in readers:
        raise ValueError(f"{file} must be a .png or .pdf file")
    try:
        about = json.loads(readers[file.suffix.lower()](file))
        told_of = bool(about) and all(result.keys() >= _NEEDED for result in about)
    except (OSError, SyntaxError, TypeError, AttributeError, ValueError):
        told_of = False
    if not told_of:
        raise ValueError(
            f"{file} carries no provenance, or is damaged: only figures that paperlib drew carry it"
        )
    return list(about)


def provenance_lines(about: Mapping[str, Any]) -> list[str]:
    """Return a result's provenance as lines: what was computed, from what, when and with what.

    Args:
        about: one of `provenance_of`.
    """
    settings, data, computed = _read_settings(about), about["data"], about["computed"]
    seeds = {
        name: settings.pop(name) for name in ("seeds", "seed", "data_seed") if name in settings
    }
    rows = [
        ("computed", about["finished_at"]),
        ("code version", str(about.get("code_version", "none"))),
        *(("on", _way(way)) for way in computed),
        ("data", data["name"]),
        ("data source", data.get("source", "not noted; its checksum says what it was")),
        ("data checksum", f"sha256 {data['checksum']}"),
        *(
            (f"{split} images", f"{data[f'{split}_images']:,}")
            for split in ("train", "test")
            if f"{split}_images" in data
        ),
        *((name.replace("_", " "), _value(value)) for name, value in seeds.items()),
        *((name, _value(value)) for name, value in sorted(settings.items())),
    ]
    return [line for name, text in rows for line in _wrapped(name, text)]


def _read_settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the computation read, less those that the data say already."""
    settings, data = about["config"], about["data"]
    experiment = experiment_of(settings)
    unread = experiment.unread() if experiment else ()
    zeros = experiment.zeros() if experiment else {}
    return {
        name: f"0: {zeros[name]}" if value == 0 and name in zeros else value
        for name, value in settings.items()
        if name not in unread and not (name in data and data[name] == value)
    }


def experiment_of(settings: Mapping[str, Any]) -> ImageExperiment | None:
    """Return the experiment that has exactly settings of these names, lists at their defaults.

    None where there is none. Settings that came later may be missing.
    """
    single = {name: value for name, value in settings.items() if not isinstance(value, list)}
    instruments.settings()  # imports them all, and with them all experiments
    for kind in subclasses(ImageExperiment):
        names = {setting.name: setting.metadata for setting in dataclasses.fields(kind)}
        missing = names.keys() - settings.keys()
        if settings.keys() <= names.keys() and all("before" in names[name] for name in missing):
            return kind.from_dict(single)
    return None


def _text_in_png(file: Path) -> str:
    from PIL import Image

    with Image.open(file) as picture:
        return str(picture.info.get("Description", ""))


def _text_in_pdf(file: Path) -> str:
    found = _KEYWORDS.findall(file.read_bytes())
    if not found:
        return ""
    escapes = {b"n": b"\n", b"r": b"\r"}
    return _ESCAPED.sub(lambda m: escapes.get(m[1], m[1]), found[-1]).decode("ascii")


def _way(way: Mapping[str, Any]) -> str:
    """One way in which points were computed: how many, by which commit, versions and machine."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(way["versions"].items()))
    more = {"commit", "versions", "hardware", "device", "points", "at_most"}
    rest = "".join(f", {name} {_value(way[name])}" for name in sorted(way.keys() - more))
    machine = ", ".join(str(way[name]) for name in ("device", "hardware") if name in way)
    count = way.get("points", 1)
    bound = "at most " if way.get("at_most") else ""
    points = f"{bound}{count:,} point{'s' if count > 1 else ''}"
    return f"{points}, commit {way['commit']}; {machine}{rest}; {versions}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value) or "(empty)"


def _wrapped(name: str, text: str) -> Iterable[str]:
    margin = " " * (_NAME_WIDTH + 2)
    begin = f"  {name.ljust(_NAME_WIDTH - 1)} "
    return textwrap.wrap(text, _PAGE_WIDTH, initial_indent=begin, subsequent_indent=margin)
