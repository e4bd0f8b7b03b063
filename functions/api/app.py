"""Api: what screens ask for, over HTTP: a job's state and outputs, a timeline's frames and overlays."""

from typing import Annotated, Any, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel

from structureflow.errors import StructureFlowError
from structureflow.jobs import api
from structureflow.models.results import ErrorInfo
from structureflow.runtime.wiring import instrumented, logger, services

app = APIGatewayHttpResolver(enable_validation=True)
_Parameters = TypeVar("_Parameters", bound=BaseModel)


def refuse_foreign_pages(app: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[str]:
    """Let nobody but programs, pages of the API's own host, and those that the stack allows come to a route."""
    event = app.current_event
    api.check_origin(event.headers.get("origin"), event.request_context.domain_name, services().allowed_origins)
    return next_middleware(app)


app.use(middlewares=[refuse_foreign_pages])


def _answers(route: str) -> Any:
    """Describe the answers of a route by its name. They are not validated again: a manifest may have megabytes."""
    refused = {"description": "A typed error", "content": {"application/json": {"model": ErrorInfo}}}
    found = {"description": "Found", "content": {"application/json": {"model": api.ANSWERS[route]}}}
    return {200: found, **dict.fromkeys((400, 403, 404, 409, 500, 503), refused)}


@app.get("/jobs/<task_id>", responses=_answers("job_status"))
def job_status(task_id: str) -> Response[Any]:
    """Where the job is; its typed error if it failed."""
    return _reply(api.job_status(task_id, services()))


@app.get("/jobs/<task_id>/manifest", responses=_answers("job_manifest"))
def job_manifest(task_id: str) -> Response[Any]:
    """Every output of a finished job."""
    return _reply(api.job_manifest(task_id, services()))


@app.get("/jobs/<task_id>/outputs", responses=_answers("job_outputs"))
def job_outputs(task_id: str, query: Annotated[api.OutputsQuery, Query()]) -> Response[Any]:
    """URLs of a finished job's objects."""
    return _reply(api.job_outputs(task_id, _known(query), services()))


@app.get("/timelines/<timeline_id>/frames", responses=_answers("timeline_frames"))
def timeline_frames(timeline_id: str, query: Annotated[api.ThumbnailsQuery, Query()]) -> Response[Any]:
    """A page of frames as base64 JPEGs."""
    return _reply(api.timeline_frames(timeline_id, _known(query), services()))


@app.get("/timelines/<timeline_id>/frames/urls", responses=_answers("timeline_frame_urls"))
def timeline_frame_urls(timeline_id: str, query: Annotated[api.UrlsQuery, Query()]) -> Response[Any]:
    """A page of frames as URLs."""
    return _reply(api.timeline_frame_urls(timeline_id, _known(query), services()))


@app.get("/timelines/<timeline_id>/overlays", responses=_answers("timeline_overlays"))
def timeline_overlays(timeline_id: str, query: Annotated[api.OverlaysQuery, Query()]) -> Response[Any]:
    """A page of overlays as URLs."""
    return _reply(api.timeline_overlays(timeline_id, _known(query), services()))


@app.delete("/timelines/<timeline_id>", responses=_answers("clear_timeline"))
def clear_timeline(timeline_id: str, query: Annotated[api.ClearQuery, Query()]) -> Response[Any]:
    """Remove cached frames, and overlays with ``?overlays=true``."""
    return _reply(api.clear_timeline(timeline_id, _known(query), services()))


@app.get("/openapi.json", include_in_schema=False)
def openapi() -> Response[Any]:
    """What there is, in OpenAPI."""
    text = app.get_openapi_json_schema(title="structureflow", version=api.VERSION, description=api.SIGNED)
    return Response(status_code=200, content_type="application/json", body=text)


@app.exception_handler(StructureFlowError)  # type: ignore[untyped-decorator]
def refuse(error: StructureFlowError) -> Response[str]:
    """Answer a typed error with its HTTP status and its JSON form."""
    status = api.status_code(error)
    if status >= 500:
        logger().error("request failed", extra={"error": error.as_dict()})
    return Response(status_code=status, content_type="application/json", body=api.error_body(error))


@app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]
def refuse_invalid(error: RequestValidationError) -> Response[str]:
    """Answer what the resolver found wrong as any other error of a request."""
    answer: Response[str] = refuse(api.refusal(error.errors()))
    return answer


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an event of API Gateway's HTTP API, payload format 2.0."""
    reply = app.resolve(event, context)
    return {**reply, "headers": {**reply["headers"], **api.ANSWER_HEADERS}}


def _known(query: _Parameters) -> _Parameters:
    api.check_names(query, app.current_event.query_string_parameters)
    return query


def _reply(document: BaseModel) -> Response[Any]:
    return Response(status_code=200, content_type="application/json", body=document.model_dump_json())
