"""Bytes are believed when somebody vouches for them, or when two readings agree."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structureflow.errors import ObjectChangedError, ObjectNotFoundError, TransientStorageError
from structureflow.storage.base import Checksum, ObjectInfo, Storage
from structureflow.storage.bounded import read_bounded
from structureflow.storage.memory import MemoryStorage
from structureflow.storage.verified import Verified, _compare, fetch_verified, get_verified
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, OpaqueStorage, WrapperStorage

DATA = random.Random(1).randbytes(2_500_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def flip(position: int = 1_234_567) -> Callable[[bytes], bytes]:
    """Return what flips one bit."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position % len(changed)] ^= 4
        return bytes(changed)

    return change


class Vouching(WrapperStorage):
    """A store that gives these checksums."""

    def __init__(self, inner: Storage, *checksums: Checksum) -> None:
        super().__init__(inner)
        self._given = checksums

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:  # noqa: ARG002 - of the one object
        return self._given


@pytest.fixture
def plain() -> MemoryStorage:
    storage = MemoryStorage()
    storage.put("k", DATA)
    return storage


@pytest.fixture(params=["file", "memory"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., tuple[bytes, Verified]]:
    """Return both ways of reading, as ``read(storage, sha256=…)``."""

    def to_file(storage: Storage, **options: str) -> tuple[bytes, Verified]:
        verified = fetch_verified(storage, "k", tmp_path / "k", **options)  # type: ignore[arg-type]
        return (tmp_path / "k").read_bytes(), verified

    def to_memory(storage: Storage, **options: str) -> tuple[bytes, Verified]:
        return get_verified(storage, "k", lambda: storage.get("k"), **options)

    return to_file if request.param == "file" else to_memory


def md5_of_parts(data: bytes, part_bytes: int) -> str:
    """Return what S3 gives as the ETag of a multipart upload."""
    sums = [
        hashlib.md5(data[start : start + part_bytes], usedforsecurity=False).digest()
        for start in range(0, len(data), part_bytes)
    ]
    return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}"


VOUCHERS = {
    "md5 as ETag": (Checksum("md5", hashlib.md5(DATA, usedforsecurity=False).hexdigest(), from_etag=True), "etag"),
    "ETag of parts": (
        Checksum("md5-parts", md5_of_parts(DATA, 700_001), from_etag=True, part_bytes=700_001),
        "etag",
    ),
    "sha256": (Checksum("sha256", SHA256), "checksum"),
    "sha1": (Checksum("sha1", hashlib.sha1(DATA, usedforsecurity=False).hexdigest()), "checksum"),
    "crc32": (Checksum("crc32", f"{zlib.crc32(DATA):08x}"), "checksum"),
}


@pytest.mark.parametrize("name", VOUCHERS)
@pytest.mark.parametrize("flips", [0, 1])
def test_one_good_reading_is_enough_where_the_store_vouches(
    plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]], name: str, flips: int
) -> None:
    checksum, by = VOUCHERS[name]
    faults = [Fault(operation, "k", change=flip(), times=flips) for operation in ("get", "get_to_file") if flips]
    counting = CountingStorage(FaultStorage(Vouching(plain, checksum), *faults))
    data, verified = read(counting)
    assert data == DATA
    assert (verified.sha256, verified.verified_by) == (SHA256, by)
    assert counting.total == 1 + flips


@pytest.mark.parametrize("flips", [0, 1, 2])
def test_two_readings_must_agree_where_nobody_does(
    plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]], flips: int
) -> None:
    faults = [
        Fault(operation, "k", change=flip(number), skip=0)
        for number in range(flips)
        for operation in ("get", "get_to_file")
    ]
    for number, fault in enumerate(faults):
        fault.skip = number // 2
    counting = CountingStorage(FaultStorage(OpaqueStorage(plain), *faults))
    data, verified = read(counting)
    assert data == DATA
    assert (verified.sha256, verified.verified_by) == (SHA256, "two reads")
    assert counting.total == 2 + flips


