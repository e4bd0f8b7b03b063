"""A whole job through the GPU route of the local cloud: the task is a process, and runs on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.testing.jobs import png
from structureflow.testing.raft import RandomWeights
from structureflow.testing.videos import count_frames, pan_frames, write_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")

REPO = Path(__file__).resolve().parents[2]
GPU = {"EnableGpu": "true", "GpuImageUri": "raft:test", "GpuVpcId": "vpc-1", "GpuSubnetIds": "subnet-1"}

pytestmark = pytest.mark.e2e


def test_a_job_by_raft_is_done_by_raft_and_the_next_one_finds_its_flows(tmp_path: Path, small: RandomWeights) -> None:
    write_clip(tmp_path / "clip.mp4", pan_frames(6, 96, 160, dx=3, dy=1))
    (tmp_path / "anchor.png").write_bytes(png(np.ascontiguousarray(next(pan_frames(1, 96, 160, dx=3, dy=1)))))
    task = [sys.executable, "-m", "structureflow_local.raft_task", "--weights", str(small.path.parent)]
    with LocalCloud(REPO / "template.yaml", parameters=GPU, task_commands={"RaftTaskDefinition": task}) as cloud:
        storage = bucket_of(cloud)
        records = []
        for name in ("one", "two"):
            document = {
                "task_id": name,
                "structure_video": "clip.mp4",
                "engine": "raft",
                "quality": "fast",
                "segments": [{"frames": 9, "guides": [{"at": [0, 1], "image": "anchor.png"}]}],
            }
            JobClient(storage).submit(prepare_job(json.dumps(document), name=name, folder=tmp_path))
            status = JobClient(storage).wait(name, timeout_s=180)
            assert status.state == "done", status
            records.append(load_record(storage, name))
        cloud.wait_idle(60)
        storage.get_to_file(keys.segment_file("two", 0, "guide.mp4"), tmp_path / "guide.mp4")
        orders = list(storage.list(keys.GPU_ORDERS_PREFIX))
    for record in records:
        assert (record.engine_requested, record.engine, record.fallbacks) == ("raft", "raft", ())
        assert record.engine_params["weights_sha256"] == small.sha256
    assert [record.flow_cache_hit for record in records] == [False, True]
    assert count_frames(tmp_path / "guide.mp4") == 9
    assert orders == []
