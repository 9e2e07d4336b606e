"""Where the checkout lies: said here once, so that tests can lie in any folder of `tests/`."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
