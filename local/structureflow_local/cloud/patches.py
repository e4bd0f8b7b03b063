"""Where moto is changed, and why. Everything is put back by `Patches.undo`.

Each change replaces one attribute of one module:

* List of modules: moto reads its folder for every request, a tenth of the time of a small one.
* S3 notifications: moto calls targets synchronously inside the PUT and writes `eTag`; the local cloud needs to
  know of every change and deliver events itself, later, in AWS's shape.
* Ranges of objects: moto reads the whole object for every range of it that is read or copied; a segment of a long
  video would read gigabytes, and a join copy them as often as there are parts.
* Lambda tasks of a state machine: moto makes a client per task and calls its own container-based Lambda.
  Creating boto3 clients in parallel threads is not safe, and there is no container here.
* Clients of other service tasks: the same thread safety, and the right port (moto reads it from the
  environment, which would be the whole process's).
* Executions without a name: moto calls them all None, and refuses the second; AWS names them by a UUID.
* Errors of the interpreter itself (States.Timeout) that leave a Map or a Fail state with ErrorPath: moto refuses
  their names and makes States.Runtime of them, AWS passes them on.
* Task tokens: moto gives a state one token for all of its tries, so a second try ends at once by the answer to the
  first; and of an answer that is an error it loses the cause.
* Distributed Maps: moto forgets which children failed (`structureflow_local.cloud.map_runs`).
* End of an execution: nobody is told; waiting until all is idle and the status-change event need it.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from structureflow_local.cloud.errors import FunctionProcessError, ThrottledError, UnknownResourceError
from structureflow_local.cloud.functions import Functions
from structureflow_local.cloud.signature import Key

#: Below moto's logger, so that it goes where moto's own messages go.
_log = logging.getLogger("moto.structureflow")


class Patches:
    """The changes to moto that are in force."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> Any:
        """Set an attribute and return what it was."""
        original = getattr(owner, name)
        self._originals.append((owner, name, original))
        setattr(owner, name, value)
        return original

    def undo(self) -> None:
        """Put everything back, last change first."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)


def remember_modules(patches: Patches) -> None:
    """List moto's modules once instead of reading its folder for every request."""
    from moto import backends

    names = frozenset(backends.list_of_moto_modules())
    patches.replace(backends, "list_of_moto_modules", lambda: names)


def route_s3_notifications(patches: Patches, notify: Callable[[str, Any, Any], None]) -> None:
    """Call ``notify(event name, bucket, key)`` for every change of an object instead of moto's own delivery."""
    from moto.s3 import notifications

    def send_event(account_id: str, event_name: Any, bucket: Any, key: Any) -> None:  # noqa: ARG001 - moto's own
        notify(str(event_name.value), bucket, key)

    patches.replace(notifications, "send_event", send_event)


class _Stored:
    """The bytes of an object where they lie: a slice reads no more than itself."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def __len__(self) -> int:
        return int(self._key.contentsize)

    def __getitem__(self, wanted: slice) -> bytes:
        start, stop, _ = wanted.indices(len(self))
        with self._key.lock:
            self._key._value_buffer.seek(start)  # noqa: SLF001 - no public seam
            found: bytes = self._key._value_buffer.read(max(0, stop - start))  # noqa: SLF001
        return found


def read_only_ranges(patches: Patches) -> None:
    """Let what reads or copies a range of an object read no more of it than that.

    Whoever reads moves the place in the file: moto sums an object up for its ETag, at the first look at that, without
    the lock that its other readers hold.
    """
    from moto.s3.models import FakeKey, S3Backend
    from moto.s3.responses import S3Response

    asked = threading.local()
    whole: Any = FakeKey.value
    summed: Any = FakeKey.etag
    get_object, answer_range, copy_part = (
        S3Response.get_object,
        S3Response._handle_range_header,  # noqa: SLF001 - no public seam
        S3Backend.upload_part_copy,
    )

    def value(self: Any) -> Any:
        return _Stored(self) if getattr(asked, "range", False) else whole.__get__(self)

    def etag(self: Any) -> Any:
        with self.lock:
            return summed.__get__(self)

    def within(ranged: bool, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        asked.range = ranged
        try:
            return call(*args, **named)
        finally:
            asked.range = False

    def get(self: Any) -> Any:
        status, headers, found = within(bool(self.headers.get("range")), get_object, self)
        # Only what is found whole is cut by moto.
        return status, headers, found[:] if isinstance(found, _Stored) and status != 200 else found

    def answer(self: Any, request: Any, headers: dict[str, Any], content: Any) -> Any:
        status, headers, found = answer_range(self, request, headers, content)
        # A range that cannot be read gets all of it.
        return status, headers, found[:] if isinstance(found, _Stored) else found

    def copy(self: Any, *args: Any, **named: Any) -> Any:
        return within(named["start_byte"] is not None, copy_part, self, *args, **named)

    patches.replace(FakeKey, "value", property(value, whole.__set__))
    patches.replace(FakeKey, "etag", property(etag))
    patches.replace(S3Response, "get_object", get)
    patches.replace(S3Response, "_handle_range_header", answer)
    patches.replace(S3Backend, "upload_part_copy", copy)


def route_lambda_tasks(patches: Patches, functions: Functions) -> None:
    """Let Lambda tasks of state machines call the local function processes."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils

    def invoke(parameters: dict[str, Any], region: str, state_credentials: Any) -> dict[str, Any]:  # noqa: ARG001
        payload = parameters.get("Payload", b"{}")
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        name = str(parameters["FunctionName"])
        metadata: dict[str, Any] = {"HTTPStatusCode": 200, "RequestId": ""}
        try:
            if parameters.get("InvocationType") == "Event":
                functions.invoke_async(name, body)
                return {"StatusCode": 202, "Payload": "", "ResponseMetadata": metadata}
            result = functions.invoke(name, body)
        except UnknownResourceError as error:
            raise _client_error(404, "ResourceNotFoundException", error.message) from error
        except ThrottledError as error:
            raise _client_error(429, "TooManyRequestsException", error.message) from error
        except FunctionProcessError as error:
            raise _client_error(500, "ServiceException", error.message) from error
        response: dict[str, Any] = {
            "StatusCode": 200,
            "ExecutedVersion": "$LATEST",
            "Payload": result.payload,
            "ResponseMetadata": metadata,
        }
        if result.error is not None:
            response["FunctionError"] = "Unhandled"
        return response

    patches.replace(lambda_eval_utils, "_invoke_lambda_function", invoke)


