"""A real browser for tests: Debian's Chromium, steered by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
_CURE = "install it with `apt-get install chromium`, or set the environment variable CHROMIUM to the path of one."
PATIENCE = 240_000  # milliseconds; a loaded machine may need them, and no test passes the sooner for fewer


def find_chromium() -> str:
    """Return where Chromium is. Without one the test is skipped, but fails in CI, where nothing may be left out."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is not None and shutil.which(found):
        return found
    reason = f"The browser test needs Chromium: {_CURE}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """Open a page of 1600 x 1000; what it shows at the end is kept as `folder`/last_page.png, its text is printed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_QUIET)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.set_default_navigation_timeout(PATIENCE)
        try:
            yield page
        finally:
            with contextlib.suppress(Exception):  # a picture is a help, no reason to fail
                page.screenshot(path=folder / "last_page.png", timeout=20_000)
                print(page.url, page.inner_text("body", timeout=20_000), sep="\n")  # pytest shows it if the test failed
            browser.close()
