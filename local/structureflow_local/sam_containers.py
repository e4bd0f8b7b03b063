"""Runs the functions in Lambda's containers on the golden events, against a local S3 that holds the sample job."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any, Final

from structureflow import S3Settings, S3Storage, Storage, keys
from structureflow.models.results import JobStatus, Manifest
from structureflow_local.cloud.gateway import without_back_doors
from structureflow_local.cloud.servers import Servers
from structureflow_local.doors import DOCKER_HOST, OBJECT_POLICY, Doors
from structureflow_local.sam_build import REGION, REPO, SamError, run_sam

#: The bucket and the job that the golden events name.
BUCKET: Final = "structureflow-local"
TASK_ID: Final = "sample"
TIMELINE_ID: Final = "sample"
#: Another job, whose video is extracted in parts.
PARTS_TASK_ID: Final = "sample-parts"
PARTS_RUN_ID: Final = "0123456789abcdef"
#: Of the sample job's only segment.
FRAMES: Final = 25
#: One golden event of every function, in the order of a job; those of one line need nothing of each other, and share
#: the time that SAM takes to build their container's image. FailJob comes last: it leaves a finished job alone.
ORDER: Final = (
    ("orchestrator/request_queued",),
    ("plan_segments/flows_arrived", "api/timeline_frames", "settle_gpu/look_for_overdue", "extract_part/sample"),
    ("render_segment/first", "join_flows/sample", "preview/gap"),
    # Not beside the segment, which shows frames of the same timeline in its report.
    ("assemble_job/finished", "rebuild_timeline/sample"),
    ("fail_job/segment_failed",),
)
#: Where `serve` listens; events/environment.json names it.
PORT: Final = 9100
_HOST: Final = "host.docker.internal"


@dataclass(frozen=True, slots=True)
class Invoked:
    """One golden event that a function took."""

    function: str
    event: Path
    payload: Any
    seconds: float


#: Runs a function on the event in a file, with the S3 at a port of this machine; returns what it answers.
Invoke = Callable[[str, Path, int], Any]


def events_in_order() -> list[list[tuple[str, Path]]]:
    """Return (function, event file) for every function, in the order of a job, in groups as in `ORDER`.

    Raises:
        SamError: a function has no event in `ORDER`, or the other way round.
    """
    groups = [[REPO / "events" / f"{name}.json" for name in group] for group in ORDER]
    named = sorted(path.parent.name for group in groups for path in group)
    stems = sorted(path.parent.name for path in (REPO / "functions").glob("*/app.py"))
    if named != stems:
        raise SamError(f"expected events of {stems}, got {named}")
    return [[(_function_of(path), path) for path in group] for group in groups]


def _function_of(event: Path) -> str:
    return "".join(part.title() for part in event.parent.name.split("_")) + "Function"


def invoke_all(template: Path, say: Callable[[str], None]) -> list[Invoked]:
    """Run every function with ``sam local invoke``; see `run_golden_job`.

    Args:
        template: the built template.
        say: told a line at a time what happens.
    """
    return run_golden_job(lambda function, event, port: _invoke(template, function, event, port), say)


def run_golden_job(invoke: Invoke, say: Callable[[str], None]) -> list[Invoked]:
    """Run every function on its golden event, the outputs of one feeding the next, and check the outcome.

    Args:
        invoke: runs one function on one event.
        say: told a line at a time what happens.

    Raises:
        SamError: a function failed, or the job's outputs are not what they must be.
    """
    with TemporaryDirectory(prefix="structureflow-sam-") as name, local_s3() as (port, storage):
        folder = Path(name)
        _put_sample(storage, folder)
        say(f"local S3 at port {port}, bucket {BUCKET}")
        invoked: list[Invoked] = []
        for group in events_in_order():
            with ThreadPoolExecutor(len(group)) as pool:
                done = list(pool.map(lambda item: _timed(invoke, item[0], item[1], port), group))
            for one in done:
                answer = json.dumps(one.payload)[:160]
                say(f"{one.function:<26} {one.event.relative_to(REPO)}  {one.seconds:.1f} s  {answer}")
            invoked += done
            if any(one.event.parent.name == "assemble_job" for one in done):
                say(_check_outputs(storage, folder))
        _check_left_alone(storage)
    return invoked


def _timed(invoke: Invoke, function: str, event: Path, port: int) -> Invoked:
    begin = time.perf_counter()
    payload = invoke(function, event, port)
    failed = isinstance(payload, dict) and ("errorType" in payload or payload.get("state") == "failed")
    if failed and event.parent.name != "fail_job":
        raise SamError(f"{function} on {event.name} failed: {payload}")
    return Invoked(function, event, payload, time.perf_counter() - begin)


@contextmanager
def local_s3(port: int = 0) -> Iterator[tuple[int, Storage]]:
    """Serve S3 on loopback and, where there is one, on the Docker bridge's own address; give port and bucket.

    Args:
        port: 0 takes a free one.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    with ExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory(prefix="structureflow-s3-")))
        addresses = ("127.0.0.1", *_bridge_addresses())
        servers = Servers(addresses, logs / "server.log", port=port)
        stack.callback(servers.close)
        # No signature is asked for: SAM's containers sign with the keys of whoever calls `sam local invoke`.
        moto = without_back_doors(DomainDispatcherApplication(create_backend_app))
        servers.start(Doors(moto, hosts=(*addresses, DOCKER_HOST), policy=OBJECT_POLICY, subdomains=True))
        port = servers.port
        settings = S3Settings(
            endpoint_url=f"http://127.0.0.1:{port}",
            region=REGION,
            access_key_id="local",
            secret_access_key="local",  # noqa: S106 - signs nothing but local requests
        )
        storage = S3Storage(BUCKET, settings=settings)
        storage.client.create_bucket(Bucket=BUCKET)
        yield port, storage


