"""The web page's own files: they lie in the library, and are the same for everybody."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from structureflow.errors import PageFileNotFoundError

_FILE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}(?:\.[a-z0-9_-]{1,20})*\.([a-z0-9]{1,5})")
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page, as it is served."""

    data: bytes
    content_type: str
    etag: str


@cache
def page_file(name: str) -> PageFile:
    """Return a file of the page by its plain name.

    Raises:
        PageFileNotFoundError: there is none of that name.
    """
    match = _FILE.fullmatch(name)
    kind = _TYPES.get(match[1]) if match else None
    found = resources.files("structureflow") / "page" / name
    if kind is None or not found.is_file():
        raise PageFileNotFoundError(f"the page has no file {name!r:.80}")
    data = found.read_bytes()
    return PageFile(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def page_policy(store_origin: str | None) -> str:
    """Return the Content-Security-Policy of the page's files: scripts and styles of its own, pictures of the store.

    Args:
        store_origin: from which signed URLs are read, and to which files are sent; None where that is the page's own.
    """
    store = f" {store_origin}" if store_origin else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:{store}; "
        f"media-src 'self' blob:{store}; connect-src 'self'{store}; font-src 'self'; frame-src 'self'{store}; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
