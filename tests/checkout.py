"""Where the checkout lies: said here once, so that tests can lie in any folder of `tests/`."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent


def copy_of_checkout(root: Path) -> Path:
    """A copy of what running a notebook reads, so that the checkout's figures stay as they are."""
    unwanted = shutil.ignore_patterns(".ipynb_*")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=unwanted)
    shutil.copytree(ROOT / "data/reference", root / "data/reference")
    return root
