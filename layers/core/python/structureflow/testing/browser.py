"""Headless Chromium for tests and pictures of pages: the system's own, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, sync_playwright

#: In this order; Debian's package is the first.
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: As root there is no sandbox of Chromium's own; the rest keeps it from asking anybody anything.
_ARGUMENTS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """Return the path of this machine's Chromium; None where it has none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextmanager
def open_browser(executable: str) -> Iterator[Browser]:
    """Start Chromium without a window, and end it with the block."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=[*_ARGUMENTS, *(["--no-sandbox"] if root else [])]
        )
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """What a page does that it should not: requests to other hosts, errors of scripts, refusals by its policy.

    Attributes:
        requests: every URL that was asked for, in order.
        errors: uncaught exceptions, and what the console calls an error.
    """

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    def foreign(self, origin: str) -> list[str]:
        """Return the requests that left `origin` (``http://127.0.0.1:8400``, or ``file://``)."""
        ours = urlsplit(origin)
        return [
            url
            for url in self.requests
            if (found := urlsplit(url)).scheme not in {"data", "blob"}
            and (found.scheme, found.netloc) != (ours.scheme, ours.netloc)
        ]
