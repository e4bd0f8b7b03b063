"""One segment of 73 frames at 720p in one pass, against x264 alone on the same frames; in this process, no network."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.flow import _clip, _decode
from bench.harness import Context, Row
from structureflow.guide.pictures import PLANES
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.jobs.documents import load_record
from structureflow.jobs.flow_sources import SegmentFlows
from structureflow.jobs.guides import FittedGuides
from structureflow.jobs.render_segment import RenderSegmentInput
from structureflow.jobs.render_segment import render_segment as step
from structureflow.media.encode import encode_h264
from structureflow.media.planes import Planes
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner, png

HEIGHT, WIDTH, FPS = 720, 1280, 16
FRAMES, HELD, ENDING = 73, 20, 10
GAP = FRAMES - HELD - ENDING
LIMITS = {"start": 1.5, "both": 1.9}


def rows(context: Context) -> list[Row]:
    """Measure the step whole: flows read, guides decoded, 43 frames filled, guide and mask encoded and stored."""
    frames = _decode(context.clip, GAP + 2)
    clip = _clip(context.folder / "clip.mp4", frames, GAP + 2)
    found = []
    for anchors, limit in LIMITS.items():
        job = _Job(context.folder / anchors, clip, frames, anchors)
        times = context.compare({"x264": job.encode_alone, "step": job.run}, rounds=9)
        found.append(
            Row(
                "segment",
                f"73 frames at 720p, anchors {anchors}, whole step against x264 alone",
                "s",
                times["x264"],
                times["step"],
                target=round(1 / limit, 4),
                note=f"at most {limit} times x264 alone; {times['step'] / times['x264']:.2f} times",
            )
        )
    return found


class _Job:
    """A job of one segment whose flows are there."""

    def __init__(self, folder: Path, clip: Path, frames: list[NDArray[np.uint8]], anchors: str) -> None:
        folder.mkdir()
        storage = LocalStorage(folder / "store")
        runner = JobRunner(storage, folder)
        storage.put("clip.mp4", clip.read_bytes())
        for name, frame in (("start", frames[0]), ("end", frames[-1])):
            storage.put(f"{name}.png", png(frame))
        guides: list[dict[str, Any]] = [
            {"at": [0, HELD - 1], "image": "start.png"},
            {"at": [FRAMES - ENDING, FRAMES - 1], "image": "end.png"},
        ]
        request = {
            "task_id": "job",
            "structure_video": "clip.mp4",
            "fps": FPS,
            "treatment": "clip",
            "anchors": anchors,
            "segments": [{"frames": FRAMES, "guides": guides}],
        }
        runner.put_request("job", request)
        runner.orchestrate("job")
        plan = runner.plan("job")
        self._services = runner.services
        self._event = RenderSegmentInput(task_id="job", run_id=plan.run_id, index=0)
        self._folder = folder
        self._planes = self._rendered()

    def run(self) -> None:
        """Render and encode, as RenderSegment does."""
        step(self._event, self._services)

    def encode_alone(self) -> None:
        """Encode the guide's frames, which lie in memory as planes."""
        path = self._folder / "alone.mp4"
        encode_h264(self._planes, path, height=HEIGHT, width=WIDTH, fps=FPS, threads=self._services.workers)

    def _rendered(self) -> list[Planes]:
        record = load_record(self._services.storage, "job")
        segment = record.request.segments[0]
        sink = _Kept()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            flows = SegmentFlows(record, self._services, Path(folder))
            settings = RenderSettings(
                height=HEIGHT,
                width=WIDTH,
                treatment=record.request.treatment,
                anchors=record.request.anchors,
                motion_strength=1.0,
                flow_start=0,
                flow_stop=flows.meta.total_flows,
                form=PLANES,
            )
            with FittedGuides(segment, self._services, Path(folder), height=HEIGHT, width=WIDTH) as guides:
                render_segment(segment, flows, guides, settings, sink)
        return sink.frames


class _Kept:
    def __init__(self) -> None:
        self.frames: list[Planes] = []

    def write(self, index: int, guide: Planes, mask: Mask) -> None:  # noqa: ARG002 - frames come in order
        self.frames.append(guide.copy() if guide.flags.writeable else guide)
