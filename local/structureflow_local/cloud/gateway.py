"""The door of the local cloud: one WSGI application in front of moto's.

It answers Lambda's Invoke itself, notes who called what, makes conditional writes atomic, and lets the events
of a request out only after its answer is complete.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from structureflow_local.cloud.errors import FunctionProcessError, ThrottledError, UnknownResourceError
from structureflow_local.cloud.functions import MAX_ASYNC_BYTES, MAX_SYNC_BYTES, Functions
from structureflow_local.cloud.requests import (
    Reply,
    Then,
    capture,
    deleted_keys,
    denied,
    lambda_error,
    peek,
    peek_json,
    reply,
    request_body,
    request_path,
    s3_operation,
    sent_status,
    signature,
)
from structureflow_local.cloud.signature import Keyring, SignatureError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
#: Of moto: they reset everything, change its settings, or imitate a machine's own metadata.
_BACK_DOORS: Final = ("/moto-api", "/latest/meta-data", "/latest/api")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an AWS service of the local cloud.

    Attributes:
        function: logical id of the calling function or task definition; None for anyone else.
        service: as in the signature: ``s3``, ``states``, ``lambda`` …; empty when unsigned.
        operation: the API's name, such as ``GetObject``, ``ListObjectsV2``, ``StartExecution``.
        method: of the HTTP request.
        bucket, key: for S3; of `DeleteObjects` there is one call per key; of list operations `key` is the
            prefix.
        resource: what other services' requests name: a function, a state machine ARN, a queue URL.
        status: HTTP status of the answer.
    """

    function: str | None
    service: str
    operation: str
    method: str
    bucket: str | None
    key: str | None
    resource: str | None
    status: int


class _Pending(threading.local):
    """Events of the request that this thread serves. (No slots: those would be shared by all threads.)"""

    def __init__(self) -> None:
        self.events: list[Callable[[], None]] = []
        self.serving = False


