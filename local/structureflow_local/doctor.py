"""What works here: each examination returns a `Finding` and changes nothing."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from structureflow.errors import MissingExtraError, StructureFlowError
from structureflow_local.missing import CLOUD
from structureflow_local.parsers import storage_of

State = Literal["works", "missing", "broken"]
#: A whole job of 100 frames of 720p with its caches takes a tenth of this.
_FREE_BYTES: Final = 2 * 10**9
_MEMORY_BYTES: Final = 3 * 10**9
_PACKAGES: Final = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "av": "av",
    "PIL": "pillow",
    "pydantic": "pydantic",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    Attributes:
        what: was looked at.
        state: `works`; `missing`: jobs do without it; `broken`: they do not.
        said: what was found, or why it does not work.
        remedy: what to do about it; empty where there is nothing to do.
        remote: whether it lies elsewhere than on this machine.
    """

    what: str
    state: State
    said: str
    remedy: str = ""
    remote: bool = False

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {name: getattr(self, name) for name in ("what", "state", "said", "remedy")}


def examine_machine(store: Path) -> list[Finding]:
    """Look at everything that jobs on this machine need, the engine `raft` and images with Docker included."""
    return [
        _python(),
        _packages(),
        _codecs(),
        _memory(),
        _space(store),
        _local_cloud(),
        _raft(),
        _docker(),
    ]


def examine_bucket(args: argparse.Namespace) -> Finding:
    """List one object of the bucket that the options of a command name."""
    try:
        storage = storage_of(args)
        next(iter(storage.list("jobs/")), None)
    except MissingExtraError as error:
        return Finding("bucket", "broken", error.message)
    except StructureFlowError as error:
        return Finding(
            "bucket", "broken", error.message, "check its name, the region, and the credentials", remote=True
        )
    return Finding("bucket", "works", f"{storage.uri} can be listed", remote=True)


