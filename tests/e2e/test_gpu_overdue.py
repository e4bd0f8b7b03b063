"""A GPU task that hangs: the schedule finds its order past the deadline, ends the task, and DIS does the job."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs.documents import load_record, put_document
from structureflow.jobs.extraction_order import load_order
from structureflow.models.results import now
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.gpu import TASK_DEFINITION, gpu_part
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
HANG = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(600)"

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-gpu")]


def test_a_hanging_task_is_ended_and_its_job_done_by_dis(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", pan_frames(6, 96, 160, dx=2, dy=0), fps=25)
    (tmp_path / "a.png").write_bytes(png(texture(96, 160, seed=1)))
    job: dict[str, Any] = {
        "task_id": "slow",
        "structure_video": "clip.mp4",
        "engine": "raft",
        "segments": [{"frames": 8, "guides": [{"at": [0, 2], "image": "a.png"}]}],
    }
    look = json.loads((REPO / "events" / "settle_gpu" / "look_for_overdue.json").read_text())
    part = {**gpu_part(tmp_path), "task_commands": {TASK_DEFINITION: [sys.executable, "-c", HANG]}}
    with LocalCloud(REPO / "template.yaml", **part) as cloud:
        storage = bucket_of(cloud)
        client = JobClient(storage)
        client.submit(prepare_job(json.dumps(job), name="slow", folder=tmp_path))
        tasks, cluster = cloud.client("ecs"), cloud.physical_id("GpuCluster")
        deadline = time.monotonic() + 60
        while not (running := tasks.list_tasks(cluster=cluster)["taskArns"]):
            assert time.monotonic() < deadline, client.status("slow")
            time.sleep(0.05)
        assert cloud.invoke("SettleGpuFunction", look).payload == {"settled": []}, "it has time yet"
        (info,) = storage.list(keys.GPU_ORDERS_PREFIX)
        order = load_order(storage, info.key)
        late = order.model_copy(update={"deadline": now() - timedelta(seconds=1)})
        put_document(storage, info.key, late)

        settled = cloud.invoke("SettleGpuFunction", look).payload["settled"]

        assert settled == [{"run_id": order.run_id, "engine": "dis"}]
        assert client.wait("slow", timeout_s=120).state == "done"
        cloud.wait_idle(60)
        (ended,) = tasks.describe_tasks(cluster=cluster, tasks=running)["tasks"]
        assert ended["lastStatus"] == "STOPPED"
        assert ended["stoppedReason"] == "structureflow: not done in time"
        record = load_record(storage, "slow")
        assert list(storage.list(keys.GPU_ORDERS_PREFIX)) == []
    (step,) = record.fallbacks
    assert (step.wanted, step.used) == ("raft", "dis")
    assert step.reason.startswith(f"the GPU task was not done by {late.deadline:%H:%M:%S} UTC")
