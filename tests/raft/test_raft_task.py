"""The GPU task: an order carried out by RAFT, typed errors, and the stop signal."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import InputChangedError, JobStateError, ModelWeightsError
from structureflow.flow.archive import open_flow_archive
from structureflow.frames.cache import FrameCache
from structureflow.jobs.documents import load_record, put_document
from structureflow.jobs.extraction_order import ExtractionOrder, load_order
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.raft_task import Progress, RaftOptions, carry_out_order
from structureflow.jobs.timeline import default_timeline_id
from structureflow.models.job import JobRequest
from structureflow.models.results import JobStatus, now
from structureflow.references import Reference
from structureflow.storage.base import Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import BUCKET, JobRunner, put_pan_clip
from structureflow.testing.raft import RandomWeights
from structureflow.testing.storage_servers import make_bucket, moto_server

pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")

RUN = "run-1"
VIDEO = "inputs/clip.mp4"


def begin(storage: Storage, run_id: str) -> None:
    """Put the job to a run, as the orchestrator would."""
    status = JobStatus(task_id="job", run_id=run_id, state="running", stage="orchestrate", updated_at=now())
    put_document(storage, keys.job_status("job"), status)


def put_order(storage: Storage, folder: Path, *, engine: str = "raft", frames: int = 4, width: int = 160) -> str:
    """Put a clip and an order for it, as the orchestrator would, and return the order's key."""
    put_pan_clip(storage, VIDEO, folder, frames=frames, height=96, width=width)
    source = Inputs(storage, BUCKET, max_bytes=1 << 30).find(Reference(VIDEO))
    request = JobRequest.parse(
        {
            "task_id": "job",
            "structure_video": VIDEO,
            "engine": "raft",
            "quality": "fast",
            "segments": [{"frames": 5, "guides": []}],
        }
    )
    order = ExtractionOrder(
        bucket=BUCKET,
        task_id="job",
        run_id=RUN,
        request=request,
        source=source.pin(),
        timeline_id=default_timeline_id(source.identity),
        engine=engine,
        created_at=now(),
    )
    begin(storage, RUN)
    put_document(storage, keys.gpu_order(RUN), order)
    return keys.gpu_order(RUN)


def options(random: RandomWeights, /, **changes: Any) -> RaftOptions:
    chosen: dict[str, Any] = {
        "weights": str(random.path.parent / "{model}.pth"),
        "weights_sha256": {random.model: random.sha256},
        "batch_pairs": 2,
        "device": "cpu",
    } | changes
    return RaftOptions(**chosen)


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    work = tmp_path / "work"
    work.mkdir()
    return JobRunner(MemoryStorage(), work)


def test_an_order_leaves_frames_flows_and_a_record(runner: JobRunner, tmp_path: Path, small: RandomWeights) -> None:
    key = put_order(runner.storage, tmp_path)
    told: list[Progress] = []
    record = carry_out_order(key, options(small), runner.services, report=told.append)
    assert (record.engine, record.run_id, record.flow_cache_hit) == ("raft", RUN, False)
    assert record.engine_params["weights_sha256"] == small.sha256
    assert record.engine_params["iterations"] == 12
    assert load_record(runner.storage, "job") == record
    flows = open_flow_archive(runner.storage, keys.job_flows("job"))
    assert (flows.meta.engine, flows.meta.total_flows, flows.meta.height, flows.meta.width) == ("raft", 3, 96, 160)
    assert FrameCache(runner.storage).cache_exists(record.timeline_id)
    assert told[-1].frames_done == told[-1].frames_total == 4
    assert told[0].frames_done == 2
    assert list((tmp_path / "work").iterdir()) == []


def test_weights_come_from_the_bucket_too(runner: JobRunner, tmp_path: Path, small: RandomWeights) -> None:
    key = put_order(runner.storage, tmp_path, frames=2)
    runner.storage.put("weights/raft_small.pth", small.path.read_bytes())
    for weights in ("weights/{model}.pth", f"s3://{BUCKET}/weights/raft_small.pth"):
        runner.storage.delete([*runner.keys("jobs/job/runs/"), keys.job_flows("job"), *runner.keys("cache/")])
        record = carry_out_order(key, options(small, weights=weights), runner.services, report=lambda _: None)
        assert record.engine_params["weights_sha256"] == small.sha256


def test_a_committed_run_is_left_as_it_is(runner: JobRunner, tmp_path: Path, small: RandomWeights) -> None:
    key = put_order(runner.storage, tmp_path, frames=2)
    first = carry_out_order(key, options(small), runner.services, report=lambda _: None)
    archive = runner.storage.head(keys.job_flows("job"))
    runner.storage.put(keys.run_claim("job", RUN), b"{}")  # its segments are under way
    told: list[Progress] = []
    assert carry_out_order(key, options(small), runner.services, report=told.append) == first
    assert (runner.storage.head(keys.job_flows("job")), told) == (archive, [])
    runner.storage.delete([keys.job_flows("job"), keys.run_claim("job", RUN)])
    carry_out_order(key, options(small), runner.services, report=told.append)
    assert runner.storage.exists(keys.job_flows("job")), "a commit that broke off half-way is finished"


