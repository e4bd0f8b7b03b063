"""Real processes of functions, killed at work on the local cloud: they run again, and the job is done."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.models.results import Manifest
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.gateway import Call
from structureflow_local.cloud.spawner import descendants
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
#: A request to the bucket of each function, after which its process is gone: before the answer reaches it.
KILLS = {
    "OrchestratorFunction": ("PutObject", "cache/flows/"),
    "PlanSegmentsFunction": ("PutObject", "claim.json"),
    "RenderSegmentFunction": ("PutObject", "guide.mp4"),
    # Before it publishes: a publisher that dies keeps its turn for minutes, which other tests have a clock for.
    "AssembleJobFunction": ("PutObject", "report.html"),
}
REQUEST = b"""{"task_id": "TASK", "structure_video": "library/clip.mp4", "timeline_id": "TASK",
 "images": ["library/a.png", "library/b.png", "library/a.png"], "frames": 9, "overlap": 3, "fade": 2}"""

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


class Trap(list[Call]):
    """The gateway's log of requests: kills whoever made the one that is waited for, once per job."""

    def __init__(self, cloud: LocalCloud) -> None:
        super().__init__()
        self._cloud = cloud
        self.armed: dict[str, str] = {}
        self.killed: Counter[str] = Counter()

    def append(self, call: Call) -> None:
        """Note a request before it is answered."""
        super().append(call)
        key = call.key or ""
        for task_id, function in list(self.armed.items()):
            operation, part = KILLS[function]
            if call.function != function or call.operation != operation or part not in key:
                continue
            if task_id in key or key.startswith("cache/flows/"):
                del self.armed[task_id]
                os.kill(self._process(function), signal.SIGKILL)
                self.killed[function] += 1

    def _process(self, function: str) -> int:
        """Return the process that runs a function: the interpreter, not the emulator around it."""
        name = f"AWS_LAMBDA_FUNCTION_NAME={self._cloud.physical_id(function)}".encode()
        for pid in descendants(os.getpid()):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if name in environment and b"awslambdaric" in arguments and b"python" in arguments[0]:
                return pid
        raise AssertionError(f"expected a process of {function}")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", pan_frames(9, 96, 160, dx=2, dy=0), fps=25)
    return tmp_path


def test_functions_killed_at_work_run_again_and_their_jobs_are_done(library: Path) -> None:
    # One process a function: the one that is found is the one that made the request.
    with LocalCloud(REPO / "template.yaml", parameters={"MaxConcurrentSegments": "1"}) as cloud:
        trap = Trap(cloud)
        cloud._gateway.calls = trap
        storage = bucket_of(cloud)
        storage.put_file("library/clip.mp4", library / "clip.mp4")
        for name, seed in (("a", 1), ("b", 2)):
            storage.put(f"library/{name}.png", png(texture(96, 160, seed=seed)))
        client = JobClient(storage)
        for number, function in enumerate(KILLS):
            task_id = f"killed-{number}"
            trap.armed[task_id] = function
            client.submit(PreparedJob(task_id, REQUEST.replace(b"TASK", task_id.encode()), {}))
            status = client.wait(task_id, timeout_s=200)
            cloud.wait_idle(120)

            assert trap.killed[function] == 1, function
            errors = [one.error for one in cloud.invocations if one.function == function and one.error is not None]
            assert errors == ["Runtime.ExitError"], function
            assert (status.state, status.published) == ("done", status.run_id), status
            manifest = Manifest.model_validate_json(storage.get(keys.job_manifest(task_id)).data)
            for result in manifest.segments:
                for output in result.outputs.values():
                    assert storage.head(output.key).etag == output.etag
            left = {info.key.rsplit("/", 1)[1] for info in storage.list(keys.runs_prefix(task_id))}
            assert left == {"claim.json", "job.json"}
