"""One question each: its settings, how it is measured and how it is drawn.

An instrument is a single module, or a folder whose `parameters` module holds the settings of its
notebooks. This package finds them by their place: to add one, nothing else is edited. A single
module holds

    CODE_VERSION = 1                          raised when a change to the code changes its numbers
    class Settings(TrainingPoint): …          the notebook's parameters, `profile` among them
    def measure(settings, data) -> Dataset    named dims, units in attrs
    def figure(result) -> Figure              from the Dataset alone
    def scores(result) -> dict                optional: "will it train", higher is better
    FORETELLS = ("…",)                        optional, both: what it says of one untrained model
    def foretell(network, images, labels, *, seed) -> dict

and `run(Settings(…))` does what is the same for all.
"""

import itertools
import json
import pkgutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from paperlib.core import paths
from paperlib.core.settings import Checked, digest

if TYPE_CHECKING:
    import xarray as xr

    from paperlib.datasets import Dataset


def run(settings: Any, *, data: "Dataset | None" = None) -> "xr.Dataset":
    """Measure an instrument once for the same settings, code and data, and return its result.

        from paperlib import instruments
        from paperlib.instruments import forgetting

        result = instruments.run(forgetting.Settings(dataset="digits", epochs=3))

    The result is kept in data/results/, under a name made of all that determines its numbers, and
    taken from there the next time, or from data/reference/ if it ships; a damaged file is reported
    and measured again.

    Args:
        settings: of one of the instruments that are a single module.
        data: the data set, where it is loaded already; else the settings say which.

    Returns:
        what the instrument's `measure` says, with `provenance` (settings, data and its checksum,
        versions, commit, time, seconds of the processor) in its attributes.

    Raises:
        ValueError: settings that are not an instrument's.
    """
    from paperlib.core.provenance import about_one
    from paperlib.core.threads import one_thread
    from paperlib.sweep.plan import load_data
    from paperlib.sweep.store import save_result

    module: Any = sys.modules[type(settings).__module__]
    if not hasattr(module, "measure") or type(settings) is not getattr(module, "Settings", None):
        raise ValueError(
            "settings must be the Settings of an instrument, such as "
            f"paperlib.instruments.forgetting.Settings(); got {type(settings).__name__}"
        )
    data = load_data(settings) if data is None else data
    name, version = module.__name__.rpartition(".")[2], module.CODE_VERSION
    what = {**settings.identifying(), "instrument": name, "code": version, "data": data.checksum}
    identity = digest(what)
    file = paths.results_folder() / f"{name}_{identity[:16]}.nc"
    for finished in (file, paths.reference_file(f"{name}.nc")):
        found = _finished(finished, identity)
        if found is not None:
            return found
    paths.check_writable(file.parent)
    begin = time.process_time()
    with one_thread():
        result = module.measure(settings, data)
    seconds = round(time.process_time() - begin, 3)
    about = about_one(settings, data, code_version=version)
    about |= {"identity": identity, "seconds": seconds}
    result = result.assign_attrs(provenance=json.dumps(about, sort_keys=True))
    save_result(result, file)
    return result


def _finished(file: Path, identity: str) -> "xr.Dataset | None":
    """The result in a file, if it is there, undamaged and of this identity."""
    from paperlib.core.provenance import provenance
    from paperlib.sweep.store import load_result

    if not file.exists():
        return None
    try:
        found = load_result(file)
    except ValueError as error:
        print(f"{error}; it is measured again", flush=True)
        return None
    return found if provenance(found).get("identity") == identity else None


def run_grid(settings: Any, **axes: Sequence[Any]) -> "xr.Dataset":
    """Measure an instrument at every combination of values, and return all along these axes.

        run_grid(forgetting.Settings(), sigma_w2=(1.0, 1.7), depth=(3, 10))

    Args:
        settings: what is the same everywhere.
        axes: values of further settings, by name.

    Raises:
        ValueError: as `run`, or a value that the settings refuse.
    """
    import xarray as xr

    from paperlib.core.provenance import provenance

    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    points = [(replace(settings, **point), point) for point in grid]  # all are checked first
    results = [run(one).expand_dims({k: [v] for k, v in at.items()}) for one, at in points]
    together: Any = xr.combine_by_coords(results, combine_attrs="drop")
    about = provenance(results[0])
    about["config"] = {**about["config"], **{name: list(values) for name, values in axes.items()}}
    return cast("xr.Dataset", together.assign_attrs(provenance=json.dumps(about, sort_keys=True)))


def modules() -> dict[str, ModuleType]:
    """Return the instruments that are a single module, by name."""
    return {m.__name__.rpartition(".")[2]: m for m in _modules() if hasattr(m, "measure")}


def foretellers() -> dict[str, ModuleType]:
    """Return those of `modules` that say of any untrained model whether it will train, by name."""
    return {name: module for name, module in modules().items() if hasattr(module, "foretell")}


def shipped() -> dict[str, "xr.Dataset"]:
    """Return the reference results of `modules` that are in data/reference/, by name."""
    from paperlib.sweep.store import load_result

    files = {name: paths.reference_file(f"{name}.nc") for name in modules()}
    return {name: load_result(file) for name, file in files.items() if file.exists()}


def settings() -> dict[str, type[Checked]]:
    """Return the settings of all notebooks by class name, alone and after the instrument's."""
    return {name: kind for module in _modules() for name, kind in _settings_in(module).items()}


def settings_called(name: str) -> type[Checked] | None:
    """Return one of `settings`, and import no more instruments than it takes to find it."""
    for module in _modules(first=name.partition(".")[0]):
        found = _settings_in(module)
        if name in found:
            return found[name]
    return None


def _settings_in(module: ModuleType) -> dict[str, type[Checked]]:
    instrument = module.__name__.removesuffix(".parameters").rpartition(".")[2]
    found = {
        name: kind
        for name, kind in vars(module).items()
        if _is_settings(kind) and kind.__module__ == module.__name__ and name[0] != "_"
    }
    return found | {f"{instrument}.{name}": kind for name, kind in found.items()}


def _is_settings(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Checked)


def _modules(first: str = "") -> Iterator[ModuleType]:
    """Yield the module of each instrument that its notebooks' settings are in; one of them may come
    first, and folders, whose settings are apart from what computes, come before modules."""
    found = pkgutil.iter_modules(__path__)
    for one in sorted(found, key=lambda one: (one.name != first, not one.ispkg, one.name)):
        yield import_module(f"{__name__}.{one.name}" + (".parameters" if one.ispkg else ""))
