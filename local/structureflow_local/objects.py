"""Objects of a store as files of a web server on this machine: whole or by ranges, and nothing in them runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from structureflow.errors import ObjectNotFoundError
from structureflow.limits import MAX_DIGITS
from structureflow.storage.base import ByteRange, ObjectInfo, Storage, check_expiry, check_key
from structureflow.storage.wrapper import WrapperStorage
from structureflow_local.doors import OBJECT_POLICY

#: Below which objects are served: what links of the API lead to.
PREFIX: Final = "/objects/"
_SERVED: Final = ("jobs/", "cache/timelines/", "cache/flows/", "timelines/")
_RANGE_BYTES: Final = 4_000_000
#: Of a job's report: as its own, which lies in the page, says; and it may show the videos beside it.
_REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'"
#: What a browser may show of a store's files; all else is a download.
_SHOWN: Final = {
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
}
_RANGE = re.compile(rf"bytes=([0-9]{{1,{MAX_DIGITS}}})-([0-9]{{0,{MAX_DIGITS}}})")


class LinkedStorage(WrapperStorage):
    """A store whose URLs are paths of the server that shows it."""

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return the path of the object; it does not expire, for whoever reaches the server may read it anyway."""
        check_expiry(expires_s)
        return PREFIX + quote(check_key(key))

    @property
    def url_origin(self) -> None:
        """None: the server's own."""
        return


def object_response(storage: Storage, key: str, request: Request) -> Response:
    """Answer a request for an object, by the one range that it asks for if any.

    Raises:
        ObjectNotFoundError: no such object, or none that is served.
    """
    if not key.startswith(_SERVED):
        raise ObjectNotFoundError(f"{key!r:.200}: expected a key below one of {', '.join(_SERVED)}")
    suffix = PurePosixPath(key).suffix.lower()
    kind = _SHOWN.get(suffix, "application/octet-stream")
    info = storage.head(key)
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "no-cache", "ETag": f'"{info.etag}"'}
    if suffix not in _SHOWN:
        headers["Content-Disposition"] = "attachment"
    if kind == "text/html":
        headers["Content-Security-Policy"] = f"{_REPORT_POLICY}; {OBJECT_POLICY}"
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status=304, headers=headers)
    wanted = _wanted_range(request)
    if wanted is None:
        headers["Content-Length"] = str(info.size_bytes)
        return Response(_pieces(storage, info), mimetype=kind, headers=headers)
    start, stop = wanted
    if start >= info.size_bytes:
        return Response(status=416)
    stop = min(stop, start + _RANGE_BYTES, info.size_bytes)
    found = storage.get(key, byte_range=ByteRange(start, stop), if_match=info.etag)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size_bytes}"
    return Response(found.data, status=206, mimetype=kind, headers=headers)


def _pieces(storage: Storage, info: ObjectInfo) -> Iterator[bytes]:
    """Read an object piece by piece: it may be larger than memory."""
    for start in range(0, info.size_bytes, _RANGE_BYTES):
        piece = ByteRange(start, min(start + _RANGE_BYTES, info.size_bytes))
        yield storage.get(info.key, byte_range=piece, if_match=info.etag).data


def _wanted_range(request: Request) -> tuple[int, int] | None:
    """Return the one range that a request asks for, or None for the whole object."""
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None:
        return None
    start = int(match[1])
    stop = int(match[2]) + 1 if match[2] else start + _RANGE_BYTES
    return (start, stop) if stop > start else None
