"""A long video in parts on the local cloud: the real state machine, each function a process; some of them killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.models.results import JobRecord
from structureflow.testing.jobs import JobRunner, png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of
from tests.e2e.test_killed_functions import Trap

REPO = Path(__file__).resolve().parents[2]
FRAMES, HEIGHT, WIDTH = 460, 64, 96
DOCUMENT: dict[str, Any] = {
    "structure_video": "library/long.mp4",
    "quality": "fast",
    "segments": [{"frames": 9, "guides": [{"at": 0, "image": "library/a.png"}]}],
}
#: A request of each function, after which its process is gone before the answer reaches it.
KILLS = {
    "ExtractPartFunction": ("PutObject", "work/.parts/"),
    "JoinFlowsFunction": ("CompleteMultipartUpload", "cache/flows/"),
}

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    return write_clip(path, pan_frames(FRAMES, HEIGHT, WIDTH, dx=1, dy=0), gop=50)


def test_a_long_video_is_extracted_in_parts_and_killed_workers_change_nothing(video: Path, tmp_path: Path) -> None:
    with LocalCloud(REPO / "template.yaml") as cloud:
        storage = bucket_of(cloud)
        storage.put_file("library/long.mp4", video)
        storage.put("library/a.png", png(texture(HEIGHT, WIDTH, seed=1)))
        client = JobClient(storage)

        def run(task_id: str, **changes: Any) -> JobRecord:
            client.submit(PreparedJob(task_id, json.dumps({"task_id": task_id, **DOCUMENT, **changes}).encode(), {}))
            status = client.wait(task_id, timeout_s=300)
            cloud.wait_idle(120)
            assert status.state == "done", status.error
            return JobRecord.model_validate_json(storage.get(keys.job_record(task_id)).data)

        record = run("plain")
        assert (record.source.frames, record.fallbacks, record.notices) == (FRAMES, (), ())
        assert {"Orchestrator", "ExtractPart", "JoinFlows"} == {one.step for one in record.usage}
        assert [one.step for one in record.usage].count("ExtractPart") == 3
        assert not list(storage.list("work/.parts/"))
        copies = [call.operation for call in cloud.calls if call.function == "JoinFlowsFunction"]
        assert "CompleteMultipartUpload" in copies
        assert not [
            call for call in cloud.calls if call.function == "JoinFlowsFunction" and call.key == "library/long.mp4"
        ]

        # The same video in one function, in a store of its own: the same bytes, but for what names the store's ETag.
        from structureflow.storage.memory import MemoryStorage

        memory = MemoryStorage()
        for key in ("library/long.mp4", "library/a.png"):
            memory.put(key, storage.get(key).data)
        other = JobRunner(memory, tmp_path)
        assert other.run("plain", {"task_id": "plain", **DOCUMENT}).state == "done"
        assert record.flow_cache_key is not None
        assert storage.get(record.flow_cache_key).data == memory.get(record.flow_cache_key).data
        mine = [info.key for info in storage.list(f"cache/timelines/{record.timeline_id}/frames/")]
        assert len(mine) == FRAMES
        assert all(storage.get(key).data == memory.get(key).data for key in mine[:: FRAMES // 20])

        class PartsTrap(Trap):
            """Kills the process of a function, once."""

            def append(self, call: Any) -> None:
                list.append(self, call)
                for task_id, function in list(self.armed.items()):
                    operation, prefix = KILLS[function]
                    if (call.function, call.operation) == (function, operation) and str(call.key).startswith(prefix):
                        del self.armed[task_id]
                        os.kill(self._process(function), signal.SIGKILL)
                        self.killed[function] += 1

        trap = PartsTrap(cloud)
        cloud._gateway.calls = trap
        for number, function in enumerate(KILLS):
            # Another quality has other flows, and nothing of the first job is found.
            storage.delete([record.flow_cache_key])
            trap.armed = {f"killed-{number}": function}
            again = run(f"killed-{number}")
            assert trap.killed[function] == 1
            assert again.flow_cache_key == record.flow_cache_key
            assert storage.get(record.flow_cache_key).data == memory.get(record.flow_cache_key).data
            assert not list(storage.list("work/.parts/"))
        machine = cloud.executions("ExtractionStateMachine")
        assert [one.status for one in machine] == ["SUCCEEDED"] * 3
