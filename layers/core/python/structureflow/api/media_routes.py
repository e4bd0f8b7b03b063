"""Routes that need pixels: a function with the media image answers them on AWS (functions/preview)."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from structureflow.api import archives
from structureflow.api.queries import ArchivesQuery, FlowQuery, KeyQuery
from structureflow.api.replies import ArchivePage, ArchiveView
from structureflow.api.serving import Reply, answers, bytes_answers, known, later, new_router
from structureflow.jobs.services import Services

router = new_router()


@router.get("/archives", responses=answers(ArchivePage))
def list_archives(query: Annotated[ArchivesQuery, Query()]) -> Response[Any]:
    """A page of the archives of flows that all jobs find."""
    known(router, query)
    return later(lambda services: archives.archive_page(query, services))


@router.get("/archives/meta", responses=answers(ArchiveView))
def archive_meta(query: Annotated[KeyQuery, Query()]) -> Response[Any]:
    """What an archive of flows holds."""
    known(router, query)
    return later(lambda services: archives.archive_meta(query, services))


@router.get("/archives/flow", responses=bytes_answers("image/jpeg"))
def archive_flow(query: Annotated[FlowQuery, Query()]) -> Response[Any]:
    """One flow in colours, as a JPEG; ``X-Max-Px`` says which length is fully saturated."""
    known(router, query)

    def work(services: Services) -> Reply:
        data, max_px = archives.archive_flow(query, services)
        return Reply(data, "image/jpeg", headers={"Cache-Control": "private, max-age=600", "X-Max-Px": f"{max_px:g}"})

    return later(work)
