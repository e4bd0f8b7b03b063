"""The estimate before a run, compared with what the local cloud counted of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from structureflow.jobs.forecast import Plan, forecast
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.cost import transitions_of
from structureflow.models.job import JobRequest
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.costs import measured_usage
from structureflow_local.run import TEMPLATE, bucket_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def document(segments: int, **changes: Any) -> dict[str, Any]:
    guides = [{"at": at, "image": "library/a.png"} for at in (0, 16)]
    return {
        "task_id": "t1",
        "structure_video": "library/clip.mp4",
        "segments": [{"frames": 17, "guides": guides}] * segments,
    } | changes


@pytest.mark.parametrize(
    ("frames", "job"),
    [(20, document(1)), (41, document(4, outputs=["flow_vis"])), (41, document(2, overlays=["flow", "warp"]))],
    ids=["small", "outputs", "overlays"],
)
def test_requests_before_and_after(tmp_path: Path, frames: int, job: dict[str, Any]) -> None:
    write_clip(tmp_path / "clip.mp4", pan_frames(frames, 96, 160, dx=2, dy=0), fps=25)
    with LocalCloud(TEMPLATE) as cloud:
        storage, client = bucket_of(cloud), JobClient(bucket_of(cloud))
        storage.put_file("library/clip.mp4", tmp_path / "clip.mp4")
        storage.put("library/a.png", png(texture(96, 160, seed=1)))
        client.submit(PreparedJob("t1", json.dumps(job).encode(), {}))
        assert client.wait("t1", timeout_s=120).state == "done"
        cloud.wait_idle(60)
        used, transitions = measured_usage(cloud)
    with VideoReader(tmp_path / "clip.mp4", DecodeLimits(max_frames=1000)) as reader:
        info = reader.info
    request = JobRequest.parse(job)
    said = forecast(request, [info], Plan(orchestrator_mb=3008, segment_mb=3008, concurrency=40)).usage
    assert transitions == transitions_of(len(request.segments))
    assert [one.step for one in said] == [one.step for one in used]
    for kind in ("s3_writes", "s3_reads", "s3_events"):
        before, after = (sum(getattr(one, kind) for one in steps) for steps in (said, used))
        # Which store it is found out once, and a listing more or less: a few requests of a small job.
        assert before == pytest.approx(after, rel=0.15, abs=20), kind
