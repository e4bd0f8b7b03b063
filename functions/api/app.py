"""Api: what screens ask for, over HTTP: a job's state and outputs, a timeline's frames and overlays."""

from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from pydantic import BaseModel

from structureflow.errors import StructureFlowError
from structureflow.jobs import api
from structureflow.runtime.wiring import instrumented, logger, services

app = APIGatewayHttpResolver()


def refuse_foreign_pages(app: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[str]:
    """Let nobody but programs, pages of the API's own host, and those that the stack allows come to a route."""
    event = app.current_event
    api.check_origin(event.headers.get("origin"), event.request_context.domain_name, services().allowed_origins)
    return next_middleware(app)


app.use(middlewares=[refuse_foreign_pages])


@app.get("/jobs/<task_id>")
def job_status(task_id: str) -> Response[str]:
    """Where the job is; its typed error if it failed."""
    return _reply(api.job_status(task_id, services()))


@app.get("/jobs/<task_id>/manifest")
def job_manifest(task_id: str) -> Response[str]:
    """Every output of a finished job."""
    return _reply(api.job_manifest(task_id, services()))


@app.get("/jobs/<task_id>/outputs")
def job_outputs(task_id: str) -> Response[str]:
    """URLs of a finished job's objects."""
    return _reply(api.job_outputs(task_id, api.OutputsQuery.parse(_query()), services()))


@app.get("/timelines/<timeline_id>/frames")
def timeline_frames(timeline_id: str) -> Response[str]:
    """A page of frames as base64 JPEGs."""
    return _reply(api.timeline_frames(timeline_id, api.ThumbnailsQuery.parse(_query()), services()))


@app.get("/timelines/<timeline_id>/frames/urls")
def timeline_frame_urls(timeline_id: str) -> Response[str]:
    """A page of frames as URLs."""
    return _reply(api.timeline_frame_urls(timeline_id, api.UrlsQuery.parse(_query()), services()))


@app.get("/timelines/<timeline_id>/overlays")
def timeline_overlays(timeline_id: str) -> Response[str]:
    """A page of overlays as URLs."""
    return _reply(api.timeline_overlays(timeline_id, api.OverlaysQuery.parse(_query()), services()))


@app.delete("/timelines/<timeline_id>")
def clear_timeline(timeline_id: str) -> Response[str]:
    """Remove cached frames, and overlays with ``?overlays=true``."""
    return _reply(api.clear_timeline(timeline_id, api.ClearQuery.parse(_query()), services()))


@app.exception_handler(StructureFlowError)  # type: ignore[untyped-decorator]
def refuse(error: StructureFlowError) -> Response[str]:
    """Answer a typed error with its HTTP status and its JSON form."""
    status = api.status_code(error)
    if status >= 500:
        logger().error("request failed", extra={"error": error.as_dict()})
    return Response(status_code=status, content_type="application/json", body=api.error_body(error))


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an event of API Gateway's HTTP API, payload format 2.0."""
    reply = app.resolve(event, context)
    return {**reply, "headers": {**reply["headers"], **api.ANSWER_HEADERS}}


def _query() -> dict[str, str]:
    return app.current_event.query_string_parameters


def _reply(document: BaseModel) -> Response[str]:
    return Response(status_code=200, content_type="application/json", body=document.model_dump_json())
