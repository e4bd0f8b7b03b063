"""Random histories: a folder and a dictionary must tell the same story."""

from __future__ import annotations

import tempfile
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from structureflow.errors import StorageError
from structureflow.storage.base import ByteRange, Storage, Suffix
from structureflow.storage.local import LocalStorage
from structureflow.storage.memory import MemoryStorage

#: No key is a folder of another one, which a folder cannot hold.
PARTS = ("a", "a-b", "a.b", "b", "ä", "z~")
KEYS = st.builds(lambda *parts: "/".join((*parts, "file")), st.sampled_from(PARTS), st.sampled_from(PARTS))
RANGES = st.one_of(
    st.none(),
    st.builds(lambda start, length: ByteRange(start, start + length), st.integers(0, 20), st.integers(1, 20)),
    st.builds(Suffix, st.integers(1, 25)),
)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=12), st.booleans()),
    st.tuples(st.just("get"), KEYS, RANGES),
    st.tuples(st.just("delete"), st.lists(KEYS, max_size=3)),
    st.tuples(st.just("copy"), KEYS, KEYS),
    st.tuples(st.just("list"), st.sampled_from(["", "a", "a/", "a-", "b/a", "ä/"]), st.none() | KEYS),
)


def _do(storage: Storage, step: tuple[object, ...]) -> object:
    """Do one step and return what can be compared: bytes, keys, sizes, kinds of errors."""
    match step:
        case ("put", str(key), bytes(data), bool(if_absent)):
            return storage.put(key, data, if_absent=if_absent).size_bytes
        case ("get", str(key), byte_range):
            found = storage.get(key, byte_range=byte_range)  # type: ignore[arg-type]
            return found.data, found.start, found.info.size_bytes
        case ("delete", list(keys)):
            return storage.delete(keys)
        case ("copy", str(source), str(target)):
            return storage.copy(source, target).size_bytes
        case ("list", str(prefix), start_after):
            entries = storage.list(prefix, start_after=start_after)  # type: ignore[arg-type]
            return [(entry.key, entry.size_bytes) for entry in entries]
    raise AssertionError(step)


def _outcome(storage: Storage, step: tuple[object, ...]) -> object:
    try:
        return _do(storage, step)
    except StorageError as error:
        return error.code


@given(steps=st.lists(STEPS, max_size=25))
@settings(max_examples=80)
def test_folder_and_dictionary_agree(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local, memory = LocalStorage(folder), MemoryStorage()
        for step in steps:
            assert _outcome(local, step) == _outcome(memory, step), step
        everything = ("list", "", None)
        assert _outcome(local, everything) == _outcome(memory, everything)


@given(data=st.binary(min_size=1, max_size=200), cuts=st.lists(st.integers(1, 199), max_size=6))
def test_ranges_join_to_the_whole(data: bytes, cuts: list[int]) -> None:
    storage = MemoryStorage()
    etag = storage.put("k", data).etag
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    parts = [storage.get("k", byte_range=ByteRange(start, stop), if_match=etag).data for start, stop in pairwise(edges)]
    assert b"".join(parts) == data
