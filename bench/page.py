"""The web page over the local cloud: the first picture of a timeline of 10,000 frames, and scrubbing through a job.

Real Chromium, real HTTP, moto's S3. Frames are written in the size of the usual structure video, so that pictures are
neither smaller nor larger than what users have.
"""

from __future__ import annotations

import json
import statistics
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from playwright.sync_api import Browser, Page

from bench.harness import Context, Row
from structureflow import keys
from structureflow.frames.cache import Frame, FrameCache
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.storage.base import Storage
from structureflow.testing.browser import chromium, open_browser
from structureflow.testing.frames import lengthened
from structureflow.testing.jobs import png
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import TEMPLATE, bucket_of, serving_page

FRAMES: Final = 10_000
ROUNDS: Final = 7
_JOB_FRAMES: Final = 73
_WIDTH, _HEIGHT = 640, 360
#: Milliseconds from the beginning of the navigation until the first picture of the grid is decoded and painted.
_FIRST_PICTURE: Final = """() => new Promise((done) => {
  const look = () => {
    const picture = document.querySelector(".cell.there img");
    if (picture?.complete && picture.naturalWidth) {
      picture.decode().then(() => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))));
    } else requestAnimationFrame(look);
  };
  look();
})"""
#: Frames a second while the right arrow is held: the next key comes once every pane shows the frame before it.
_SCRUB: Final = """async (frames) => {
  const names = ["guide", "mask", "flow_vis", "visibility"];
  const panes = names.map((name) => document.querySelector(`[data-pane="${name}"]`));
  const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const painted = () => new Promise((done) => requestAnimationFrame(done));
  key("Home");
  for (let waited = 0; waited < 600 && panes.some((pane) => pane.dataset.shown !== "0"); waited++) await painted();
  const begin = performance.now();
  for (let frame = 1; frame < frames; frame++) {
    key("ArrowRight");
    let waited = 0;
    do {
      await painted();
      if (waited++ > 600) throw new Error(`frame ${frame} is not shown by all panes`);
    } while (panes.some((pane) => pane.dataset.shown !== String(frame)));
  }
  return 1000 * (frames - 1) / (performance.now() - begin);
}"""


def rows(context: Context) -> list[Row]:
    """Measure both on one local cloud."""
    executable = chromium()
    if executable is None:
        raise SystemExit("there is no Chromium on this machine: `make chromium` installs Debian's")
    rounds = 1 if context.quick else ROUNDS
    with (
        LocalCloud(TEMPLATE) as cloud,
        serving_page(cloud) as site,
        open_browser(executable) as browser,
    ):
        storage = bucket_of(cloud)
        _put_timeline(storage, context.clip)
        first_s = [_first_picture_s(browser, site) for _ in range(rounds + 1)][1:]
        _run_job(storage, context.clip)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{site}#/jobs/walk")
        page.locator(".track").wait_for(timeout=60_000)
        page.locator(".loaded").wait_for(state="hidden", timeout=60_000)
        # the first time through fills what the page keeps
        rates = [_scrub(page) for _ in range(rounds + 1)][1:]
    return [
        Row(
            "page",
            "first picture of a timeline of 10,000 frames, local cloud",
            "s",
            None,
            statistics.median(first_s),
            note=f"slowest of {len(first_s)}: {max(first_s):.2f} s; at most 1 s is asked for",
        ),
        Row(
            "page",
            f"scrubbing through {_JOB_FRAMES} frames, six pictures in step",
            "frames/s",
            None,
            statistics.median(rates),
            note=f"slowest of {len(rates)}: {min(rates):.0f}; at least 30 is asked for",
        ),
    ]


def _put_timeline(storage: Storage, clip: Path) -> None:
    """Put 10,000 frames: forty of the clip as always, the others copies of them."""
    with VideoReader(clip, DecodeLimits()) as reader:
        pictures = [
            cv2.resize(np.asarray(frame.image), (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
            for frame in islice(reader, 40)
        ]
    frames = [Frame(number, "clip", number / 25, np.asarray(image)) for number, image in enumerate(pictures)]
    FrameCache(storage).cache_frames("film", frames)
    manifest_key = keys.timeline_manifest("film")
    manifest = json.loads(storage.get(manifest_key).data)
    folder = manifest_key.rpartition("/")[0]
    files = [storage.get(f"{folder}/frames/{number:06d}.jpg").data for number in range(40)]
    etags = [storage.put(f"{folder}/frames/{number:06d}.jpg", files[number % 40]).etag for number in range(40, FRAMES)]
    assert set(etags) <= set(manifest["frames"]["etag"]), "a copy has the ETag of what it is a copy of"
    storage.put(manifest_key, json.dumps(lengthened(manifest, FRAMES)).encode())


def _run_job(storage: Storage, clip: Path) -> None:
    storage.put_file("videos/clip.mp4", clip)
    with VideoReader(clip, DecodeLimits()) as reader:
        picture = png(next(iter(reader)).image)
    storage.put("images/a.png", picture)
    request = {
        "task_id": "walk",
        "structure_video": "videos/clip.mp4",
        "images": ["images/a.png", "images/a.png"],
        "frames": _JOB_FRAMES,
        "outputs": ["flow_vis", "visibility"],
        "overlays": ["path"],
    }
    client = JobClient(storage)
    client.submit(PreparedJob("walk", json.dumps(request).encode(), {}))
    status = client.wait("walk", timeout_s=300)
    if status.state != "done":
        raise SystemExit(f"the job ended as {status.state}: {status.error}")


def _first_picture_s(browser: Browser, site: str) -> float:
    """Open the timeline in a browser that has nothing of it yet."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    try:
        page.goto(f"{site}#/timelines/film", wait_until="commit")
        seconds = float(page.evaluate(_FIRST_PICTURE)) / 1000
        # else what this one still asks for is in the way of the next
        page.wait_for_load_state("networkidle")
        return seconds
    finally:
        page.context.close()


def _scrub(page: Page) -> float:
    return float(page.evaluate(_SCRUB, _JOB_FRAMES))