class Gateway:
    """The WSGI application.

    Args:
        inner: moto's application.
        functions: that Invoke reaches, and that requests are attributed to.
        keyring: whose keys sign; a request that none of them signed is denied.
    """

    def __init__(self, inner: WSGIApplication, functions: Functions, keyring: Keyring) -> None:
        self._inner = without_back_doors(inner)
        self._functions = functions
        self._keyring = keyring
        # moto looks before it writes, and lists while others write, without a lock of its own.
        self._s3_lock = threading.Lock()
        self._pending = _Pending()
        self._owners: list[Callable[[str], str | None]] = [functions.owner_of]
        self._targets: dict[str, Callable[[str, dict[str, Any]], Reply | None]] = {}
        self._rest: dict[str, Callable[[str, dict[str, Any]], tuple[str, Reply]]] = {}
        self.calls: list[Call] = []

    def add_service(
        self,
        prefix: str,
        handler: Callable[[str, dict[str, Any]], Reply | None],
        owner_of: Callable[[str], str | None],
    ) -> None:
        """Let `handler` answer JSON requests whose ``X-Amz-Target`` starts with `prefix`; None passes them on.

        `owner_of` tells which of the service's own processes signs with an access key.
        """
        self._targets[prefix] = handler
        self._owners.append(owner_of)

    def add_rest_service(
        self,
        service: str,
        handler: Callable[[str, dict[str, Any]], tuple[str, Reply]],
        owner_of: Callable[[str], str | None],
    ) -> None:
        """Let `handler` answer the requests that are signed for a service, by their path and JSON document.

        It returns the operation's name too; `owner_of` is as in `add_service`.
        """
        self._rest[service] = handler
        self._owners.append(owner_of)

    def after_answer(self, action: Callable[[], None]) -> None:
        """Run `action` once the request that this thread serves is answered; at once when it serves none."""
        if self._pending.serving:
            self._pending.events.append(action)
        else:
            action()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method, path = environ["REQUEST_METHOD"], request_path(environ)
        _, service = signature(environ)
        try:
            access_key = self._keyring.check(environ, lambda: peek(environ))
        except SignatureError as error:
            return reply(start_response, *denied(error, service, environ))
        owner = next((name for owner_of in self._owners if (name := owner_of(access_key)) is not None), None)
        if match := _INVOKE.fullmatch(path):
            name = unquote(match[1])
            status, headers, body = self._invoke(name, environ)
            self.calls.append(Call(owner, "lambda", "Invoke", method, None, None, name, status))
            return reply(start_response, status, headers, body)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            return self._json_service(environ, start_response, target, owner, service)
        if service in self._rest:
            operation, answer = self._rest[service](path, document := peek_json(environ))
            resource = document.get("jobDefinition") or document.get("jobQueue") or document.get("jobId")
            self.calls.append(Call(owner, service, operation, method, None, None, resource, answer[0]))
            return reply(start_response, *answer)
        if service not in {"s3", ""}:
            captured: list[int] = []
            result = self._inner(environ, capture(start_response, captured))
            self.calls.append(Call(owner, service, f"{method} {path}", method, None, None, None, sent_status(captured)))
            return result
        return self._s3(environ, start_response, owner, method, path)

    # --- S3 ------------------------------------------------------------------------------------------

    def _s3(
        self, environ: WSGIEnvironment, start_response: StartResponse, owner: str | None, method: str, path: str
    ) -> Iterable[bytes]:
        bucket, _, key = path.lstrip("/").partition("/")
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        operation = s3_operation(method, query, environ, has_key=bool(key))
        keys = [key or None]
        if operation == "DeleteObjects":
            keys = list(deleted_keys(environ)) or keys
        elif operation.startswith("List"):
            keys = [key or query.get("prefix", "")]
        captured: list[int] = []
        reads = method in {"GET", "HEAD"} and bool(key)
        if not reads:
            # Before the lock is held: a slow sender must not stop the others.
            peek(environ)
        self._pending.events, self._pending.serving = [], True
        try:
            with contextlib.nullcontext() if reads else self._s3_lock:
                result = self._inner(environ, capture(start_response, captured))
        except BaseException:
            for event in self._pending.events:
                event()
            raise
        finally:
            events, self._pending.events, self._pending.serving = self._pending.events, [], False
        status = sent_status(captured)
        for one in keys:
            self.calls.append(Call(owner, "s3", operation, method, bucket or None, one, None, status))
        source = environ.get("HTTP_X_AMZ_COPY_SOURCE")
        if source:
            source_bucket, _, source_key = unquote(source).lstrip("/").partition("/")
            source_key = source_key.split("?versionId=")[0]
            self.calls.append(Call(owner, "s3", "GetObject", method, source_bucket, source_key, None, status))
        return Then(result, events) if events else result

    # --- Lambda --------------------------------------------------------------------------------------

    def _invoke(self, name: str, environ: WSGIEnvironment) -> Reply:
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        payload = request_body(environ)
        limit = MAX_ASYNC_BYTES if kind == "Event" else MAX_SYNC_BYTES
        try:
            spec = self._functions.find(name)
            if kind == "DryRun":
                return 204, {}, b""
            if len(payload) > limit:
                return lambda_error(413, "RequestTooLargeException", f"{len(payload)} bytes exceed {limit}")
            if spec.reserved_concurrency == 0:
                return lambda_error(429, "TooManyRequestsException", "Rate Exceeded.")
            try:
                json.loads(payload or b"{}")
            except ValueError as error:
                return lambda_error(400, "InvalidRequestContentException", f"Could not parse request body: {error}")
            if kind == "Event":
                request_id = self._functions.invoke_async(name, payload or b"{}")
                return 202, {"x-amzn-RequestId": request_id}, b""
            result = self._functions.invoke(name, payload or b"{}")
        except UnknownResourceError as error:
            return lambda_error(404, "ResourceNotFoundException", f"Function not found: {name} ({error})")
        except ThrottledError as error:
            return lambda_error(429, "TooManyRequestsException", error.message)
        except FunctionProcessError as error:
            return lambda_error(500, "ServiceException", error.message)
        headers = {"x-amzn-RequestId": result.invocation.request_id, "X-Amz-Executed-Version": "$LATEST"}
        if result.error is not None:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if environ.get("HTTP_X_AMZ_LOG_TYPE") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail.encode()).decode()
        return 200, {"Content-Type": "application/json", **headers}, json.dumps(result.payload).encode()

    # --- other services ------------------------------------------------------------------------------

    def _json_service(
        self, environ: WSGIEnvironment, start_response: StartResponse, target: str, owner: str | None, service: str
    ) -> Iterable[bytes]:
        prefix, _, operation = target.partition(".")
        document = peek_json(environ)
        resource = next(
            (
                str(document[name])
                for name in ("stateMachineArn", "executionArn", "QueueUrl", "taskDefinition", "cluster", "TopicArn")
                if name in document
            ),
            None,
        )
        handler = self._targets.get(prefix)
        answer = handler(operation, document) if handler is not None else None
        captured: list[int] = []
        if answer is not None:
            captured.append(answer[0])
            result: Iterable[bytes] = reply(start_response, *answer)
        else:
            result = self._inner(environ, capture(start_response, captured))
        self.calls.append(
            Call(owner, service, operation, environ["REQUEST_METHOD"], None, None, resource, sent_status(captured))
        )
        return result


def without_back_doors(app: WSGIApplication) -> WSGIApplication:
    """Return moto's application without the ways in that no AWS service has."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if request_path(environ).startswith(_BACK_DOORS):
            return reply(start_response, 404, {"Connection": "close"}, b"")
        return app(environ, start_response)

    return serve
