"""The whole API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import BaseModel

from structureflow.api import job_routes, media_routes, new_job_routes, page_routes, timeline_routes
from structureflow.api.queries import ForecastWish, PreviewWish, RebuildWish, UploadWish
from structureflow.api.serving import Api
from structureflow.jobs.services import Services
from structureflow.models.job import JobRequest

#: What requests bring.
_BODIES: Final[dict[tuple[str, str], type[BaseModel]]] = {
    ("post", "/jobs/{task_id}/uploads"): UploadWish,
    ("post", "/jobs/{task_id}/check"): JobRequest,
    ("put", "/jobs/{task_id}"): JobRequest,
    ("post", "/previews"): PreviewWish,
    ("post", "/forecasts"): ForecastWish,
    ("post", "/timelines/{timeline_id}/rebuild"): RebuildWish,
}
_LIGHT: Final = tuple(one.router for one in (job_routes, new_job_routes, timeline_routes, page_routes))

__all__ = ["whole_api"]


def light_api(services: Callable[[], Services]) -> Api:
    """Return the API without the routes that need numpy and OpenCV, which `media_api` answers; all are described."""
    return Api(services, *_LIGHT, described_by=whole_api(services))


def media_api(services: Callable[[], Services]) -> Api:
    """Return the routes that need numpy and OpenCV: archives, previews and forecasts."""
    return Api(services, media_routes.router, described_by=whole_api(services))


def whole_api(services: Callable[[], Services]) -> Api:
    """Return the API over what `services` gives at each request."""
    return Api(services, *_LIGHT, media_routes.router, bodies=_BODIES)
