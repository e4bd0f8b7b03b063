"""The web page, served from where its data comes from."""

from typing import Any

from aws_lambda_powertools.event_handler import Response

from structureflow.api.page_files import page_file, page_policy
from structureflow.api.serving import Reply, bytes_answers, later, new_router
from structureflow.jobs.services import Services

router = new_router()


@router.get("/", responses=bytes_answers("text/html"))
def page() -> Response[Any]:
    """The web page."""
    return _file("index.html")


@router.get("/page/<name>", responses=bytes_answers("application/octet-stream"))
def file(name: str) -> Response[Any]:
    """A file of the web page."""
    return _file(name)


def _file(name: str) -> Response[Any]:
    headers = router.current_event.headers
    held = headers.get("if-none-match") or ""

    def work(services: Services) -> Reply:
        found = page_file(name)
        said = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": page_policy(services.storage.url_origin),
            "ETag": found.etag,
        }
        if held == found.etag:
            return Reply("", found.content_type, status=304, headers=said)
        # as text where it is: base64 is a third longer
        textual = found.content_type.startswith(("text/", "application/json", "image/svg"))
        return Reply(found.data.decode() if textual else found.data, found.content_type, headers=said)

    return later(work)
