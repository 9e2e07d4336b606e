"""Names that a package imports when they are first used, so that it loads at once."""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def exports(package: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which imports its names and submodules when they are used.

        if TYPE_CHECKING:
            from paperlib.cascade.cascade import Cascade
        else:
            __getattr__ = exports(__name__)

    The names are those that the package's file imports for the type checker, so they are listed
    once.

    Args:
        package: its `__name__`.
    """
    module = sys.modules[package]
    homes = dict(_imported(ast.parse(inspect.getsource(module))))

    def find(name: str) -> Any:
        if name in homes:
            found = getattr(import_module(homes[name]), name)
        elif name[0] != "_" and hasattr(module, "__path__") and find_spec(f"{package}.{name}"):
            found = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(module, name, found)
        return found

    return find


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name imported under `if TYPE_CHECKING`, and the module that has it."""
    for block in tree.body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for line in block.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    yield from ((alias.name, line.module) for alias in line.names)
