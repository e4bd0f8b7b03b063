"""A new job on the page: files are sent, images are placed, the request is checked as it is made, and it runs."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from structureflow import keys
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from structureflow.testing.jobs import JobRunner, png
from structureflow.testing.videos import pan_frames, texture, write_clip
from tests.browser.sites import difference, pixels, serving


@pytest.fixture
def studio(store: LocalStorage, tmp_path: Path) -> Iterator[str]:
    """The page over a store whose jobs are carried out."""
    threads: list[threading.Thread] = []

    def work(task_id: str) -> None:
        runner = JobRunner(store, tmp_path)
        if runner.orchestrate(task_id).state == "running":
            runner.segments(task_id)

    def sent(task_id: str) -> None:
        threads.append(threading.Thread(target=work, args=(task_id,)))
        threads[-1].start()

    with serving(store, sent=sent) as url:
        yield url
        for thread in threads:
            thread.join()


def open_new(page: Page, site: str, task_id: str) -> None:
    """Open the view and choose short segments for no generator in particular."""
    page.goto(f"{site}#/new")
    page.locator("#job-id").fill(task_id)
    page.get_by_label("Generator").select_option("")
    page.get_by_label("Frames a segment").fill("17")
    page.get_by_label("Hold the first image").fill("3")
    page.get_by_label("Hold the last image").fill("2")


def add_video(page: Page, folder: Path) -> None:
    clip = write_clip(folder / "my walk.mp4", pan_frames(20, 96, 160, dx=2, dy=0), 25)
    page.locator("input[type=file][accept='video/*']").set_input_files(clip)


def add_images(page: Page, folder: Path, count: int) -> None:
    files = []
    for seed in range(count):
        files.append(folder / f"still {seed} <b>.png")
        files[-1].write_bytes(png(texture(96, 160, seed=seed)))
    page.locator("input[type=file][accept='image/*']").set_input_files(files)
    expect(page.locator(".pin")).to_have_count(count)


def request(store: LocalStorage, task_id: str) -> Any:
    return json.loads(store.get(keys.job_request(task_id)).data)


def test_a_job_is_made_and_sent_and_runs(
    page: Page, watched: Watched, studio: str, store: LocalStorage, tmp_path: Path
) -> None:
    open_new(page, studio, "mine")
    expect(page.locator(".verdict")).to_contain_text("A job needs a structure video.")
    add_video(page, tmp_path)
    expect(page.locator(".verdict")).to_contain_text("A job needs an image.")
    add_images(page, tmp_path, 3)
    expect(page.locator(".verdict")).to_contain_text(re.compile(r"Ready. 2 segments · on AWS about \d.* s and \$0\.0"))
    expect(page.get_by_label("Segments")).to_have_value("2")
    assert page.locator(".pins .filled").count() == 2
    assert Axe().run(page).violations_count == 0
    page.get_by_role("button", name="Send the job").click()
    expect(page).to_have_url(re.compile("#/jobs/mine"))
    expect(page.locator('[data-pane="guide"]')).to_be_visible(timeout=120_000)
    sent = request(store, "mine")
    assert [
        len(sent[name]) if name == "images" else sent[name] for name in ("images", "frames", "overlap", "hold")
    ] == [
        3,
        17,
        3,
        2,
    ]
    assert store.get(sent["structure_video"]).data == (tmp_path / "my walk.mp4").read_bytes()
    assert store.get(sent["images"][2]).data == (tmp_path / "still 2 <b>.png").read_bytes()
    assert watched.foreign(studio) == []
    assert watched.errors == []


def test_a_gap_is_seen_before_anything_is_sent(
    page: Page, watched: Watched, studio: str, store: LocalStorage, tmp_path: Path
) -> None:
    open_new(page, studio, "seen")
    add_video(page, tmp_path)
    add_images(page, tmp_path, 2)
    page.get_by_role("button", name="Preview a gap").click()
    preview = page.get_by_label("Preview", exact=True)
    expect(preview.locator("h2")).to_have_text("Segment 0, frames 3–14", timeout=120_000)
    guide = preview.locator('[data-pane="guide"]')
    expect(guide).to_have_attribute("data-shown", "0")
    first = pixels(page, "guide")
    assert first.std() > 10
    preview.get_by_role("slider").press("End")
    expect(guide).to_have_attribute("data-shown", "11")
    assert difference(first, pixels(page, "guide")) > 3
    assert set(np.unique(pixels(page, "mask") // 64)) <= {0, 3}
    assert not store.exists(keys.job_request("seen"))
    assert watched.errors == []


def test_an_image_is_moved_by_keys_and_mouse_and_taken_away(
    page: Page, studio: str, store: LocalStorage, tmp_path: Path
) -> None:
    open_new(page, studio, "moved")
    add_video(page, tmp_path)
    add_images(page, tmp_path, 3)
    pins = page.locator(".pin")
    assert [pin.get_attribute("aria-valuetext") for pin in pins.all()] == [
        "start of segment 0",
        "end of segment 0, start of segment 1",
        "end of segment 1",
    ]
    pins.nth(1).press("Shift+ArrowLeft")
    expect(pins.nth(1)).to_have_attribute("aria-valuetext", "segment 0, frame 7")
    expect(pins.nth(1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(pins.nth(1)).to_have_attribute("aria-valuetext", "segment 0, frame 8")
    box = page.locator(".pins").bounding_box()
    last = pins.nth(2).bounding_box()
    assert box is not None
    assert last is not None
    page.mouse.move(last["x"] + last["width"] / 2, last["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 27 / 34, box["y"] + 20, steps=4)
    page.mouse.up()
    expect(pins.nth(2)).to_have_attribute("aria-valuetext", "segment 1, frame 10")
    expect(page.locator(".verdict")).to_contain_text("Ready. 2 segments")
    page.get_by_role("button", name="Send the job").click()
    expect(page).to_have_url(re.compile("#/jobs/moved"))
    one, other = request(store, "moved")["segments"]
    assert [guide["at"] for guide in one["guides"]] == [[0, 2], 8]
    assert [guide["at"] for guide in other["guides"]] == [10]
    page.go_back()
    expect(page.locator(".pin")).to_have_count(0)


def test_what_is_amiss_is_said_and_not_sent(page: Page, studio: str, store: LocalStorage, tmp_path: Path) -> None:
    open_new(page, studio, "amiss")
    add_video(page, tmp_path)
    add_images(page, tmp_path, 2)
    expect(page.locator(".verdict")).to_contain_text("Ready.")
    page.get_by_label("Hold the first image").fill("30")
    expect(page.locator(".verdict .problem")).to_contain_text("got 17")
    expect(page.get_by_role("button", name="Send the job")).to_be_disabled()
    page.locator(".pin").nth(1).press("Delete")
    expect(page.locator(".pin")).to_have_count(1)
    assert not store.exists(keys.job_request("amiss"))


def test_a_store_that_is_only_shown_says_so(page: Page, site: str, tmp_path: Path) -> None:
    open_new(page, site, "shown")
    expect(page.get_by_text("nothing here carries jobs out")).to_be_visible()
    add_video(page, tmp_path)
    add_images(page, tmp_path, 2)
    expect(page.locator(".verdict")).to_contain_text("Ready.")
    expect(page.get_by_role("button", name="Send the job")).to_be_disabled()


def test_files_that_were_sent_can_be_taken_again(page: Page, studio: str, store: LocalStorage, tmp_path: Path) -> None:
    store.put(keys.job_input("before", "0a1b2c3d_tree.png"), png(texture(96, 160)))
    open_new(page, studio, "again")
    page.get_by_role("button", name="Pick from the store…").nth(1).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("A image").select_option("jobs/before/inputs/0a1b2c3d_tree.png")
    dialog.get_by_role("button", name="Take it").click()
    expect(page.locator(".pin")).to_have_count(1)
    decoded = "async (image) => { await image.decode(); return image.naturalWidth; }"
    assert page.locator(".pin img").evaluate(decoded) == 160


def test_a_file_that_is_not_taken_is_said_and_the_rest_stays(page: Page, studio: str, tmp_path: Path) -> None:
    open_new(page, studio, "refused")
    odd = tmp_path / "notes.txt"
    odd.write_text("no video")
    page.locator("input[type=file][accept='video/*']").set_input_files(odd)
    expect(page.get_by_role("alert")).to_contain_text("InvalidRequestError")
    expect(page.locator(".verdict")).to_contain_text("A job needs a structure video.")
    add_video(page, tmp_path)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".verdict")).to_contain_text("A job needs an image.")
