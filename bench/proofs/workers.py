"""Two workers of a long video's parts against one: each a process with a core of its own, over a folder.

``python -m bench.proofs.workers`` loops a clip to three minutes. On the local cloud the store is a third process that
wants a core too; a folder wants none, as S3 does. Best on a quiet machine of two cores or more, on Linux.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

from bench.harness import MEDIA
from bench.proofs.parts import long_video
from structureflow.jobs.extract_part import ExtractPartInput, extract_part
from structureflow.jobs.join_flows import JoinFlowsInput, join_flows
from structureflow.jobs.services import Services
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner, png

#: What was asked of two.
FASTER: Final = 1.7


def services(folder: Path, started: list[Any]) -> Services:
    """Return what functions get whose store is a folder; `started` gets the inputs of extraction machines."""
    found = JobRunner(LocalStorage(folder / "store"), folder).services
    return dataclasses.replace(
        found,
        max_video_frames=30_000,
        workers=1,
        start_extraction=lambda _, payload: started.append(payload),
    )


def work(folder: Path, run_id: str, core: int, parts: Queue[int | None]) -> None:
    """Extract parts, until there is none, on one core."""
    os.sched_setaffinity(0, {core})
    ours = services(folder, [])
    while (part := parts.get()) is not None:
        extract_part(ExtractPartInput(task_id="long", run_id=run_id, part=part), ours)


def run(folder: Path, video: Path, image: bytes, workers: int) -> dict[str, Any]:
    """Extract a video in a new folder with so many workers, and join its parts."""
    folder.mkdir()
    started: list[Any] = []
    ours = services(folder, started)
    runner = JobRunner(ours.storage, folder)
    runner.services = ours
    ours.storage.put_file("library/long.mp4", video)
    ours.storage.put("library/a.png", image)
    segment = {"frames": 33, "guides": [{"at": 0, "image": "library/a.png"}]}
    runner.put_request("long", {"task_id": "long", "structure_video": "library/long.mp4", "segments": [segment]})
    runner.orchestrate("long")
    (wanted,) = (payload["join"] for payload in started)
    parts: Queue[int | None] = multiprocessing.Queue()
    for part in [*wanted["parts"], *[None] * workers]:
        parts.put(part)
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        multiprocessing.Process(target=work, args=(folder, wanted["run_id"], cores[number % len(cores)], parts))
        for number in range(workers)
    ]
    begun = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    extracted = time.perf_counter()
    state = join_flows(JoinFlowsInput(bucket="bench", task_id="long", run_id=wanted["run_id"]), ours)
    if not state.joined:
        raise SystemExit(f"parts {state.parts} did not come")
    return {
        "workers": workers,
        "parts": len(wanted["parts"]),
        "extraction_s": round(extracted - begun, 2),
        "join_s": round(time.perf_counter() - extracted, 2),
    }


def main() -> int:
    """Print both, and how much faster two are; 1 where that is less than asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.proofs.workers", description=__doc__)
    parser.add_argument("--clip", type=Path, default=MEDIA / "bigbuckbunny.mp4")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--height", type=int, default=360)
    asked = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        folder = Path(name)
        video = long_video(asked.clip, folder, asked.minutes, asked.height)
        with VideoReader(asked.clip, DecodeLimits()) as reader:
            image = png(next(iter(reader)).image)
        times: dict[int, float] = {}
        for workers in (1, 2):
            found = run(folder / str(workers), video, image, workers)
            times[workers] = found["extraction_s"]
            print(json.dumps(found), flush=True)
    faster = times[1] / times[2]
    print(json.dumps({"two_workers_faster": round(faster, 2)}))
    return 0 if faster >= FASTER else 1


if __name__ == "__main__":
    sys.exit(main())
