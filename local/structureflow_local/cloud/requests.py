"""Requests to the local cloud and its replies: what a signature names, which S3 operation it is, AWS's error forms."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from structureflow_local.cloud.signature import SignatureError
from structureflow_local.doors import content_length

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]*)/([^/]+)/aws4_request")
#: Requests with more bytes than this are not looked into for the keys they name.
_MAX_INSPECTED_BYTES: Final = 4 * 1024 * 1024

Reply = tuple[int, dict[str, str], bytes]


def signature(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return access key and service of a signed or presigned request; empty strings when it is neither."""
    text = environ.get("HTTP_AUTHORIZATION", "")
    if "Credential=" not in text:
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        text = f"Credential={query.get('X-Amz-Credential', '')}"
        if "AWSAccessKeyId" in query:
            return query["AWSAccessKeyId"], "s3"
    match = _CREDENTIAL.search(text)
    return (match[1], match[3]) if match else ("", "")


def request_path(environ: WSGIEnvironment) -> str:
    """Return the path of a request, decoded."""
    # WSGI hands bytes over as latin-1 text (PEP 3333)
    return str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")


def request_body(environ: WSGIEnvironment) -> bytes:
    """Read the body of a request."""
    length = content_length(environ)
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def peek(environ: WSGIEnvironment) -> bytes:
    """Read the body and put it back; a body of unknown length stays unread."""
    if not environ.get("CONTENT_LENGTH"):
        return b""
    body = request_body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def peek_json(environ: WSGIEnvironment) -> dict[str, Any]:
    """Read the body as JSON and put it back; an empty mapping where it is no JSON object."""
    try:
        document = json.loads(peek(environ) or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def deleted_keys(environ: WSGIEnvironment) -> Iterator[str]:
    """Iterate over the keys that a DeleteObjects request names; none of a body too large to look into."""
    if content_length(environ) > _MAX_INSPECTED_BYTES:
        return
    try:
        root = ET.fromstring(peek(environ))  # noqa: S314 - comes from this machine's own functions
    except ET.ParseError:
        return
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Key" and element.text:
            yield element.text


def s3_operation(method: str, query: dict[str, str], environ: WSGIEnvironment, *, has_key: bool) -> str:
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


def capture(start_response: StartResponse, statuses: list[int]) -> StartResponse:
    """Return a `start_response` that notes the status in `statuses`."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        statuses.append(int(status.split(" ", 1)[0]))
        return start_response(status, headers, exc_info)

    return start


def sent_status(captured: list[int]) -> int:
    """Return the status that `capture` noted; an application that never answered counts as failed."""
    return captured[-1] if captured else 500


class Then:
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


def reply(start_response: StartResponse, status: int, headers: dict[str, str], body: bytes) -> list[bytes]:
    """Answer with a body that is whole."""
    phrase = {200: "OK", 202: "Accepted", 204: "No Content"}.get(status, "Error")
    start_response(f"{status} {phrase}", [*headers.items(), ("Content-Length", str(len(body)))])
    return [body]


def denied(error: SignatureError, service: str, environ: WSGIEnvironment) -> Reply:
    """Return what AWS answers to a request without a valid signature, in the form of its service."""
    # The body was not read, so nothing else can come over this connection.
    closing = {"Connection": "close"}
    if service in {"s3", ""} and not environ.get("HTTP_X_AMZ_TARGET"):
        body = f"<Error><Code>{escape(error.aws_code)}</Code><Message>{escape(error.message)}</Message></Error>"
        return 403, {"Content-Type": "application/xml", **closing}, body.encode()
    document = {"__type": error.aws_code, "message": error.message}
    return 403, {"Content-Type": "application/json", **closing}, json.dumps(document).encode()


def lambda_error(status: int, code: str, message: str) -> Reply:
    """Return an error as Lambda's Invoke answers it."""
    body = json.dumps({"Type": "User", "Message": message, "message": message}).encode()
    return status, {"Content-Type": "application/json", "x-amzn-ErrorType": code}, body
