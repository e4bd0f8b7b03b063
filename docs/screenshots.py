"""Take the pictures of the web page that README and docs show: ``python docs/screenshots.py`` (needs Chromium).

A real job on the sample clip is run into a folder, the page is served over it, and headless Chromium looks at it.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser

from structureflow.media.decode import VideoReader
from structureflow.storage.base import Storage
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import chromium, open_browser
from structureflow.testing.jobs import JobRunner, png
from structureflow_local.page_server import page_server
from structureflow_local.sample import make_sample

HERE = Path(__file__).parent
QUALITY = 86
#: Name, address, what is there when it is whole, width and height of the screen.
PICTURES = (
    ("page-job.webp", "#/jobs/evening-1?segment=0&frame=47", "[data-pane=structure][data-shown='47']", (1400, 860)),
    (
        "page-compare.webp",
        "#/jobs/evening-1?segment=0&frame=47&with=evening-2",
        "[data-pane=mask][data-both='47']",
        (1400, 860),
    ),
    ("page-timeline.webp", "#/timelines/evening", "#cell-50.there", (1400, 860)),
    ("page-phone.webp", "#/jobs/evening-1?segment=0&frame=47", "[data-pane=structure][data-shown='47']", (390, 844)),
)


def main() -> int:
    """Run the jobs and take the pictures."""
    executable = chromium()
    if executable is None:
        sys.stderr.write("there is no Chromium here: make chromium\n")
        return 1
    with TemporaryDirectory() as scratch:
        storage = make_jobs(Path(scratch))
        with serving(storage) as url, open_browser(executable) as browser:
            for name, where, sign, size in PICTURES:
                (HERE / name).write_bytes(picture(browser, url + where, sign, size))
    return 0


def make_jobs(folder: Path) -> LocalStorage:
    """Run two jobs on the sample clip into a store, between three of its own frames."""
    storage = LocalStorage(folder / "store")
    make_sample(folder / "sample.mp4")
    storage.put("videos/sample.mp4", (folder / "sample.mp4").read_bytes())
    with VideoReader(folder / "sample.mp4") as reader:
        for frame in reader:
            if frame.index in (0, 48, 96):
                storage.put(f"images/{frame.index}.png", png(frame.image))
    document = {
        "structure_video": "videos/sample.mp4",
        "timeline_id": "evening",
        "images": ["images/0.png", "images/48.png", "images/96.png"],
        "target": "vace",
        "outputs": ["flow_vis", "visibility"],
    }
    runner = JobRunner(storage, folder)
    runner.run("evening-1", {**document, "task_id": "evening-1", "overlays": ["path"]})
    runner.run("evening-2", {**document, "task_id": "evening-2", "mask": "filled", "tracking": "composed"})
    return storage


@contextmanager
def serving(storage: Storage) -> Iterator[str]:
    """Serve the page over a store; the address ends in a slash."""
    server = page_server(storage, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def picture(browser: Browser, address: str, sign: str, size: tuple[int, int]) -> bytes:
    """Open a view in dark, wait until it is whole, and return what it looks like, as WebP."""
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark")
    try:
        page.goto(address)
        page.locator(sign).first.wait_for(timeout=120_000)
        page.locator(".loaded").wait_for(state="hidden", timeout=120_000)
        page.wait_for_load_state("networkidle", timeout=120_000)
        shown = Image.open(io.BytesIO(page.screenshot()))
    finally:
        page.close()
    packed = io.BytesIO()
    shown.convert("RGB").save(packed, "WEBP", quality=QUALITY, method=6)
    return packed.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
