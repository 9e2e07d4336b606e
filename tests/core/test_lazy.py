import sys
from importlib import import_module
from pathlib import Path

import pytest

from paperlib.core.lazy import exports

FILE = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import OrderedDict
    from example_package.inside import (
        value,
    )
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "example_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(FILE)
    (folder / "inside.py").write_text("value = 3\n")
    (folder / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("example_package", "example_package.inside", "example_package.other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module("example_package").__name__


def test_what_a_package_imports_for_the_type_checker_is_found_when_it_is_used(package: str) -> None:
    find = exports(package)
    assert "example_package.inside" not in sys.modules
    assert find("value") == 3
    assert sys.modules["example_package"].value == 3  # from then on without a search
    assert find("OrderedDict") is import_module("collections").OrderedDict


def test_modules_of_a_package_are_found_and_all_else_is_an_error(package: str) -> None:
    find = exports(package)
    assert find("other") is sys.modules["example_package.other"]
    with pytest.raises(AttributeError, match="'example_package' has no attribute 'missing'"):
        find("missing")


def test_a_module_has_no_modules_of_its_own(package: str) -> None:
    find = exports(import_module(f"{package}.inside").__name__)
    with pytest.raises(AttributeError, match=r"'example_package\.inside' has no attribute 'other'"):
        find("other")