def test_an_etag_that_only_looks_like_an_md5_is_no_evidence(
    plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]]
) -> None:
    counting = CountingStorage(Vouching(plain, Checksum("md5", "0" * 32, from_etag=True)))
    assert read(counting)[1].verified_by == "two reads"
    assert counting.total == 2


def test_a_checksum_that_never_fits_is_a_broken_transfer(
    plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]], tmp_path: Path
) -> None:
    """Even where all readings agree, and an ETag would vouch for them."""
    wrong = Checksum("crc32", "00000000")
    agreeing, _ = VOUCHERS["md5 as ETag"]
    with pytest.raises(TransientStorageError):
        read(Vouching(plain, agreeing, wrong))
    assert list(tmp_path.iterdir()) == []


def test_readings_that_all_differ_are_a_broken_transfer(
    plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]], tmp_path: Path
) -> None:
    count = iter(range(100))
    faults = [
        Fault(operation, "k", change=lambda data: flip(next(count))(data), times=None)
        for operation in ("get", "get_to_file")
    ]
    with pytest.raises(TransientStorageError):
        read(FaultStorage(OpaqueStorage(plain), *faults))
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_digest_vouches(plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]]) -> None:
    faults = [Fault(operation, "k", change=flip()) for operation in ("get", "get_to_file")]
    counting = CountingStorage(FaultStorage(OpaqueStorage(plain), *faults))
    data, verified = read(counting, sha256=SHA256)
    assert (data, verified.verified_by, counting.total) == (DATA, "recorded digest", 2)


def test_other_bytes_than_recorded_are_a_change(
    plain: MemoryStorage, read: Callable[..., tuple[bytes, Verified]], tmp_path: Path
) -> None:
    """Same ETag or not: the bytes are not those that were meant."""
    with pytest.raises(ObjectChangedError, match=SHA256):
        read(plain, sha256=hashlib.sha256(b"others").hexdigest())
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_store_pass(plain: MemoryStorage, tmp_path: Path) -> None:
    with pytest.raises(ObjectChangedError):
        fetch_verified(plain, "k", tmp_path / "k", if_match="other")
    with pytest.raises(ObjectNotFoundError):
        fetch_verified(plain, "none", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 50))
def test_etags_of_parts_do_not_depend_on_how_bytes_arrive(data: bytes, part_bytes: int, chunk: int) -> None:
    etag = md5_of_parts(data, part_bytes)
    checksum = Checksum("md5-parts", etag, from_etag=True, part_bytes=part_bytes)
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    digest, agreeing, contradicting = _compare(lambda: iter(pieces), [checksum])
    assert (digest, agreeing, contradicting) == (hashlib.sha256(data).hexdigest(), checksum, None)
    assert _compare(lambda: iter(pieces), [replace(checksum, value="0")])[1] is None


def test_small_documents_are_read_again_where_they_do_not_fit_their_etag() -> None:
    storage = MemoryStorage()
    storage.put("k", b'{"state": "done"}')
    struck = FaultStorage(storage, Fault("get", change=flip()))
    counting = CountingStorage(struck)
    assert read_bounded(counting, "k", 100).data == b'{"state": "done"}'
    assert counting.requests["get"] == 2
    # An ETag that only looks like an MD5, or tells nothing: what is read twice alike, or once, is believed.
    assert read_bounded(FaultStorage(OpaqueStorage(storage)), "k", 100).data == b'{"state": "done"}'
    always = FaultStorage(storage, Fault("get", change=flip(), times=None))
    assert read_bounded(always, "k", 100).data == flip()(b'{"state": "done"}')
    count = iter(range(100))
    never = FaultStorage(storage, Fault("get", change=lambda data: flip(next(count))(data), times=None))
    with pytest.raises(TransientStorageError):
        read_bounded(never, "k", 100)
