"""A store in a folder of this machine: one file per object, under the object's key."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from structureflow.errors import InvalidKeyError, ObjectExistsError, ObjectNotFoundError, StorageError
from structureflow.storage._files import CHUNK_BYTES, check_if_match, check_size, slice_range, writing
from structureflow.storage.base import (
    ByteRange,
    ObjectInfo,
    Storage,
    StoredObject,
    Suffix,
    check_expiry,
    check_key,
    check_prefix,
)

#: Folder of files that are being written; no key starts with it.
SCRATCH: Final = ".structureflow-tmp"

_PLACE_ATTEMPTS: Final = 20
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class _Clock:
    """Hands out modification times that never repeat, so that every write has its own ETag."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next_ns(self) -> int:
        with self._lock:
            # Some file systems keep 100 ns; steps of a microsecond survive there.
            self._last = max(self._last + 1000, time.time_ns() // 1000 * 1000)
            return self._last


_CLOCK = _Clock()


class LocalStorage(Storage):
    """Objects as files below `root`, which is created when the first object is written.

    A write goes to a scratch file and is renamed into place (linked, for `if_absent`), so readers see whole
    objects only. The ETag is made of modification time and size: a copy of the folder that keeps times keeps
    ETags. Keys cannot leave the root, neither by ``..`` nor through a symbolic link. Where S3 holds both ``a``
    and ``a/b``, a folder cannot: the second write is a `StorageError`.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = Path(os.path.realpath(root))
        self._folders = threading.Lock()

    @property
    def root(self) -> Path:
        """The folder, with symbolic links resolved."""
        return self._root

    @property
    def uri(self) -> str:
        """``file:///folder``."""
        return self._root.as_uri()

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object or a part of it; see `Storage.get`."""
        with self._reading(key) as (file, info):
            check_if_match(info, if_match)
            start, stop = slice_range(info, byte_range)
            file.seek(start)
            data = file.read(stop - start)
        if len(data) != stop - start:
            raise StorageError(f"{key}: expected {stop - start} bytes, got {len(data)}", key=key)
        return StoredObject(data, info, start)

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        """Copy an object into a file; see `Storage.get_to_file`."""
        with self._reading(key) as (source, info):
            check_size(key, info.size_bytes, max_bytes)
            with writing(path) as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
        return info

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,  # noqa: ARG002 - kept by stores that serve HTTP
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Write an object; see `Storage.put`."""

        def fill(file: BinaryIO) -> None:
            file.write(data)

        def equals(present: BinaryIO) -> bool:
            return present.read() == bytes(data)

        return self._write(key, fill, equals if if_absent else None)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,  # noqa: ARG002 - kept by stores that serve HTTP
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Write an object from a file; see `Storage.put_file`."""

        def fill(file: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, CHUNK_BYTES)

        def equals(present: BinaryIO) -> bool:
            with path.open("rb") as source:
                return _same_bytes(source, present)

        return self._write(key, fill, equals if if_absent else None)

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object; see `Storage.head`."""
        path = self._path(key)
        try:
            status = path.stat()
        except OSError as error:
            raise self._error(key, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFoundError(f"{self.uri}/{key}: no such object", key=key)
        return _info(key, status)

    def exists(self, key: str) -> bool:
        """Tell whether an object is there."""
        try:
            self.head(key)
        except ObjectNotFoundError:
            return False
        return True

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Iterate over the files whose key starts with `prefix`, holding one folder's names at a time."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        if folder:
            path = self._path(folder)
            return self._walk(path, f"{folder}/", prefix, start_after or "")
        return self._walk(self._root, "", prefix, start_after or "")

    def _walk(self, folder: Path, above: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as scan:
                # A folder sorts by its name with the slash, as its keys do: "a-b" comes before "a/b".
                names = [
                    (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)
                    for entry in scan
                    if not entry.is_symlink() and not (above == "" and entry.name == SCRATCH)
                ]
        except OSError as error:
            if error.errno in _ABSENT:
                return
            raise self._error(above, error) from error
        names.sort(key=os.fsencode)
        encoded_after = after.encode()
        for name in names:
            key = above + name
            if name.endswith("/"):
                wanted = key.startswith(prefix) or prefix.startswith(key)
                passed = os.fsencode(key) < encoded_after and not after.startswith(key)
                if wanted and not passed:
                    yield from self._walk(folder / name, key, prefix, after)
            elif key.startswith(prefix) and os.fsencode(key) > encoded_after:
                try:
                    yield _info(key, (folder / name).stat())
                except FileNotFoundError:
                    continue

    def delete(self, keys: Iterable[str]) -> int:
        """Delete files, and folders that this leaves empty; see `Storage.delete`."""
        count = 0
        for key in keys:
            path = self._path(key)
            try:
                path.unlink()
            except OSError as error:
                if error.errno not in _ABSENT and not path.is_dir():
                    raise self._error(key, error) from error
            else:
                self._prune(path.parent)
            count += 1
        return count

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy an object; see `Storage.copy`."""
        with self._reading(source_key) as (source, _):

            def fill(file: BinaryIO) -> None:
                shutil.copyfileobj(source, file, CHUNK_BYTES)

            return self._write(target_key, fill, None)

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return the ``file:`` URL of the object, which never expires."""
        check_expiry(expires_s)
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        check_key(key)
        if key == SCRATCH or key.startswith(f"{SCRATCH}/"):
            raise InvalidKeyError(f"expected a key outside of {SCRATCH}, got {key!r:.200}")
        path = self._root / key
        if os.path.realpath(path) != str(path):
            raise InvalidKeyError(f"{key!r:.200} leads through a symbolic link below {self._root}")
        return path

    @contextmanager
    def _reading(self, key: str) -> Iterator[tuple[BinaryIO, ObjectInfo]]:
        path = self._path(key)
        try:
            file = path.open("rb")
        except OSError as error:
            raise self._error(key, error) from error
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ObjectNotFoundError(f"{self.uri}/{key}: no such object", key=key)
            yield file, _info(key, status)

    def _write(
        self, key: str, fill: Callable[[BinaryIO], None], equals: Callable[[BinaryIO], bool] | None
    ) -> ObjectInfo:
        """Write a scratch file and move it into place; `equals` (of an object already there) means create only."""
        path = self._path(key)
        scratch = self._root / SCRATCH / secrets.token_hex(12)
        try:
            scratch.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("xb") as file:
                fill(file)
            moment = _CLOCK.next_ns()
            os.utime(scratch, ns=(moment, moment))
            status = scratch.stat()
            self._place(scratch, path, create=equals is not None)
        except FileExistsError as error:
            if equals is None or path.is_dir():
                raise self._error(key, error) from error
            with self._reading(key) as (present, info):
                if equals(present):
                    return info
            raise ObjectExistsError(f"{self.uri}/{key}: exists with other bytes", key=key) from error
        except OSError as error:
            raise self._error(key, error, writing=True) from error
        finally:
            scratch.unlink(missing_ok=True)
        return _info(key, status)

    def _place(self, scratch: Path, path: Path, *, create: bool) -> None:
        for attempt in range(_PLACE_ATTEMPTS):
            try:
                with self._folders:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if create:
                        os.link(scratch, path)
                    else:
                        scratch.replace(path)
            except FileNotFoundError:
                # Another process pruned the folder between the two calls.
                if attempt == _PLACE_ATTEMPTS - 1:
                    raise
            else:
                return

    def _prune(self, folder: Path) -> None:
        with self._folders:
            while folder != self._root:
                try:
                    folder.rmdir()
                except OSError:
                    # Not empty, or already gone.
                    return
                folder = folder.parent

    def _error(self, key: str, error: OSError, *, writing: bool = False) -> StorageError:
        if isinstance(error, StorageError):
            return error
        if error.errno in _ABSENT and not writing:
            return ObjectNotFoundError(f"{self.uri}/{key}: no such object", key=key)
        return StorageError(f"{self.uri}/{key}: {error.strerror or error}", key=key, errno=error.errno)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key,
        status.st_size,
        f"{status.st_mtime_ns:x}-{status.st_size:x}",
        datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _same_bytes(one: BinaryIO, other: BinaryIO) -> bool:
    while True:
        left, right = one.read(CHUNK_BYTES), other.read(CHUNK_BYTES)
        if left != right:
            return False
        if not left:
            return True
