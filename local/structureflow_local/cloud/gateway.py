"""The door of the local cloud: one WSGI application in front of moto's.

It answers Lambda's Invoke itself, notes who called what, makes conditional writes atomic, and lets the events
of a request out only after its answer is complete.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from structureflow_local.cloud.errors import FunctionProcessError, LocalCloudError, UnknownResourceError
from structureflow_local.cloud.functions import MAX_ASYNC_BYTES, MAX_SYNC_BYTES, Functions
from structureflow_local.cloud.signature import Keyring, SignatureError
from structureflow_local.doors import content_length

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer

_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
#: Of moto: they reset everything, change its settings, or imitate a machine's own metadata.
_BACK_DOORS: Final = ("/moto-api", "/latest/meta-data", "/latest/api")
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]*)/([^/]+)/aws4_request")
#: Requests with more bytes than this are not looked into for the keys they name.
_MAX_INSPECTED_BYTES: Final = 4 * 1024 * 1024

Reply = tuple[int, dict[str, str], bytes]


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

    def after_answer(self, action: Callable[[], None]) -> None:
        """Run `action` once the request that this thread serves is answered; at once when it serves none."""
        if self._pending.serving:
            self._pending.events.append(action)
        else:
            action()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method, path = environ["REQUEST_METHOD"], _path(environ)
        _, service = _signature(environ)
        try:
            access_key = self._keyring.check(environ, lambda: _peek(environ))
        except SignatureError as error:
            return _reply(start_response, *_denied(error, service, environ))
        owner = next((name for owner_of in self._owners if (name := owner_of(access_key)) is not None), None)
        if match := _INVOKE.fullmatch(path):
            name = unquote(match[1])
            status, headers, body = self._invoke(name, environ)
            self.calls.append(Call(owner, "lambda", "Invoke", method, None, None, name, status))
            return _reply(start_response, status, headers, body)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            return self._json_service(environ, start_response, target, owner, service)
        if service not in {"s3", ""}:
            captured: list[int] = []
            result = self._inner(environ, _capture(start_response, captured))
            self.calls.append(Call(owner, service, f"{method} {path}", method, None, None, None, _status(captured)))
            return result
        return self._s3(environ, start_response, owner, method, path)

    # --- S3 ------------------------------------------------------------------------------------------

    def _s3(
        self, environ: WSGIEnvironment, start_response: StartResponse, owner: str | None, method: str, path: str
    ) -> Iterable[bytes]:
        bucket, _, key = path.lstrip("/").partition("/")
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        operation = _s3_operation(method, query, environ, has_key=bool(key))
        keys = [key or None]
        if operation == "DeleteObjects":
            keys = list(_deleted_keys(environ)) or keys
        elif operation.startswith("List"):
            keys = [key or query.get("prefix", "")]
        captured: list[int] = []
        reads = method in {"GET", "HEAD"} and bool(key)
        if not reads:
            # Before the lock is held: a slow sender must not stop the others.
            _peek(environ)
        self._pending.events, self._pending.serving = [], True
        try:
            with contextlib.nullcontext() if reads else self._s3_lock:
                result = self._inner(environ, _capture(start_response, captured))
        except BaseException:
            for event in self._pending.events:
                event()
            raise
        finally:
            events, self._pending.events, self._pending.serving = self._pending.events, [], False
        status = _status(captured)
        for one in keys:
            self.calls.append(Call(owner, "s3", operation, method, bucket or None, one, None, status))
        source = environ.get("HTTP_X_AMZ_COPY_SOURCE")
        if source:
            source_bucket, _, source_key = unquote(source).lstrip("/").partition("/")
            source_key = source_key.split("?versionId=")[0]
            self.calls.append(Call(owner, "s3", "GetObject", method, source_bucket, source_key, None, status))
        return _Then(result, events) if events else result

    # --- Lambda --------------------------------------------------------------------------------------

    def _invoke(self, name: str, environ: WSGIEnvironment) -> Reply:
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        payload = _body(environ)
        limit = MAX_ASYNC_BYTES if kind == "Event" else MAX_SYNC_BYTES
        try:
            spec = self._functions.find(name)
            if kind == "DryRun":
                return 204, {}, b""
            if len(payload) > limit:
                return _lambda_error(413, "RequestTooLargeException", f"{len(payload)} bytes exceed {limit}")
            if spec.reserved_concurrency == 0:
                return _lambda_error(429, "TooManyRequestsException", "Rate Exceeded.")
            try:
                json.loads(payload or b"{}")
            except ValueError as error:
                return _lambda_error(400, "InvalidRequestContentException", f"Could not parse request body: {error}")
            if kind == "Event":
                request_id = self._functions.invoke_async(name, payload or b"{}")
                return 202, {"x-amzn-RequestId": request_id}, b""
            result = self._functions.invoke(name, payload or b"{}")
        except UnknownResourceError as error:
            return _lambda_error(404, "ResourceNotFoundException", f"Function not found: {name} ({error})")
        except FunctionProcessError as error:
            return _lambda_error(500, "ServiceException", error.message)
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
        document = _peek_json(environ)
        resource = next(
            (
                str(document[name])
                for name in ("stateMachineArn", "executionArn", "QueueUrl", "taskDefinition", "cluster", "TopicArn")
                if name in document
            ),
            None,
        )
        handler = self._targets.get(prefix)
        reply = handler(operation, document) if handler is not None else None
        captured: list[int] = []
        if reply is not None:
            captured.append(reply[0])
            result: Iterable[bytes] = _reply(start_response, *reply)
        else:
            result = self._inner(environ, _capture(start_response, captured))
        self.calls.append(
            Call(owner, service, operation, environ["REQUEST_METHOD"], None, None, resource, _status(captured))
        )
        return result


def without_back_doors(app: WSGIApplication) -> WSGIApplication:
    """Return moto's application without the ways in that no AWS service has."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _path(environ).startswith(_BACK_DOORS):
            return _reply(start_response, 404, {"Connection": "close"}, b"")
        return app(environ, start_response)

    return serve


