"""The page of the API's documentation."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from structureflow.testing.browser import Watched


def test_the_documentation_shows_every_route_and_asks_nobody_else(page: Page, watched: Watched, made_site: str) -> None:
    page.goto(f"{made_site}docs")
    paths = page.locator(".opblock-summary-path")
    expect(paths.first).to_be_visible()
    shown = {text.replace("\u200b", "") for text in paths.all_text_contents()}
    assert {"/previews", "/archives/flow", "/jobs/{task_id}", "/timelines/{timeline_id}/rebuild"} <= shown
    row = page.locator(".opblock-summary", has_text="Everything that is wrong with the request in the body")
    expect(row).to_be_visible()
    row.locator("button.opblock-control-arrow").click()
    expect(page.get_by_text("A typed error").first).to_be_visible()
    assert watched.errors == []
    assert watched.foreign(made_site) == []
