"""What tests of pages share."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser import BROWSER, QUIET


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of the machine, which asks no network for anything of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield opened
        opened.close()