def _python() -> Finding:
    version = platform.python_version()
    return Finding("Python", "works", f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")


def _packages() -> Finding:
    versions, absent = [], []
    for module, package in _PACKAGES.items():
        try:
            versions.append(f"{package} {importlib.import_module(module).__version__}")
        except (ImportError, AttributeError) as error:
            absent.append(f"{package} ({error})")
    if absent:
        return Finding("packages", "broken", f"cannot be imported: {', '.join(absent)}", "make setup, or install again")
    return Finding("packages", "works", ", ".join(versions))


def _codecs() -> Finding:
    try:
        from av.codec import Codec

        Codec("libx264", "w")
        known = [name for name in ("h264", "hevc", "av1", "vp9", "prores") if _decodes(Codec, name)]
    except (ImportError, ValueError) as error:
        return Finding(
            "H.264", "broken", f"PyAV cannot encode it: {error}", "install PyAV's own wheels: pip install av"
        )
    return Finding("H.264", "works", f"encodes by x264; decodes {', '.join(known)}")


def _decodes(codec: Any, name: str) -> bool:
    try:
        codec(name, "r")
    except ValueError:
        return False
    return True


def _memory() -> Finding:
    import psutil

    found = psutil.virtual_memory()
    said = f"{found.available / 1e9:.1f} GB of {found.total / 1e9:.1f} GB are free"
    if found.available < _MEMORY_BYTES:
        return Finding("memory", "missing", said, "segments larger than 720p may be refused: close other programs")
    return Finding("memory", "works", said)


def _space(store: Path) -> Finding:
    """Look at the folders that a run fills: temporary files, and the store of caches."""
    said, few = [], False
    for name, folder in (("temporary files", Path(tempfile.gettempdir())), ("caches", _existing(store))):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            return Finding(
                "disk", "broken", f"{folder} cannot be written to: {error.strerror}", f"for {name}: choose another"
            )
        free = shutil.disk_usage(folder).free
        few = few or free < _FREE_BYTES
        said.append(f"{free / 1e9:.1f} GB free for {name}")
    state: State = "missing" if few else "works"
    return Finding("disk", state, ", ".join(said), "free some space: caches and results need it" if few else "")


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def _local_cloud() -> Finding:
    absent = [name for name in ("moto", "awslambdaric", "yaml", "werkzeug") if importlib.util.find_spec(name) is None]
    if absent:
        return Finding("local cloud", "missing", f"not installed: {', '.join(absent)}", CLOUD)
    from structureflow_local.cloud.errors import FunctionProcessError
    from structureflow_local.cloud.function_process import emulator_path

    try:
        emulator = emulator_path()
    except FunctionProcessError as error:
        return Finding("local cloud", "missing", error.message, "use Linux, or WSL, for it")
    if not os.access(emulator, os.X_OK):
        return Finding("local cloud", "missing", f"{emulator} cannot be executed", "chmod +x, or make setup again")
    return Finding("local cloud", "works", f"with AWS's runtime emulator, {emulator.name}")


def _raft() -> Finding:
    from structureflow_local.gpu import what_is_missing

    missing = what_is_missing(None)
    if missing is not None:
        return Finding("engine raft", "missing", f"{missing}; jobs that ask for it are done by dis, and say so")
    return Finding("engine raft", "works", "PyTorch and weights are there")


def _docker() -> Finding:
    program = shutil.which("docker")
    remedy = "only deploying, and sam local, need it"
    if program is None:
        return Finding("Docker", "missing", "not installed", remedy)
    try:
        done = subprocess.run(
            [program, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Docker", "missing", f"no engine answers: {error}", remedy)
    if done.returncode:
        return Finding("Docker", "missing", "no engine answers", remedy)
    return Finding("Docker", "works", f"engine {done.stdout.strip()}")


# --- a deployed stack --------------------------------------------------------------------------------


def examine_stack(
    name: str, *, endpoint_url: str | None = None, clients: Callable[[str], Any] | None = None
) -> list[Finding]:
    """Look at a deployed stack: that it is whole, its bucket, its state machine, and events that were given up; and at
    the queue of its Batch part, where it has one.

    Args:
        name: of the CloudFormation stack.
        endpoint_url: of all services, instead of AWS's.
        clients: makes a boto3 client of a service; by default with the credentials of the environment.
    """
    client = clients or _clients(endpoint_url)
    outputs: dict[str, str] = {}

    def stack() -> str:
        (found,) = client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        outputs.update({one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())})
        state = found["StackStatus"]
        if not state.endswith("_COMPLETE") or state in {"ROLLBACK_COMPLETE", "DELETE_COMPLETE"}:
            raise LookupError(f"{name} is in the state {state}")
        return f"{name}: {state}"

    def bucket() -> str:
        named = _wanted(outputs, "DataBucketName")
        client("s3").list_objects_v2(Bucket=named, Prefix="jobs/", MaxKeys=1)
        return f"{named} can be listed; give it to other commands as --bucket {named}"

    def machine() -> str:
        found = client("stepfunctions").describe_state_machine(stateMachineArn=_wanted(outputs, "StateMachineArn"))
        if found["status"] != "ACTIVE":
            raise LookupError(f"{found['name']} is {found['status']}")
        return f"{found['name']} is active"

    def dead_letters() -> str:
        url = _wanted(outputs, "EventsDeadLetterQueueUrl")
        found = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        count = int(found["Attributes"]["ApproximateNumberOfMessages"])
        if count:
            raise LookupError(f"{count} events could not be delivered")
        return "every event was delivered"

    def batch_queue() -> str:
        arn = _wanted(outputs, "BatchJobQueueArn")
        (found,) = client("batch").describe_job_queues(jobQueues=[arn])["jobQueues"]
        if (found["state"], found["status"]) != ("ENABLED", "VALID"):
            raise LookupError(
                f"{found['jobQueueName']} is {found['state']}, {found['status']}: {found.get('statusReason')}"
            )
        return f"{found['jobQueueName']} takes jobs"

    findings = [_examined("stack", stack, "deploy it (sam deploy), or check name, region and credentials")]
    if findings[0].state == "works":
        findings += [
            _examined("bucket", bucket, "check the rights of the credentials"),
            _examined("state machine", machine, "look at the stack's events"),
            _examined("undelivered events", dead_letters, "docs/operations.md tells how to redrive them"),
        ]
    if "BatchJobQueueArn" in outputs:
        findings.append(_examined("Batch queue", batch_queue, "look at its compute environment (docs/batch.md)"))
    return findings


def _examined(what: str, look: Callable[[], str], remedy: str) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return Finding(what, "works", look(), remote=True)
    except (LookupError, BotoCoreError, ClientError) as error:
        return Finding(what, "broken", str(error), remedy, remote=True)


def _wanted(outputs: dict[str, str], name: str) -> str:
    if name not in outputs:
        raise LookupError(f"the stack has no output {name}: it is none of structureflow's, or an older one")
    return outputs[name]


def _clients(endpoint_url: str | None) -> Callable[[str], Any]:
    import boto3
    from botocore.config import Config

    quick = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "max_attempts": 2})
    return lambda service: boto3.client(service, endpoint_url=endpoint_url, config=quick)  # type: ignore[call-overload]
