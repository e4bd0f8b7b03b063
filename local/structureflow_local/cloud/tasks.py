"""ECS tasks as processes: RunTask, DescribeTasks, ListTasks, StopTask, and the events of their states.

What a task runs here is said by the caller, per task definition: an image cannot be run without a container
engine. A task definition without a command has no capacity: RunTask answers with ``failures``, as ECS does when
no instance with a free GPU is there.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.container_process import ContainerProcesses
from structureflow_local.cloud.errors import FunctionProcessError
from structureflow_local.cloud.template import ClusterSpec, TaskDefinitionSpec

TARGET: Final = "AmazonEC2ContainerServiceV20141113"

Publish = Callable[[str, str, Sequence[str], dict[str, Any]], None]
Reply = tuple[int, dict[str, str], bytes]


@dataclass(slots=True)
class _Task:
    arn: str
    spec: TaskDefinitionSpec
    cluster_arn: str
    overrides: dict[str, Any]
    token: int
    started_by: str | None = None
    group: str = ""
    status: str = "PENDING"
    desired_status: str = "RUNNING"
    pid: int | None = None
    exit_code: int | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None
    version: int = 1
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    stopped_at: float | None = None


class Tasks:
    """All tasks of the template's clusters.

    Args:
        commands: program and arguments by logical id of the task definition.
        processes: starts and ends what a task runs.
        publish: puts an event on the bus: (source, detail type, resources, detail).
    """

    def __init__(
        self,
        definitions: Mapping[str, TaskDefinitionSpec],
        clusters: Mapping[str, ClusterSpec],
        *,
        commands: Mapping[str, Sequence[str]],
        processes: ContainerProcesses,
        activity: Activity,
        region: str,
        account_id: str,
        publish: Publish,
    ) -> None:
        self._definitions = definitions
        self._clusters = clusters
        self._commands = commands
        self._processes = processes
        self._activity = activity
        self._region = region
        self._account_id = account_id
        self._publish = publish
        self._tasks: dict[str, _Task] = {}
        self._by_token: dict[str, list[str]] = {}
        self._lock = threading.RLock()

    def handle(self, operation: str, document: dict[str, Any]) -> Reply | None:
        """Answer an ECS request; None for operations that moto answers."""
        handlers = {
            "RunTask": self._run_task,
            "DescribeTasks": self._describe_tasks,
            "ListTasks": self._list_tasks,
            "StopTask": self._stop_task,
        }
        handler = handlers.get(operation)
        if handler is None:
            return None
        cluster = self._cluster(document.get("cluster", "default"))
        if cluster is None:
            return _error("ClusterNotFoundException", "Cluster not found.")
        return handler(document, cluster)

    # --- operations ----------------------------------------------------------------------------------

    def _run_task(self, document: dict[str, Any], cluster: ClusterSpec) -> Reply:
        wanted = str(document.get("taskDefinition", ""))
        spec = next(
            (one for one in self._definitions.values() if wanted in {one.arn, one.family, one.arn.rpartition("/")[2]}),
            None,
        )
        if spec is None:
            return _error("ClientException", f"TaskDefinition not found: {wanted}")
        client_token = document.get("clientToken")
        with self._lock:
            if client_token in self._by_token:
                return _ok(
                    {
                        "tasks": [self._describe(self._tasks[arn]) for arn in self._by_token[client_token]],
                        "failures": [],
                    }
                )
            command = self._commands.get(spec.logical_id)
            if command is None:
                reason = {"arn": cluster.arn, "reason": "RESOURCE:GPU"}
                return _ok({"tasks": [], "failures": [reason]})
            tasks = [self._start(spec, cluster, document, command) for _ in range(int(document.get("count", 1)))]
            if client_token:
                self._by_token[client_token] = [task.arn for task in tasks]
            return _ok({"tasks": [self._describe(task) for task in tasks], "failures": []})

    def _describe_tasks(self, document: dict[str, Any], cluster: ClusterSpec) -> Reply:
        found, failures = [], []
        with self._lock:
            for wanted in document.get("tasks", ()):
                task = self._find(wanted)
                if task is None or task.cluster_arn != cluster.arn:
                    failures.append({"arn": wanted, "reason": "MISSING"})
                else:
                    found.append(self._describe(task))
        return _ok({"tasks": found, "failures": failures})

    def _list_tasks(self, document: dict[str, Any], cluster: ClusterSpec) -> Reply:
        status, started_by = document.get("desiredStatus", "RUNNING"), document.get("startedBy")
        with self._lock:
            arns = [
                task.arn
                for task in self._tasks.values()
                if task.cluster_arn == cluster.arn
                and task.desired_status == status
                and started_by in (None, task.started_by)
            ]
        return _ok({"taskArns": arns})

    def _stop_task(self, document: dict[str, Any], cluster: ClusterSpec) -> Reply:
        task = self._find(str(document.get("task", "")))
        if task is None or task.cluster_arn != cluster.arn:
            return _error("InvalidParameterException", "The referenced task was not found.")
        with self._lock:
            if task.status != "STOPPED":
                task.desired_status = "STOPPED"
                task.stop_code = task.stop_code or "UserInitiated"
                task.stopped_reason = task.stopped_reason or str(document.get("reason", "Task stopped by user"))
            pid = task.pid
        if pid is not None and task.status != "STOPPED":
            self._processes.stop(pid, task.spec.containers[0].stop_timeout_s, lambda: task.status == "STOPPED")
        return _ok({"task": self._describe(task)})

    # --- life of a task ------------------------------------------------------------------------------

    def _start(
        self, spec: TaskDefinitionSpec, cluster: ClusterSpec, document: dict[str, Any], command: Sequence[str]
    ) -> _Task:
        identity = uuid.uuid4().hex
        name = cluster.arn.rpartition("/")[2]
        task = _Task(
            arn=f"arn:aws:ecs:{self._region}:{self._account_id}:task/{name}/{identity}",
            spec=spec,
            cluster_arn=cluster.arn,
            overrides=document.get("overrides") or {},
            token=self._activity.begin(f"task {spec.logical_id}"),
            started_by=document.get("startedBy"),
            group=str(document.get("group", f"family:{spec.family}")),
        )
        self._tasks[task.arn] = task
        container = spec.containers[0]
        override: dict[str, Any] = next(
            (one for one in task.overrides.get("containerOverrides", ()) if one.get("name") == container.name), {}
        )
        try:
            task.pid = self._processes.start(
                spec.logical_id,
                container,
                override,
                command,
                scratch=f"task-{identity}",
                log=identity,
                own={},
                on_exit=lambda code: self._exited(task, code),
            )
        except FunctionProcessError as error:
            self._stopped(task, None, "TaskFailedToStart", error.message)
            return task
        with self._lock:
            if task.status == "PENDING":
                task.status, task.started_at = "RUNNING", time.time()
                task.version += 1
                self._announce(task)
        return task

    def _exited(self, task: _Task, code: int) -> None:
        self._stopped(task, code, "EssentialContainerExited", "Essential container in task exited")

    def _stopped(self, task: _Task, code: int | None, stop_code: str, reason: str) -> None:
        with self._lock:
            if task.status == "STOPPED":
                return
            task.status = task.desired_status = "STOPPED"
            task.exit_code = code
            task.stop_code = task.stop_code or stop_code
            task.stopped_reason = task.stopped_reason or reason
            task.stopped_at = time.time()
            task.version += 1
            self._announce(task)
        self._activity.end(task.token)

    def _announce(self, task: _Task) -> None:
        detail = {
            name: datetime.fromtimestamp(value, UTC).isoformat() if name.endswith("At") else value
            for name, value in self._describe(task).items()
        }
        self._publish("aws.ecs", "ECS Task State Change", [task.arn], detail)

    # --- helpers -------------------------------------------------------------------------------------

    def _cluster(self, name: str) -> ClusterSpec | None:
        return next((one for one in self._clusters.values() if name in {one.arn, one.name}), None)

    def _find(self, name: str) -> _Task | None:
        return self._tasks.get(name) or next(
            (task for task in self._tasks.values() if task.arn.rpartition("/")[2] == name), None
        )

    @staticmethod
    def _describe(task: _Task) -> dict[str, Any]:
        container: dict[str, Any] = {
            "containerArn": f"{task.arn}/{task.spec.containers[0].name}",
            "taskArn": task.arn,
            "name": task.spec.containers[0].name,
            "image": task.spec.containers[0].image,
            "lastStatus": task.status,
            "exitCode": task.exit_code,
        }
        described: dict[str, Any] = {
            "taskArn": task.arn,
            "clusterArn": task.cluster_arn,
            "taskDefinitionArn": task.spec.arn,
            "group": task.group,
            "startedBy": task.started_by,
            "lastStatus": task.status,
            "desiredStatus": task.desired_status,
            "containers": [{key: value for key, value in container.items() if value is not None}],
            "overrides": task.overrides,
            "stopCode": task.stop_code,
            "stoppedReason": task.stopped_reason,
            "version": task.version,
            "createdAt": task.created_at,
            "startedAt": task.started_at,
            "stoppedAt": task.stopped_at,
        }
        return {key: value for key, value in described.items() if value is not None}


def _ok(document: dict[str, Any]) -> Reply:
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document).encode()


def _error(code: str, message: str) -> Reply:
    body = json.dumps({"__type": code, "message": message}).encode()
    return 400, {"Content-Type": "application/x-amz-json-1.1"}, body
