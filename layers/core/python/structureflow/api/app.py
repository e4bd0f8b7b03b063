"""The whole API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import BaseModel

from structureflow.api import job_routes, media_routes, new_job_routes, page_routes, timeline_routes
from structureflow.api.queries import PreviewWish, RebuildWish, UploadWish
from structureflow.api.serving import Api
from structureflow.jobs.services import Services
from structureflow.models.job import JobRequest

#: What requests bring.
_BODIES: Final[dict[tuple[str, str], type[BaseModel]]] = {
    ("post", "/jobs/{task_id}/uploads"): UploadWish,
    ("post", "/jobs/{task_id}/check"): JobRequest,
    ("put", "/jobs/{task_id}"): JobRequest,
    ("post", "/previews"): PreviewWish,
    ("post", "/timelines/{timeline_id}/rebuild"): RebuildWish,
}

__all__ = ["whole_api"]


def light_api(services: Callable[[], Services]) -> Api:
    """Return the API without the routes that need numpy and OpenCV: archives and previews."""
    routers = (job_routes, new_job_routes, timeline_routes, page_routes)
    bodies = {place: model for place, model in _BODIES.items() if place[1] != "/previews"}
    return Api(services, *(one.router for one in routers), bodies=bodies)


def whole_api(services: Callable[[], Services]) -> Api:
    """Return the API over what `services` gives at each request."""
    routers = (job_routes, new_job_routes, timeline_routes, media_routes, page_routes)
    return Api(services, *(one.router for one in routers), bodies=_BODIES)
