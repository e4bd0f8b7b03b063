"""Answers requests of API Gateway's HTTP API: Powertools' resolver finds the route, then its work is done.

The resolver keeps the request in class attributes, so one request is resolved at a time, which takes a millisecond.
What a route does, it leaves for later (`later`): on AWS that is at once, in the viewer many do it side by side.
"""

from __future__ import annotations

import base64
import inspect
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ValidationError

from structureflow import __version__
from structureflow.api.queries import check_names, check_origin, refusal
from structureflow.api.replies import Refusal
from structureflow.errors import (
    DeadlineError,
    FrameCorruptError,
    InvalidRequestError,
    JobStateError,
    ReplyTooLargeError,
    RouteNotFoundError,
    SettingsError,
    StorageError,
    StructureFlowError,
    TransientError,
)
from structureflow.jobs.services import Services
from structureflow.limits import MAX_EVENT_VALUES, MAX_REPLY_BYTES
from structureflow.models.bounds import validate_json
from structureflow.models.problems import problems_of

__all__ = ["Api", "error_body", "status_code"]

_log = logging.getLogger(__name__)

#: Said at the top of ``/openapi.json``.
SIGNED: Final = (
    "Jobs, timelines and their frames. Every request to a stack is signed (AWS SigV4, service execute-api), or carries "
    "a token (JWT), whichever the stack was set up for."
)
_JSON: Final = "application/json"
#: How browsers are to take every answer: as what it says it is, nothing in it runs, and its URLs are not kept.
ANSWER_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no document: its bytes, and headers in place of `ANSWER_HEADERS`."""

    body: bytes | str
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Work = Callable[[Services], BaseModel | Reply]
_Parameters = TypeVar("_Parameters", bound=BaseModel)


class _Found(threading.local):
    """What the route that this thread resolved left to be done, and with which status it ends well."""

    def __init__(self) -> None:
        self.left: tuple[Work, int] | None = None

    def take(self) -> tuple[Work, int] | None:
        """Return it, and forget it."""
        taken, self.left = self.left, None
        return taken


_found = _Found()
_resolving = threading.Lock()


class _Router(APIGatewayHttpRouter):
    """Describes each route by the docstring of its function, where the resolver says method and path once more."""

    def route(self, *given: Any, **named: Any) -> Callable[[Any], Any]:
        make = super().route

        def register(function: Any) -> Any:
            asked = inspect.signature(make).bind(*given, **named)
            asked.arguments["summary"] = (inspect.getdoc(function) or "").partition("\n")[0]
            return make(*asked.args, **asked.kwargs)(function)

        return register


def new_router() -> APIGatewayHttpRouter:
    """Return a router without routes."""
    return _Router()  # type: ignore[no-untyped-call]


def later(work: Work, *, status: int = 200) -> Response[Any]:
    """Leave what a route does to `Api.answer`; called in a route."""
    _found.left = (work, status)
    return Response(status_code=status, content_type=_JSON, body="")


def known(router: APIGatewayHttpRouter, query: _Parameters) -> _Parameters:
    """Return a route's parameters, if the request has no others; called in a route."""
    check_names(query, router.current_event.query_string_parameters)
    return query


def body_bytes(router: APIGatewayHttpRouter) -> bytes:
    """Return a request's body as it came; called in a route."""
    event = router.current_event
    body = event.body or ""
    if not event.is_base64_encoded:
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise InvalidRequestError("body: expected base64") from error


