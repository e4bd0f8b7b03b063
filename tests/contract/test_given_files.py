"""The user's own files, read as objects of a store: the same contract as any store's, and they stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from structureflow.errors import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
)
from structureflow.storage.base import ByteRange, Suffix
from structureflow.storage.memory import MemoryStorage
from structureflow.storage.verified import fetch_verified
from structureflow.testing.storage_contract import StorageContract, Subject
from structureflow_local.given_files import GivenFiles


class TestOthers(StorageContract):
    """Objects of the store behind it."""

    @pytest.fixture
    def subject(self) -> Subject:
        behind = MemoryStorage()

        def raw_get(key: str) -> bytes | None:
            try:
                return behind.get(key).data
            except ObjectNotFoundError:
                return None

        return Subject(GivenFiles(behind, {}), lambda key, data: void(behind.put(key, data)), raw_get)


def void(_: object) -> None:
    """Drop a result."""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a clip")
    return path


@pytest.fixture
def store(mine: Path) -> GivenFiles:
    return GivenFiles(MemoryStorage(), {"jobs/walk/inputs/clip.mp4": mine})


KEY = "jobs/walk/inputs/clip.mp4"


def test_the_etag_is_s3s_wherever_the_file_lies(store: GivenFiles, mine: Path, tmp_path: Path) -> None:
    etag = hashlib.md5(b"a clip", usedforsecurity=False).hexdigest()
    assert store.head(KEY).etag == etag
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.mp4").write_bytes(b"a clip")
    assert GivenFiles(MemoryStorage(), {KEY: tmp_path / "elsewhere" / "other.mp4"}).head(KEY).etag == etag
    assert fetch_verified(store, KEY, tmp_path / "x", if_match=etag).verified_by == "etag"


def test_parts_are_read(store: GivenFiles, tmp_path: Path) -> None:
    assert store.get(KEY).data == b"a clip"
    assert store.get(KEY, byte_range=ByteRange(2, 4)).data == b"cl"
    assert store.get(KEY, byte_range=ByteRange(2, 99)).data == b"clip"
    assert store.get(KEY, byte_range=Suffix(3)).data == b"lip"
    assert store.get(KEY, byte_range=Suffix(99)).data == b"a clip"
    with pytest.raises(RangeNotSatisfiableError):
        store.get(KEY, byte_range=ByteRange(6, 9))
    with pytest.raises(StorageError, match="at most 3 bytes"):
        store.get_to_file(KEY, tmp_path / "x", max_bytes=3)
    assert not (tmp_path / "x").exists()


def test_a_file_that_changes_is_another_object(store: GivenFiles, mine: Path, tmp_path: Path) -> None:
    before = store.head(KEY)
    mine.write_bytes(b"another clip")
    assert store.head(KEY).etag != before.etag
    for read in (
        lambda: store.get(KEY, if_match=before.etag),
        lambda: store.get_to_file(KEY, tmp_path / "x", if_match=before.etag),
        lambda: store.copy(KEY, "copy", if_match=before.etag),
    ):
        with pytest.raises(ObjectChangedError):
            read()
    assert not (tmp_path / "x").exists()


def test_a_file_that_goes_is_gone(store: GivenFiles, mine: Path, tmp_path: Path) -> None:
    mine.unlink()
    assert not store.exists(KEY)
    for read in (lambda: store.head(KEY), lambda: store.get(KEY), lambda: store.get_to_file(KEY, tmp_path / "x")):
        with pytest.raises(ObjectNotFoundError, match="no such file any more"):
            read()
    mine.mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        store.get(KEY)


def test_nobody_writes_to_the_users_files(store: GivenFiles, mine: Path, tmp_path: Path) -> None:
    store.put("other", b"new")
    writes: list[Callable[[], object]] = [
        lambda: store.put(KEY, b"new"),
        lambda: store.put_file(KEY, tmp_path / "clip.mp4"),
        lambda: store.copy("other", KEY),
    ]
    for write in writes:
        with pytest.raises(InvalidKeyError, match="only read"):
            write()
    assert store.delete([KEY, "other"]) == 2
    assert not store.exists(KEY)
    assert mine.read_bytes() == b"a clip"


def test_they_are_listed_among_the_others(store: GivenFiles) -> None:
    for key in ("jobs/walk/inputs/a", "jobs/walk/inputs/z", "jobs/walk/request.json", "cache/x"):
        store.put(key, b"")
    assert [info.key for info in store.list("jobs/")] == [
        "jobs/walk/inputs/a",
        KEY,
        "jobs/walk/inputs/z",
        "jobs/walk/request.json",
    ]
    assert next(info.key for info in store.list("jobs/", start_after=KEY)) == "jobs/walk/inputs/z"
    copied = store.copy(KEY, "copy")
    assert store.get("copy").data == b"a clip"
    assert copied.size_bytes == 6
    assert store.presigned_url(KEY).startswith("file:")
