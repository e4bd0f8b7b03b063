"""Writes to an S3 store: plain, and under a condition that the store may or may not obey."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from structureflow import keys as layout
from structureflow.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage.base import ObjectInfo, Storage

_log = logging.getLogger(__name__)

#: Conditional writes are tried so often when the store says that another one is in progress (HTTP 409).
_CONFLICT_ATTEMPTS: Final = 3
#: The ETag of no object.
_NO_ETAG: Final = '"00000000000000000000000000000000"'

Header = Literal["IfNoneMatch", "IfMatch"]


class BytesBody:
    """Bytes to be written."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.size_bytes = len(data)

    def open(self, stack: ExitStack) -> bytes | bytearray:  # noqa: ARG002 - a file needs it
        """Return the body of one request."""
        return self._data

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`."""
        return bytes(self._data[start:stop])

    def md5(self) -> str:
        """Return the MD5 of the bytes in hex digits."""
        return hashlib.md5(self._data, usedforsecurity=False).hexdigest()

    def equals(self, other: bytes) -> bool:
        """Tell whether these are the bytes."""
        return self._data == other


class FileBody:
    """A file to be written.

    Raises:
        StorageError: it cannot be read; also from its methods.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        try:
            self.size_bytes = path.stat().st_size
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}", key=key) from error

    def open(self, stack: ExitStack) -> BinaryIO:
        """Return the body of one request."""
        try:
            return stack.enter_context(self._path.open("rb"))
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error}", path=str(self._path)) from error

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`."""
        with ExitStack() as stack:
            file = self.open(stack)
            file.seek(start)
            data = file.read(stop - start)
        if len(data) != stop - start:
            raise StorageError(f"{self._path}: expected {self.size_bytes} bytes, it has become shorter")
        return data

    def md5(self) -> str:
        """Return the MD5 of the bytes in hex digits."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def equals(self, other: bytes) -> bool:
        """Tell whether these are the bytes."""
        return self._path.read_bytes() == other


Body = BytesBody | FileBody
#: Sends one PUT: the body, the key, further arguments of the SDK's ``put_object``.
Send = Callable[[Body, str, dict[str, Any]], ObjectInfo]


