"""Events as AWS delivers them, parsed into the inputs of the job steps."""

from __future__ import annotations

from typing import Any, TypeVar

from aws_lambda_powertools.utilities.parser.models import S3EventNotificationEventBridgeModel
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from structureflow import keys
from structureflow.errors import InvalidRequestError
from structureflow.limits import MAX_EVENT_VALUES
from structureflow.models.bounds import first_problem
from structureflow.runtime.queued import is_queued, parse_message

_Event = TypeVar("_Event", bound=BaseModel)


class CreatedObject(BaseModel):
    """What an S3 "Object Created" event names: the key as it is (EventBridge does not quote it), and its ETag then."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    etag: str = ""

    @property
    def is_job_request(self) -> bool:
        """Whether it is the request of a job, and no file of that name elsewhere."""
        return keys.is_job_request(self.key)


class EndedExecution(BaseModel):
    """What EventBridge says of an execution that ended: its ARN, how, when it began, and with which input."""

    execution_arn: str = Field(alias="executionArn")
    status: str
    started_at: AwareDatetime | None = Field(alias="startDate", default=None)
    input: str | None = None
    error: str | None = None
    cause: str | None = None

    @property
    def error_type(self) -> str:
        """The error's name, or one made of how the execution ended."""
        names = {"TIMED_OUT": "States.Timeout", "ABORTED": "ExecutionAborted"}
        return self.error or names.get(self.status, "ExecutionFailed")

    @property
    def run_id(self) -> str | None:
        """The run whose video the execution extracts in parts; None for an execution of segments."""
        try:
            return _StartedWith.model_validate_json(self.input or "").join.run_id
        except ValidationError:
            return None

    @property
    def created(self) -> CreatedObject:
        """The object whose arrival started the execution.

        Raises:
            InvalidRequestError: the execution was started with something else.
        """
        try:
            return _StartedBy.model_validate_json(self.input or "").detail.created
        except ValidationError as error:
            raise InvalidRequestError(
                f"expected the input of an execution of segments, got {self.input!r:.200}"
            ) from error


class _Named(BaseModel):
    name: str


class _Keyed(BaseModel):
    key: str


class _Detail(BaseModel):
    bucket: _Named
    object: _Keyed

    @property
    def created(self) -> CreatedObject:
        return CreatedObject(bucket=self.bucket.name, key=self.object.key)


class _Run(BaseModel):
    run_id: str


class _StartedWith(BaseModel):
    join: _Run


class _StartedBy(BaseModel):
    detail: _Detail


def parse_ended_execution(event: dict[str, Any]) -> EndedExecution:
    """Parse a "Step Functions Execution Status Change" event of EventBridge.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        return EndedExecution.model_validate(event["detail"])
    except (KeyError, ValidationError) as error:
        raise InvalidRequestError("expected a status change of an execution") from error


def parse_created_object(event: dict[str, Any]) -> CreatedObject:
    """Parse an S3 "Object Created" event of EventBridge.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        detail = S3EventNotificationEventBridgeModel.model_validate(event).detail
    except ValidationError as error:
        raise InvalidRequestError(
            f"expected an S3 Object Created event of EventBridge: {first_problem(error)}"
        ) from error
    return CreatedObject(bucket=detail.bucket.name, key=detail.object.key, etag=detail.object.etag or "")


def parse_event(model: type[_Event], event: dict[str, Any]) -> _Event:
    """Turn an event of the state machine, or of a direct call, into a step's input.

    Raises:
        InvalidRequestError: it has other fields; the first is named.
    """
    try:
        return model.model_validate(event)
    except ValidationError as error:
        raise InvalidRequestError(f"expected an event of {model.__name__}: {first_problem(error)}") from error


