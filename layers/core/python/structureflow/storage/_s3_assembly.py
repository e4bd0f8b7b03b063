"""An object put together from parts of others, by S3 itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from structureflow.errors import ObjectChangedError, ObjectExistsError, ObjectNotFoundError, StorageError
from structureflow.storage._s3_parts import Parts
from structureflow.storage.adapters import check_if_match
from structureflow.storage.base import ObjectInfo, Storage
from structureflow.storage.pieces import ObjectPart, Piece, read_pieces

_log = logging.getLogger(__name__)


def assemble(
    store: Storage,
    parts: Parts,
    key: str,
    pieces: Sequence[Piece],
    content_type: str | None,
    *,
    if_absent: bool,
    believed: bool,
) -> ObjectInfo:
    """Write an object of `pieces`; see `Storage.assemble`.

    Args:
        store: looks, and reads what is too short to be copied.
        parts: multipart uploads of the store.
        key, pieces, content_type, if_absent: as there.
        believed: whether the store obeys conditions of copies and of finished uploads. Of any other, the sources are
            looked at before and after: a source that changes in between has made a mixture, and the error says so. If
            it cannot copy parts either, they are read and written.
    """
    extra: dict[str, Any] = {"ContentType": content_type} if content_type else {}
    exists = ObjectExistsError(f"{store.uri}/{key}: expected no object, got one", key=key)
    sources = {piece.key: piece.etag for piece in pieces if isinstance(piece, ObjectPart)}

    def look() -> None:
        for source, etag in sources.items():
            check_if_match(store.head(source), etag)

    if if_absent and store.exists(key):
        raise exists
    if not believed:
        look()
    elif if_absent:
        extra["IfNoneMatch"] = "*"
    try:
        written = parts.assemble(key, pieces, extra, lambda group: b"".join(read_pieces(store, group)))
    except ObjectChangedError as error:
        if if_absent and store.exists(key):
            raise exists from error
        raise
    except StorageError as error:
        if believed or error.transient or isinstance(error, ObjectNotFoundError):
            raise
        _log.warning("%s: does not copy parts of objects, which are read and written instead: %s", store.uri, error)
        return Storage.assemble(store, key, pieces, content_type=content_type, if_absent=if_absent)
    if not believed:
        look()
    found = store.head(key)
    if found.size_bytes != written.size_bytes:
        raise StorageError(
            f"{store.uri}/{key}: expected {written.size_bytes} bytes, got {found.size_bytes}; it was overwritten, or "
            "the store assembles something else",
            key=key,
        )
    return found