def _client_error(status: int, code: str, message: str) -> Exception:
    from botocore.exceptions import ClientError

    metadata: Any = {"HTTPStatusCode": status, "RequestId": ""}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "Invoke")


def route_service_tasks(patches: Patches, endpoint_url: str, key: Key) -> None:
    """Let all other service tasks of state machines call this cloud, with clients made one at a time."""
    import boto3
    from moto.stepfunctions.parser.asl.utils import boto_client

    lock = threading.Lock()
    session = boto3.Session(aws_access_key_id=key.access_key, aws_secret_access_key=key.secret)
    made: dict[str, Any] = {}

    class OneAtATime:
        """Stands in for the module `boto3`: one client a service, which any thread may use."""

        @staticmethod
        def client(*, service_name: str, region_name: str, config: Any, **_: Any) -> Any:
            # What else moto gives is its own endpoint and a key that nobody has.
            with lock:
                if service_name not in made:
                    made[service_name] = session.client(
                        service_name,  # type: ignore[call-overload]
                        region_name=region_name,
                        config=config,
                        endpoint_url=endpoint_url,
                    )
                return made[service_name]

    patches.replace(boto_client, "boto3", OneAtATime)


def allow_passing_on_errors(patches: Patches) -> None:
    """Let Map and Fail states pass on errors whose names begin with ``States.``."""
    from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
    from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName

    patches.replace(CustomErrorName, "__init__", ErrorName.__init__)


def mend_task_tokens(patches: Patches) -> None:
    """Give each try of a state that waits for an answer a token of its own, and answers their causes."""
    from moto.core.responses import EmptyResult
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_callback
    from moto.stepfunctions.responses import StepFunctionResponse

    service = state_task_service_callback.StateTaskServiceCallback
    original = service._eval_execution  # noqa: SLF001 - no public seam

    def eval_execution(self: Any, env: Any) -> None:
        if "Task" in env.states.context_object.context_object_data:
            env.callback_pool_manager.add(env.states.context_object.update_task_token())
        original(self, env=env)

    def send_task_failure(self: Any) -> Any:
        values = {name: self._get_param(name) for name in ("error", "cause")}
        self.stepfunction_backend.send_task_failure(self._get_param("taskToken"), **values)
        return EmptyResult()

    patches.replace(service, "_eval_execution", eval_execution)
    patches.replace(StepFunctionResponse, "send_task_failure", send_task_failure)


def name_executions(patches: Patches) -> None:
    """Give an execution that is started without a name one of its own."""
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend

    original = StepFunctionsParserBackend.start_execution

    def start_execution(self: Any, state_machine_arn: str, name: str | None = None, *args: Any, **named: Any) -> Any:
        return original(self, state_machine_arn, name or str(uuid.uuid4()), *args, **named)

    patches.replace(StepFunctionsParserBackend, "start_execution", start_execution)


def watch_executions(patches: Patches, started: Callable[[Any], None], ended: Callable[[Any], None]) -> None:
    """Call `started` before an execution begins and `ended` after its final state is known.

    An error of the interpreter itself ends the execution as failed; moto would leave it running for ever.
    """
    from moto.stepfunctions.parser.api import ExecutionStatus
    from moto.stepfunctions.parser.backend.execution import Execution
    from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

    original_start = Execution.start
    original_logic = ExecutionWorker._execution_logic  # noqa: SLF001 - no public seam

    def start(self: Any) -> None:
        started(self)
        original_start(self)

    def execution_logic(self: Any) -> None:
        execution = self._execution_communication.execution
        try:
            original_logic(self)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - the boundary of the interpreter: the execution reports it
            execution.exec_status = ExecutionStatus.FAILED
            execution.stop_date = datetime.now(UTC)
            execution.error, execution.cause = "States.Runtime", f"{type(error).__name__}: {error}"
            _log.exception("the interpreter failed in execution %s", execution.exec_arn)
        finally:
            ended(execution)

    patches.replace(Execution, "start", start)
    patches.replace(ExecutionWorker, "_execution_logic", execution_logic)
