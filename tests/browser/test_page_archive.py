"""The flows of an archive on the page: found, shown by number, a few ahead and not all."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from structureflow.flow.colors import flow_to_rgb
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from tests.browser.sites import nearest, pixels


def test_an_archive_is_found_and_its_flows_are_shown_by_number(
    page: Page, watched: Watched, site: str, store: LocalStorage, tmp_path: Path
) -> None:
    flows = np.zeros((60, 90, 160, 2), np.float32)
    angles = np.arange(60) * 2 * np.pi / 60
    flows[..., 0] = 4 * np.cos(angles)[:, None, None]
    flows[..., 1] = 4 * np.sin(angles)[:, None, None]
    path = tmp_path / "turning.npz"
    np.savez(path, flows=flows)
    key = f"cache/flows/{'ab' * 16}.npz"
    store.put(key, path.read_bytes())
    page.goto(f"{site}#/archives")
    page.get_by_role("link", name=re.compile("abab")).click()
    pane = page.locator('[data-pane="flow"]')
    expect(pane).to_have_attribute("data-shown", "0")
    expect(page.locator(".inspector")).to_contain_text("60 flows")
    colours = np.stack([flow_to_rgb(np.ascontiguousarray(flow), 4.0) for flow in flows[::6]])
    page.wait_for_load_state("networkidle")
    asked = [int(parse_qs(urlsplit(url).query)["flow"][0]) for url in watched.requests if "archives/flow" in url]
    assert set(asked) <= set(range(24)), "what is far is not asked for"
    page.keyboard.type("42")
    page.keyboard.press("Enter")
    expect(pane).to_have_attribute("data-shown", "42")
    shown = pixels(page, "flow")
    centre = colours[:, :1, :1]
    assert nearest(shown[45:46, 80:81], centre) == 7
    expect(page.locator(".now")).to_contain_text("Flow 42")
    assert Axe().run(page).violations_count == 0
    assert watched.errors == []
    assert watched.foreign(site) == []
