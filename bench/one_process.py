"""A whole job in one process: against the sum of its steps, and against the local cloud."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from PIL import Image

from bench.flow_ways import decode, write_clip
from bench.harness import Context, Row
from structureflow.jobs.assemble_job import AssembleJobInput, assemble_job
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.processors import usable_cpus
from structureflow.storage.local import LocalStorage
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import pan_frames
from structureflow.testing.videos import write_clip as write_small_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.one_process import OneProcess

FRAMES, SEGMENTS = 73, 3
REPO: Final = Path(__file__).resolve().parents[1]
_TIMEOUT_S: Final = 600.0


def rows(context: Context) -> list[Row]:
    """Measure a job of 100 frames at 720p, and a small one."""
    large = _large_job(context)
    steps_s, whole_s = _steps_and_whole(large, context)
    small = _small_job(context)
    times = context.compare(
        {
            "cloud": _fresh(context.folder, lambda folder: _on_the_local_cloud(small, folder)),
            "here": _fresh(context.folder, lambda folder: _in_one_process(small, folder)),
        },
        rounds=3,
    )
    return [
        Row(
            "one_process",
            "whole job, 100 frames 720p, 3 segments, by run",
            "s",
            steps_s,
            whole_s,
            target=round(1 / 1.15, 2),
            note="in place of the original: the sum of its steps, one after the other in one process",
        ),
        Row(
            "one_process",
            "small job, 20 frames of 160x96, 2 segments, by run",
            "s",
            times["cloud"],
            times["here"],
            target=2.0,
            note="in place of the original: the same job on the local cloud",
        ),
    ]


def _large_job(context: Context) -> Path:
    frames = decode(context.clip, 100)
    write_clip(context.folder / "clip.mp4", frames, 100)
    for index in range(SEGMENTS + 1):
        Image.fromarray(frames[round(index * 99 / SEGMENTS)]).save(context.folder / f"image_{index}.png")
    return _write_job(context.folder / "large.json", "clip.mp4", SEGMENTS + 1, frames=FRAMES)


def _small_job(context: Context) -> Path:
    frames = list(pan_frames(20, 96, 160, dx=2, dy=0))
    write_small_clip(context.folder / "small.mp4", frames)
    (context.folder / "small").mkdir()
    for index in range(3):
        Image.fromarray(frames[9 * index]).save(context.folder / f"image_{index}.png")
    return _write_job(context.folder / "small.json", "small.mp4", 3, frames=17, overlap=3)


def _write_job(path: Path, clip: str, images: int, **more: Any) -> Path:
    names = [f"image_{index}.png" for index in range(images)]
    path.write_text(json.dumps({"task_id": path.stem, "structure_video": clip, "images": names, **more}))
    return path


def _steps_and_whole(job: Path, context: Context) -> tuple[float, float]:
    """Return medians: seconds of all steps together, each measured alone; and of the whole job by run."""
    sums: list[float] = []

    def steps(folder: Path) -> None:
        prepared = prepare_job(job.read_text(), name="large", folder=job.parent)
        storage = LocalStorage(folder)
        for key, path in prepared.uploads.items():
            storage.put_file(key, path)
        (folder / "work").mkdir()
        runner = JobRunner(storage, folder / "work")
        runner.put_request(prepared.task_id, prepared.request)
        spent: list[float] = []

        def timed(step: Callable[[], Any]) -> Any:
            begin = time.perf_counter()
            result = step()
            spent.append(time.perf_counter() - begin)
            return result

        timed(lambda: runner.orchestrate(prepared.task_id))
        plan = timed(lambda: runner.plan(prepared.task_id))
        for index in plan.segments:
            event = RenderSegmentInput(task_id=prepared.task_id, run_id=plan.run_id, index=index)
            timed(partial(render_segment, event, runner.services))
        timed(lambda: assemble_job(AssembleJobInput(task_id=prepared.task_id, run_id=plan.run_id), runner.services))
        sums.append(sum(spent))

    times = context.compare(
        {
            "steps": _fresh(context.folder, steps),
            "whole": _fresh(context.folder, lambda folder: _in_one_process(job, folder)),
        },
        rounds=3,
    )
    kept = sums if context.quick else sums[1:]
    return sorted(kept)[len(kept) // 2], times["whole"]


def _in_one_process(job: Path, folder: Path) -> None:
    prepared = prepare_job(job.read_text(), name=job.stem, folder=job.parent)
    (folder / "out").mkdir()
    with OneProcess(prepared, store=folder / "store", workers=usable_cpus()) as steps:
        steps.start()
        status = steps.wait(timeout_s=_TIMEOUT_S)
        JobClient(steps.storage).fetch(prepared.task_id, folder / "out")
    if status.state != "done":
        raise SystemExit(f"the job did not finish: {status}")


def _on_the_local_cloud(job: Path, folder: Path) -> None:
    prepared = prepare_job(job.read_text(), name=job.stem, folder=job.parent)
    (folder / "out").mkdir()
    with LocalCloud(REPO / "template.yaml", persist=folder / "store") as cloud:
        settings = S3Settings(endpoint_url=cloud.endpoint_url, region=cloud.region, addressing_style="path")
        client = JobClient(S3Storage(cloud.bucket("DataBucket"), client=cloud.client("s3"), settings=settings))
        client.submit(prepared)
        status = client.wait(prepared.task_id, timeout_s=_TIMEOUT_S)
        client.fetch(prepared.task_id, folder / "out")
    if status.state != "done":
        raise SystemExit(f"the job did not finish: {status}")


def _fresh(parent: Path, work: Callable[[Path], None]) -> Callable[[], None]:
    """Give each round a folder of its own: nothing is found from an earlier one."""

    def run() -> None:
        folder = parent / "round"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        work(folder)

    return run
