"""Hold the model of `bench.simulation` against the local cloud with 1, 2 and 4 functions at a time.

``python -m bench.proofs.scale`` runs one job of equal segments with each, takes a segment's work from the run with one
function, and compares the others' wall time with what the model says of this machine's cores. Of work counts what the
local cloud itself does for a segment too, S3 most of all: it shares the cores. Best on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.simulation.loop import Cores, Loop, Places, Process
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.function_pool import Invocation
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
_WORKERS = (1, 2, 4)
_FRAMES = 49
_WIDTH_PX, _HEIGHT_PX = 640, 352


def run(workers: int, segments: int) -> tuple[list[Invocation], float]:
    """Run a job twice with so many functions at a time.

    Returns:
        The second one's segments, whose processes are warm, and the processor seconds of that job, cloud and all.
    """
    with (
        tempfile.TemporaryDirectory(prefix="scale-") as folder,
        # 1,769 MB: one thread a function, so that its work is that of one core.
        LocalCloud(REPO / "template.yaml", concurrency=workers, parameters={"SegmentMemoryMegabytes": "1769"}) as cloud,
    ):
        storage, clip = bucket_of(cloud), Path(folder) / "clip.mp4"
        write_clip(clip, pan_frames(_FRAMES, _HEIGHT_PX, _WIDTH_PX, dx=2, dy=1), fps=25)
        storage.put_file("library/clip.mp4", clip)
        storage.put("library/a.png", png(texture(_HEIGHT_PX, _WIDTH_PX, seed=1)))
        guides = [{"at": 0, "image": "library/a.png"}]
        document = {
            "structure_video": "library/clip.mp4",
            "segments": [{"frames": _FRAMES, "guides": guides}] * segments,
        }
        spent = []
        for name in ("first", "second"):
            spent.append(processor_s())
            JobClient(storage).submit(PreparedJob(name, json.dumps({"task_id": name, **document}).encode(), {}))
            cloud.wait_idle(1800)
        spent.append(processor_s())
        found = [one for one in cloud.invocations if one.function == "RenderSegmentFunction" and one.error is None]
        return found[segments:], spent[2] - spent[1]


def processor_s() -> float:
    """Return the processor seconds of this process and of all below it that live."""
    times = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return time.process_time() + float(sum(one.user + one.system for one in times))


def span_s(calls: list[Invocation]) -> float:
    """Return the seconds from the first call's begin to the last one's end."""
    return max(one.started_at + one.duration_ms / 1000 for one in calls) - min(one.started_at for one in calls)


def predicted_s(work_s: float, at_once: float, pause_s: float, segments: int, workers: int, cores: float) -> float:
    """Return what the model says: segments of equal work, `at_once` cores each, so many at a time, on these cores."""
    loop = Loop()
    places, shared = Places(loop, workers), Cores(loop, cores)

    def segment() -> Process:
        yield places.take
        yield shared.work(work_s * at_once, at_once)
        yield pause_s
        places.give_back()

    for _ in range(segments):
        loop.start(segment())
    loop.run()
    return loop.now


def main() -> int:
    """Print what was measured and what the model says; 1 where they are apart by more than a quarter."""
    parser = argparse.ArgumentParser(prog="python -m bench.proofs.scale", description=__doc__)
    parser.add_argument("--segments", type=int, default=12)
    segments = parser.parse_args().segments
    cores = float(os.cpu_count() or 1)
    runs = {workers: run(workers, segments) for workers in _WORKERS}
    alone, spent_s = runs[1]
    work_s = statistics.median(one.duration_ms for one in alone) / 1000
    pause_s = max(0.0, span_s(alone) / segments - work_s)
    # less than one: it waited for the store
    at_once = spent_s / segments / work_s
    rows: list[dict[str, Any]] = []
    for workers in _WORKERS:
        measured = span_s(runs[workers][0])
        said = predicted_s(work_s, at_once, pause_s, segments, workers, cores)
        rows.append({"workers": workers, "measured_s": round(measured, 2), "model_s": round(said, 2)})
    found = {"segments": segments, "cores": cores, "segment_s": round(work_s, 3), "cores_each": round(at_once, 2)}
    print(json.dumps({**found, "runs": rows}, indent=1))
    return 0 if all(abs(row["model_s"] / row["measured_s"] - 1) < 0.25 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
