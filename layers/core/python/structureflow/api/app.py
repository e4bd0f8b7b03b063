"""The whole API."""

from __future__ import annotations

from collections.abc import Callable

from structureflow.api import job_routes, page_routes, timeline_routes
from structureflow.api.serving import Api
from structureflow.jobs.services import Services

__all__ = ["whole_api"]


def whole_api(services: Callable[[], Services]) -> Api:
    """Return the API over what `services` gives at each request."""
    return Api(services, job_routes.router, timeline_routes.router, page_routes.router)
