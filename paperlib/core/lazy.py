"""Names that a package imports when they are first asked for, so that it loads at once."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def exports(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which imports its names and submodules when they are used.

    Args:
        package: its `__name__`.
        names: what each module gives, with spaces between; modules relative to the package.
    """
    homes = {name: module for module, words in names.items() for name in words.split()}

    def find(name: str) -> Any:
        if name in homes:
            found = getattr(import_module(f".{homes[name]}", package), name)
        elif not name.startswith("_") and find_spec(f"{package}.{name}"):
            found = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)
        return found

    return find
