"""What the task really asks of the bucket is what its role allows, and no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobRecord
from structureflow.testing.iam import allows, function_statements, requests_of, unused
from structureflow.testing.jobs import png
from structureflow.testing.raft import RandomWeights
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.gpu import TASK_DEFINITION, gpu_part
from structureflow_local.run import bucket_of

pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")

PATH = Path(__file__).resolve().parents[2] / "template.yaml"
TEMPLATE: dict[str, Any] = yaml_parse(PATH.read_text())
BUCKET = "DataBucket"

pytestmark = pytest.mark.e2e


def test_the_role_allows_what_the_task_does_and_nothing_that_it_never_does(
    tmp_path: Path, small: RandomWeights
) -> None:
    # long enough that the task writes down how far it is, which it does every two seconds
    write_clip(tmp_path / "clip.mp4", pan_frames(150, 96, 160, dx=3, dy=1))
    write_clip(tmp_path / "other.mp4", pan_frames(3, 96, 160, dx=1, dy=2, seed=1))
    (tmp_path / "a.png").write_bytes(png(texture(96, 160, seed=1)))
    task = [sys.executable, "-m", "structureflow_local.raft_task", "--weights", str(small.path.parent)]
    part = {**gpu_part(None), "task_commands": {TASK_DEFINITION: task}}
    with LocalCloud(PATH, **part) as cloud:
        storage = bucket_of(cloud)

        def run(task_id: str, **changes: Any) -> JobRecord:
            document = {
                "task_id": task_id,
                "structure_video": "clip.mp4",
                "timeline_id": "reel",
                "engine": "raft",
                "quality": "fast",
                "segments": [{"frames": 5, "guides": [{"at": [0, 1], "image": "a.png"}]}],
            } | changes
            client = JobClient(storage)
            client.submit(prepare_job(json.dumps(document), name=task_id, folder=tmp_path))
            assert client.wait(task_id, timeout_s=180).state == "done"
            cloud.wait_idle(60)
            return load_record(storage, task_id)

        storage.put(keys.timeline_frame("reel", 999_999), b"left over")
        first = run("first")
        assert first.flow_cache_key is not None
        storage.put(first.flow_cache_key, b"no archive")
        storage.delete([keys.timeline_manifest("reel")])
        assert [step.stage for step in run("second").fallbacks] == ["lookup"]
        # Another video in the same timeline: the manifest of the first goes before its frames are overwritten.
        run("other", structure_video="other.mp4")
        # There are no weights of the large model: the task says so in its order.
        assert "ModelWeightsError" in run("third", quality="best").fallbacks[0].reason
        name = cloud.bucket(BUCKET)
        asked = [
            request
            for call in cloud.calls
            if call.service == "s3" and call.bucket == name and call.function == TASK_DEFINITION
            if not (call.key or "").startswith("work/.probe/")
            for request in requests_of(call.operation, BUCKET, call.key, call.status)
        ]
    statements = function_statements(TEMPLATE, "RaftTaskRole")
    assert sorted({f"{one.action} {one.resource}" for one in asked if not allows(statements, one)}) == []
    never = [
        f"{statement.sid}: {action} on {resource}" for statement, action, resource in unused(statements, asked, BUCKET)
    ]
    assert never == []
