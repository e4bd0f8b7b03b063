"""A store in a folder of this machine: one file per object, under the object's key."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from structureflow import arguments, locks
from structureflow.arguments import checked
from structureflow.errors import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from structureflow.storage._folders import Clock, create, is_name_here, locked_folder, names_in, when_free
from structureflow.storage.adapters import (
    CHUNK_BYTES,
    check_conditions,
    check_if_match,
    check_size,
    same_bytes,
    slice_range,
    writing,
)
from structureflow.storage.base import (
    ByteRange,
    ObjectInfo,
    Storage,
    StoredObject,
    Suffix,
    check_arguments,
    check_expiry,
    check_key,
    check_prefix,
)

#: Folder of files that are being written; no key starts with it.
SCRATCH: Final = ".structureflow-tmp"

_log = logging.getLogger(__name__)
_PLACE_ATTEMPTS: Final = 20
_CLOCK: Final = Clock()
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


@check_arguments
class LocalStorage(Storage):
    """Objects as files below `root`, which is created when the first object is written.

    A write goes to a scratch file and is renamed into place (linked, for `if_absent`) while the scratch folder is
    locked against other processes, so readers see whole objects only and `if_match` compares and swaps in one
    step. A file that is written past this class knows no lock. The ETag is made of modification time and size: a
    copy of the folder that keeps times keeps ETags. Keys cannot leave the root, neither by ``..`` nor through a
    symbolic link. Where S3 holds both ``a`` and ``a/b``, a folder cannot: the second write is a `StorageError`.
    Where the file system takes ``A`` and ``a`` for one name (Windows, macOS), so does the store; on Windows a key
    must also be a name there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = LocalStorage(folder)
    ...     info = store.put("videos/notes.txt", b"a pan to the right")
    ...     store.get("videos/notes.txt").data
    b'a pan to the right'
    """

    @checked(root=arguments.path)
    def __init__(self, root: Path | str) -> None:
        self._root = Path(os.path.realpath(root))
        self._folders = threading.Lock()
        self._said = False

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

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """Copy an object into a file; see `Storage.get_to_file`."""
        with self._reading(key) as (source, info):
            check_if_match(info, if_match)
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
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object; see `Storage.put`."""

        check_conditions(if_absent=if_absent, if_match=if_match)

        def fill(file: BinaryIO) -> None:
            file.write(data)

        def equals(present: BinaryIO) -> bool:
            return present.read() == bytes(data)

        return self._write(key, fill, equals, new=if_absent, if_match=if_match)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,  # noqa: ARG002 - kept by stores that serve HTTP
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object from a file; see `Storage.put_file`."""

        check_conditions(if_absent=if_absent, if_match=if_match)
        if not Path(path).is_file():
            raise StorageError(f"path: cannot read {path}: expected a file", key=key)

        def fill(file: BinaryIO) -> None:
            with Path(path).open("rb") as source:
                shutil.copyfileobj(source, file, CHUNK_BYTES)

        def equals(present: BinaryIO) -> bool:
            with Path(path).open("rb") as source:
                return same_bytes(source, present)

        return self._write(key, fill, equals, new=if_absent, if_match=if_match)

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
        above = prefix[: prefix.rfind("/") + 1]
        folder = self._path(above.removesuffix("/")) if above else self._root
        return self._walk(folder, above, prefix, start_after or "")

    def _names(self, folder: Path, above: str) -> Sequence[str]:
        try:
            return names_in(folder, left_out="" if above else SCRATCH)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise self._error(above, error) from error
            return ()

    def _walk(self, folder: Path, above: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        encoded_after = after.encode()
        for name in self._names(folder, above):
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

    def folders(self, prefix: str, *, start_after: str | None = None) -> Iterator[str]:
        """Iterate over folders that hold files; see `Storage.folders`."""
        folder = self._path(check_prefix(prefix).removesuffix("/")) if prefix else self._root
        after = b"" if start_after is None else os.fsencode(f"{start_after}/")
        for name in self._names(folder, prefix):
            below = prefix + name
            if name.endswith("/") and os.fsencode(name) > after and any(self._walk(folder / name, below, below, "")):
                yield name.removesuffix("/")

    def delete(self, keys: Iterable[str]) -> int:
        """Delete files, and folders that this leaves empty; see `Storage.delete`."""
        count = 0
        for key in keys:
            path = self._path(key)
            try:
                when_free(path, partial(self._unlink, path))
            except OSError as error:
                if error.errno not in _ABSENT and not path.is_dir():
                    raise self._error(key, error) from error
            else:
                self._prune(path.parent)
            count += 1
        return count

    def _unlink(self, path: Path) -> None:
        with self._locked():
            path.unlink()

    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """Copy an object; see `Storage.copy`."""
        with self._reading(source_key) as (source, info):
            check_if_match(info, if_match)

            def fill(file: BinaryIO) -> None:
                shutil.copyfileobj(source, file, CHUNK_BYTES)

            return self._write(target_key, fill)

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return the ``file:`` URL of the object, which never expires."""
        check_expiry(expires_s)
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        check_key(key)
        if key == SCRATCH or key.startswith(f"{SCRATCH}/"):
            raise InvalidKeyError(f"expected a key outside of {SCRATCH}, got {key!r:.200}")
        if not is_name_here(key):
            raise InvalidKeyError(f"expected a key that Windows takes for a file's name, got {key!r:.200}")
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
        self,
        key: str,
        fill: Callable[[BinaryIO], None],
        equals: Callable[[BinaryIO], bool] | None = None,
        *,
        new: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write a scratch file and move it into place; `equals` compares with an object already there."""
        path = self._path(key)
        scratch = self._root / SCRATCH / secrets.token_hex(12)
        try:
            scratch.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("xb") as file:
                fill(file)
            moment = _CLOCK.next_ns()
            os.utime(scratch, ns=(moment, moment))
            status = scratch.stat()
            self._place(scratch, path, key, new=new, if_match=if_match)
        except FileExistsError as error:
            if not new or equals is None or path.is_dir():
                raise self._error(key, error) from error
            return self._same_or(key, equals, ObjectExistsError(f"{self.uri}/{key}: exists with other bytes", key=key))
        except ObjectChangedError as error:
            if equals is None:
                raise
            return self._same_or(key, equals, error)
        except OSError as error:
            raise self._error(key, error, writing=True) from error
        finally:
            scratch.unlink(missing_ok=True)
        return _info(key, status)

    def _same_or(self, key: str, equals: Callable[[BinaryIO], bool], otherwise: StorageError) -> ObjectInfo:
        """Return the object that is there if it has the bytes that were to be written."""
        try:
            with self._reading(key) as (present, info):
                if equals(present):
                    return info
        except ObjectNotFoundError:
            raise otherwise from None
        raise otherwise

    def _place(self, scratch: Path, path: Path, key: str, *, new: bool, if_match: str | None) -> None:
        def move() -> None:
            with self._locked():
                if if_match is not None:
                    self._check_present(key, if_match)
                path.parent.mkdir(parents=True, exist_ok=True)
                if new:
                    create(scratch, path)
                else:
                    scratch.replace(path)

        for attempt in range(_PLACE_ATTEMPTS):
            try:
                when_free(path, move)
            except FileNotFoundError:
                # A process that could not lock pruned the folder between the two calls.
                if attempt == _PLACE_ATTEMPTS - 1:
                    raise
            else:
                return

    def _check_present(self, key: str, etag: str) -> None:
        try:
            check_if_match(self.head(key), etag)
        except ObjectNotFoundError as error:
            raise ObjectChangedError(f"{self.uri}/{key}: expected ETag {etag}, the object is gone", key=key) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads, and other processes that use this class, from placing and deleting files."""
        with self._folders, ExitStack() as stack:
            # Without the folder nothing was ever written here.
            if (self._root / SCRATCH).is_dir():
                try:
                    stack.enter_context(locked_folder(self._root / SCRATCH))
                except locks.NoLocksError as error:
                    self._say_unlocked(error)
            yield

    def _say_unlocked(self, error: locks.NoLocksError) -> None:
        if not self._said:
            self._said = True
            _log.warning(
                "%s: the file system knows no locks (%s): two processes that write with if_match at the same "
                "moment may both succeed",
                self.uri,
                error.strerror,
            )

    def _prune(self, folder: Path) -> None:
        with self._locked():
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
        # Windows opens no folder, and says that it must not.
        absent = error.errno in _ABSENT or (isinstance(error, PermissionError) and (self._root / key).is_dir())
        if absent and not writing:
            return ObjectNotFoundError(f"{self.uri}/{key}: no such object", key=key)
        return StorageError(f"{self.uri}/{key}: {error.strerror or error}", key=key, errno=error.errno)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key,
        status.st_size,
        f"{status.st_mtime_ns:x}-{status.st_size:x}",
        datetime.fromtimestamp(status.st_mtime, UTC),
    )
