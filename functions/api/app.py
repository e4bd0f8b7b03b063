"""Api: what screens and programs ask for, over HTTP; the routes are those of `structureflow.api`."""

from typing import Any

from structureflow.api.app import light_api
from structureflow.runtime.wiring import instrumented, services

api = light_api(lambda: services())


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an event of API Gateway's HTTP API, payload format 2.0."""
    return api.answer(event, context)
