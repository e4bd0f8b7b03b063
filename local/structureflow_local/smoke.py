"""``make smoke STACK=…``: a tiny job on a deployed stack, followed to its end, measured, and cleared away.

Its video is new every time, so that the first job extracts flows and the second one finds them. What it prints is one
JSON object: seconds, cost and cold starts of both.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from structureflow import Storage, keys
from structureflow.errors import JobStateError, SettingsError, StructureFlowError
from structureflow.jobs.documents import get_document
from structureflow.models.results import JobRecord, JobStatus, Manifest
from structureflow_local.client import JobClient, PreparedJob, prepare_job
from structureflow_local.exits import DONE, JOB_FAILED, exit_code
from structureflow_local.parsers import seconds

#: Of the clip and of each of the two segments.
FRAMES: Final = 24
SEGMENT_FRAMES: Final = 17
HEIGHT, WIDTH = 192, 320


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code is that of the command line."""
    parser = argparse.ArgumentParser(prog="smoke", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument("--region", help="of the stack (default: as the AWS command line)")
    parser.add_argument("--timeout", type=seconds, default=600, metavar="SECONDS", help="of each job (default: 600)")
    args = parser.parse_args(argv)
    try:
        storage = storage_of_stack(args.stack, args.region)
        document = smoke(storage, timeout_s=args.timeout)
    except StructureFlowError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return exit_code(error)
    json.dump({"stack": args.stack, **document}, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return DONE if all(one["state"] == "done" for one in document["jobs"].values()) else JOB_FAILED


def storage_of_stack(stack: str, region: str | None = None, *, client: Any = None) -> Storage:
    """Return the data bucket of a deployed stack; `client` is of CloudFormation, built here if not given.

    Raises:
        SettingsError: there is no such stack, or it has no such output; or AWS did not answer.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from structureflow import S3Settings, S3Storage

    try:
        client = client or boto3.client("cloudformation", region_name=region)
        (found,) = client.describe_stacks(StackName=stack)["Stacks"]
        used = client.meta.region_name
    except (BotoCoreError, ClientError) as error:
        raise SettingsError(f"STACK: expected a deployed stack, got {stack!r}: {error}") from error
    outputs = {one.get("OutputKey"): one.get("OutputValue") for one in found.get("Outputs", [])}
    bucket = outputs.get("DataBucketName")
    if not bucket:
        raise SettingsError(
            f"STACK: expected one with the output DataBucketName, {stack!r} has {sorted(map(str, outputs))}"
        )
    return S3Storage(bucket, settings=S3Settings(region=used))


def smoke(storage: Storage, *, timeout_s: float) -> dict[str, Any]:
    """Run two jobs on one new video, and return what they took; everything that they made is deleted.

    Raises:
        StructureFlowError: the bucket cannot be read or written.
    """
    mark = secrets.token_hex(4)
    jobs: dict[str, dict[str, Any]] = {}
    made = {keys.timeline_prefix(f"smoke-{mark}")}
    begun = time.monotonic()
    try:
        with TemporaryDirectory(prefix="structureflow-smoke-") as folder:
            _write_clip(Path(folder))
            for name in ("first", "again"):
                jobs[name] = _run(storage, _job(f"smoke-{mark}-{name}", f"smoke-{mark}", Path(folder)), timeout_s, made)
                if jobs[name]["state"] != "done":
                    break
    finally:
        deleted = _clear(storage, [f"smoke-{mark}-{name}" for name in ("first", "again")], made)
    return {"seconds": round(time.monotonic() - begun, 3), "jobs": jobs, "objects_deleted": deleted}


def _write_clip(folder: Path) -> None:
    import cv2

    from structureflow.testing.videos import pan_frames, write_clip

    frames = list(pan_frames(FRAMES, HEIGHT, WIDTH, dx=2, dy=1, seed=secrets.randbelow(2**31)))
    write_clip(folder / "clip.mp4", frames, fps=16)
    for name, frame in (("a", frames[0]), ("b", frames[-1])):
        if not cv2.imwrite(str(folder / f"{name}.png"), frame):
            raise JobStateError(f"{folder / name}.png cannot be written")


def _job(task_id: str, timeline_id: str, folder: Path) -> PreparedJob:
    guides = [{"at": 0, "image": "a.png"}, {"at": SEGMENT_FRAMES - 1, "image": "b.png"}]
    document = {
        "task_id": task_id,
        "structure_video": "clip.mp4",
        "timeline_id": timeline_id,
        "segments": [{"frames": SEGMENT_FRAMES, "guides": guides}] * 2,
    }
    return prepare_job(json.dumps(document), name=task_id, folder=folder)


def _run(storage: Storage, job: PreparedJob, timeout_s: float, made: set[str]) -> dict[str, Any]:
    client = JobClient(storage)

    def watch(status: JobStatus | None) -> None:
        """Learn which caches the job fills, while its record is there: a run that fails takes its record along."""
        if status is None or len(made) > 1:
            return
        key = keys.run_record(job.task_id, status.run_id)
        if storage.exists(key):
            record = get_document(storage, key, JobRecord, made_by="the orchestrator")
            made.update({record.flow_cache_key} if record.flow_cache_key else ())

    begun = time.monotonic()
    client.submit(job)
    found: dict[str, Any] = {"task_id": job.task_id}
    try:
        status = client.wait(job.task_id, timeout_s=timeout_s, watch=watch)
    except JobStateError as error:
        return {**found, "state": "not finished", "error": error.as_dict()}
    seconds = round(time.monotonic() - begun, 3)
    if status.state != "done":
        said = status.error.model_dump(mode="json") if status.error else None
        return {**found, "state": status.state, "seconds": {"job": seconds}, "error": said}
    manifest = get_document(storage, keys.job_manifest(job.task_id), Manifest, made_by="AssembleJob")
    steps = (*manifest.usage, *(one for result in manifest.segments for one in result.usage))
    return {
        **found,
        "state": status.state,
        "seconds": {**manifest.timings_s, "job": seconds},
        "steps": [one.model_dump(mode="json") for one in steps],
        "cold_starts": sum(one.cold_start for one in steps),
        "cost_usd": {**manifest.cost_usd, "sum": round(sum(manifest.cost_usd.values()), 8)},
        "flow_cache_hit": manifest.flow_cache_hit,
        "fallbacks": [one.model_dump(mode="json") for one in manifest.fallbacks],
    }


def _clear(storage: Storage, task_ids: Sequence[str], made: set[str]) -> int:
    count = sum(JobClient(storage).clean(task_id) for task_id in task_ids)
    for prefix in sorted(made):
        count += storage.delete(info.key for info in storage.list(prefix))
    return count


if __name__ == "__main__":
    sys.exit(main())
