"""One segment of 73 frames at 720p in one pass, against x264 alone on the same frames; in this process, no network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from bench.flow_ways import decode, write_clip
from bench.harness import Context, Row
from structureflow.jobs import segment_files
from structureflow.jobs.render_segment import RenderSegmentInput
from structureflow.jobs.render_segment import render_segment as step
from structureflow.media.background import BackgroundEncoder
from structureflow.media.encode import GUIDE, EncoderSettings, encode_h264
from structureflow.media.planes import Planes
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner, png

HEIGHT, WIDTH, FPS = 720, 1280, 16
FRAMES, HELD, ENDING = 73, 20, 10
GAP = FRAMES - HELD - ENDING
#: Composed paths with what was there when the limits were named, anchored ones with what a request gets that says
#: nothing.
REQUESTS: dict[str, dict[str, str]] = {
    "composed": {"tracking": "composed", "mask": "filled", "seams": "average"},
    "anchored": {"tracking": "anchored"},
}
#: How x264 was set when the limits were named: our settings since take less than half of its time.
THEN = EncoderSettings(17, "veryfast")
LIMITS = {"start": 1.5, "both": 1.9}


def rows(context: Context) -> list[Row]:
    """Measure the step whole: flows read, guides decoded, 43 frames filled, guide and mask encoded and stored."""
    frames = decode(context.clip, GAP + 2)
    clip = write_clip(context.folder / "clip.mp4", frames, GAP + 2)
    found = []
    for tracking, said_so in REQUESTS.items():
        for anchors, limit in LIMITS.items():
            job = _Job(context.folder / f"{tracking}-{anchors}", clip, frames, anchors, said_so)
            encoders = {"as set here": GUIDE, "as set when this was asked": THEN}
            contenders = {name: partial(job.encode_alone, settings) for name, settings in encoders.items()}
            times = context.compare({**contenders, "step": job.run}, rounds=9)
            for name in encoders:
                said = f"{times['step'] / times[name]:.2f} times"
                asked = tracking == "composed"
                found.append(
                    Row(
                        "segment",
                        f"73 frames at 720p, {tracking}, anchors {anchors}: whole step against x264 alone, {name}",
                        "s",
                        times[name],
                        times["step"],
                        target=round(1 / limit, 4) if asked else None,
                        note=f"{said}, at most {limit} are asked for" if asked else said,
                    )
                )
    return found


class _Job:
    """A job of one segment whose flows are there."""

    def __init__(
        self, folder: Path, clip: Path, frames: list[NDArray[np.uint8]], anchors: str, said_so: dict[str, str]
    ) -> None:
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
            **said_so,
            "segments": [{"frames": FRAMES, "guides": guides}],
        }
        runner.put_request("job", request)
        runner.orchestrate("job")
        plan = runner.plan("job")
        self._services = runner.services
        self._event = RenderSegmentInput(task_id="job", run_id=plan.run_id, index=0)
        self._folder = folder
        self._planes = self._drawn()

    def run(self) -> None:
        """Render and encode, as RenderSegment does."""
        step(self._event, self._services)

    def encode_alone(self, settings: EncoderSettings) -> None:
        """Encode the guide's frames, which lie in memory as planes."""
        path = self._folder / "alone.mp4"
        size = {"height": HEIGHT, "width": WIDTH}
        encode_h264(self._planes, path, **size, fps=FPS, settings=settings, threads=self._services.workers)

    def _drawn(self) -> list[Planes]:
        """Run the step once, and keep what the guide's encoder is given."""
        frames: list[Planes] = []

        class Keeping(BackgroundEncoder):
            def write(self, planes: Planes) -> None:
                if self.path.stem == "guide":
                    frames.append(planes.copy())
                super().write(planes)

        with mock.patch.object(segment_files, "BackgroundEncoder", Keeping):
            self.run()
        return frames
