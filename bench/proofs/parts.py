"""A long video extracted in parts on the local cloud: how much faster two workers are, what the join takes, and what
the largest worker takes of memory and disk.

``python -m bench.proofs.parts`` loops a clip to twenty minutes and runs one job on it, with one worker at a time and
with two. Best on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np

from bench.harness import MEDIA
from structureflow import keys
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.encode import EncoderSettings, encode_h264
from structureflow.models.results import JobRecord
from structureflow.testing.jobs import png
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.function_pool import Invocation
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
_FPS: Final = 25
#: A key frame every two seconds, as cameras and editors write them.
_CAMERA: Final = EncoderSettings(23, "veryfast", f"keyint={2 * _FPS}:scenecut=0:bframes=0")
_LOOK_S: Final = 0.1
#: 1,769 MB is one vCPU: one thread a function, so that two take two cores and one takes one.
_ONE_THREAD: Final = {"OrchestratorMemoryMegabytes": "1769"}
#: What was asked of workers.
MEMORY_MB, DISK_MB = 1500, 2000


def long_video(clip: Path, folder: Path, minutes: float, height: int) -> Path:
    """Loop `clip` at `height` pixels to so many minutes, without coding it more than once."""
    with VideoReader(clip, DecodeLimits()) as reader:
        frames = [frame.image for frame in reader]
    width = round(frames[0].shape[1] * height / frames[0].shape[0] / 2) * 2
    small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    # back and forth: no cut where it begins again
    loop = [np.asarray(frame, np.uint8) for frame in (*small, *small[-2:0:-1])]
    once, whole = folder / "once.mp4", folder / "long.mp4"
    encode_h264(loop, once, height=height, width=width, fps=_FPS, settings=_CAMERA)
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as out, av.open(str(once)) as first:
        stream = out.add_stream_from_template(first.streams.video[0])
        for round_ in range(max(1, int(minutes * 60 * _FPS / len(loop)))):
            with av.open(str(once)) as source:
                for packet in source.demux(source.streams.video[0]):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        shift = round(round_ * len(loop) / _FPS / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        out.mux(packet)
    return whole


class Disk:
    """Looks at the scratch folders of functions, and keeps the largest that one of them was; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Look at every folder in `folder`."""
        self._folder = folder
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self.largest_mb = 0.0

    def __enter__(self) -> Disk:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_S):
            for scratch in self._folder.glob("*"):
                used = 0
                for path in scratch.rglob("*"):
                    try:
                        used += path.stat().st_size
                    except FileNotFoundError:
                        # it went between the listing and the look
                        continue
                self.largest_mb = max(self.largest_mb, used / 1e6)


def run(video: Path, image: bytes, workers: int, timeout_s: float) -> dict[str, Any]:
    """Run one job on the video with so many functions at a time."""
    parameters = {**_ONE_THREAD, "MaxConcurrentParts": str(workers)}
    with (
        LocalCloud(REPO / "template.yaml", concurrency=workers, parameters=parameters) as cloud,
        Disk(cloud.state_dir / "tmp") as disk,
    ):
        storage = bucket_of(cloud)
        storage.put_file("library/long.mp4", video)
        storage.put("library/a.png", image)
        client = JobClient(storage)
        guides = [{"at": 0, "image": "library/a.png"}, {"at": 32, "image": "library/a.png"}]
        request = {
            "task_id": "long",
            "structure_video": "library/long.mp4",
            "segments": [{"frames": 33, "guides": guides}],
        }
        begin = time.monotonic()
        client.submit(PreparedJob("long", json.dumps(request).encode(), {}))
        status = client.wait("long", timeout_s=timeout_s)
        took_s = time.monotonic() - begin
        cloud.wait_idle(120)
        if status.state != "done":
            raise SystemExit(f"the job ended as {status.state}: {status.error}")
        record = JobRecord.model_validate_json(storage.get(keys.job_record("long")).data)
        calls = [call for call in cloud.invocations if call.error is None]
    parts, joins = of(calls, "ExtractPart"), of(calls, "JoinFlows")
    return {
        "workers": workers,
        "state": status.state,
        "frames": record.source.frames,
        "parts": len(parts),
        "job_s": round(took_s, 1),
        "extraction_s": round(ended(parts) - min(call.started_at for call in parts), 1),
        "work_of_parts_s": round(seconds(parts), 1),
        "join_s": round(seconds(joins), 2),
        "join_share": round(seconds(joins) / seconds(parts), 4),
        "largest_worker_mb": max(call.max_memory_mb or 0 for call in parts),
        "largest_function_mb": max(call.max_memory_mb or 0 for call in calls),
        "largest_disk_mb": round(disk.largest_mb),
    }


def of(calls: list[Invocation], step: str) -> list[Invocation]:
    """Return the calls of one function."""
    return [call for call in calls if call.function == f"{step}Function"]


def seconds(calls: list[Invocation]) -> float:
    """Return what calls took, added up."""
    return sum(call.duration_ms for call in calls) / 1000


def ended(calls: list[Invocation]) -> float:
    """Return when the last call ended, in seconds since the epoch."""
    return max(call.started_at + call.duration_ms / 1000 for call in calls)


def main() -> int:
    """Print what was measured; 1 where it is not what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.proofs.parts", description=__doc__)
    parser.add_argument("--clip", type=Path, default=MEDIA / "bigbuckbunny.mp4")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--timeout", type=float, default=7200.0, metavar="SECONDS")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parts-") as folder:
        video = long_video(asked.clip, Path(folder), asked.minutes, asked.height)
        with VideoReader(asked.clip, DecodeLimits()) as reader:
            image = png(next(iter(reader)).image)
        print(json.dumps({"video_mb": round(video.stat().st_size / 1e6, 1)}), flush=True)
        runs: list[dict[str, Any]] = []
        for workers in asked.workers:
            runs.append(run(video, image, workers, asked.timeout))
            print(json.dumps(runs[-1]), flush=True)
    times = {one["workers"]: one["extraction_s"] for one in runs}
    if {1, 2} <= set(times):
        print(json.dumps({"two_workers_faster": round(times[1] / times[2], 2)}))
    fine = all(
        one["state"] == "done"
        and one["join_share"] < 0.02
        and one["largest_worker_mb"] <= MEMORY_MB
        and one["largest_disk_mb"] <= DISK_MB
        for one in runs
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
