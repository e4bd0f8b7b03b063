"""A whole job: 100 frames at 720p, three segments of 73 frames with 43 unguided, in this process, no network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.flow_ways import decode, original_extract, original_read, original_write, write_clip
from bench.harness import Context, Row
from structureflow import keys
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner, png

FRAMES, SEGMENTS, OVERLAP, FADE, FPS = 73, 3, 20, 10, 16
GAP = FRAMES - OVERLAP - FADE
#: What the original design does; the defaults of requests do more.
AS_ORIGINAL = {"flow_span": "per_segment", "anchors": "start", "seams": "average", "mask": "filled"}


def rows(context: Context) -> list[Row]:
    """Measure the first job on a video, and the second one."""
    frames = decode(context.clip, 100)
    clip = write_clip(context.folder / "clip.mp4", frames, 100)
    spread = [frames[round(i * 99 / SEGMENTS)] for i in range(SEGMENTS + 1)]
    original_s, segment_s = _original_job(clip, spread, context.folder)
    first_s, second_s, fan_out_s = _our_jobs(clip, spread, context.folder / "store", rounds=1 if context.quick else 3)
    return [
        Row("job", "whole job, 100 frames 720p, 3 segments", "s", original_s, first_s, note="one after the other"),
        Row("job", "a second job on the same video", "s", original_s, second_s, note="the original extracts again"),
        Row("job", "a second job until its segments start", "s", original_s - segment_s, fan_out_s),
    ]


def _original_job(clip: Path, images: list[NDArray[np.uint8]], folder: Path) -> tuple[float, float]:
    """The original design done literally; return seconds in all, and of the segments."""
    begin = time.perf_counter()
    archive = folder / "original.npz"
    original_write(archive, original_extract(clip))
    extracted = time.perf_counter()
    for index in range(SEGMENTS):
        flows = original_read(archive, folder / "download.npz")
        _original_segment(flows, images[index], images[index + 1], folder / f"original_{index}.mp4")
    end = time.perf_counter()
    return end - begin, end - extracted


def _original_segment(
    flows: list[NDArray[np.float32]], start: NDArray[np.uint8], end: NDArray[np.uint8], path: Path
) -> None:
    """Warp frame after frame along the forward flow, cross-fade, and write MPEG-4 part 2."""
    height, width = start.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    frames: list[Any] = [start] * OVERLAP
    for flow in flows[:GAP]:
        frames.append(
            cv2.remap(frames[-1], x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        )
    frames += [cv2.addWeighted(start, 1 - k / FADE, end, k / FADE, 0) for k in range(1, FADE + 1)]
    for name in (path, path.with_suffix(".mask.mp4")):
        writer = cv2.VideoWriter(str(name), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if name is path else np.zeros_like(frame))
        writer.release()


def _our_jobs(clip: Path, images: list[NDArray[np.uint8]], folder: Path, *, rounds: int) -> tuple[float, float, float]:
    """Run the steps of jobs over a folder; return medians: first job, second job, second until its fan-out."""
    first: list[float] = []
    second: list[float] = []
    fan_out: list[float] = []
    for number in range(rounds):
        storage = LocalStorage(folder / str(number))
        folder.mkdir(exist_ok=True)
        runner = JobRunner(storage, folder)
        storage.put("clip.mp4", clip.read_bytes())
        for index, image in enumerate(images):
            storage.put(f"image_{index}.png", png(image))
        for times in (first, second):
            task_id = f"job-{len(times)}-{times is first}"
            document = {
                "task_id": task_id,
                "structure_video": "clip.mp4",
                "images": [f"image_{index}.png" for index in range(len(images))],
                "frames": FRAMES,
                "overlap": OVERLAP,
                "fade": FADE,
                "fps": FPS,
                "treatment": "clip",
                **AS_ORIGINAL,
            }
            begin = time.perf_counter()
            runner.put_request(task_id, document)
            runner.orchestrate(task_id)
            if times is second:
                fan_out.append(time.perf_counter() - begin)
            status = runner.segments(task_id)
            times.append(time.perf_counter() - begin)
            if status.state != "done" or not storage.exists(keys.job_manifest(task_id)):
                raise SystemExit(f"job {task_id} did not finish: {status}")
    middle_first, middle_second, middle_fan_out = (sorted(times)[rounds // 2] for times in (first, second, fan_out))
    return middle_first, middle_second, middle_fan_out
