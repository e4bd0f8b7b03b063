"""The page as it is served, over stores with real jobs; and plain ways to look at what it shows."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page

from structureflow import keys
from structureflow.frames.cache import FrameCache
from structureflow.storage.base import Storage
from structureflow.storage.local import LocalStorage
from structureflow.testing.frames import lengthened, make_frames
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import decode_rgb, texture
from structureflow_local.page_server import page_server

HEIGHT, WIDTH = 96, 160
FRAMES = 33


@contextmanager
def serving(storage: Storage, *, sent: Callable[[str], None] | None = None) -> Iterator[str]:
    """Serve the page over a store; the address ends in a slash. `sent` carries out the jobs that it sends."""
    server = page_server(storage, 0, sent=sent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def job_document(task_id: str, **more: Any) -> dict[str, Any]:
    """Return a request of two segments between three images."""
    return {
        "task_id": task_id,
        "structure_video": "videos/pan.mp4",
        "timeline_id": "reel",
        "images": [f"images/{seed}.png" for seed in range(3)],
        "frames": FRAMES,
        "overlap": 5,
        "hold": 4,
        **more,
    }


def put_inputs(storage: Storage, folder: Path) -> None:
    """Put a pan and three images."""
    put_pan_clip(storage, "videos/pan.mp4", folder, frames=40, height=HEIGHT, width=WIDTH)
    for seed in range(3):
        storage.put(f"images/{seed}.png", png(texture(HEIGHT, WIDTH, seed=seed)))


def make_jobs(folder: Path) -> LocalStorage:
    """Return a store with two jobs that are done and one that failed."""
    (folder / "store").mkdir()
    storage = LocalStorage(folder / "store")
    put_inputs(storage, folder)
    runner = JobRunner(storage, folder)
    first = job_document("walk-1", outputs=["flow_vis", "visibility"], overlays=["path", "guidance"])
    assert runner.run("walk-1", first).state == "done"
    second = job_document("walk-2", outputs=["flow_vis", "visibility"], tracking="composed", mask="filled")
    assert runner.run("walk-2", second).state == "done"
    assert runner.run("lost", job_document("lost", images=["images/0.png", "images/none.png"])).state == "failed"
    return storage


def video(storage: Storage, key: str, folder: Path) -> NDArray[np.uint8]:
    """Decode a stored video by another decoder than the browser's: ``(T, H, W, 3)`` uint8 RGB."""
    path = folder / "looked_at.mp4"
    path.write_bytes(storage.get(key).data)
    return np.stack(list(decode_rgb(path)))


def pixels(page: Page, pane: str) -> NDArray[np.uint8]:
    """Return what a pane's canvas shows: ``(H, W, 3)`` uint8 RGB."""
    found = page.evaluate(
        """(pane) => {
          const canvas = document.querySelector(`[data-pane="${pane}"] canvas`);
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          return { width, height, data: Array.from(data) };
        }""",
        pane,
    )
    rgba = np.array(found["data"], np.uint8).reshape(found["height"], found["width"], 4)
    return rgba[..., :3]


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of two pictures, in levels."""
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def nearest(shown: NDArray[np.uint8], frames: NDArray[np.uint8]) -> int:
    """Return which of some frames a picture is most alike."""
    return int(np.argmin([difference(shown, frame) for frame in frames]))


def long_timeline(storage: LocalStorage, folder: Path, timeline_id: str, frames: int) -> None:
    """Put a timeline of so many frames that writing them one by one would take minutes.

    Forty are cached as always. The others are links to their files, which have the same time and so the same ETag.
    """
    FrameCache(storage).cache_frames(timeline_id, make_frames(40, per_chunk=1000))
    path = folder / "store" / keys.timeline_manifest(timeline_id)
    manifest = json.loads(path.read_bytes())
    names = path.parent / "frames"
    for number in range(40, frames):
        os.link(names / f"{number % 40:06d}.jpg", names / f"{number:06d}.jpg")
    storage.put(keys.timeline_manifest(timeline_id), json.dumps(lengthened(manifest, frames)).encode())
