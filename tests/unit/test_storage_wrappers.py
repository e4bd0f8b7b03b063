"""The wrapper stores that other tests rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from structureflow.errors import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage.base import ByteRange, Suffix, check_key, check_prefix
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, LatencyStorage


def test_everything_is_handed_on(tmp_path: Path) -> None:
    inner = MemoryStorage("inner")
    storage = LatencyStorage(FaultStorage(CountingStorage(inner)), 0)
    info = storage.put("a/k", b"0123456789")
    assert inner.get("a/k").data == b"0123456789"
    assert storage.get("a/k", byte_range=ByteRange(2, 4), if_match=info.etag).data == b"23"
    assert storage.get("a/k", byte_range=Suffix(2)).data == b"89"
    assert storage.head("a/k") == info
    assert storage.exists("a/k")
    with pytest.raises(ObjectChangedError):
        storage.get_to_file("a/k", tmp_path / "file", if_match="another")
    with pytest.raises(ObjectChangedError):
        storage.put("a/k", b"other", if_match="another")
    with pytest.raises(ObjectChangedError):
        storage.copy("a/k", "a/copy", if_match="another")
    storage.get_to_file("a/k", tmp_path / "file", max_bytes=10)
    with pytest.raises(ObjectChangedError):
        storage.put_file("a/k2", tmp_path / "file", if_match="another")
    storage.put_file("a/file", tmp_path / "file", if_absent=True)
    storage.copy("a/k", "a/copy")
    assert [entry.key for entry in storage.list("a/", start_after="a/copy")] == ["a/file", "a/k"]
    assert storage.delete(["a/k", "a/copy"]) == 2
    assert [entry.key for entry in inner.list("")] == ["a/file"]
    assert storage.uri == "memory://inner"
    assert storage.presigned_url("a/file").startswith("data:")


def test_pages_are_requests() -> None:
    counting = CountingStorage(MemoryStorage())
    for number in range(2500):
        counting.inner.put(f"k/{number:04d}", b"")
    assert sum(1 for _ in counting.list("k/")) == 2500
    assert counting.requests == {"list": 3}
    assert next(counting.list("k/")).key == "k/0000"
    assert counting.requests == {"list": 4}
    assert counting.delete(entry.key for entry in counting.inner.list("k/")) == 2500
    assert counting.requests == {"list": 4, "delete": 3}
    assert list(counting.list("k/")) == []
    assert counting.total == 8
    counting.reset()
    assert (counting.total, counting.keys) == (0, [])


def test_faults_strike_as_told() -> None:
    storage = FaultStorage(MemoryStorage(), Fault("put", "a/*", error=StorageError("no"), skip=1, times=2))
    storage.put("a/1", b"x")
    storage.put("b/1", b"x")
    for _ in range(2):
        with pytest.raises(StorageError, match="no"):
            storage.put("a/2", b"x")
    storage.put("a/3", b"x")
    assert [entry.key for entry in storage.list("")] == ["a/1", "a/3", "b/1"]


def test_lost_replies_and_changed_bytes() -> None:
    inner = MemoryStorage()
    storage = FaultStorage(inner)
    lost = storage.add(Fault("put", error=TransientStorageError("lost"), after=True))
    with pytest.raises(TransientStorageError):
        storage.put("k", b"abc")
    assert inner.get("k").data == b"abc"
    assert lost.struck == 1
    storage.add(Fault("get", change=bytes.upper))
    assert storage.get("k").data == b"ABC"
    assert storage.get("k").data == b"abc"


def test_reads_of_what_is_not_there_fail_as_in_the_inner_store() -> None:
    with pytest.raises(ObjectNotFoundError):
        FaultStorage(CountingStorage(MemoryStorage())).get("k")


def test_prefixes() -> None:
    for prefix in ("", "a", "a/", "a/b", "a/b-"):
        assert check_prefix(prefix) == prefix
    for prefix in ("/", "//", "a//", "../", "a/../b", "a\n"):
        with pytest.raises(InvalidKeyError, match="prefix"):
            check_prefix(prefix)
    assert check_key("a" * 1024) == "a" * 1024


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 5), (6, 5)])
def test_ranges_are_checked(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="start"):
        ByteRange(start, stop)
    with pytest.raises(ValueError, match="length"):
        Suffix(0)
