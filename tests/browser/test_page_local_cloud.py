"""The page over the local cloud, as ``structureflow serve`` has it: a job is sent, seen running, and seen done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from structureflow.testing.browser import Watched
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import TEMPLATE, serving_page
from tests.browser.sites import pixels
from tests.browser.test_page_new_job import add_images, add_video, open_new

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


@pytest.fixture
def cloud_page() -> Iterator[str]:
    with LocalCloud(TEMPLATE) as cloud, serving_page(cloud) as url:
        yield url


def test_a_job_is_sent_and_seen_until_it_is_done(page: Page, watched: Watched, cloud_page: str, tmp_path: Path) -> None:
    open_new(page, cloud_page, "walk")
    add_video(page, tmp_path)
    add_images(page, tmp_path, 3)
    expect(page.locator(".verdict")).to_contain_text("Ready. 2 segments")
    page.get_by_role("button", name="Send the job").click()
    expect(page).to_have_url(re.compile("#/jobs/walk"))
    expect(page.locator(".running")).to_be_visible()
    expect(page.locator('[data-pane="guide"]')).to_have_attribute("data-shown", "0", timeout=240_000)
    expect(page.locator(".state")).to_have_text("done")
    assert pixels(page, "guide").std() > 10
    page.goto(f"{cloud_page}#/jobs")
    expect(page.locator(".list tbody tr")).to_contain_text(["2 of 2 segments"])
    assert watched.foreign(cloud_page) == []
