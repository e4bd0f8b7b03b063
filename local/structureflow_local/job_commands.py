"""Commands on the jobs of a bucket: ``submit``, ``status``, ``jobs list``, ``fetch``, ``clean``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

from structureflow.errors import InvalidRequestError, JobStateError, StructureFlowError
from structureflow.models.problems import counted
from structureflow.models.results import JobStatus
from structureflow_local.client import JobClient, check_target
from structureflow_local.exits import BAD_INPUT, DONE, JOB_FAILED, NOT_FINISHED
from structureflow_local.output import Output, cells, table
from structureflow_local.parsers import add_command, add_place, seconds, storage_of, whole
from structureflow_local.progress import JobProgress, counting

_LISTED: Final = 200
#: Each look at a job is a few requests, which cost in a bucket of AWS.
_POLL_S: Final = 0.5


def add_commands(commands: Any) -> None:
    """Declare them all."""
    submit = add_command(
        commands,
        "submit",
        _submit,
        summary="upload a job to a data bucket and start it",
        examples=[
            "structureflow submit job.json --bucket BUCKET",
            "structureflow submit job.json --wait --bucket BUCKET",
        ],
    )
    submit.add_argument("job", type=Path, metavar="JOB.json", help="paths in it may be local files")
    submit.add_argument("--wait", action="store_true", help="until it is done or failed; shows how far it is")
    _add_timeout(submit)

    status = add_command(
        commands,
        "status",
        _status,
        summary="show where a job is",
        examples=["structureflow status walk-1 --bucket BUCKET", "structureflow status walk-1 --watch --bucket BUCKET"],
    )
    _add_task_id(status)
    status.add_argument("--watch", action="store_true", help="until it is done or failed; shows how far it is")
    _add_timeout(status)

    jobs = add_command(
        commands, "jobs", None, summary="the jobs of a bucket", examples=["structureflow jobs list --bucket BUCKET"]
    )
    below = jobs.add_subparsers(dest="jobs_command", required=True, metavar="COMMAND")
    listing = add_command(
        below,
        "list",
        _list,
        summary="list jobs with their states",
        examples=["structureflow jobs list --bucket BUCKET"],
    )
    listing.add_argument(
        "--limit", type=whole(1, 1_000_000), default=_LISTED, metavar="N", help=f"at most so many (default: {_LISTED})"
    )

    fetch = add_command(
        commands,
        "fetch",
        _fetch,
        summary="download what a job made",
        examples=["structureflow fetch walk-1 --out walk-1 --bucket BUCKET"],
        more="A job that failed or is not finished has made nothing: exit codes 3 and 5.",
    )
    _add_task_id(fetch)
    fetch.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the job's folder goes")
    fetch.add_argument("--replace", action="store_true", help="put it in the place of another job's")
    fetch.add_argument("--inputs", action="store_true", help="its uploaded inputs too, so that request.json runs again")

    clean = add_command(
        commands,
        "clean",
        _clean,
        summary="delete a job's folder in the bucket",
        examples=["structureflow clean walk-1 --yes --bucket BUCKET"],
        more="It asks first. Caches of flows and frames stay.",
    )
    _add_task_id(clean)
    clean.add_argument("--yes", action="store_true", help="do not ask")

    for command in (submit, status, listing, fetch, clean):
        add_place(command)


def _add_task_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task_id", metavar="TASK_ID")


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=seconds, default=1800, metavar="SECONDS", help="of waiting (default: 1800)")


def _submit(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.jobfile import checked

    job = checked(args.job, output)
    client = JobClient(storage_of(args, may_be_made=True))
    before = client.status(job.task_id) if args.wait else None
    uploaded = sum(path.stat().st_size for path in job.uploads.values())
    with counting(output, "upload", uploaded, "bytes") as transferred:
        client.submit(job, transferred=transferred)
    output.give(task_id=job.task_id, uploaded=sorted(job.uploads))
    output.say(job.task_id)
    if not args.wait:
        return DONE
    return _wait(args, output, client, job.task_id, newer_than=before, named=job.in_own_words)


def _status(args: argparse.Namespace, output: Output) -> int:
    client = JobClient(storage_of(args))
    status = client.status(args.task_id)
    if status is None and not (args.watch and next(client.objects(args.task_id), None)):
        return _unknown(client, args.task_id, output)
    if args.watch or status is None:
        return _wait(args, output, client, args.task_id)
    _say_status(output, status)
    return JOB_FAILED if status.state == "failed" else DONE


def _unknown(client: JobClient, task_id: str, output: Output) -> int:
    """Tell a job that was only just requested from one that there is none of."""
    if next(client.objects(task_id), None) is None:
        raise JobStateError(f"job {task_id}: there is none (structureflow jobs list shows those that there are)")
    output.give(task_id=task_id, state="requested")
    output.say(f"{task_id}: requested, not started yet")
    output.remark(
        "A job begins within seconds; but S3 sends no events until about five minutes after a stack's first "
        "deployment, and none for what was put before: then put the request again."
    )
    return NOT_FINISHED


def _wait(
    args: argparse.Namespace,
    output: Output,
    client: JobClient,
    task_id: str,
    newer_than: JobStatus | None = None,
    named: Callable[[str], str] = str,
) -> int:
    with JobProgress(output, client.storage, named=named) as progress:
        status = client.wait(
            task_id, timeout_s=args.timeout, poll_s=_POLL_S, watch=progress.watch, newer_than=newer_than
        )
    _say_status(output, status, named)
    return JOB_FAILED if status.state == "failed" else DONE


def _say_status(output: Output, status: JobStatus, named: Callable[[str], str] = str) -> None:
    if status.error is not None:
        error = status.error.model_copy(update={"message": named(status.error.message)})
        status = status.model_copy(update={"error": error})
    output.give(**status.model_dump(mode="json", exclude_none=True))
    stage = f", stage {status.stage}" if status.state == "running" else ""
    style = {"done": "bold green", "failed": "bold red"}.get(status.state, "bold")
    output.say(f"{status.task_id}: {status.state}{stage}, {status.updated_at:%Y-%m-%d %H:%M:%S} UTC", style=style)
    if status.error is not None:
        output.say(f"{status.error.code} ({status.error.stage}): {status.error.message}")
    shown = table("Status", "field", "value")
    for name, value in status.model_dump(mode="json", exclude_none=True).items():
        shown.add_row(*cells(name, value))
    output.detail(shown)


def _list(args: argparse.Namespace, output: Output) -> int:
    client = JobClient(storage_of(args))
    found = []
    for task_id in islice(client.task_ids(), args.limit):
        line: dict[str, Any] = {"task_id": task_id}
        try:
            status = client.status(task_id)
        except StructureFlowError as error:
            line |= {"state": "unreadable", "error": error.message}
        else:
            line["state"] = "requested" if status is None else status.state
            if status is not None:
                line |= {"stage": status.stage, "updated_at": f"{status.updated_at:%Y-%m-%d %H:%M:%S}"}
                if status.error is not None:
                    line["error"] = status.error.code
        found.append(line)
        parts = [f"{line.get(name, '')}" for name in ("state", "stage", "updated_at", "error")]
        output.say(f"{task_id:<32} {parts[0]:<10} {parts[1]:<12} {parts[2]:<20} {parts[3]}".rstrip())
    output.give(jobs=found)
    if not found:
        output.say("no jobs")
    return DONE


def _fetch(args: argparse.Namespace, output: Output) -> int:
    client = JobClient(storage_of(args))
    status = client.status(args.task_id)
    if status is None:
        return _unknown(client, args.task_id, output)
    if status.state != "done":
        _say_status(output, status)
        return JOB_FAILED if status.state == "failed" else NOT_FINISHED
    check_target(args.out, args.task_id, replace=args.replace)
    size_bytes = sum(info.size_bytes for info in client.outputs(args.task_id, inputs=args.inputs))
    with counting(output, "download", size_bytes, "bytes") as transferred:
        files = client.fetch(args.task_id, args.out, inputs=args.inputs, transferred=transferred)
    output.give(task_id=args.task_id, files=files)
    for path in files:
        output.say(str(path))
    return DONE


def _clean(args: argparse.Namespace, output: Output) -> int:
    client = JobClient(storage_of(args))
    count = sum(1 for _ in client.objects(args.task_id))
    if not count:
        raise JobStateError(f"job {args.task_id}: there is none")
    if not args.yes:
        if not sys.stdin.isatty():
            raise InvalidRequestError(
                f"--yes: expected it, or somebody to ask; {counted(count, 'object')} would be deleted"
            )
        sys.stderr.write(f"Delete {counted(count, 'object')} of job {args.task_id} in {client.storage.uri}? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            output.say("nothing was deleted")
            return BAD_INPUT
    deleted = client.clean(args.task_id)
    output.give(task_id=args.task_id, deleted=deleted)
    output.say(f"{counted(deleted, 'object')} deleted")
    return DONE