def body_as(router: APIGatewayHttpRouter, model: type[_Parameters]) -> _Parameters:
    """Return a request's body as a model; called in a route. The resolver's own parser knows no bounds.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        return validate_json(model, body_bytes(router) or b"{}", max_values=MAX_EVENT_VALUES)
    except ValidationError as error:
        problems = problems_of(error)
        raise InvalidRequestError("; ".join(problems), problems=problems) from None


def answers(model: type[BaseModel], status: int = 200) -> Any:
    """Describe the answers of a route. They are not validated again: a manifest may have megabytes."""
    refused = {"description": "A typed error", "content": {_JSON: {"model": Refusal}}}
    found = {"description": "Found", "content": {_JSON: {"model": model}}}
    return {status: found, **dict.fromkeys((400, 403, 404, 409, 413, 500, 503), refused)}


def bytes_answers(content_type: str) -> Any:
    """Describe the answers of a route that gives a file."""
    return {**answers(Refusal), 200: {"description": "The file", "content": {content_type: {}}}}


class Api:
    """Answers requests by the routes of some routers.

    Args:
        services: gives what the routes work with, at each request.
        routers: the routes.
        bodies: of requests, by method and path as OpenAPI has it: routes read them by `body_as` or `body_bytes`.
        described_by: an API with all routes, where others of them are answered elsewhere; None: this one.
    """

    def __init__(
        self,
        services: Callable[[], Services],
        *routers: APIGatewayHttpRouter,
        bodies: Mapping[tuple[str, str], type[BaseModel]] = MappingProxyType({}),
        described_by: Api | None = None,
    ) -> None:
        self._services = services
        self._described_by = described_by or self
        self._bodies = bodies
        self._app = APIGatewayHttpResolver(enable_validation=True)
        self._app.use(middlewares=[self._refuse_foreign_pages])
        for router in routers:
            self._app.include_router(router)
        self._app.get("/openapi.json", include_in_schema=False)(self._openapi)
        self._app.exception_handler(StructureFlowError)(_refuse)
        self._app.exception_handler(RequestValidationError)(_refuse_invalid)
        self._app.exception_handler(NotFoundError)(lambda _: self._refuse_unknown())

    def answer(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Answer an event of API Gateway's HTTP API, payload format 2.0."""
        with _resolving:
            _found.take()
            reply = self._app.resolve(event, context)
            left = _found.take()
        if left is None:
            return {**reply, "headers": {**reply["headers"], **ANSWER_HEADERS}}
        work, status = left
        try:
            return _event_reply(_rendered(work(self._services()), status))
        except StructureFlowError as error:
            return _event_reply(_error_reply(error))

    def schema(self) -> str:
        """Return what there is, in OpenAPI."""
        text = self._app.get_openapi_json_schema(title="structureflow", version=__version__, description=SIGNED)
        document = json.loads(text)
        schemas = document["components"]["schemas"]
        for (method, path), model in self._bodies.items():
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
            said = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
            document["paths"][path][method]["requestBody"] = {"required": True, "content": {_JSON: said}}
        return json.dumps(document)

    def _openapi(self) -> Response[Any]:
        return Response(status_code=200, content_type=_JSON, body=self._described_by.schema())

    def _refuse_foreign_pages(self, app: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[str]:
        """Let nobody but programs, pages of the API's own host, and those that the stack allows come to a route."""
        event = app.current_event
        check_origin(event.headers.get("origin"), event.request_context.domain_name, self._services().allowed_origins)
        return next_middleware(app)

    def _refuse_unknown(self) -> Response[str]:
        event = self._app.current_event
        return _refuse(RouteNotFoundError(f"there is no route {event.http_method} {event.path!r:.200}"))


def _rendered(made: BaseModel | Reply, status: int) -> Reply:
    reply = made if isinstance(made, Reply) else Reply(made.model_dump_json(), _JSON, status)
    size = len(reply.body.encode()) if isinstance(reply.body, str) else len(reply.body) * 4 // 3
    if size > MAX_REPLY_BYTES:
        raise ReplyTooLargeError(
            f"expected a reply of at most {MAX_REPLY_BYTES} bytes, got {size}; ask for a smaller page, for fewer "
            "pixels, or for URLs",
            size_bytes=size,
        )
    return reply


def _event_reply(reply: Reply) -> dict[str, Any]:
    packed = isinstance(reply.body, bytes)
    return {
        "statusCode": reply.status,
        "headers": {"Content-Type": reply.content_type, **ANSWER_HEADERS, **reply.headers},
        "body": base64.b64encode(reply.body).decode() if isinstance(reply.body, bytes) else reply.body,
        "isBase64Encoded": packed,
    }


# --- errors ------------------------------------------------------------------------------------------

#: The first kind that fits wins: those that are also a ValueError come before it.
_STATUS_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (TransientError, 503),
    (DeadlineError, 503),
    (ReplyTooLargeError, 413),
    (FileNotFoundError, 404),
    (FrameCorruptError, 500),
    (PermissionError, 403),
    (JobStateError, 409),
    (SettingsError, 500),
    (StorageError, 500),
    (ValueError, 400),
)


def status_code(error: Exception) -> int:
    """Return the HTTP status of a typed error: whose fault it is, and whether a later try may help."""
    return next((status for kind, status in _STATUS_CODES if isinstance(error, kind)), 500)


def error_body(error: StructureFlowError) -> str:
    """Return the JSON of a typed error, as it also stands in ``status.json``: code, message, detail."""
    return json.dumps(error.as_dict(), default=str)


def _error_reply(error: StructureFlowError) -> Reply:
    status = status_code(error)
    if status >= 500:
        _log.error("request failed", extra={"error": error.as_dict()})
    return Reply(error_body(error), _JSON, status)


def _refuse(error: StructureFlowError) -> Response[str]:
    """Answer a typed error with its HTTP status and its JSON form."""
    reply = _error_reply(error)
    return Response(status_code=reply.status, content_type=_JSON, body=str(reply.body))


def _refuse_invalid(error: RequestValidationError) -> Response[str]:
    """Answer what the resolver found wrong as any other error of a request."""
    return _refuse(refusal(error.errors()))
