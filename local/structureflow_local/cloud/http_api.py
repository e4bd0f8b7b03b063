"""The HTTP API of the template, on a port of its own: routes to functions in API Gateway's payload format 2.0."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from structureflow_local.cloud.errors import LocalCloudError
from structureflow_local.cloud.functions import MAX_SYNC_BYTES, Functions
from structureflow_local.cloud.signature import Keyring, SignatureError
from structureflow_local.cloud.template import FunctionSpec, RouteSpec
from structureflow_local.doors import content_length

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_TEXT_TYPES: Final = ("text/", "application/json", "application/xml", "application/javascript")
_API_ID: Final = "local"
_JSON: Final = ("Content-Type", "application/json")
#: After a body that was not read.
_CLOSE: Final = ("Connection", "close")


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    key: str
    pattern: re.Pattern[str]
    weight: tuple[int, int, int]
    function: FunctionSpec
    signed: bool


class HttpApi:
    """A WSGI application that answers as API Gateway's HTTP API does.

    Args:
        specs: functions that carry routes; the most specific route wins (literal before parameter before greedy
            parameter before ``$default``, a method before ``ANY``).
        functions: that are called.
        keyring: whose keys sign the requests to routes that ask for it; any other request to them is forbidden.
    """

    def __init__(self, specs: Sequence[FunctionSpec], functions: Functions, keyring: Keyring) -> None:
        self._functions = functions
        self._keyring = keyring
        routes = [_compile(route, spec) for spec in specs for route in spec.routes]
        self._routes = sorted(routes, key=lambda route: route.weight, reverse=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method = environ["REQUEST_METHOD"]
        # WSGI hands bytes over as latin-1 text (PEP 3333)
        path = str(environ.get("PATH_INFO", "/")).encode("latin-1").decode("utf-8", "replace")
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match and route.method in {method, "ANY"}:
                parameters = {name: unquote(value) for name, value in match.groupdict().items()}
                return self._call(route, environ, path, parameters, start_response)
        return _reply(start_response, 404, [_JSON], b'{"message":"Not Found"}')

    def _call(
        self,
        route: _Route,
        environ: WSGIEnvironment,
        path: str,
        parameters: dict[str, str],
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        length = content_length(environ)
        if length > MAX_SYNC_BYTES:
            return _reply(start_response, 413, [_JSON, _CLOSE], b'{"message":"Request Too Long"}')
        body = bytes(environ["wsgi.input"].read(length)) if length else b""
        if route.signed:
            try:
                self._keyring.check(environ, lambda: body)
            except SignatureError:
                return _reply(start_response, 403, [_JSON], b'{"message":"Forbidden"}')
        return self._answer(route.function, _event(environ, route, path, parameters, body), start_response)

    def _answer(self, spec: FunctionSpec, event: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        failed = [_JSON], b'{"message":"Internal Server Error"}'
        try:
            result = self._functions.invoke(spec.arn, json.dumps(event).encode())
        except LocalCloudError:
            return _reply(start_response, 503, failed[0], b'{"message":"Service Unavailable"}')
        if result.error is not None:
            return _reply(start_response, 500, *failed)
        payload = result.payload
        if not isinstance(payload, dict) or "statusCode" not in payload:
            return _reply(start_response, 200, failed[0], json.dumps(payload).encode())
        try:
            body = str(payload.get("body") or "").encode()
            if payload.get("isBase64Encoded"):
                body = base64.b64decode(body, validate=True)
            headers = [(str(name), str(value)) for name, value in (payload.get("headers") or {}).items()]
            headers += [("Set-Cookie", str(cookie)) for cookie in payload.get("cookies") or ()]
            status = int(payload["statusCode"])
        except (TypeError, ValueError, AttributeError, binascii.Error):
            return _reply(start_response, 500, *failed)
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", "application/json"))
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        return _reply(start_response, status, headers, body)


def _compile(wanted: RouteSpec, spec: FunctionSpec) -> _Route:
    method, path = wanted.method, wanted.path
    if path == "$default":
        return _Route("ANY", "$default", re.compile(r"/?.*", re.DOTALL), (-1, 0, 0), spec, wanted.signed)
    parts = []
    literal = greedy = 0
    for part in path.strip("/").split("/"):
        parameter = re.fullmatch(r"\{([A-Za-z0-9_]+)(\+?)\}", part)
        if parameter is None:
            parts.append(re.escape(part))
            literal += 1
        elif parameter[2]:
            parts.append(f"(?P<{parameter[1]}>.+)")
            greedy += 1
        else:
            parts.append(f"(?P<{parameter[1]}>[^/]+)")
    pattern = re.compile("/" + "/".join(parts) + "/?", re.DOTALL)
    return _Route(method, f"{method} {path}", pattern, (literal, -greedy, int(method != "ANY")), spec, wanted.signed)


def _event(
    environ: WSGIEnvironment, route: _Route, path: str, parameters: dict[str, str], body: bytes
) -> dict[str, Any]:
    """Return the event of payload format 2.0 (API Gateway Developer Guide, "Working with AWS Lambda proxy")."""
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
        "routeKey": route.key,
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
            "routeKey": route.key,
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
        event["pathParameters"] = parameters
    if body:
        if headers.get("content-type", "").startswith(_TEXT_TYPES):
            event["body"] = body.decode("utf-8", "replace")
        else:
            event["body"], event["isBase64Encoded"] = base64.b64encode(body).decode(), True
    return event


def _reply(start_response: StartResponse, status: int, headers: list[tuple[str, str]], body: bytes) -> Iterable[bytes]:
    start_response(f"{status} {'OK' if status < 400 else 'Error'}", [*headers, ("Content-Length", str(len(body)))])
    return [body]
