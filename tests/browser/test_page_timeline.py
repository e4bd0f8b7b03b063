"""A timeline of any length: only what is in sight is asked for; damage is named; clearing asks first."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from structureflow import keys
from structureflow.frames.cache import FrameCache
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from structureflow.testing.frames import make_frames
from structureflow.testing.videos import pan_frames, write_clip
from tests.browser.sites import long_timeline

FRAMES = 10_000
#: A screen of 1400 x 900 has room for fewer; a page of frames may hold some more.
IN_SIGHT = 150


@pytest.fixture
def film(store: LocalStorage, tmp_path: Path) -> LocalStorage:
    long_timeline(store, tmp_path, "film", FRAMES)
    return store


def asked(watched: Watched) -> list[tuple[int, int]]:
    """Return the windows of frames that were asked for: first place and how many."""
    found = [urlsplit(url) for url in watched.requests]
    queries = [parse_qs(url.query) for url in found if url.path.endswith("/frames") and "limit" in url.query]
    return [(int(query.get("page", ["0"])[0]), int(query["limit"][0])) for query in queries]


def test_ten_thousand_frames_are_shown_without_loading_them(
    page: Page, watched: Watched, site: str, film: LocalStorage
) -> None:
    page.goto(f"{site}#/timelines/film")
    expect(page.locator(".cell.there img").first).to_be_visible()
    expect(page.locator(".facts")).to_contain_text("10,000 frames")
    page.wait_for_load_state("networkidle")
    windows = asked(watched)
    assert sum(count for _, count in windows) <= IN_SIGHT
    assert len(windows) <= 8
    assert page.locator(".cell").count() <= IN_SIGHT
    assert watched.errors == []
    assert watched.foreign(site) == []


def test_a_jump_loads_what_is_there_and_nothing_on_the_way(
    page: Page, watched: Watched, site: str, film: LocalStorage
) -> None:
    page.goto(f"{site}#/timelines/film")
    expect(page.locator(".cell.there").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    before = len(asked(watched))
    page.get_by_label("Jump to frame").fill("7321")
    page.keyboard.press("Enter")
    cell = page.locator("#cell-7321")
    expect(cell).to_have_class(re.compile("there"))
    expect(cell).to_have_attribute("aria-selected", "true")
    expect(cell).to_have_attribute("title", re.compile(r"frame 7321, 292\.840 s"))
    page.wait_for_load_state("networkidle")
    jumped = asked(watched)[before:]
    assert all(7000 < first < 7600 for first, _ in jumped), jumped
    assert sum(count for _, count in jumped) <= IN_SIGHT
    page.reload()
    expect(page.locator("#cell-7321")).to_have_class(re.compile("there"))


def test_a_fast_scroll_asks_for_where_it_ends(page: Page, watched: Watched, site: str, film: LocalStorage) -> None:
    page.goto(f"{site}#/timelines/film")
    expect(page.locator(".cell.there").first).to_be_visible()
    page.evaluate(
        """async () => {
          const grid = document.querySelector(".grid");
          for (let at = 0; at < 60; at += 1) {
            grid.scrollTop += 1500;
            await new Promise(requestAnimationFrame);
          }
        }"""
    )
    expect(page.locator(".cell.there img").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert sum(count for _, count in asked(watched)) <= 6 * IN_SIGHT
    assert page.locator(".cell").count() <= IN_SIGHT


def test_the_grid_goes_by_keys_and_shows_a_frame_large(page: Page, site: str, film: LocalStorage) -> None:
    page.goto(f"{site}#/timelines/film")
    expect(page.locator(".cell.there").first).to_be_visible()
    grid = page.get_by_role("listbox")
    grid.focus()
    page.keyboard.press("End")
    expect(page.locator("#cell-9999")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    expect(grid).to_have_attribute("aria-activedescendant", "cell-9998")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h2")).to_have_text("Frame 9998")
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("h2")).to_have_text("Frame 9997")
    assert dialog.locator("img").evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 64
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(grid).to_be_focused()


def test_damaged_frames_are_named_and_the_others_are_shown(page: Page, site: str, film: LocalStorage) -> None:
    film.delete([keys.timeline_frame("film", 3)])
    film.put(keys.timeline_frame("film", 5), b"no picture")
    page.goto(f"{site}#/timelines/film")
    expect(page.locator("#cell-4 img")).to_be_visible()
    expect(page.locator("#cell-3")).to_have_class(re.compile("damaged"))
    expect(page.locator("#cell-3")).to_contain_text("FrameNotFoundError")
    expect(page.locator("#cell-5")).to_contain_text("FrameCorruptError")
    notice = page.get_by_label("Damaged frames")
    expect(notice).to_contain_text("1 frame missing")
    notice.get_by_role("button", name="3").click()
    expect(page.locator("#cell-3")).to_have_attribute("aria-selected", "true")


def test_sequences_with_gaps(page: Page, site: str, store: LocalStorage) -> None:
    frames = make_frames(12) + make_frames(12, start=100, seed=1)
    FrameCache(store).cache_frames("gaps", frames)
    page.goto(f"{site}#/timelines/gaps")
    expect(page.locator("#cell-12")).to_have_attribute("title", re.compile("frame 100,"))
    assert page.locator(".cell").count() == 24


def test_overlays_by_job_stage_and_segment(page: Page, watched: Watched, made_site: str) -> None:
    page.goto(f"{made_site}#/timelines/reel")
    expect(page.locator(".cell.there").first).to_be_visible()
    page.get_by_label("Pictures", exact=True).select_option(label="guidance of walk-1")
    expect(page.locator("#cell-0")).to_have_attribute("title", "guidance, segment000, frame 0")
    page.get_by_label("Segment", exact=True).select_option(label="segment 1")
    expect(page.locator("#cell-32")).to_have_attribute("title", "guidance, segment001, frame 32")
    assert (
        page.locator("#cell-0 img").evaluate("async (image) => { await image.decode(); return image.naturalWidth; }")
        == 160
    )
    page.get_by_label("Pictures", exact=True).select_option(label="Frames")
    expect(page.locator("#cell-1")).to_have_attribute("title", re.compile(r"frame 1, 0\.040 s"))
    assert watched.errors == []


def test_clearing_asks_first(page: Page, site: str, store: LocalStorage) -> None:
    FrameCache(store).cache_frames("short", make_frames(6))
    page.goto(f"{site}#/timelines/short")
    page.get_by_role("button", name="Clear…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("short")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert len(list(store.list("cache/timelines/short/"))) == 7
    page.get_by_role("button", name="Clear…").click()
    page.get_by_role("dialog").get_by_role("button", name="Clear 6 frames").click()
    expect(page.locator("h1")).to_have_text("Timelines")
    expect(page.get_by_text("No frames are cached")).to_be_visible()
    assert list(store.list("cache/timelines/short/")) == []


def test_rebuilding_asks_first_and_writes_every_frame_anew(
    page: Page, site: str, store: LocalStorage, tmp_path: Path
) -> None:
    chunk = tmp_path / "chunk.mp4"
    write_clip(chunk, pan_frames(9, 96, 160, dx=2, dy=0), fps=25)
    store.put_file("timelines/old/chunks/000.mp4", chunk)
    FrameCache(store).cache_frames("old", make_frames(6))
    before = store.head(keys.timeline_manifest("old")).etag
    page.goto(f"{site}#/timelines/old")
    expect(page.locator(".facts")).to_contain_text("6 frames")
    page.get_by_role("button", name="Rebuild…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("decoded again from its 1 chunk")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert store.head(keys.timeline_manifest("old")).etag == before
    page.get_by_role("button", name="Rebuild…").click()
    dialog.get_by_label("JPEG quality").fill("55")
    dialog.get_by_role("button", name="Rebuild", exact=True).click()
    expect(page.get_by_text("Rebuilding…")).to_be_visible()
    expect(page.locator(".facts")).to_contain_text("9 frames", timeout=60_000)
    expect(page.locator("#cell-8 img")).to_be_visible()
    assert FrameCache(store).manifest("old").quality == 55


def test_what_a_rebuilding_fails_of_is_said(page: Page, site: str, store: LocalStorage) -> None:
    store.put("timelines/old/chunks/000.mp4", b"no video")
    FrameCache(store).cache_frames("old", make_frames(6))
    page.goto(f"{site}#/timelines/old")
    page.get_by_role("button", name="Rebuild…").click()
    page.get_by_role("dialog").get_by_role("button", name="Rebuild", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("NotAVideoError", timeout=60_000)


def test_a_timeline_that_is_not_there_is_said(page: Page, site: str) -> None:
    page.goto(f"{site}#/timelines/none")
    expect(page.get_by_role("alert")).to_contain_text("TimelineNotFoundError")
