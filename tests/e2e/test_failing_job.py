"""A job that fails in its last segment, on the whole local cloud: what the others made is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def segment(guide: dict[str, Any]) -> dict[str, Any]:
    return {"frames": 9, "guides": [{"at": [0, 2], "image": "library/a.png"}, guide]}


def test_nothing_half_made_stays_of_a_failing_job(tmp_path: Path) -> None:
    """Two segments end well, one after the other; the third wants frames that its guide video does not have."""
    write_clip(tmp_path / "clip.mp4", pan_frames(9, 96, 160, dx=2, dy=0), fps=25)
    good = segment({"at": [7, 8], "image": "library/b.png"})
    bad = segment({"at": [7, 8], "video": "library/clip.mp4", "from": 100})
    request = {"task_id": "half", "structure_video": "library/clip.mp4", "timeline_id": "reel"}
    with LocalCloud(REPO / "template.yaml", parameters={"MaxConcurrentSegments": "1"}) as cloud:
        storage = bucket_of(cloud)
        storage.put_file("library/clip.mp4", tmp_path / "clip.mp4")
        for name, seed in (("a", 1), ("b", 2)):
            storage.put(f"library/{name}.png", png(texture(96, 160, seed=seed)))
        client = JobClient(storage)
        made = {**request, "segments": [good, good, bad]}
        client.submit(PreparedJob("half", json.dumps(made).encode(), {}))
        status = client.wait("half", timeout_s=180)
        cloud.wait_idle(60)

        assert status.state == "failed"
        assert status.error is not None
        assert status.error.stage == "segments"
        rendered = [one for one in cloud.invocations if one.function == "RenderSegmentFunction" and one.error is None]
        assert len(rendered) == 2, "two segments ended well before the third failed"
        left = {info.key for info in storage.list(keys.job_prefix("half"))}
        assert not [key for key in left if key.endswith((".mp4", "result.json", "manifest.json", "report.html"))], left
        # Late events are told by the claim.
        assert {key.rsplit("/", 1)[1] for key in left if "/runs/" in key} <= {"claim.json"}, left
        assert client.status("half") == status, "the end of the execution changed the status"
