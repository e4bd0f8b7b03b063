"""The HTTP API of the template, on a port of its own: routes to functions in API Gateway's payload format 2.0."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from structureflow_local.cloud.errors import LocalCloudError
from structureflow_local.cloud.functions import MAX_SYNC_BYTES, Functions
from structureflow_local.cloud.signature import Keyring, SignatureError
from structureflow_local.cloud.template import CorsSpec, FunctionSpec, RouteSpec, TokensSpec
from structureflow_local.cloud.tokens import TokenError, Tokens
from structureflow_local.doors import content_length
from structureflow_local.http_event import http_event, sent_reply, wsgi_path

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

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
    tokens: TokensSpec | None


class HttpApi:
    """A WSGI application that answers as API Gateway's HTTP API does.

    Args:
        specs: functions that carry routes; the most specific route wins (literal before parameter before greedy
            parameter before ``$default``, a method before ``ANY``).
        functions: that are called.
        keyring: whose keys sign the requests to routes that ask for it; any other request to them is forbidden.
        tokens: checks those that callers of other routes carry.
        cors: which pages of browsers may ask; None: none may.
    """

    def __init__(
        self,
        specs: Sequence[FunctionSpec],
        functions: Functions,
        keyring: Keyring,
        *,
        tokens: Tokens | None = None,
        cors: CorsSpec | None = None,
    ) -> None:
        self._functions = functions
        self._keyring = keyring
        self._tokens = tokens
        self._cors = cors
        routes = [_compile(route, spec) for spec in specs for route in spec.routes]
        self._routes = sorted(routes, key=lambda route: route.weight, reverse=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method = environ["REQUEST_METHOD"]
        path = wsgi_path(environ)
        if self._cors is not None and "HTTP_ORIGIN" in environ:
            start_response = _with_cors(start_response, self._cors, environ["HTTP_ORIGIN"])
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match and route.method in {method, "ANY"}:
                parameters = {name: unquote(value) for name, value in match.groupdict().items()}
                return self._call(route, environ, path, parameters, start_response)
        if method == "OPTIONS" and self._cors is not None:
            # answered by the gateway itself, before anybody signs
            return _reply(start_response, 204, [], b"")
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
        event = http_event(environ, body, key=route.key, path=path, parameters=parameters)
        if route.tokens is not None:
            try:
                event["requestContext"]["authorizer"] = {"jwt": self._claims(environ, route.tokens)}
            except TokenError:
                return _reply(start_response, 401, [_JSON], b'{"message":"Unauthorized"}')
        return self._answer(route.function, event, start_response)

    def _claims(self, environ: WSGIEnvironment, wanted: TokensSpec) -> dict[str, Any]:
        """Return what a function is told of a token: its claims as text, as API Gateway hands them over."""
        if self._tokens is None:
            raise TokenError(f"no keys of {wanted.issuer} are known here")
        claims = self._tokens.check(str(environ.get("HTTP_AUTHORIZATION", "")), wanted)
        said = {
            name: f"[{' '.join(map(str, one))}]" if isinstance(one, list) else str(one) for name, one in claims.items()
        }
        return {"claims": said, "scopes": None}

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
            status, headers, body = sent_reply(payload)
        except (TypeError, ValueError, AttributeError, binascii.Error):
            return _reply(start_response, 500, *failed)
        return _reply(start_response, status, headers, body)


def _compile(wanted: RouteSpec, spec: FunctionSpec) -> _Route:
    method, path = wanted.method, wanted.path
    if path == "$default":
        return _Route("ANY", "$default", re.compile(r"/?.*", re.DOTALL), (-1, 0, 0), spec, wanted.signed, wanted.tokens)
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
    weight = (literal, -greedy, int(method != "ANY"))
    return _Route(method, f"{method} {path}", pattern, weight, spec, wanted.signed, wanted.tokens)


def _with_cors(start_response: StartResponse, cors: CorsSpec, origin: str) -> StartResponse:
    """Return a `start_response` that tells a browser what a page may ask, if it is one of those that may.

    What a function says of it itself is dropped, as API Gateway does.
    """
    told = [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Methods", ",".join(cors.methods)),
        ("Access-Control-Allow-Headers", ",".join(cors.headers)),
        ("Access-Control-Expose-Headers", ",".join(cors.exposed)),
        ("Access-Control-Max-Age", str(cors.max_age_s)),
        ("Vary", "Origin"),
    ]

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        return start_response(status, kept + (told if origin in cors.origins else []), exc_info)

    return start


def _reply(start_response: StartResponse, status: int, headers: list[tuple[str, str]], body: bytes) -> Iterable[bytes]:
    start_response(f"{status} {'OK' if status < 400 else 'Error'}", [*headers, ("Content-Length", str(len(body)))])
    return [body]
