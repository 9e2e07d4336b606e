"""Put the notebooks and the shipped results into the wheel, so that it works without a checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACE = "paperlib/shipped"  # as `paperlib.core.paths` knows it
FILES = (
    "notebooks/*.ipynb",
    "notebooks/*.yaml",
    "notebooks/profiles/*/*.yaml",
    "data/reference/*",
)


class Shipped(BuildHookInterface):
    """Adds the files; an editable installation has them beside it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name every file and its place in the wheel."""
        if version == "editable":
            return
        root = Path(self.root)
        for file in (file for pattern in FILES for file in root.glob(pattern)):
            build_data["force_include"][str(file)] = f"{PLACE}/{file.relative_to(root).as_posix()}"