def check_event(event: Any) -> None:
    """Refuse an event of more values than any that AWS sends, before models look at each of them.

    Raises:
        InvalidRequestError: it holds more than `MAX_EVENT_VALUES`, or is no object.
    """
    if not isinstance(event, dict):
        raise InvalidRequestError(f"expected an event that is a JSON object, got {type(event).__name__}")
    waiting: list[Any] = [event]
    values = 0
    while waiting:
        one = waiting.pop()
        items = one.values() if isinstance(one, dict) else one
        values += len(items)
        if values > MAX_EVENT_VALUES:
            raise InvalidRequestError(f"expected an event of at most {MAX_EVENT_VALUES} values, got more")
        waiting.extend(item for item in items if isinstance(item, dict | list))


def event_subject(event: dict[str, Any]) -> dict[str, Any]:
    """Return what an event of any kind speaks of, for logs and traces: job, run, segment, timeline.

    An event of an unknown kind has no subject; whether it is valid is for its handler to say. That of a message is
    what the message speaks of.
    """
    if is_queued(event):
        try:
            body = parse_message(event).body
            return event_subject(body.get("segment", body))
        except InvalidRequestError:
            return {}
    subject = {
        name: event[field]
        for field, name in (("task_id", "task_id"), ("run_id", "run_id"), ("index", "segment"), ("timeline_id",) * 2)
        if isinstance(event.get(field), str | int)
    }
    task_id = keys.job_of(_named_key(event))
    if task_id is not None:
        subject.setdefault("task_id", task_id)
    return subject


def _named_key(event: dict[str, Any]) -> str:
    """Return the key that an event names: itself, or in its detail."""
    detail = event.get("detail")
    place = detail.get("object", detail) if isinstance(detail, dict) else event
    key = place.get("key") if isinstance(place, dict) else None
    return key if isinstance(key, str) else ""


class _Container(BaseModel):
    exit_code: int | None = Field(alias="exitCode", default=None)
    reason: str = ""


class _Attempt(BaseModel):
    container: _Container = _Container()
    status_reason: str = Field(alias="statusReason", default="")


class EndedBatchJob(BaseModel):
    """What EventBridge says of a Batch job that ended: its name is that of its run."""

    run_id: str = Field(alias="jobName")
    status: str
    status_reason: str = Field(alias="statusReason", default="")
    container: _Container = _Container()
    attempts: tuple[_Attempt, ...] = ()

    @property
    def reason(self) -> str:
        """Why it ended, with the exit code of its last container and the number of attempts, for people."""
        said = [self.status_reason, self.container.reason]
        if self.container.exit_code is not None:
            said.append(f"exit code {self.container.exit_code}")
        if len(self.attempts) > 1:
            said.append(f"attempt {len(self.attempts)}")
        shown = "; ".join(dict.fromkeys(part for part in said if part))
        return f"the Batch job ended as {self.status}: {shown or 'no reason given'}"


class StoppedTask(BaseModel):
    """What EventBridge says of an ECS task that stopped."""

    run_id: str = Field(alias="startedBy")
    stopped_reason: str = Field(alias="stoppedReason", default="")
    containers: tuple[_Container, ...] = ()

    @property
    def reason(self) -> str:
        """Why it stopped, with the exit codes of its containers, for people."""
        said = [self.stopped_reason, *(container.reason for container in self.containers)]
        codes = [str(c.exit_code) for c in self.containers if c.exit_code is not None]
        exits = [f"exit code {', '.join(codes)}"] if codes else []
        return "the GPU task stopped: " + ("; ".join([part for part in said if part] + exits) or "no reason given")


def parse_ended_batch_job(event: dict[str, Any]) -> EndedBatchJob:
    """Parse a "Batch Job State Change" event of EventBridge.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        return EndedBatchJob.model_validate(event["detail"])
    except (KeyError, ValidationError) as error:
        raise InvalidRequestError("expected a state change of a Batch job") from error


def parse_stopped_task(event: dict[str, Any]) -> StoppedTask:
    """Parse an "ECS Task State Change" event of EventBridge.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        return StoppedTask.model_validate(event["detail"])
    except (KeyError, ValidationError) as error:
        raise InvalidRequestError("expected a state change of an ECS task") from error
