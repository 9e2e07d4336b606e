"""One question each: its settings, how it is measured and how it is drawn.

An instrument is a single module, or a folder whose `parameters` module holds the settings of its
notebooks. This package finds them by their place: to add one, nothing else is edited.
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from paperlib.core.settings import Checked


def settings() -> dict[str, type[Checked]]:
    """Return the settings of all notebooks by class name, alone and after the instrument's."""
    found: dict[str, type[Checked]] = {}
    for module in _modules():
        instrument = module.__name__.removesuffix(".parameters").rpartition(".")[2]
        for name, kind in vars(module).items():
            if _is_settings(kind) and kind.__module__ == module.__name__ and name[0] != "_":
                found |= {name: kind, f"{instrument}.{name}": kind}
    return found


def _is_settings(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Checked)


def _modules() -> Iterator[ModuleType]:
    """Yield the module of each instrument that its notebooks' settings are in."""
    for found in pkgutil.iter_modules(__path__):
        yield import_module(f"{__name__}.{found.name}" + (".parameters" if found.ispkg else ""))
