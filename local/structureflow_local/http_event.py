"""Requests of a WSGI server as events of API Gateway's HTTP API, and a function's answers as answers of the server.

Payload format 2.0 (API Gateway Developer Guide, "Working with AWS Lambda proxy integrations for HTTP APIs").
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_TEXT_TYPES: Final = ("text/", "application/json", "application/xml", "application/javascript")
_API_ID: Final = "local"


def wsgi_path(environ: WSGIEnvironment) -> str:
    """Return a request's path; WSGI hands its bytes over as latin-1 text (PEP 3333)."""
    return str(environ.get("PATH_INFO", "/")).encode("latin-1").decode("utf-8", "replace")


def http_event(
    environ: WSGIEnvironment, body: bytes, *, key: str, path: str, parameters: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the event of a request.

    Args:
        environ: the request, as WSGI has it.
        body: its body.
        key: of the route that was found, as in ``GET /jobs/{task_id}``.
        path: as `wsgi_path` gives it.
        parameters: what of the path stands for the route's parameters.
    """
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    cookies = [cookie.strip() for cookie in headers.pop("cookie", "").split(";") if cookie.strip()]
    raw_query = environ.get("QUERY_STRING", "")
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw_query, keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": key,
        "rawPath": path,
        "rawQueryString": raw_query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": _API_ID,
            "domainName": headers.get("host", "localhost"),
            "domainPrefix": _API_ID,
            "http": {
                "method": environ["REQUEST_METHOD"],
                "path": path,
                "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
                "sourceIp": environ.get("REMOTE_ADDR", "127.0.0.1"),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": key,
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = query
    if parameters:
        event["pathParameters"] = dict(parameters)
    if body:
        if headers.get("content-type", "").startswith(_TEXT_TYPES):
            event["body"] = body.decode("utf-8", "replace")
        else:
            event["body"], event["isBase64Encoded"] = base64.b64encode(body).decode(), True
    return event


def sent_reply(payload: Mapping[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return status, headers and body of what a function answered, but for the length.

    Raises:
        TypeError, ValueError, AttributeError: it is no answer of that format.
    """
    body = str(payload.get("body") or "").encode()
    if payload.get("isBase64Encoded"):
        body = base64.b64decode(body, validate=True)
    headers = [(str(name), str(value)) for name, value in (payload.get("headers") or {}).items()]
    headers += [("Set-Cookie", str(cookie)) for cookie in payload.get("cookies") or ()]
    status = int(payload["statusCode"])
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return status, [(name, value) for name, value in headers if name.lower() != "content-length"], body
