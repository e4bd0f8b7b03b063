"""Pages in headless Chromium (`make chromium`). Where there is none the tests are skipped; in CI they fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched, chromium, open_browser
from tests.browser.sites import make_jobs, serving

# patience with a machine that does other things too; nothing here measures time
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        problem = "there is no Chromium on this machine, which tests of pages need: `make chromium` installs Debian's"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    with open_browser(executable) as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own storage and size, closed after the test."""
    found = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="dark")
    found.set_default_timeout(30_000)
    yield found
    found.context.close()


@pytest.fixture
def watched(page: Page) -> Watched:
    return Watched(page)


@pytest.fixture
def store(tmp_path: Path) -> LocalStorage:
    """An empty store in a folder."""
    folder = tmp_path / "store"
    folder.mkdir()
    return LocalStorage(folder)


@pytest.fixture
def site(store: LocalStorage) -> Iterator[str]:
    """The address of the page over `store`."""
    with serving(store) as url:
        yield url


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    """A store with jobs that are done and one that failed; no test changes it."""
    return make_jobs(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def made_site(made: LocalStorage) -> Iterator[str]:
    """The address of the page over `made`."""
    with serving(made) as url:
        yield url