class Servers:
    """The same application on one or more addresses, each served by threads of its own.

    Args:
        hosts: addresses; all get the same port.
        log_path: where the servers write what went wrong; nothing goes to the console.
        port: 0 takes a free one, found on the first address.

    Raises:
        LocalCloudError: an address cannot be bound.
    """

    def __init__(self, hosts: Iterable[str], log_path: Path, *, port: int = 0) -> None:
        self._hosts = list(hosts)
        self._log_path = log_path
        self._servers: list[BaseWSGIServer] = []
        self._threads: list[threading.Thread] = []
        self._app: WSGIApplication | None = None
        self.port = port
        for host in self._hosts:
            try:
                server = _make_server(host, self.port, self._serve, log_path)
            except (OSError, SystemExit) as error:
                self.close()
                raise LocalCloudError(f"cannot listen on {host} port {self.port or 'any'}: {error}") from error
            self.port = server.server_port
            self._servers.append(server)

    def start(self, app: WSGIApplication) -> None:
        """Begin to answer with `app`."""
        self._app = app
        for server in self._servers:
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.05}, name=f"server-{server.host}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            if self._threads:
                server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join(timeout=5)
        self._servers, self._threads = [], []

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._app is None:
            return _reply(start_response, 503, {}, b"")
        return self._app(environ, start_response)


def _make_server(host: str, port: int, app: WSGIApplication, log_path: Path) -> BaseWSGIServer:
    # werkzeug and moto cost a quarter of a second: not before a cloud is started
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import ThreadedWSGIServer

    logger = logging.getLogger(f"structureflow_local.server.{log_path}")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.FileHandler(log_path, delay=True))

    class Handler(MotoRequestHandler):
        """Keeps connections open, and writes to the log file, never to the console."""

        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
            if type == "error":
                logger.error(message, *args)

    class Server(ThreadedWSGIServer):
        """Writes to the log file, never to the console."""

        daemon_threads = True
        block_on_close = False

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
            if type == "error":
                logger.error(message, *args)

    return Server(host, port, app, Handler)


# --- requests and replies ----------------------------------------------------------------------------


