"""The web page, and that of the API's documentation, served from where their data comes from."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.event_handler import Response

from structureflow.api.docs_page import DOCS_POLICY, docs_file
from structureflow.api.page_files import PageFile, page_file, page_policy
from structureflow.api.serving import Reply, bytes_answers, later, new_router
from structureflow.jobs.services import Services

router = new_router()


@router.get("/", responses=bytes_answers("text/html"))
def page() -> Response[Any]:
    """The web page."""
    return _file(lambda: page_file("index.html"))


@router.get("/page/<name>", responses=bytes_answers("application/octet-stream"))
def file(name: str) -> Response[Any]:
    """A file of the web page."""
    return _file(lambda: page_file(name))


@router.get("/docs", responses=bytes_answers("text/html"))
def docs() -> Response[Any]:
    """What you read: all routes, from ``/openapi.json``."""
    return _file(lambda: docs_file("index.html"), DOCS_POLICY)


@router.get("/docs/<name>", responses=bytes_answers("application/octet-stream"))
def docs_part(name: str) -> Response[Any]:
    """A file of that page."""
    return _file(lambda: docs_file(name), DOCS_POLICY)


def _file(find: Callable[[], PageFile], policy: str | None = None) -> Response[Any]:
    headers = router.current_event.headers
    held = headers.get("if-none-match") or ""

    def work(services: Services) -> Reply:
        found = find()
        said = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": policy or page_policy(services.storage.url_origin),
            "ETag": found.etag,
        }
        if held == found.etag:
            return Reply("", found.content_type, status=304, headers=said)
        # as text where it is: base64 is a third longer
        textual = found.content_type.startswith(("text/", "application/json", "image/svg"))
        return Reply(found.data.decode() if textual else found.data, found.content_type, headers=said)

    return later(work)
