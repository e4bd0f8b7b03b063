"""Every route of the API, from its own description."""

from __future__ import annotations

import json

from structureflow.api.app import whole_api
from structureflow.jobs.services import Services

#: What stands for the parameters of the API's routes.
NAMES = {"task_id": "mine", "timeline_id": "mine", "index": "0", "sequence": "0", "name": "app.js"}


def every_route() -> list[tuple[str, str]]:
    """Every route that the API's own description has, and one that it has not."""

    def no_services() -> Services:
        raise AssertionError("nothing is asked of a store")

    paths = json.loads(whole_api(no_services).schema())["paths"]
    routes = [(method.upper(), path.format(**NAMES)) for path, one in paths.items() for method in one]
    return [*routes, ("GET", "/openapi.json"), ("GET", "/elsewhere")]