class ConditionalWrites:
    """Creates and replaces objects of one store under a condition.

    A store that does not obey the condition is looked at before the write and read back after it: two writers
    within the same moment may then both succeed, and the last one's bytes stay.

    Args:
        store: looks, reads, and deletes the probe.
        send: does one PUT.
        believed: True or False where it is known whether the store obeys; None tries it, once per header.
        etag_in_parts: the ETag of a body that is written in parts; None for one that is written in one piece.
    """

    def __init__(
        self,
        store: Storage,
        send: Send,
        believed: Callable[[], bool | None],
        etag_in_parts: Callable[[Body], str | None],
    ) -> None:
        self._store = store
        self._send = send
        self._etag_in_parts = etag_in_parts
        self._believed = believed
        self._lock = threading.Lock()
        self.obeyed: dict[Header, bool] = {}

    def create(self, body: Body, key: str, extra: dict[str, Any]) -> ObjectInfo:
        """Write an object unless one is there.

        Raises:
            ObjectExistsError: one with other bytes is there.
        """
        if not self._obeys("IfNoneMatch"):
            if not self._store.exists(key):
                self._send(body, key, extra)
            return self._same_or_exists(body, key, None)
        try:
            return self._send_often(body, key, {**extra, "IfNoneMatch": "*"})
        except ObjectChangedError as error:
            # The SDK repeats a PUT whose reply was lost and is then told that the object exists: its own.
            return self._same_or_exists(body, key, error)

    def replace(self, body: Body, key: str, extra: dict[str, Any], if_match: str) -> ObjectInfo:
        """Overwrite the object with the ETag `if_match`.

        Raises:
            ObjectChangedError: it has another one and other bytes than `body`, or is gone.
        """
        if not self._obeys("IfMatch"):
            try:
                if self._store.head(key).etag == if_match:
                    self._send(body, key, extra)
            except ObjectNotFoundError as error:
                return self._same_or_changed(body, key, if_match, error)
            return self._same_or_changed(body, key, if_match, None)
        try:
            return self._send_often(body, key, {**extra, "IfMatch": f'"{if_match}"'})
        except (ObjectChangedError, ObjectNotFoundError) as error:
            # As above: an object that has these bytes may well be the result of this very request.
            return self._same_or_changed(body, key, if_match, error)

    def _send_often(self, body: Body, key: str, extra: dict[str, Any]) -> ObjectInfo:
        for _ in range(_CONFLICT_ATTEMPTS - 1):
            try:
                return self._send(body, key, extra)
            except TransientStorageError as error:
                if error.detail.get("code") != "ConditionalRequestConflict":
                    raise
        return self._send(body, key, extra)

    def _same_or_exists(self, body: Body, key: str, cause: StorageError | None) -> ObjectInfo:
        try:
            present = self._if_same(body, key)
        except ObjectNotFoundError as error:
            raise TransientStorageError(
                f"{self._store.uri}/{key}: refused as existing, then gone; deleted by another at the same moment",
                key=key,
            ) from error
        if present is None:
            raise ObjectExistsError(f"{self._store.uri}/{key}: exists with other bytes", key=key) from cause
        return present

    def _same_or_changed(self, body: Body, key: str, if_match: str, cause: StorageError | None) -> ObjectInfo:
        where = f"{self._store.uri}/{key}"
        try:
            present = self._if_same(body, key)
        except ObjectNotFoundError as error:
            raise ObjectChangedError(f"{where}: expected ETag {if_match}, the object is gone", key=key) from error
        if present is None:
            raise ObjectChangedError(f"{where}: expected ETag {if_match}, got another", key=key) from cause
        return present

    def _if_same(self, body: Body, key: str) -> ObjectInfo | None:
        """Return the object that is there if it has the bytes of `body`."""
        present = self._store.head(key)
        if present.size_bytes != body.size_bytes:
            return None
        in_parts = self._etag_in_parts(body)
        if in_parts is not None:
            # Too large to be read here: under encryption by a key of KMS it counts as another one.
            return present if present.etag == in_parts else None
        if present.etag == body.md5():
            return present
        # With other encryption than S3's own, an ETag is no MD5.
        found = self._store.get(key)
        return found.info if body.equals(found.data) else None

    # --- what the store obeys ------------------------------------------------------------------------

    def _obeys(self, header: Header) -> bool:
        with self._lock:
            if header not in self.obeyed:
                believed = self._believed()
                self.obeyed[header] = self._probe(header) if believed is None else believed
                if not self.obeyed[header]:
                    _log.warning(
                        "%s: the store does not obey conditional writes (%s); looking before and reading back after "
                        "each one, which leaves a moment in which two writers both succeed",
                        self._store.uri,
                        "If-None-Match" if header == "IfNoneMatch" else "If-Match",
                    )
            return self.obeyed[header]

    def _probe(self, header: Header) -> bool:
        """Write an object, then again under a condition that does not hold: who lets it pass does not know it."""
        key = layout.storage_probe(secrets.token_hex(8))
        try:
            self._send(BytesBody(b"first"), key, {header: "*"} if header == "IfNoneMatch" else {})
            try:
                self._send(BytesBody(b"second"), key, {header: "*" if header == "IfNoneMatch" else _NO_ETAG})
            except ObjectChangedError:
                return True
            return False
        except TransientStorageError:
            raise
        except StorageError as error:
            # 501 NotImplemented from stores that refuse the header, or 403 below a narrow policy.
            _log.warning("%s: cannot find out whether conditional writes are obeyed: %s", self._store.uri, error)
            return False
        finally:
            self._forget_probe(key)

    def _forget_probe(self, key: str) -> None:
        try:
            self._store.delete([key])
        except StorageError as error:
            _log.warning("%s: the probe object %s remains: %s", self._store.uri, key, error)
