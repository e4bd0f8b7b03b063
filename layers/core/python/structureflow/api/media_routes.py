"""Routes that need pixels: a function with the media image answers them on AWS (functions/preview)."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from structureflow.api import archives, forecasts, previews
from structureflow.api.media_replies import ArchivePage, ArchiveView, ForecastReply, PreviewReply
from structureflow.api.queries import ArchivesQuery, FlowQuery, ForecastWish, KeyQuery, Nothing, PreviewWish
from structureflow.api.serving import Reply, answers, body_as, bytes_answers, known, later, new_router
from structureflow.jobs.services import Services

router = new_router()


@router.post("/previews", responses=answers(PreviewReply))
def preview() -> Response[Any]:
    """A gap of a segment of a request, at a quarter of its size; nothing is written."""
    known(router, Nothing())
    wish = body_as(router, PreviewWish)
    return later(lambda services: previews.preview(wish, services))


@router.post("/forecasts", responses=answers(ForecastReply))
def forecast() -> Response[Any]:
    """What a job will take: seconds and US dollars, before it is sent; of its videos their indexes are read."""
    known(router, Nothing())
    wish = body_as(router, ForecastWish)
    return later(lambda services: forecasts.forecast_job(wish, services))


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