def serve(say: Callable[[str], None]) -> None:
    """Serve the sample job's bucket on `PORT` until interrupted."""
    with TemporaryDirectory(prefix="structureflow-sam-") as name, local_s3(PORT) as (port, storage):
        _put_sample(storage, Path(name))
        say(f"S3 at http://127.0.0.1:{port}, bucket {BUCKET}; now: sam local invoke FUNCTION -e events/…; Ctrl-C ends")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            say("ended")


def _bridge_addresses() -> list[str]:
    """Return this machine's addresses on Docker's bridge; none where the engine runs in a machine of its own."""
    option = '{{index .Options "com.docker.network.bridge.name"}}'
    bridge = _output("docker", "network", "inspect", "bridge", "--format", option) or "docker0"
    listed = _output("ip", "-o", "-4", "addr", "show", bridge) if shutil.which("ip") else ""
    return re.findall(r" inet ([0-9.]+)/", listed)


def _output(*command: str) -> str:
    """Return what a command prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _put_sample(storage: Storage, folder: Path) -> None:
    """Put the job and the timeline that the golden events name."""
    from structureflow_local.client import JobClient, prepare_job
    from structureflow_local.demo import write_demo_job
    from structureflow_local.run_command import sample

    document = json.loads(write_demo_job(sample(), folder).read_text())
    start, end, *_ = document.pop("images")
    guides = [{"at": [0, 4], "image": start}, {"at": [FRAMES - 3, FRAMES - 1], "image": end}]
    document |= {"task_id": TASK_ID, "timeline_id": TIMELINE_ID, "resolution": [320, 192], "target": None}
    document["segments"] = [{"frames": FRAMES, "guides": guides}]
    storage.put_file(f"{keys.timeline_chunks_prefix(TIMELINE_ID)}000.mp4", sample())
    JobClient(storage).submit(prepare_job(json.dumps(document), name=TASK_ID, folder=folder))
    _put_parts(storage)


def _put_parts(storage: Storage) -> None:
    """Leave what the orchestrator leaves of another job on the same video, which is extracted in parts."""
    status = JobStatus(
        task_id=PARTS_TASK_ID, run_id=PARTS_RUN_ID, state="running", stage="extract", updated_at=datetime.now(UTC)
    )
    storage.put(keys.job_status(PARTS_TASK_ID), status.to_json())
    storage.put_file(keys.parts_file(PARTS_RUN_ID, "plan.json"), REPO / "local" / "sample" / "parts_plan.json")


def _invoke(template: Path, function: str, event: Path, port: int) -> Any:
    variables = {"Parameters": {"DATA_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": f"http://{_HOST}:{port}"}}
    with NamedTemporaryFile("w", prefix="structureflow-sam-", suffix=".json") as file:
        json.dump(variables, file)
        file.flush()
        done = run_sam(
            "local",
            "invoke",
            function,
            "--template",
            str(template),
            "--event",
            str(event),
            "--env-vars",
            file.name,
            "--add-host",
            f"{_HOST}:host-gateway",
            "--region",
            REGION,
            *_pull_options(),
            environment={"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_SESSION_TOKEN": ""},
        )
    answer = done.stdout.strip().splitlines()[-1:] or ["null"]
    try:
        payload = json.loads(answer[0])
    except ValueError as error:
        raise SamError(f"{function} on {event.name}: expected JSON, got {done.stdout[-500:]}") from error
    if isinstance(payload, dict) and "errorType" in payload:
        raise SamError(f"{function} on {event.name} failed: {payload}; log: {done.stderr[-2000:]}")
    return payload


def _pull_options() -> list[str]:
    """Do not pull a base image that is there already."""
    image = "public.ecr.aws/lambda/python:3.13-x86_64"
    there = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0
    return ["--skip-pull-image"] if there else []


def _check_outputs(storage: Storage, folder: Path) -> str:
    """Check the finished job from its manifest down to the decoded frames."""
    from structureflow import DecodeLimits, VideoReader

    manifest = Manifest.model_validate_json(storage.get(keys.job_manifest(TASK_ID)).data)
    counted = {}
    for name, output in manifest.segments[0].outputs.items():
        path = folder / f"{name}.mp4"
        storage.get_to_file(output.key, path)
        with VideoReader(path, DecodeLimits()) as reader:
            counted[name] = sum(1 for _ in reader)
    if counted != {"guide": FRAMES, "mask": FRAMES}:
        raise SamError(f"expected guide and mask of {FRAMES} frames, got {counted}")
    source = manifest.segments[0].flow_source
    return f"guide.mp4 and mask.mp4 decode to {FRAMES} frames each; flow from {source}; report {manifest.report}"


def _check_left_alone(storage: Storage) -> None:
    status = JobStatus.model_validate_json(storage.get(keys.job_status(TASK_ID)).data)
    if status.state != "done":
        raise SamError(f"expected FailJob to leave the finished job alone, got {status}")
