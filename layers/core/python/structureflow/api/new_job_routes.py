"""Routes that make new jobs."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from structureflow.api import new_jobs
from structureflow.api.queries import InputsQuery, Nothing, SendQuery, UploadWish
from structureflow.api.replies import CheckedRequest, InputPage, SentJob, UploadTicket
from structureflow.api.serving import answers, body_as, body_bytes, known, later, new_router

router = new_router()


@router.get("/inputs", responses=answers(InputPage))
def list_inputs(query: Annotated[InputsQuery, Query()]) -> Response[Any]:
    """Files that were uploaded for jobs; a page is so many jobs."""
    known(router, query)
    return later(lambda services: new_jobs.input_page(query, services))


@router.post("/jobs/<task_id>/uploads", responses=answers(UploadTicket, 201))
def upload(task_id: str) -> Response[Any]:
    """Where a video, an image or an archive is to be sent; its key is what a request names."""
    known(router, Nothing())
    wish = body_as(router, UploadWish)
    return later(lambda services: new_jobs.upload_ticket(task_id, wish, services), status=201)


@router.post("/jobs/<task_id>/check", responses=answers(CheckedRequest))
def check(task_id: str) -> Response[Any]:
    """Everything that is wrong with the request in the body, without looking at what it names."""
    known(router, Nothing())
    body = body_bytes(router)
    return later(lambda _: new_jobs.check_request(task_id, body))


@router.put("/jobs/<task_id>", responses=answers(SentJob, 202))
def send(task_id: str, query: Annotated[SendQuery, Query()]) -> Response[Any]:
    """Put the request in the body; its arrival starts the job. ``?again=true`` puts it over an earlier one."""
    known(router, query)
    body = body_bytes(router)
    return later(lambda services: new_jobs.send_job(task_id, body, query, services), status=202)
