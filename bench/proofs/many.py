"""Many jobs at once on a small account: they wait, and all are done.

``python -m bench.proofs.many`` puts 200 jobs of ten segments within a minute on a local cloud whose functions run at
most ten at a time, as in a new account: a call beyond that is refused, as Lambda refuses it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from structureflow.jobs.documents import read_status
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.function_pool import Invocation
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
_FRAMES = 5
_WIDTH_PX, _HEIGHT_PX = 64, 48


def prove(jobs: int, segments: int, concurrency: int, within_s: float, timeout_s: float) -> dict[str, Any]:
    """Put jobs, wait for their ends, and return what happened."""
    with (
        tempfile.TemporaryDirectory(prefix="many-") as folder,
        LocalCloud(REPO / "template.yaml", concurrency=concurrency) as cloud,
    ):
        storage = bucket_of(cloud)
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, pan_frames(_FRAMES, _HEIGHT_PX, _WIDTH_PX, dx=1, dy=0), fps=25)
        storage.put_file("library/clip.mp4", clip)
        storage.put("library/a.png", png(texture(_HEIGHT_PX, _WIDTH_PX, seed=1)))
        client = JobClient(storage)
        names = [f"job-{number:04d}" for number in range(jobs)]
        guide = {"at": 0, "image": "library/a.png"}
        document = {
            "structure_video": "library/clip.mp4",
            "segments": [{"frames": _FRAMES, "guides": [guide]}] * segments,
        }
        begin = time.monotonic()
        for number, name in enumerate(names):
            client.submit(PreparedJob(name, json.dumps({"task_id": name, **document}).encode(), {}))
            time.sleep(max(0.0, begin + (number + 1) * within_s / jobs - time.monotonic()))
        put_s = time.monotonic() - begin
        cloud.wait_idle(timeout_s)
        took_s = time.monotonic() - begin
        states = Counter("none" if (status := read_status(storage, name)) is None else status.state for name in names)
        calls = cloud.invocations
        rendered = [one for one in calls if one.function == "RenderSegmentFunction" and one.error is None]
        return {
            "jobs": jobs,
            "segments": segments,
            "concurrency": concurrency,
            "put_s": round(put_s, 1),
            "took_s": round(took_s, 1),
            "states": dict(states),
            "rendered": len(rendered),
            "calls": dict(Counter(one.function for one in calls)),
            "errors": dict(Counter(one.error for one in calls if one.error)),
            "throttles": cloud.throttles,
            "most_at_once": most_at_once(calls),
            "busy_s": round(sum(one.duration_ms for one in calls) / 1000, 1),
            "dead_letters": len(cloud.dead_letters),
        }


def most_at_once(calls: list[Invocation]) -> int:
    """Return how many calls ran at the same time at most."""
    edges = sorted(
        [(one.started_at, 1) for one in calls] + [(one.started_at + one.duration_ms / 1000, -1) for one in calls]
    )
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most


def main() -> int:
    """Run the proof; 1 where a job did not end as done."""
    parser = argparse.ArgumentParser(prog="python -m bench.proofs.many", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--segments", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--within", type=float, default=60.0, metavar="SECONDS", help="put all jobs within so long")
    parser.add_argument("--timeout", type=float, default=7200.0, metavar="SECONDS")
    asked = parser.parse_args()
    found = prove(asked.jobs, asked.segments, asked.concurrency, asked.within, asked.timeout)
    print(json.dumps(found, indent=1))
    return 0 if found["states"] == {"done": asked.jobs} else 1


if __name__ == "__main__":
    sys.exit(main())
