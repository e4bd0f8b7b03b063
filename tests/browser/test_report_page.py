"""The report in a browser, from disk: whole at any width, and it asks nobody for anything but its own videos."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture


@pytest.fixture
def report(store: LocalStorage, tmp_path: Path) -> Path:
    """The report of a job with pictures, plots and videos, in its folder."""
    put_pan_clip(store, "videos/pan.mp4", tmp_path, frames=30)
    images = []
    for seed in range(3):
        images.append(f"images/{seed}.png")
        store.put(images[-1], png(texture(96, 160, seed=seed)))
    document = {
        "task_id": "report",
        "structure_video": "videos/pan.mp4",
        "images": images,
        "frames": 33,
        "outputs": ["flow_vis"],
    }
    assert JobRunner(store, tmp_path).run("report", document).state == "done"
    return tmp_path / "store" / "jobs" / "report" / "report.html"


@pytest.mark.parametrize("width_px", [320, 390, 768, 1400])
def test_nothing_of_the_report_lies_beside_the_screen(
    page: Page, watched: Watched, report: Path, width_px: int
) -> None:
    page.set_viewport_size({"width": width_px, "height": 800})
    page.goto(report.as_uri())
    assert page.locator("table.pictures img").count() > 20
    assert page.locator("video").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    # what is wider is in a region of its own that scrolls
    assert page.evaluate("document.querySelector('.scroll').scrollWidth") >= 600
    assert watched.foreign("file://") == []
    assert watched.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_passes_an_accessibility_check(page: Page, report: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(report.as_uri())
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def times(page: Page) -> list[list[float]]:
    """Return where each video is, by segment, in frames."""
    found: list[list[float]] = page.evaluate(
        """[...document.querySelectorAll("section.segment")].map((section) =>
          [...section.querySelectorAll("video")].map((video) => video.currentTime * 16))"""
    )
    return found


def test_the_strip_moves_all_videos_of_its_segment_by_keys_and_mouse(
    page: Page, watched: Watched, report: Path
) -> None:
    # else the strip glides for a while after its first key, and the mouse meets what is beside it
    page.emulate_media(reduced_motion="reduce")
    page.goto(report.as_uri())
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    strip = page.get_by_role("slider", name="Frame of all videos of Segment 0")
    strip.press("ArrowRight")
    expect(strip).to_have_attribute("aria-valuenow", "1")
    assert times(page) == [[1.5] * 3, [0] * 3]
    strip.press("End")
    strip.press("Shift+ArrowLeft")
    assert times(page) == [[22.5] * 3, [0] * 3]
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    expect(page.locator(".place").first).to_contain_text("Frame 7 · 0–19: guided: your frames")
    box = strip.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 25.5 / 33 * box["width"], box["y"] + 5)
    page.mouse.down()
    assert times(page)[0] == [25.5] * 3
    page.mouse.move(box["x"] + 12.5 / 33 * box["width"], box["y"] + 5)
    page.mouse.up()
    assert times(page)[0] == [12.5] * 3
    strip.press("Space")
    expect(strip).not_to_have_attribute("aria-valuenow", "12")
    strip.press("k")
    assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")
    assert watched.errors == []
    assert watched.foreign("file://") == []
