"""What people and machines do to a page: servers that go and come back, slow answers, junk, second thoughts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from structureflow import keys
from structureflow.frames.cache import FrameCache
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from structureflow.testing.frames import make_frames
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from tests.browser.sites import long_timeline, serving


@contextmanager
def held(page: Page, pattern: str, *, status: int | None = None) -> Iterator[list[Route]]:
    """Keep requests from being answered until the block ends. With `status` they are answered so, at once."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if status is None:
            waiting.append(route)
        else:
            route.fulfill(status=status, json={"code": "SlowDownError", "message": "later"})

    page.route(pattern, hold)
    yield waiting
    for route in waiting:
        route.continue_()
    page.unroute(pattern, hold)


@contextmanager
def away(page: Page, pattern: str) -> Iterator[None]:
    """Nobody answers, in the block."""
    page.route(pattern, lambda route: route.abort())
    yield
    page.unroute(pattern)


def running(store: LocalStorage, task_id: str, **more: Any) -> None:
    status = {"task_id": task_id, "run_id": "r1", "state": "running", "stage": "segments", "segments": 3, **more}
    status.setdefault("updated_at", datetime.now(UTC).isoformat())
    store.put(keys.job_request(task_id), b"{}")
    store.put(keys.job_status(task_id), json.dumps(status).encode())


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.textContent"))


# --- lists that are drawn again and again ------------------------------------------------------------


@pytest.mark.parametrize("name", ["live", "running1"])
def test_what_has_the_focus_keeps_it_while_the_list_is_live(
    page: Page, site: str, store: LocalStorage, name: str
) -> None:
    running(store, "live", started_at=datetime.now(UTC).isoformat())
    page.goto(f"{site}#/jobs")
    page.locator("main a", has_text=re.compile(f"^{name}$")).focus()
    for _ in range(3):
        with page.expect_response(re.compile("/jobs[?]")):
            pass
    running(store, "live", started_at=datetime.now(UTC).isoformat(), stage="assemble")
    expect(page.locator(".progress")).to_contain_text("assemble")
    assert focused(page) == name


@pytest.mark.parametrize(
    ("view", "asked"), [("jobs", "**/jobs?*"), ("jobs/walk", "**/jobs/walk"), ("timelines", "**/timelines?*")]
)
def test_a_slow_server_is_waited_for_and_that_is_seen(
    page: Page, site: str, store: LocalStorage, view: str, asked: str
) -> None:
    running(store, "walk")
    FrameCache(store).cache_frames("reel", make_frames(3))
    loading = """[...document.querySelectorAll("main, main *")].map((one) => getComputedStyle(one, "::before"))
      .filter((one) => one.content.includes("loading") && one.display !== "none").length"""
    with held(page, asked) as waiting:
        page.goto(f"{site}#/{view}")
        while not waiting:
            page.wait_for_timeout(50)
        assert page.evaluate(loading) == 1
    expect(page.locator("main h1, .list tbody").last).to_contain_text(re.compile("walk|reel"))
    assert page.evaluate(loading) == 0


# --- servers that go away and come back --------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, 503, 504])
def test_a_running_job_is_followed_again_when_the_server_is_back(
    page: Page, site: str, store: LocalStorage, answer: int | None
) -> None:
    running(store, "live", updated_at="2026-03-01T12:00:00Z")
    page.goto(f"{site}#/jobs/live")
    expect(page.locator(".running h2")).to_have_text("segments")
    with away(page, "**/jobs/live") if answer is None else held(page, "**/jobs/live", status=answer):
        expect(page.get_by_role("alert")).to_contain_text("not reachable" if answer is None else "later")
    expect(page.locator(".running h2")).to_have_text("segments")
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("asked", ["**/objects/**/guide.mp4", "**/archives/flow*", "**/timelines/reel/frames*"])
def test_pictures_come_when_the_server_is_back(page: Page, made_site: str, asked: str) -> None:
    name = {"guide": "guide", "flow*": "flow", "frames*": "structure"}[asked.rsplit("/", 1)[1].split(".")[0]]
    archive = "archives?key=jobs/walk-1/structure_flows_walk-1.npz"
    pane = page.locator(f"[data-pane={name}]")
    with away(page, asked):
        page.goto(f"{made_site}#/{archive if name == 'flow' else 'jobs/walk-1?frame=17'}")
        expect(pane).to_have_class(re.compile("broken"))
        expect(pane).to_contain_text("The server does not answer.")
    expect(pane).to_have_attribute("data-shown", "0" if name == "flow" else "17")
    expect(pane).not_to_have_class(re.compile("broken"))
    expect(pane).not_to_contain_text("The server does not answer.")


