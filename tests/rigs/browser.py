# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A browser that looks at pages: Debian's Chromium without a screen, driven by Playwright; axe-core judges whether everybody can use them.

    with browser.started() as chromium, browser.opened(chromium, path, dark=True) as page:
        page.get_by_role("button", name="Host").click()
        assert browser.faults(page) == []
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Unavailable, need

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESK, PHONE = (1360, 900), (390, 844)
#: What WCAG 2.2 demands at level AA, and what axe-core advises besides.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """A browser with a profile of its own, which asks the network for nothing."""
    need("chromium")
    if importlib.util.find_spec("playwright") is None:
        raise Unavailable("not installed: playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Chromium has no sandbox as root, and a chroot may have no /dev/shm
        options = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def opened(chromium: Browser, path: Path, size: tuple[int, int] = DESK, dark: bool = False, scripts: bool = True) -> Iterator[Page]:
    """A file in it. Anything that it asks for but itself, and any error of its script, fails the test."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", java_script_enabled=scripts, bypass_csp=False
    )
    page, wrong = context.new_page(), list[str]()
    page.on("request", lambda request: wrong.append(f"request: {request.url}") if request.url != path.as_uri() else None)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        page.goto(path.as_uri())
        yield page
        assert not wrong, wrong
    finally:
        context.close()


def faults(page: Page) -> list[str]:
    """What axe-core finds, with the elements."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        raise Unavailable("not installed: axe-playwright-python")
    page.evaluate(Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
    told: Any = page.evaluate("rules => axe.run({runOnly: {type: 'tag', values: rules}})", _RULES)
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in told["violations"]]
