"""No function begins what its memory cannot hold: estimates are on the safe side of what is measured, and refuse."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import MemoryLimitError
from structureflow.jobs.estimate import EXTRA_MB_PER_MPX, extraction_mb, segment_mb
from structureflow.jobs.rebuild_timeline import RebuildTimelineInput, rebuild_timeline
from structureflow.limits import MEMORY_SHARE
from structureflow.media.decode import VideoInfo
from structureflow.models.job import JobRequest
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture

HEIGHT, WIDTH = 360, 640
DOCUMENT: dict[str, Any] = {
    "task_id": "t",
    "structure_video": "v.mp4",
    "quality": "best",
    "anchors": "both",
    "segments": [{"frames": 20, "guides": [{"at": 0, "image": "a.png"}, {"at": 19, "image": "b.png"}]}],
}
#: Everything that may be asked for but prompts, which need text.
OUTPUTS = [name for name in EXTRA_MB_PER_MPX if name != "ttm"]
OVERLAYS = ["flow", "warp", "visibility", "guidance", "path"]

CHILD = """
import sys
from pathlib import Path
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner

root = Path(sys.argv[1])
runner = JobRunner(LocalStorage(root), root / "scratch")
if sys.argv[2] == "extract":
    assert runner.orchestrate("t").state == "running"
else:
    plan = runner.plan("t")
    render_segment(RenderSegmentInput(task_id="t", run_id=plan.run_id, index=0), runner.services)
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000)
"""


def prepare(root: Path, document: dict[str, Any]) -> None:
    store = LocalStorage(root)
    (root / "scratch").mkdir(exist_ok=True)
    put_pan_clip(store, "v.mp4", root, frames=7, height=HEIGHT, width=WIDTH)
    for name, seed in (("a", 1), ("b", 2)):
        store.put(f"{name}.png", png(texture(HEIGHT, WIDTH, seed=seed)))
    store.put(keys.job_request("t"), json.dumps(document).encode())


def peak_mb(root: Path, work: str) -> float:
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(root), work]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
@pytest.mark.parametrize(
    "extra", [{}, {"outputs": OUTPUTS}, {"overlays": OVERLAYS}], ids=["plain", "outputs", "overlays"]
)
def test_what_work_takes_is_below_what_was_estimated(tmp_path: Path, extra: dict[str, Any]) -> None:
    document = DOCUMENT | extra
    prepare(tmp_path, document)
    extracted = peak_mb(tmp_path, "extract")
    assert extracted < extraction_mb(VideoInfo(7, 25.0, WIDTH, HEIGHT, 0.3))
    rendered = peak_mb(tmp_path, "render")
    request = JobRequest.parse(document)
    assert rendered < segment_mb(request, WIDTH, HEIGHT) < 3 * rendered


def with_memory(runner: JobRunner, memory_mb: int) -> JobRunner:
    runner.services = dataclasses.replace(runner.services, memory_mb=memory_mb)
    return runner


def test_a_segment_beyond_the_memory_is_refused_before_any_work(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    status = with_memory(runner, 512).segments("t1")
    assert status.error is not None
    assert status.error.code == "MemoryLimitError"
    assert status.error.message.startswith("segment 0: rendering 160x96 pixels needs about")
    assert "the function has 512 MB, of which 307 may be counted on" in status.error.message


def test_a_video_beyond_the_memory_is_refused_before_it_is_extracted(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    status = with_memory(runner, 256).run("t1", request_document)
    assert status.error is not None
    assert status.error.code == "MemoryLimitError"
    assert runner.keys("cache/") == []
    runner.storage.copy("videos/pan.mp4", f"{keys.timeline_chunks_prefix('reel')}000.mp4")
    with pytest.raises(MemoryLimitError, match="caching 160x96"):
        rebuild_timeline(RebuildTimelineInput(timeline_id="reel"), runner.services)


def test_a_video_larger_than_any_output_needs_a_resolution(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """Before, its own size was taken, four times what a request may ask for."""
    put_pan_clip(runner.storage, "videos/wide.mp4", tmp_path, frames=3, height=64, width=4160)
    document = request_document | {"structure_video": "videos/wide.mp4"}
    status = runner.run("t1", document)
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"
    assert "resolution: expected one of at most 4096 pixels a side, for the structure video has 4160x64" in (
        status.error.message
    )
    assert runner.keys("cache/") == []
    assert runner.run("t1", document | {"resolution": [160, 96]}).state == "done"


@pytest.mark.parametrize(
    ("memory_mb", "resolution", "fits"),
    [(1769, "1920x1080", True), (1769, "3840x2160", False), (3008, "3840x2160", True), (3008, "4096x4096", False)],
)
def test_what_fits_into_which_memory(memory_mb: int, resolution: str, fits: bool) -> None:
    request = JobRequest.parse(DOCUMENT | {"resolution": resolution})
    width, height = request.resolution or (0, 0)
    assert (segment_mb(request, width, height) <= MEMORY_SHARE * memory_mb) is fits