def test_flows_by_other_weights_than_the_presets_are_found_again_by_those_only(
    runner: JobRunner, tmp_path: Path, small: RandomWeights
) -> None:
    """The orchestrator knows the preset's weights, and must not take these flows for theirs."""
    key = put_order(runner.storage, tmp_path, frames=3)
    record = carry_out_order(key, options(small), runner.services, report=lambda _: None)
    order = load_order(runner.storage, key)
    assert not runner.storage.exists(order.shared_key)
    assert record.flow_cache_key is not None
    assert runner.keys("cache/flows/") == [record.flow_cache_key]
    again = order.model_copy(update={"run_id": "run-2"})
    begin(runner.storage, "run-2")
    put_document(runner.storage, key, again)
    told: list[Progress] = []
    second = carry_out_order(key, options(small), runner.services, report=told.append)
    assert (second.run_id, second.flow_cache_hit, told) == ("run-2", True, [])
    other = RandomWeights.make("raft_small", tmp_path, seed=1)
    begin(runner.storage, "run-3")
    put_document(runner.storage, key, order.model_copy(update={"run_id": "run-3"}))
    third = carry_out_order(key, options(other), runner.services, report=lambda _: None)
    assert not third.flow_cache_hit
    assert third.flow_cache_key != record.flow_cache_key


def test_what_cannot_be_done_commits_nothing(runner: JobRunner, tmp_path: Path, small: RandomWeights) -> None:
    def try_with(error: type[Exception], text: str, **changes: Any) -> None:
        with pytest.raises(error, match=text):
            carry_out_order(key, options(small, **changes), runner.services, report=lambda _: None)
        assert not runner.storage.exists(keys.job_flows("job"))
        assert runner.keys("cache/flows/") == []
        assert list((tmp_path / "work").iterdir()) == []

    key = put_order(runner.storage, tmp_path, frames=3)
    try_with(ModelWeightsError, "no checksum is set; there are: raft_large", weights_sha256={"raft_large": "0" * 64})
    try_with(ModelWeightsError, "expected SHA-256 000", weights_sha256={"raft_small": "0" * 64})
    try_with(ModelWeightsError, "cannot be read", weights="/nowhere/{model}.pth")
    runner.storage.put(VIDEO, b"")
    try_with(InputChangedError, "was overwritten")
    key = put_order(runner.storage, tmp_path, engine="dis")
    try_with(JobStateError, "expected an order for raft")
    key = "work/gpu/none.json"
    try_with(JobStateError, "none")


# --- the process -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path) -> Storage:
    return make_bucket(endpoint, f"data-{hashlib.sha256(bytes(tmp_path)).hexdigest()[:16]}")


class Task:
    """A task process and what it needs."""

    def __init__(self, bucket: Any, endpoint: str, key: str, folder: Path, weights: RandomWeights) -> None:
        self.folder = folder / "tmp"
        self.folder.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.folder),
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "DATA_BUCKET": bucket.uri.removeprefix("s3://"),
            "MAX_VIDEO_FRAMES": "1000",
            "MAX_VIDEO_MEGABYTES": "100",
            "POWERTOOLS_SERVICE_NAME": "raft",
            "POWERTOOLS_METRICS_NAMESPACE": "structureflow",
            "EXTRACTION_KEY": key,
            "RAFT_DEVICE": "cpu",
            "RAFT_BATCH_PAIRS": "2",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "structureflow_local.raft_task", "--weights", str(weights.path.parent)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Wait for the process; return its exit code, the lines of its log, and its stderr."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err


def test_the_process_carries_out_an_order_and_logs_progress(
    bucket: Storage, endpoint: str, tmp_path: Path, small: RandomWeights
) -> None:
    key = put_order(bucket, tmp_path, frames=3)
    code, log, err = Task(bucket, endpoint, key, tmp_path, small).end()
    assert (code, err) == (0, "")
    assert open_flow_archive(bucket, keys.job_flows("job")).meta.total_flows == 2
    progress = [line for line in log if line["message"] == "extracting"]
    assert (progress[-1]["frames_done"], progress[-1]["frames_total"]) == (3, 3)
    assert progress[-1]["pairs_per_s"] > 0
    assert log[-1]["message"] == "order carried out"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_leaves_nothing_half_made(
    bucket: Storage, endpoint: str, tmp_path: Path, small: RandomWeights, number: signal.Signals
) -> None:
    key = put_order(bucket, tmp_path, frames=120)
    task = Task(bucket, endpoint, key, tmp_path, small)
    assert task.process.stdout is not None
    first = json.loads(task.process.stdout.readline())
    assert (first["message"], first["frames_total"]) == ("extracting", 120)
    task.process.send_signal(number)
    code, log, err = task.end()
    assert (code, err) == (128 + number, "")
    assert log[-1]["signal"] == number.name
    left = [info.key for info in bucket.list("")]
    assert not [name for name in left if name.endswith((".npz", "manifest.json", "job.json"))]
    assert key in left, "who looks after orders finds this one"
    # PyTorch leaves a folder of its own there when it is imported.
    assert list(task.folder.glob("structureflow-*")) == []


def test_a_failed_process_says_why_in_one_line(
    bucket: Storage, endpoint: str, tmp_path: Path, small: RandomWeights
) -> None:
    code, log, err = Task(bucket, endpoint, "work/gpu/none.json", tmp_path, small).end()
    assert (code, log) == (1, [])
    assert json.loads(err)["error"]["code"] == "JobStateError"


def test_a_failed_process_tells_its_order_why(
    bucket: Storage, endpoint: str, tmp_path: Path, small: RandomWeights
) -> None:
    """Also where its own settings are what is wrong: no weights in that folder."""
    key = put_order(bucket, tmp_path)
    nothing = replace(small, path=tmp_path / "nowhere" / "raft_small.pth")
    code, _, err = Task(bucket, endpoint, key, tmp_path, nothing).end()
    assert code == 1
    assert json.loads(err)["error"]["code"] == "SettingsError"
    assert (
        load_order(bucket, key).failure == "SettingsError: RAFT_WEIGHTS_URI: expected a value in the environment, "
        "got None"
    )


def test_importing_the_engine_imports_no_pytorch() -> None:
    code = "import sys, structureflow.runtime.task_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