def test_a_view_whose_script_did_not_come_is_there_when_asked_for_again(page: Page, made_site: str) -> None:
    page.goto(f"{made_site}#/jobs")
    expect(page.locator(".list tbody tr").first).to_be_visible()
    with away(page, "**/page/archives.js"):
        page.get_by_role("link", name="Archives").click()
        expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("h1")).to_have_text("Archives")
    expect(page.locator(".list tbody tr").first).to_be_visible()


def test_a_job_that_is_deleted_while_it_is_looked_at(page: Page, site: str, store: LocalStorage) -> None:
    running(store, "live")
    page.goto(f"{site}#/jobs/live")
    expect(page.locator(".running h2")).to_have_text("segments")
    store.delete([one.key for one in store.list("jobs/live/")])
    expect(page.get_by_role("alert")).to_contain_text("ObjectNotFoundError")


def test_timelines_say_when_they_were_written_and_what_is_wrong_with_them(
    page: Page, site: str, store: LocalStorage
) -> None:
    FrameCache(store).cache_frames("reel", make_frames(3))
    store.put(keys.timeline_manifest("broken-one"), b"{}")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}#/timelines")
    expect(page.get_by_role("row").filter(has_text="reel").locator("td").last).to_have_text(re.compile("now|ago"))
    name = page.get_by_role("link", name="broken-one")
    assert name.evaluate("(one) => one.getClientRects().length") == 1, "on one line"


# --- a timeline --------------------------------------------------------------------------------------


def test_that_a_timeline_is_being_checked_is_said(page: Page, site: str, store: LocalStorage, tmp_path: Path) -> None:
    long_timeline(store, tmp_path, "film", 10_000)
    with held(page, "**/damaged"):
        page.goto(f"{site}#/timelines/film")
        expect(page.get_by_text("checking 10,000 frames…")).to_be_visible()
        expect(page.locator(".cell.there img").first).to_be_visible()
    expect(page.get_by_text("all whole")).to_be_visible()
    store.delete([keys.timeline_frame("film", 9_999)])
    page.reload()
    expect(page.locator(".facts")).to_contain_text("1 damaged")


@pytest.mark.parametrize("asked", ["**/damaged", "**/overlays/jobs"])
def test_frames_stay_where_something_else_about_them_fails(
    page: Page, site: str, store: LocalStorage, asked: str
) -> None:
    FrameCache(store).cache_frames("reel", make_frames(9))
    with held(page, asked, status=500):
        page.goto(f"{site}#/timelines/reel")
        expect(page.locator("main")).to_contain_text("later")
    expect(page.locator(".cell.there img")).to_have_count(9)


def test_the_pictures_chosen_last_are_shown(page: Page, made_site: str) -> None:
    page.goto(f"{made_site}#/timelines/reel")
    expect(page.locator(".cell.there").first).to_be_visible()
    what = page.get_by_label("Pictures", exact=True)
    with held(page, "**/overlays?*") as waiting:
        what.select_option(label="guidance of walk-1")
        page.wait_for_timeout(200)
        assert waiting
        what.select_option(label="Frames")
        expect(page.locator("#cell-1")).to_have_attribute("title", re.compile(r"frame 1, 0\.040 s"))
    page.wait_for_load_state("networkidle")
    expect(page.locator("#cell-1")).to_have_attribute("title", re.compile(r"frame 1, 0\.040 s"))


def test_a_chosen_segment_is_not_taken_back_by_the_check(page: Page, made_site: str) -> None:
    with held(page, "**/damaged"):
        page.goto(f"{made_site}#/timelines/reel")
        page.get_by_label("Pictures", exact=True).select_option(label="guidance of walk-1")
        segment = page.get_by_label("Segment", exact=True)
        segment.select_option(label="segment 1")
    expect(page.get_by_text("all whole")).to_be_visible()
    page.wait_for_load_state("networkidle")
    expect(segment).to_have_value("segment001")


