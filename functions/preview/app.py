"""Preview: what of the API needs pixels, previews of gaps and flows in colours; `functions/api` answers all else."""

from typing import Any

from structureflow.api.app import media_api
from structureflow.runtime.wiring import instrumented, services

api = media_api(lambda: services())


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an event of API Gateway's HTTP API, payload format 2.0."""
    return api.answer(event, context)
