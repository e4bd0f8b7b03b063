"""The services of the local cloud that moto runs: their state is made, asked and ended here, in this process."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from structureflow_local.cloud.errors import LocalCloudError
from structureflow_local.cloud.events import s3_detail
from structureflow_local.cloud.persist import ObjectArchive
from structureflow_local.cloud.template import StateMachineSpec, Template

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Objects below these prefixes outlive a cloud that has a `persist` folder.
PERSISTED_PREFIXES: Final = ("cache/", "timelines/")

_CREATED_REASONS: Final = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
}


@dataclass(frozen=True, slots=True)
class Execution:
    """A run of a state machine. `output` is parsed; `error` and `cause` are those of a failed one."""

    arn: str
    name: str
    status: str
    input: Any
    output: Any
    error: str | None
    cause: str | None
    started_at: datetime
    stopped_at: datetime | None


class MotoServices:
    """Buckets, queues and state machines of one template, in moto.

    Args:
        stack: undoes at its end what was done to moto, which keeps its state in the process.
        log_path: where moto's messages go.
    """

    def __init__(self, template: Template, stack: contextlib.ExitStack, log_path: Path) -> None:
        from moto.core.config import default_user_config

        self._template = template
        settings = default_user_config["stepfunctions"]
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        stack.callback(default_user_config.__setitem__, "stepfunctions", settings)
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        stack.enter_context(_quiet("moto", log_path))
        _reset_moto()
        stack.callback(_reset_moto)
        #: Answers the requests to all services.
        self.app: WSGIApplication = DomainDispatcherApplication(create_backend_app)

    def create(self, stack: contextlib.ExitStack, persist: Path | None) -> None:
        """Make everything of the template; `persist` keeps objects below `PERSISTED_PREFIXES`.

        Raises:
            LocalCloudError: a definition is no state machine.
        """
        from moto.s3.models import s3_backends

        backend = s3_backends[self._template.account_id]["aws"]
        for bucket in self._template.buckets.values():
            created = backend.create_bucket(bucket.name, self._template.region)
            if bucket.versioned:
                created.versioning_status = "Enabled"
            if persist is not None:
                archive = ObjectArchive(persist / bucket.logical_id, PERSISTED_PREFIXES)
                archive.load(backend, bucket.name)
                stack.callback(archive.save, created)
        # A queue that others give messages away to comes before them.
        for queue in sorted(self._template.queues.values(), key=lambda queue: "RedrivePolicy" in queue.attributes):
            self.queues().create_queue(queue.name, None, **queue.attributes)
        for machine in self._template.state_machines.values():
            self._create_state_machine(machine)
        stack.callback(self._stop_executions)

    def _create_state_machine(self, machine: StateMachineSpec) -> None:
        try:
            self._state_machines().create_state_machine(
                name=machine.name,
                definition=machine.definition,
                roleArn=f"arn:aws:iam::{self._template.account_id}:role/{machine.name}",
                sm_type=machine.kind,
            )
        except Exception as error:
            # moto raises one of many kinds, down to those of its parser generator
            raise LocalCloudError(f"{machine.definition_path}: not a state machine: {error}") from error

    def executions(self, machine_arn: str) -> list[Execution]:
        """Return the runs of a state machine, oldest first."""
        machine = self._state_machines().describe_state_machine(machine_arn)
        return [
            Execution(
                arn=execution.exec_arn,
                name=execution.name,
                status=str(execution.status),
                input=execution.input_data,
                output=execution.output,
                error=execution.error,
                cause=execution.cause,
                started_at=execution.start_date,
                stopped_at=execution.stop_date,
            )
            for execution in list(machine.executions)
        ]

    def start_execution(self, machine_arn: str, execution_input: str) -> None:
        """Start a state machine under a name of its own."""
        name = f"{uuid.uuid4()}_{uuid.uuid4()}"[:80]
        self._state_machines().start_execution(machine_arn, name=name, execution_input=execution_input)

    def queues(self) -> Any:
        """Return moto's SQS."""
        from moto.sqs.models import sqs_backends

        return sqs_backends[self._template.account_id][self._template.region]

    def _stop_executions(self) -> None:
        for machine in self._state_machines().state_machines:
            for execution in machine.executions:
                if execution.status == "RUNNING" and execution.exec_worker.env is not None:
                    execution.stop(stop_date=datetime.now().astimezone(), error=None, cause="the cloud was closed")

    def _state_machines(self) -> Any:
        from moto.stepfunctions.parser.models import stepfunctions_parser_backends

        return stepfunctions_parser_backends[self._template.account_id][self._template.region]


def object_event(event_name: str, bucket: Any, key: Any, *, versioned: bool) -> tuple[str, dict[str, Any]] | None:
    """Return detail type and detail of the event that S3 sends for a change of moto's; None where it sends none."""
    if event_name == "s3:ObjectCreated:Put" and key.multipart is not None:
        # moto announces the end of a multipart upload twice, also as a Put
        return None
    if event_name in _CREATED_REASONS:
        return "Object Created", s3_detail(
            bucket.name,
            key.name,
            size_bytes=key.size,
            etag=key.etag,
            version_id=key.version_id,
            reason=_CREATED_REASONS[event_name],
        )
    if event_name == "s3:ObjectRemoved:Delete":
        detail = s3_detail(
            bucket.name,
            key.name,
            size_bytes=None,
            etag=getattr(key, "etag", None),
            version_id=key.version_id,
            reason="DeleteObject",
        )
        detail["deletion-type"] = "Delete Marker Created" if versioned else "Permanently Deleted"
        return "Object Deleted", detail
    return None


def execution_detail(execution: Any) -> dict[str, Any]:
    """Return the detail of Step Functions' status event for an execution of moto's that ended."""
    return {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine.arn,
        "name": execution.name,
        "status": str(execution.status),
        "startDate": int(execution.start_date.timestamp() * 1000),
        "stopDate": int(execution.stop_date.timestamp() * 1000) if execution.stop_date else None,
        "input": json.dumps(execution.input_data),
        "output": json.dumps(execution.output) if execution.output is not None else None,
        "error": execution.error,
        "cause": execution.cause,
    }


@contextlib.contextmanager
def _quiet(name: str, log_path: Path) -> Iterator[None]:
    """Send what the logger `name` says to a file instead of the console."""
    logger = logging.getLogger(name)
    handler = logging.FileHandler(log_path, delay=True)
    propagate = logger.propagate
    if not any(isinstance(known, logging.NullHandler) for known in logger.handlers):
        # Threads of interrupted executions may speak when the file is closed already.
        logger.addHandler(logging.NullHandler())
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
        handler.close()


def _reset_moto() -> None:
    from moto.core.base_backend import BackendDict

    # moto's own reset also forgets which backends there are, for good.
    instances: list[Any] = list(BackendDict._instances)  # type: ignore[misc]  # noqa: SLF001
    for backend in instances:
        for of_account in backend.values():
            of_account.reset()
