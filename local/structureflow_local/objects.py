"""Objects of a store as files of a web server on this machine: whole or by ranges, and nothing in them runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from structureflow import keys
from structureflow.errors import (
    InputNotAllowedError,
    InvalidRequestError,
    JobExistsError,
    ObjectExistsError,
    ObjectNotFoundError,
)
from structureflow.limits import MAX_DIGITS
from structureflow.storage.base import ByteRange, ObjectInfo, Storage, Upload, check_expiry, check_key
from structureflow.storage.wrapper import WrapperStorage
from structureflow_local.doors import OBJECT_POLICY, content_length

#: Below which objects are served: what links of the API lead to.
PREFIX: Final = "/objects/"
_SERVED: Final = ("jobs/", "cache/timelines/", "cache/flows/", "timelines/")
_UPLOADED: Final = re.compile(rf"jobs/{keys.ID_PATTERN}/inputs/[A-Za-z0-9][A-Za-z0-9._-]{{0,199}}")
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

    def upload_url(self, key: str, *, size_bytes: int, content_type: str, expires_s: int = 3600) -> Upload:
        """Return the path that takes the object by PUT (`receive`), once."""
        check_expiry(expires_s)
        if size_bytes < 1:
            raise InvalidRequestError(f"size_bytes: expected 1 or more, got {size_bytes}")
        return Upload(PREFIX + quote(check_key(key)), headers=(("Content-Type", content_type),))

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


def receive(storage: Storage, key: str, request: Request, max_bytes: int) -> ObjectInfo:
    """Store the body of a request as a file that was uploaded for a job; nothing that is there is replaced.

    Raises:
        InputNotAllowedError: the key is none of an uploaded file.
        InvalidRequestError: the body has no length, or more than `max_bytes`, or breaks off.
        JobExistsError: there is such a file.
    """
    if not _UPLOADED.fullmatch(key) or ".." in key:
        raise InputNotAllowedError(f"expected a key of jobs/…/inputs/…, got {key!r:.200}")
    length = content_length(request.environ)
    if not 1 <= length <= max_bytes:
        raise InvalidRequestError(f"Content-Length: expected 1 to {max_bytes}, got {length}")
    with TemporaryDirectory(prefix="structureflow-upload-") as folder:
        path = Path(folder) / "body"
        with path.open("wb") as file:
            left = length
            while left and (piece := request.environ["wsgi.input"].read(min(left, _RANGE_BYTES))):
                file.write(piece)
                left -= len(piece)
        if left:
            raise InvalidRequestError(f"expected {length} bytes, got {length - left}")
        try:
            return storage.put_file(key, path, if_absent=True)
        except ObjectExistsError as error:
            raise JobExistsError(f"{key}: there is such a file already", key=key) from error


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
