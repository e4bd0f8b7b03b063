"""The API's own documentation as a web page: Swagger UI, as Powertools brings it, over ``/openapi.json``."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from structureflow.api.page_files import PageFile
from structureflow.errors import PageFileNotFoundError

#: Scripts, styles and pictures of its own, and no other host. (Powertools' own page has its scripts within it.)
DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HTML: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>structureflow: the API</title>
<link rel="icon" href="page/icon.svg">
<link rel="stylesheet" href="docs/swagger-ui.min.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.min.js"></script>
<script src="docs/start.js"></script>
"""
_START: Final = """SwaggerUIBundle({ dom_id: "#docs", url: "openapi.json", deepLinking: true, validatorUrl: null });
"""
_KEPT: Final = {
    "swagger-ui-bundle.min.js": "text/javascript; charset=utf-8",
    "swagger-ui.min.css": "text/css; charset=utf-8",
}


@cache
def docs_file(name: str) -> PageFile:
    """Return the page (``index.html``), or a file that it loads.

    Raises:
        PageFileNotFoundError: there is none of that name.
    """
    if name == "index.html":
        return _file(_HTML.encode(), "text/html; charset=utf-8")
    if name == "start.js":
        return _file(_START.encode(), "text/javascript; charset=utf-8")
    if name not in _KEPT:
        raise PageFileNotFoundError(f"the documentation has no file {name!r:.80}")
    found = resources.files("aws_lambda_powertools.event_handler.openapi.swagger_ui") / name
    return _file(found.read_bytes(), _KEPT[name])


def _file(data: bytes, content_type: str) -> PageFile:
    return PageFile(data, content_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