def test_a_question_goes_with_its_view(page: Page, site: str, store: LocalStorage) -> None:
    FrameCache(store).cache_frames("reel", make_frames(3))
    page.goto(f"{site}#/timelines")
    page.get_by_role("link", name="reel").click()
    page.get_by_role("button", name="Clear…").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.locator("h1")).to_have_text("Timelines")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(list(store.list("cache/timelines/reel/"))) == 4


def test_enter_in_a_field_says_yes_to_its_question(page: Page, site: str, store: LocalStorage, tmp_path: Path) -> None:
    chunk = write_clip(tmp_path / "chunk.mp4", pan_frames(5, 96, 160, dx=2, dy=0), fps=25)
    store.put_file("timelines/old/chunks/000.mp4", chunk)
    FrameCache(store).cache_frames("old", make_frames(3))
    page.goto(f"{site}#/timelines/old")
    page.get_by_role("button", name="Rebuild…").click()
    page.get_by_label("JPEG quality").fill("55")
    page.get_by_label("JPEG quality").press("Enter")
    expect(page.locator(".facts")).to_contain_text("5 frames", timeout=60_000)
    page.get_by_role("button", name="Clear…").click()
    page.get_by_label("Overlays of all jobs too").press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert store.exists(keys.timeline_manifest("old")), "what takes away is never the default"


# --- what a browser remembers ------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["junk", "null", "7", "{}"])
def test_junk_in_what_the_browser_remembers(page: Page, watched: Watched, made_site: str, kept: str) -> None:
    page.add_init_script(f"localStorage.setItem('panes-off', {kept!r}); localStorage.setItem('theme', {kept!r})")
    page.goto(f"{made_site}#/jobs/walk-1")
    expect(page.locator("[data-pane=guide]")).to_have_attribute("data-shown", "0")
    assert watched.errors == []


def test_a_browser_that_remembers_nothing(page: Page, watched: Watched, made_site: str) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    page.goto(f"{made_site}#/jobs/walk-1")
    expect(page.locator("[data-pane=guide]")).to_have_attribute("data-shown", "0")
    page.get_by_label("Light or dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Mask", exact=True).click()
    expect(page.locator("[data-pane=mask]")).to_have_count(0)
    assert watched.errors == []


# --- a new job ---------------------------------------------------------------------------------------


def still(folder: Path) -> Path:
    path = folder / "still.png"
    path.write_bytes(png(texture(96, 160, seed=1)))
    return path


@pytest.fixture
def sending(store: LocalStorage) -> Iterator[str]:
    with serving(store, sent=lambda _: None) as url:
        yield url


@pytest.mark.parametrize("name", ["", "my walk", "../x", "ä"])
def test_a_bad_name_can_be_mended_after_a_file_was_chosen(
    page: Page, sending: str, store: LocalStorage, tmp_path: Path, name: str
) -> None:
    page.goto(f"{sending}#/new")
    field = page.locator("#job-id")
    field.fill(name)
    picker = page.locator("input[type=file][accept='image/*']")
    picker.set_input_files(still(tmp_path))
    expect(page.get_by_role("alert")).to_contain_text("name")
    expect(field).to_be_editable()
    field.fill("walk")
    picker.set_input_files(still(tmp_path))
    expect(page.locator(".pin")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(field).not_to_be_editable()
    expect(page.locator(".pin progress")).to_have_count(0)
    assert [one.key.rsplit("/", 1)[0] for one in store.list("jobs/")] == ["jobs/walk/inputs"]


def test_an_upload_that_breaks_off_is_said_and_can_be_sent_again(
    page: Page, sending: str, store: LocalStorage, tmp_path: Path
) -> None:
    page.goto(f"{sending}#/new")
    page.locator("#job-id").fill("walk")
    picker = page.locator("input[type=file][accept='image/*']")
    with away(page, "**/objects/**"):
        picker.set_input_files(still(tmp_path))
        expect(page.get_by_role("alert")).to_contain_text("still.png could not be sent")
    expect(page.locator(".pin")).to_have_count(0)
    picker.set_input_files(still(tmp_path))
    expect(page.locator(".pin")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_more_segments_than_there_may_be_are_not_drawn(page: Page, sending: str) -> None:
    page.goto(f"{sending}#/new")
    field = page.get_by_label("Segments")
    field.fill("100000000")
    expect(field).to_have_value("2000")
    expect(page.locator(".pin-segment")).to_have_count(2000)
    field.fill("2.6")
    expect(page.locator(".pin-segment")).to_have_count(3)
