"""Objects that outlive a local cloud: caches that make a second run quick.

A folder holds the bytes of each object in a file named by what they are, and one index. Loading reads the index
only; bytes are read when somebody asks for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

_FORMAT: Final = 1
#: Files that no index names are kept this long: another cloud may have loaded an older index.
_GRACE_S: Final = 24 * 3600


class ObjectArchive:
    """Keeps the objects below some prefixes of one bucket.

    Args:
        folder: made when needed; two clouds may share it (the later save wins, key by key).
        prefixes: of the keys to keep.
    """

    def __init__(self, folder: Path, prefixes: tuple[str, ...]) -> None:
        self._folder = folder
        self._prefixes = prefixes
        self._loaded: dict[str, dict[str, Any]] = {}

    def load(self, backend: Any, bucket: str) -> int:
        """Put the kept objects into moto's bucket, without events; return how many.

        An index or file that is gone or of another format is as if it had never been: this is a cache.
        """
        index = self._read_index()
        for key, entry in index.items():
            path = self._file(entry["file"])
            try:
                size_bytes = path.stat().st_size
            except FileNotFoundError:
                continue
            if size_bytes != entry["size"] or not key.startswith(self._prefixes):
                continue
            stored = backend.put_object(bucket, key, b"", etag=entry["etag"], disable_notification=True)
            stored._value_buffer.close()  # noqa: SLF001 - moto has no object that reads from elsewhere
            stored._value_buffer = _FileOnDemand(path, stored._max_buffer_size)  # noqa: SLF001
            stored.contentsize = size_bytes
            stored.last_modified = datetime.fromisoformat(entry["last_modified"])
            stored.set_metadata(entry["metadata"], replace=True)
            stored.checksum_algorithm = entry["checksum_algorithm"]
            stored.checksum_value = entry["checksum_value"]
            self._loaded[key] = entry
        return len(self._loaded)

    def save(self, bucket: Any) -> int:
        """Write what is new in moto's bucket and forget what is gone; return how many objects were written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        written = 0
        entries: dict[str, dict[str, Any]] = {}
        for key, stored in list(bucket.keys.items()):
            if not key.startswith(self._prefixes):
                continue
            loaded = self._loaded.get(key)
            if loaded is not None and isinstance(stored._value_buffer, _FileOnDemand):  # noqa: SLF001
                entries[key] = loaded
                continue
            data = stored.value
            name = hashlib.blake2b(data, digest_size=20).hexdigest()
            path = self._file(name)
            if not path.exists() or path.stat().st_size != len(data):
                _write(path, data)
            written += 1
            entries[key] = {
                "file": name,
                "size": len(data),
                "etag": stored.etag.strip('"'),
                "last_modified": stored.last_modified.isoformat(),
                "metadata": dict(stored.metadata),
                "checksum_algorithm": stored.checksum_algorithm,
                "checksum_value": stored.checksum_value,
            }
        with self._locked():
            index = self._read_index()
            for key in self._loaded.keys() - entries.keys():
                index.pop(key, None)
            index.update(entries)
            _write(self._folder / "index.json", json.dumps({"format": _FORMAT, "objects": index}).encode())
            self._remove_unused({entry["file"] for entry in index.values()})
        return written

    def _read_index(self) -> dict[str, dict[str, Any]]:
        try:
            document = json.loads((self._folder / "index.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        if document.get("format") != _FORMAT:
            return {}
        objects: dict[str, dict[str, Any]] = document["objects"]
        return objects

    def _file(self, name: str) -> Path:
        return self._folder / "objects" / name[:2] / name

    def _remove_unused(self, used: set[str]) -> None:
        oldest = time.time() - _GRACE_S
        for path in self._folder.glob("objects/*/*"):
            if path.name not in used and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _FileOnDemand:
    """Stands in for the buffer of a moto object: opens its file at the first read.

    Writing never happens to it: a changed object is a new one in moto.
    """

    def __init__(self, path: Path, max_buffer_size: int) -> None:
        self._path = path
        self._max_size = max_buffer_size
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def _opened(self) -> BinaryIO:
        with self._lock:
            if self._file is None:
                self._file = self._path.open("rb")
            return self._file

    def seek(self, *args: int) -> int:
        return self._opened().seek(*args)

    def read(self, *args: int) -> bytes:
        return self._opened().read(*args)

    def tell(self) -> int:
        return self._opened().tell()

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def _write(path: Path, data: bytes) -> None:
    """Write a file in one piece: readers see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