def _signature(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return access key and service of a signed or presigned request; empty strings when it is neither."""
    text = environ.get("HTTP_AUTHORIZATION", "")
    if "Credential=" not in text:
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        text = f"Credential={query.get('X-Amz-Credential', '')}"
        if "AWSAccessKeyId" in query:
            return query["AWSAccessKeyId"], "s3"
    match = _CREDENTIAL.search(text)
    return (match[1], match[3]) if match else ("", "")


def _path(environ: WSGIEnvironment) -> str:
    # WSGI hands bytes over as latin-1 text (PEP 3333)
    return str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")


def _body(environ: WSGIEnvironment) -> bytes:
    length = content_length(environ)
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def _peek(environ: WSGIEnvironment) -> bytes:
    """Read the body and put it back; a body of unknown length stays unread."""
    if not environ.get("CONTENT_LENGTH"):
        return b""
    body = _body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _peek_json(environ: WSGIEnvironment) -> dict[str, Any]:
    try:
        document = json.loads(_peek(environ) or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _deleted_keys(environ: WSGIEnvironment) -> Iterator[str]:
    if content_length(environ) > _MAX_INSPECTED_BYTES:
        return
    try:
        root = ET.fromstring(_peek(environ))  # noqa: S314 - comes from this machine's own functions
    except ET.ParseError:
        return
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Key" and element.text:
            yield element.text


def _s3_operation(method: str, query: dict[str, str], environ: WSGIEnvironment, *, has_key: bool) -> str:
    """Name the operation as S3's API does."""
    copies = "HTTP_X_AMZ_COPY_SOURCE" in environ
    if has_key:
        sub = _sub_resource(query, {"tagging": "ObjectTagging", "acl": "ObjectAcl", "attributes": "ObjectAttributes"})
        if sub:
            return f"{method.capitalize()}{sub}"
        if method == "PUT":
            if "partNumber" in query:
                return "UploadPartCopy" if copies else "UploadPart"
            return "CopyObject" if copies else "PutObject"
        if method == "POST":
            return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
        if method == "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        if method == "GET" and "uploadId" in query:
            return "ListParts"
        return {"GET": "GetObject", "HEAD": "HeadObject"}.get(method, method)
    if method == "POST" and "delete" in query:
        return "DeleteObjects"
    if method == "GET":
        if "uploads" in query:
            return "ListMultipartUploads"
        if "versions" in query:
            return "ListObjectVersions"
        sub = _sub_resource(
            query, {name: f"Bucket{name.capitalize()}" for name in ("location", "policy", "versioning", "encryption")}
        )
        if sub:
            return f"Get{sub}"
        return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"
    return {"PUT": "CreateBucket", "HEAD": "HeadBucket", "DELETE": "DeleteBucket"}.get(method, method)


def _sub_resource(query: dict[str, str], names: dict[str, str]) -> str | None:
    return next((operation for name, operation in names.items() if name in query), None)


def _capture(start_response: StartResponse, statuses: list[int]) -> StartResponse:
    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        statuses.append(int(status.split(" ", 1)[0]))
        return start_response(status, headers, exc_info)

    return start


def _status(captured: list[int]) -> int:
    return captured[-1] if captured else 500


class _Then:
    """An answer and the actions that follow it, also when the client went away before its end.

    They run when the answer was handed over or given up, not only in `close`: Werkzeug's server looks for more from
    the client before it closes, and does not close where that finds the connection reset.
    """

    def __init__(self, result: Iterable[bytes], actions: list[Callable[[], None]]) -> None:
        self._result = result
        self._actions = actions

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._result
        finally:
            self._act()

    def close(self) -> None:
        """Run what did not run yet."""
        if hasattr(self._result, "close"):
            self._result.close()
        self._act()

    def _act(self) -> None:
        while self._actions:
            self._actions.pop(0)()


def _reply(start_response: StartResponse, status: int, headers: dict[str, str], body: bytes) -> list[bytes]:
    phrase = {200: "OK", 202: "Accepted", 204: "No Content"}.get(status, "Error")
    start_response(f"{status} {phrase}", [*headers.items(), ("Content-Length", str(len(body)))])
    return [body]


def _denied(error: SignatureError, service: str, environ: WSGIEnvironment) -> Reply:
    """Return what AWS answers to a request without a valid signature, in the form of its service."""
    # The body was not read, so nothing else can come over this connection.
    closing = {"Connection": "close"}
    if service in {"s3", ""} and not environ.get("HTTP_X_AMZ_TARGET"):
        body = f"<Error><Code>{escape(error.aws_code)}</Code><Message>{escape(error.message)}</Message></Error>"
        return 403, {"Content-Type": "application/xml", **closing}, body.encode()
    document = {"__type": error.aws_code, "message": error.message}
    return 403, {"Content-Type": "application/json", **closing}, json.dumps(document).encode()


def _lambda_error(status: int, code: str, message: str) -> Reply:
    body = json.dumps({"Type": "User", "Message": message, "message": message}).encode()
    return status, {"Content-Type": "application/json", "x-amzn-ErrorType": code}, body
