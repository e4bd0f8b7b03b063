"""One job: pictures in step with one scrubber, by mouse and keyboard; comparison; failure; progress."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page, expect

from structureflow import keys
from structureflow.jobs import live_keys
from structureflow.models.results import PartProgress
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from tests.browser.sites import FRAMES, difference, job_document, nearest, pixels, video

STANDARD = ("structure", "flow_vis", "visibility", "path", "guide", "mask")


def open_job(page: Page, site: str, where: str = "walk-1") -> None:
    """Open a job and wait until its videos are there."""
    page.goto(f"{site}#/jobs/{where}")
    expect(page.locator(".track")).to_be_visible()
    expect(page.locator(".loaded")).to_be_hidden()


def at(page: Page, frame: int, panes: tuple[str, ...] = ("guide", "mask", "flow_vis", "visibility")) -> None:
    """Wait until all pictures, the scrubber and the numbers are at a frame."""
    for pane in panes:
        expect(page.locator(f'[data-pane="{pane}"]')).to_have_attribute("data-shown", str(frame))
    expect(page.locator(".track")).to_have_attribute("aria-valuenow", str(frame))
    expect(page.locator(".now h2")).to_have_text(f"Frame {frame}")


def test_all_pictures_of_a_frame_are_shown_and_are_those_of_the_videos(
    page: Page, watched: Watched, made_site: str, made: LocalStorage, tmp_path: Path
) -> None:
    open_job(page, made_site)
    shown = page.locator(".wall .pane:visible")
    assert [one.get_attribute("data-pane") for one in shown.all()] == list(STANDARD)
    guide = video(made, "jobs/walk-1/segments/000/guide.mp4", tmp_path)
    mask = video(made, "jobs/walk-1/segments/000/mask.mp4", tmp_path)
    for frame in (0, 9, 14, 20, 27, 32):
        page.keyboard.type(str(frame))
        page.keyboard.press("Enter")
        at(page, frame)
        assert difference(pixels(page, "guide"), guide[frame]) < 3, frame
        assert difference(pixels(page, "mask"), mask[frame]) < 3, frame
        if 5 <= frame < 29:
            assert nearest(pixels(page, "guide"), guide) == frame
            expect(page.locator('[data-pane="path"]')).to_have_attribute("data-shown", str(frame))
            expect(page.locator('[data-pane="structure"]')).to_have_attribute("data-shown", str(frame))
    assert watched.errors == []
    assert watched.foreign(made_site) == []


def test_the_structure_picture_is_the_one_that_the_frame_plays(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    perframe = page.evaluate("async () => (await fetch('jobs/walk-1/segments/0/frames')).json()")
    sequence = perframe["structure_frame"][15]
    page.keyboard.type("15")
    page.keyboard.press("Enter")
    expect(page.locator('[data-pane="structure"]')).to_have_attribute("data-shown", "15")
    frame = page.evaluate(
        """async (sequence) => {
          const picture = await createImageBitmap(await (await fetch(`timelines/reel/frames/${sequence}`)).blob());
          const context = new OffscreenCanvas(160, 96).getContext("2d");
          context.drawImage(picture, 0, 0);
          return Array.from(context.getImageData(0, 0, 160, 96).data);
        }""",
        sequence,
    )
    shown = pixels(page, "structure")
    assert (
        abs(
            shown[..., 1].astype(float) - [[frame[4 * (160 * y + x) + 1] for x in range(160)] for y in range(96)]
        ).mean()
        < 6
    )
    assert page.locator(".now").get_by_text(str(sequence), exact=True).count() >= 1


def test_scrubbing_by_mouse(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    box = page.locator(".track").bounding_box()
    assert box is not None

    def x(frame: int) -> float:
        return box["x"] + (frame + 0.5) / FRAMES * box["width"]

    page.mouse.move(x(4), box["y"] + 10)
    page.mouse.down()
    at(page, 4)
    for frame in (11, 23, 17):
        page.mouse.move(x(frame), box["y"] + 10)
        at(page, frame)
    page.mouse.move(box["x"] + box["width"] + 300, box["y"] + 10)
    at(page, FRAMES - 1)
    page.mouse.up()
    page.mouse.move(x(2), box["y"] + 10)
    at(page, FRAMES - 1)


def test_scrubbing_by_keyboard(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    for key, frame in (
        ("ArrowRight", 1),
        ("Shift+ArrowRight", 11),
        ("ArrowLeft", 10),
        ("ArrowDown", 29),
        ("ArrowUp", 5),
        ("End", 32),
        ("ArrowRight", 32),
        ("PageUp", 22),
        ("Home", 0),
        ("ArrowLeft", 0),
    ):
        page.keyboard.press(key)
        at(page, frame)
    page.keyboard.type("21")
    expect(page.locator(".place")).to_contain_text("→ 21")
    page.keyboard.press("Enter")
    at(page, 21)
    page.keyboard.type("999")
    page.keyboard.press("Enter")
    at(page, 32)
    page.keyboard.press("]")
    expect(page.locator(".segment[aria-pressed=true]")).to_contain_text("1")
    at(page, 0)
    expect(page).to_have_url(re.compile(r"segment=1&frame=0"))


def test_space_and_j_k_l_play(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    counted = """() => new Promise((done) => {
      const seen = [];
      const track = document.querySelector(".track");
      new MutationObserver(() => {
        seen.push(Number(track.getAttribute("aria-valuenow")));
        if (seen.length === 8) done(seen);
      })
        .observe(track, { attributeFilter: ["aria-valuenow"] });
    })"""
    page.keyboard.press("Space")
    rising = page.evaluate(counted)
    steps = [(b - a) % FRAMES for a, b in pairwise(rising)]
    # not all: a machine that is busy for a second shows a later frame next
    assert 0 < median(steps) < FRAMES / 2
    expect(page.get_by_role("button", name="Pause (space)")).to_be_visible()
    page.keyboard.press("j")
    falling = page.evaluate(counted)
    assert 0 < median((a - b) % FRAMES for a, b in pairwise(falling)) < FRAMES / 2
    page.keyboard.press("l")
    page.keyboard.press("l")
    expect(page.locator(".speed")).to_have_text("2×")
    page.keyboard.press("k")
    expect(page.get_by_role("button", name="Play (space)")).to_be_visible()
    stopped = page.locator(".track").get_attribute("aria-valuenow")
    page.wait_for_timeout(300)
    assert page.locator(".track").get_attribute("aria-valuenow") == stopped


def test_keys_that_a_field_or_a_browser_needs_stay_theirs(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    page.keyboard.press("Control+ArrowRight")
    page.get_by_label("Compare with").focus()
    page.keyboard.press("End")
    page.keyboard.type("2")
    expect(page.locator(".track")).to_have_attribute("aria-valuenow", "0")


def test_ranges_and_numbers(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    ranges = page.locator(".track .range")
    assert [one.get_attribute("title") for one in ranges.all()] == [
        "0–4: guided: your frames",
        "5–28: filled by motion",
        "29–32: guided: your frames",
    ]
    perframe = page.evaluate("async () => (await fetch('jobs/walk-1/segments/0/frames')).json()")
    page.keyboard.type("17")
    page.keyboard.press("Enter")
    at(page, 17)
    now = page.locator(".now")
    expect(now).to_contain_text(f"{100 * perframe['kept'][17]:.1f} %")
    expect(now).to_contain_text(f"{perframe['path_error'][17]:.2f} levels")
    expect(now).to_contain_text("filled by motion")
    expect(page.locator(".track")).to_have_attribute("aria-valuetext", re.compile("frame 17 of 33, filled"))
    assert page.locator(".track .curve").count() == 2
    page.keyboard.press("Home")
    expect(now).to_contain_text("guided: your frames")


def test_one_picture_can_be_enlarged_and_pictures_left_out(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    page.keyboard.press("Alt+5")
    expect(page.locator(".pane:visible")).to_have_count(1)
    expect(page.locator('[data-pane="guide"]')).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator(".pane:visible")).to_have_count(len(STANDARD))
    at(page, 1)
    page.get_by_role("button", name="Visibility", exact=True).click()
    expect(page.locator(".pane:visible")).to_have_count(len(STANDARD) - 1)
    page.reload()
    expect(page.locator(".pane:visible")).to_have_count(len(STANDARD) - 1)


def test_two_jobs_are_wiped(page: Page, watched: Watched, made_site: str, made: LocalStorage, tmp_path: Path) -> None:
    open_job(page, made_site, "walk-1?frame=17")
    page.get_by_label("Compare with").select_option("walk-2")
    wipe = page.locator('[data-pane="guide"]')
    expect(wipe).to_have_attribute("data-both", "17")
    ours = video(made, "jobs/walk-1/segments/000/guide.mp4", tmp_path)[17]
    theirs = video(made, "jobs/walk-2/segments/000/guide.mp4", tmp_path)[17]
    assert difference(ours, theirs) > 4
    edge = wipe.get_by_role("slider")
    for press, at_percent in (("Home", 0), ("Shift+ArrowRight", 10), ("End", 100), ("ArrowLeft", 98)):
        edge.press(press)
        expect(edge).to_have_attribute("aria-valuenow", str(at_percent))
        border = round(160 * at_percent / 100)
        shown = pixels(page, "guide")
        if border:
            assert difference(shown[:, :border], ours[:, :border]) < 3
        if border < 160:
            assert difference(shown[:, border:], theirs[:, border:]) < 3
    box = wipe.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60)
    page.mouse.up()
    expect(edge).to_have_attribute("aria-valuenow", "25")
    expect(page.locator(".inspector")).to_contain_text("anchored")
    expect(page.locator(".inspector")).to_contain_text("composed")
    expect(page).to_have_url(re.compile("with=walk-2"))
    assert watched.errors == []


def test_downloads_are_by_who_takes_them(page: Page, made_site: str) -> None:
    open_job(page, made_site)
    page.get_by_text("Downloads").click()
    links = page.locator(".files a")
    expect(links.first).to_be_visible()
    names = [str(link.get_attribute("download")) for link in links.all()]
    assert names.count("guide.mp4") == names.count("mask.mp4") == 2
    with page.expect_download() as found:
        page.locator(".files a[download='mask.mp4']").first.click()
    assert Path(found.value.path()).read_bytes()[4:8] == b"ftyp"


def test_a_failed_job_says_why(page: Page, watched: Watched, made_site: str) -> None:
    page.goto(f"{made_site}#/jobs/lost")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("InputNotFoundError at")
    expect(alert).to_contain_text("images/none.png")
    expect(page.locator(".state")).to_have_text("failed")
    assert watched.foreign(made_site) == []


def test_a_job_that_is_not_there_is_said(page: Page, made_site: str) -> None:
    page.goto(f"{made_site}#/jobs/none")
    expect(page.get_by_role("alert")).to_contain_text("ObjectNotFoundError")
    page.goto(f"{made_site}#/elsewhere")
    expect(page.locator("h1")).to_have_text("There is no such page")


def test_fallbacks_are_named(page: Page, made: LocalStorage, site: str, store: LocalStorage) -> None:
    for info in list(made.list("")):
        store.put(info.key, made.get(info.key).data)
    path = keys.job_manifest("walk-1")
    manifest = json.loads(store.get(path).data)
    fallback = {"stage": "flow", "wanted": "cache", "used": "video", "reason": "<b>it was gone</b>"}
    manifest["segments"][0]["fallbacks"] = [fallback]
    manifest["fallbacks"] = [fallback]
    store.put(path, json.dumps(manifest).encode())
    open_job(page, site)
    expect(page.get_by_label("Fallbacks")).to_contain_text("flow: wanted cache, used video. <b>it was gone</b>")
    expect(page.locator(".segment .dot")).to_have_count(1)


def running(store: LocalStorage, task_id: str, **more: Any) -> None:
    """Write the status of a job that is under way."""
    status = {"task_id": task_id, "run_id": "r1", "state": "running", "stage": "segments", "segments": 3, **more}
    status["updated_at"] = datetime.now(UTC).isoformat()
    store.put(keys.job_status(task_id), json.dumps(status).encode())


def test_a_running_job_shows_how_far_it_is_until_it_ends(page: Page, site: str, store: LocalStorage) -> None:
    store.put(keys.job_request("live"), json.dumps(job_document("live")).encode())
    page.goto(f"{site}#/jobs")
    page.get_by_role("link", name="live").click()
    expect(page.locator(".running h2")).to_have_text("waiting to start")
    running(store, "live", stage="orchestrate", segments=None)
    expect(page.locator(".running h2")).to_have_text("orchestrate")
    running(store, "live")
    expect(page.locator(".running h2")).to_have_text("segments")
    expect(page.locator(".parts")).to_contain_text("0 of 3")
    expect(page.get_by_role("region", name="Progress")).not_to_contain_text("$")
    part = PartProgress(step="segment", index=1, done=40, total=81, updated_at=datetime.now(UTC), cost_usd=0.0123)
    store.put(live_keys.run_progress("live", "r1", "segment", 1, ended=False), part.to_json())
    expect(page.locator(".parts")).to_contain_text("40 of 81 frames")
    expect(page.get_by_role("region", name="Progress")).to_contain_text("about $0.0123 so far")
    page.goto(f"{site}#/jobs")
    row = page.get_by_role("row").filter(has_text="live")
    expect(row).to_contain_text("0 of 3 segments")
    expect(row.locator("td.number").nth(1)).to_have_text("≈ $0.0123")
    store.put(live_keys.run_progress("live", "r1", "segment", 0, ended=True), part.to_json())
    expect(row).to_contain_text("1 of 3 segments")
    expect(row.locator("td.number").nth(1)).to_have_text("≈ $0.0246")
    page.goto(f"{site}#/jobs/live")
    error = {"code": "SegmentFailedError", "message": "the disk is full", "stage": "segment 2"}
    running(store, "live", state="failed", error=error)
    expect(page.get_by_role("alert")).to_contain_text("SegmentFailedError at segment 2")
    assert page.locator(".running").count() == 0
