"""Frames out of videos, in the browser: every one, the right one, whichever way the browser has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from structureflow.storage.local import LocalStorage
from structureflow.testing.videos import Image, write_clip

FPS = 16
COUNT = 40

#: Loads a video by the page's own modules, and returns the mean grey of every frame, and how it was loaded.
READ = """async ([url, size, count, fps, without]) => {
  if (without) delete globalThis.VideoDecoder;
  const { VideoFrames } = await import("/page/frames.js");
  const leave = new AbortController();
  const source = new VideoFrames({ url, size_bytes: size, name: url }, count, fps, leave.signal);
  const until = performance.now() + 20000;
  const under = () => source.loaded < count && !source.error && performance.now() < until;
  while (under()) await new Promise((go) => setTimeout(go, 20));
  const context = new OffscreenCanvas(8, 8).getContext("2d");
  const greys = source.pictures.map((picture) => {
    if (!picture) return null;
    context.drawImage(picture, 0, 0, 8, 8);
    const { data } = context.getImageData(0, 0, 8, 8);
    return data.filter((_, at) => at % 4 === 1).reduce((sum, one) => sum + one, 0) / 64;
  });
  const whole = source.whole ? await source.whole(7, leave.signal) : null;
  const width = source.pictures[0]?.width;
  leave.abort();
  return { greys, way: source.way, error: source.error && source.error.message, whole: whole && whole.width, width };
}"""


def counted(height: int, width: int) -> Iterator[Image]:
    """Pictures whose grey says their number: 40, 44, 48, …"""
    for number in range(COUNT):
        yield np.full((height, width, 3), 40 + 4 * number, np.uint8)


def read(page: Page, site: str, store: LocalStorage, key: str, *, without_decoder: bool = False) -> Any:
    page.goto(f"{site}#/jobs")
    size = store.head(key).size_bytes
    return page.evaluate(READ, [f"/objects/{key}", size, COUNT, FPS, without_decoder])


@pytest.mark.parametrize("without_decoder", [False, True], ids=["decoded", "sought"])
@pytest.mark.parametrize(
    ("preset", "gop"), [("veryfast", 12), ("ultrafast", 250)], ids=["B frames, short groups", "one group"]
)
def test_every_frame_is_the_one_of_its_number(
    page: Page, site: str, store: LocalStorage, tmp_path: Path, preset: str, gop: int, without_decoder: bool
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", counted(96, 160), FPS, preset=preset, gop=gop)
    store.put("jobs/clips/clip.mp4", clip.read_bytes())
    found = read(page, site, store, "jobs/clips/clip.mp4", without_decoder=without_decoder)
    assert found["error"] is None
    assert found["way"] == ("sought" if without_decoder else "decoded")
    assert found["greys"] == pytest.approx([40 + 4 * number for number in range(COUNT)], abs=1.9)


def test_what_is_kept_is_bounded_and_a_frame_at_rest_is_whole(
    page: Page, site: str, store: LocalStorage, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", counted(1072, 1920), FPS, preset="ultrafast", gop=250)
    store.put("jobs/clips/large.mp4", clip.read_bytes())
    found = read(page, site, store, "jobs/clips/large.mp4")
    assert found["greys"] == pytest.approx([40 + 4 * number for number in range(COUNT)], abs=1.9)
    assert 300 <= found["width"] <= 1280
    assert found["whole"] == 1920


def test_a_file_that_is_no_video_is_an_error_and_no_endless_wait(page: Page, site: str, store: LocalStorage) -> None:
    store.put("jobs/clips/none.mp4", b"\x00\x00\x00\x18ftypisom" + b"no video " * 100)
    found = read(page, site, store, "jobs/clips/none.mp4")
    assert "can't be played" in found["error"]


@pytest.mark.parametrize("cut", [40, 400, 1200, 3000])
def test_a_file_that_is_cut_off_is_an_error_and_no_wrong_picture(
    page: Page, site: str, store: LocalStorage, tmp_path: Path, cut: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", counted(96, 160), FPS)
    store.put("jobs/clips/cut.mp4", clip.read_bytes()[:-cut])
    found = read(page, site, store, "jobs/clips/cut.mp4")
    for number, grey in enumerate(found["greys"]):
        assert grey is None or grey == pytest.approx(40 + 4 * number, abs=1.9)
    assert found["error"] is not None
