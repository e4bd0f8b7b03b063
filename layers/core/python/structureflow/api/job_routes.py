"""Routes of jobs."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path, Query

from structureflow.api import jobs
from structureflow.api.about import about
from structureflow.api.queries import JobsQuery, Nothing, OutputsQuery, SegmentsQuery
from structureflow.api.replies import (
    About,
    Downloads,
    JobOutputs,
    JobPage,
    JobView,
    RequestView,
    SegmentFrames,
    SegmentPage,
)
from structureflow.api.serving import answers, known, later, new_router
from structureflow.models.results import Manifest

router = new_router()
Index = Annotated[int, Path(ge=0, le=99_999)]


@router.get("/about", responses=answers(About))
def get_about() -> Response[Any]:
    """What is here, and what a request may name."""
    known(router, Nothing())
    return later(about)


@router.get("/jobs", responses=answers(JobPage))
def list_jobs(query: Annotated[JobsQuery, Query()]) -> Response[Any]:
    """A page of jobs: state, stage, segments, time and cost."""
    known(router, query)
    return later(lambda services: jobs.job_page(query, services))


@router.get("/jobs/<task_id>", responses=answers(JobView))
def job_status(task_id: str) -> Response[Any]:
    """Where the job is, and how far; its typed error if it failed."""
    known(router, Nothing())
    return later(lambda services: jobs.job_status(task_id, services))


@router.get("/jobs/<task_id>/request", responses=answers(RequestView))
def job_request(task_id: str) -> Response[Any]:
    """What the job was asked for, as it took it."""
    known(router, Nothing())
    return later(lambda services: jobs.job_request(task_id, services))


@router.get("/jobs/<task_id>/manifest", responses=answers(Manifest))
def job_manifest(task_id: str) -> Response[Any]:
    """Every output of a finished job."""
    known(router, Nothing())
    return later(lambda services: jobs.job_manifest(task_id, services))


@router.get("/jobs/<task_id>/outputs", responses=answers(JobOutputs))
def job_outputs(task_id: str, query: Annotated[OutputsQuery, Query()]) -> Response[Any]:
    """URLs of a finished job's objects."""
    known(router, query)
    return later(lambda services: jobs.job_outputs(task_id, query, services))


@router.get("/jobs/<task_id>/downloads", responses=answers(Downloads))
def job_downloads(task_id: str, query: Annotated[OutputsQuery, Query()]) -> Response[Any]:
    """Files of a finished job by who takes them."""
    known(router, query)
    return later(lambda services: jobs.job_downloads(task_id, query, services))


@router.get("/jobs/<task_id>/segments", responses=answers(SegmentPage))
def job_segments(task_id: str, query: Annotated[SegmentsQuery, Query()]) -> Response[Any]:
    """A page of a finished job's segments, with URLs of their videos."""
    known(router, query)
    return later(lambda services: jobs.job_segments(task_id, query, services))


@router.get("/jobs/<task_id>/segments/<index>/frames", responses=answers(SegmentFrames))
def job_segment_frames(task_id: str, index: Index) -> Response[Any]:
    """The frames of a finished segment: whose they are, and how well they are known."""
    known(router, Nothing())
    return later(lambda services: jobs.job_segment_frames(task_id, index, services))
