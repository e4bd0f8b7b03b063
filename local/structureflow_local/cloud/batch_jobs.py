"""Batch jobs as processes: SubmitJob, DescribeJobs, ListJobs, TerminateJob, and the events of their states.

What a job runs here is said by the caller, per job definition, as for ECS tasks. A job of a definition without a
command stays RUNNABLE until it is ended, as on AWS where its compute environment has no room for it.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.container_process import ContainerProcesses
from structureflow_local.cloud.errors import FunctionProcessError
from structureflow_local.cloud.tasks import Publish, Reply
from structureflow_local.cloud.template import JobDefinitionSpec, JobQueueSpec

SERVICE: Final = "batch"
_ENDED: Final = frozenset({"SUCCEEDED", "FAILED"})
#: Between the request to end and the end by force, of a container on Fargate.
_STOP_TIMEOUT_S: Final = 30.0
_EXITED: Final = "Essential container in task exited"


@dataclass(slots=True)
class _Job:
    job_id: str
    arn: str
    name: str
    spec: JobDefinitionSpec
    queue: JobQueueSpec
    overrides: dict[str, Any]
    timeout_s: float | None
    status: str = "SUBMITTED"
    status_reason: str | None = None
    ending: str | None = None
    pid: int | None = None
    token: int | None = None
    timer: threading.Timer | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    created_at: int = field(default_factory=lambda: int(time.time() * 1000))
    started_at: int | None = None
    stopped_at: int | None = None


class BatchJobs:
    """All jobs of the template's queues.

    Args:
        commands: program and arguments by logical id of the job definition.
        processes: starts and ends what an attempt runs.
        publish: puts an event on the bus: (source, detail type, resources, detail).
    """

    def __init__(
        self,
        definitions: Mapping[str, JobDefinitionSpec],
        queues: Mapping[str, JobQueueSpec],
        *,
        commands: Mapping[str, Sequence[str]],
        processes: ContainerProcesses,
        activity: Activity,
        region: str,
        account_id: str,
        publish: Publish,
    ) -> None:
        self._definitions = definitions
        self._queues = queues
        self._commands = commands
        self._processes = processes
        self._activity = activity
        self._arn = f"arn:aws:batch:{region}:{account_id}:job/"
        self._publish = publish
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.RLock()

    def handle(self, path: str, document: dict[str, Any]) -> tuple[str, Reply]:
        """Answer a request of Batch's REST API; return the operation's name too."""
        handlers: dict[str, tuple[str, Callable[[dict[str, Any]], Reply]]] = {
            "/v1/submitjob": ("SubmitJob", self._submit),
            "/v1/describejobs": ("DescribeJobs", self._describe_jobs),
            "/v1/listjobs": ("ListJobs", self._list),
            "/v1/terminatejob": ("TerminateJob", self._terminate),
        }
        if path not in handlers:
            return path, _error(f"the local cloud does not know {path} of Batch")
        name, handler = handlers[path]
        return name, handler(document)

    # --- operations ----------------------------------------------------------------------------------

    def _submit(self, document: dict[str, Any]) -> Reply:
        wanted_queue, wanted = document.get("jobQueue"), document.get("jobDefinition")
        queue = next((one for one in self._queues.values() if wanted_queue in {one.arn, one.name}), None)
        if queue is None:
            return _error(f"JobQueue {wanted_queue} not found")
        names = {name: one for one in self._definitions.values() for name in (one.arn, one.name, f"{one.name}:1")}
        if wanted not in names:
            return _error(f"JobDefinition {wanted} not found")
        identity = str(uuid.uuid4())
        job = _Job(
            job_id=identity,
            arn=self._arn + identity,
            name=str(document.get("jobName", "")),
            spec=names[str(wanted)],
            queue=queue,
            overrides=document.get("containerOverrides") or {},
            timeout_s=(document.get("timeout") or {}).get("attemptDurationSeconds"),
        )
        with self._lock:
            self._jobs[identity] = job
            self._change(job, "RUNNABLE")
            if job.spec.logical_id in self._commands:
                job.token = self._activity.begin(f"Batch job {job.name}")
                self._attempt(job)
        return _ok({"jobArn": job.arn, "jobId": identity, "jobName": job.name})

    def _describe_jobs(self, document: dict[str, Any]) -> Reply:
        with self._lock:
            found = [self._describe(self._jobs[one]) for one in document.get("jobs", ()) if one in self._jobs]
        return _ok({"jobs": found})

    def _list(self, document: dict[str, Any]) -> Reply:
        """List the jobs of a queue by their status, or by name whatever their status, as Batch does."""
        filters = document.get("filters") or []
        names = {value.lower() for one in filters if one.get("name") == "JOB_NAME" for value in one.get("values", ())}
        if filters and not names:
            return _error(f"the local cloud knows the filter JOB_NAME only, got {filters!r:.100}")
        status = document.get("jobStatus", "RUNNING")
        with self._lock:
            found = [
                job
                for job in self._jobs.values()
                if document.get("jobQueue") in {job.queue.arn, job.queue.name}
                and (job.name.lower() in names if names else job.status == status)
            ]
            summaries = [
                {"jobArn": job.arn, "jobId": job.job_id, "jobName": job.name, "status": job.status} for job in found
            ]
        return _ok({"jobSummaryList": summaries})

    def _terminate(self, document: dict[str, Any]) -> Reply:
        with self._lock:
            job = self._jobs.get(str(document.get("jobId", "")))
            if job is None or job.status in _ENDED:
                return _ok({})
            self._end(job, str(document.get("reason", "")))
        return _ok({})

    # --- life of a job -------------------------------------------------------------------------------

    def _attempt(self, job: _Job) -> None:
        number = len(job.attempts) + 1
        self._change(job, "STARTING")
        try:
            job.pid = self._processes.start(
                job.spec.logical_id,
                job.spec.container,
                job.overrides,
                self._commands[job.spec.logical_id],
                scratch=f"job-{job.job_id}-{number}",
                log=f"{job.job_id}-{number}",
                own={"AWS_BATCH_JOB_ID": job.job_id, "AWS_BATCH_JOB_ATTEMPT": str(number)},
                on_exit=lambda code: self._exited(job, number, code),
            )
        except FunctionProcessError as error:
            self._attempt_ended(job, None, error.message)
            return
        job.started_at = int(time.time() * 1000)
        self._change(job, "RUNNING")
        if job.timeout_s is not None:
            job.timer = threading.Timer(job.timeout_s, self._overrun, (job, number))
            job.timer.daemon = True
            job.timer.start()

    def _exited(self, job: _Job, number: int, code: int) -> None:
        with self._lock:
            if len(job.attempts) < number:
                self._attempt_ended(job, code, _EXITED)

    def _attempt_ended(self, job: _Job, code: int | None, reason: str) -> None:
        container = {} if code is None else {"exitCode": code}
        job.attempts.append({"container": container, "statusReason": reason})
        job.pid = None
        if job.timer is not None:
            job.timer.cancel()
        job.status_reason = job.ending or reason
        if code == 0:
            self._finish(job, "SUCCEEDED")
        elif job.ending is not None or len(job.attempts) >= job.spec.attempts or not _tries_again(job, code, reason):
            self._finish(job, "FAILED")
        else:
            self._change(job, "RUNNABLE")
            self._attempt(job)

    def _overrun(self, job: _Job, number: int) -> None:
        with self._lock:
            if len(job.attempts) < number:
                self._end(job, "Job attempt duration exceeded timeout")

    def _end(self, job: _Job, reason: str) -> None:
        job.ending = job.ending or reason
        if job.pid is None:
            job.status_reason = job.ending
            self._finish(job, "FAILED")
            return
        self._processes.stop(job.pid, _STOP_TIMEOUT_S, lambda: job.status in _ENDED)

    def _finish(self, job: _Job, status: str) -> None:
        job.stopped_at = int(time.time() * 1000)
        self._change(job, status)
        token, job.token = job.token, None
        if token is not None:
            self._activity.end(token)

    def _change(self, job: _Job, status: str) -> None:
        job.status = status
        self._publish("aws.batch", "Batch Job State Change", [job.arn], self._describe(job))

    @staticmethod
    def _describe(job: _Job) -> dict[str, Any]:
        last = job.attempts[-1]["container"] if job.attempts else {}
        described = {
            "jobArn": job.arn,
            "jobName": job.name,
            "jobId": job.job_id,
            "jobQueue": job.queue.arn,
            "status": job.status,
            "statusReason": job.status_reason,
            "attempts": [dict(attempt) for attempt in job.attempts],
            "createdAt": job.created_at,
            "startedAt": job.started_at,
            "stoppedAt": job.stopped_at,
            "retryStrategy": {"attempts": job.spec.attempts},
            "dependsOn": [],
            "jobDefinition": job.spec.arn,
            "parameters": {},
            "container": {
                "image": job.spec.container.image,
                "environment": list(job.overrides.get("environment", ())),
                **last,
            },
        }
        return {name: value for name, value in described.items() if value is not None}


def _tries_again(job: _Job, code: int | None, reason: str) -> bool:
    """Tell whether an attempt that failed is followed by another: by the first rule that fits, else it is."""
    for rule in job.spec.exit_rules:
        if (
            _fits(rule.exit_code, "" if code is None else str(code))
            and _fits(rule.reason, "")
            and _fits(rule.status_reason, reason)
        ):
            return rule.action == "RETRY"
    return True


def _fits(pattern: str | None, said: str) -> bool:
    return pattern is None or fnmatchcase(said, pattern)


def _ok(document: dict[str, Any]) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def _error(message: str) -> Reply:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": "ClientException"}
    return 400, headers, json.dumps({"message": message}).encode()
