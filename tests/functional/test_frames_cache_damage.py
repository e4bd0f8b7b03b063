"""Frames whose bytes are not what was written, and several writers of one timeline."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from structureflow import keys
from structureflow.errors import (
    FrameCacheConflictError,
    FrameCacheError,
    FrameCorruptError,
    FrameNotFoundError,
    TransientStorageError,
)
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import encode_jpeg
from structureflow.frames.slot import Waiting
from structureflow.storage.base import ObjectInfo
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.frames import make_frames, psnr
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, LatencyStorage

TIMELINE = "timeline-1"
PREFIX = f"cache/timelines/{TIMELINE}/"


@pytest.fixture
def store() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def cache(store: MemoryStorage) -> FrameCache:
    return FrameCache(store, concurrency=8)


def test_a_frame_that_is_gone_is_named(cache: FrameCache, store: MemoryStorage) -> None:
    cache.cache_frames(TIMELINE, make_frames(10))
    store.delete([keys.timeline_frame(TIMELINE, 6)])
    with pytest.raises(FrameNotFoundError, match=r"frame 6 .*rebuild") as caught:
        cache.load_cached_frames(TIMELINE)
    assert caught.value.detail["sequence"] == 6
    assert [frame.sequence for frame in cache.load_cached_frames(TIMELINE, range(6))] == list(range(6))
    found = cache.check_cache(TIMELINE)
    assert (found.missing, found.changed, found.whole) == ((6,), (), False)


def test_a_frame_with_other_bytes_is_named(cache: FrameCache, store: MemoryStorage) -> None:
    frames = make_frames(10)
    cache.cache_frames(TIMELINE, frames)
    store.put(keys.timeline_frame(TIMELINE, 4), encode_jpeg(frames[5].image))
    store.put(keys.timeline_frame(TIMELINE, 8), b"not a JPEG")
    store.put(f"{PREFIX}frames/notes.txt", b"")
    assert cache.check_cache(TIMELINE).changed == (4, 8)
    assert cache.check_cache(TIMELINE).extra == 1
    for sequence in (4, 8):
        with pytest.raises(FrameCorruptError, match=f"frame {sequence}") as caught:
            cache.load_cached_frames(TIMELINE, [sequence])
        assert caught.value.detail["sequence"] == sequence


def test_every_flipped_bit_is_seen(store: MemoryStorage) -> None:
    FrameCache(store).cache_frames(TIMELINE, make_frames(1))
    size = store.head(keys.timeline_frame(TIMELINE, 0)).size_bytes
    for position in range(0, size, 37):

        def flip(data: bytes, position: int = position) -> bytes:
            return data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]

        broken = FaultStorage(store, Fault("get", "*.jpg", change=flip, times=2))
        with pytest.raises(FrameCorruptError):
            FrameCache(broken).load_cached_frames(TIMELINE)
        # Once may be the way, not the store.
        once = FaultStorage(store, Fault("get", "*.jpg", change=flip))
        assert len(FrameCache(once).load_cached_frames(TIMELINE)) == 1


def test_a_damaged_manifest_counts_as_absent(cache: FrameCache, store: MemoryStorage) -> None:
    cache.cache_frames(TIMELINE, make_frames(3))
    document = json.loads(store.get(keys.timeline_manifest(TIMELINE)).data)
    for bad in (b"", b'{"format_version": 1', json.dumps({**document, "format_version": 99}).encode()):
        store.put(keys.timeline_manifest(TIMELINE), bad)
        assert not cache.cache_exists(TIMELINE)
        with pytest.raises(FrameCacheError):
            cache.load_cached_frames(TIMELINE)
    cache.cache_frames(TIMELINE, make_frames(3))
    assert cache.cache_exists(TIMELINE)


def test_a_copy_in_another_store_is_read_though_its_etags_differ(cache: FrameCache, store: MemoryStorage) -> None:
    cache.cache_frames(TIMELINE, make_frames(3))
    document = json.loads(store.get(keys.timeline_manifest(TIMELINE)).data)
    document["frames"]["etag"] = ["other-1", "other-2", "other-3"]
    store.put(keys.timeline_manifest(TIMELINE), json.dumps(document).encode())
    assert len(cache.load_cached_frames(TIMELINE)) == 3


def test_racing_writers_of_the_same_video_end_with_one_whole_cache(store: MemoryStorage) -> None:
    """Different qualities, so the bytes of every frame depend on who was last."""
    frames = make_frames(30, height=96, width=128)
    barrier = threading.Barrier(3)

    def write(quality: int) -> int:
        cache = FrameCache(LatencyStorage(store, 0.002), concurrency=4)
        barrier.wait()
        return cache.cache_frames(TIMELINE, iter(frames), quality=quality).total

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(write, (80, 85, 90))) == [30, 30, 30]
    cache = FrameCache(store)
    assert cache.check_cache(TIMELINE).whole
    loaded = cache.load_cached_frames(TIMELINE)
    assert [frame.sequence for frame in loaded] == list(range(30))
    for before, after in zip(frames, loaded, strict=True):
        assert psnr(before.image, after.image) > 30


def test_racing_writers_of_other_videos_never_leave_a_mixture(store: MemoryStorage) -> None:
    videos = {name: make_frames(20, height=96, width=128, seed=seed) for name, seed in (("one", 1), ("two", 2))}
    barrier = threading.Barrier(2)

    def write(name: str) -> None:
        cache = FrameCache(LatencyStorage(store, 0.002), concurrency=4)
        barrier.wait()
        cache.cache_frames(TIMELINE, videos[name], source_identity=name)

    with ThreadPoolExecutor(2) as pool:
        outcomes = [future.exception() for future in [pool.submit(write, name) for name in videos]]
    assert all(outcome is None or isinstance(outcome, FrameCacheConflictError) for outcome in outcomes)
    cache = FrameCache(store)
    assert cache.check_cache(TIMELINE).whole
    winner = cache.source_identity(TIMELINE)
    for before, after in zip(videos[winner], cache.load_cached_frames(TIMELINE), strict=True):
        assert psnr(before.image, after.image) > 30


def test_a_stranger_between_frames_and_commit_is_a_conflict(cache: FrameCache, store: MemoryStorage) -> None:
    ours, theirs = make_frames(6, seed=1), make_frames(6, seed=2)

    def write(disturb: str) -> None:
        with cache.writer(TIMELINE) as writer:
            for frame in ours:
                writer.add(frame.sequence, frame.image, timestamp=frame.timestamp, chunk_id="c")
            original = store.list

            def listing(prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
                key = keys.timeline_frame(TIMELINE, 3)
                if disturb == "other":
                    store.put(key, encode_jpeg(theirs[3].image))
                elif disturb == "junk":
                    store.put(key, b"junk")
                else:
                    store.delete([key])
                return original(prefix, start_after=start_after)

            store.list = listing  # type: ignore[method-assign]
            try:
                writer.commit()
            finally:
                store.list = original  # type: ignore[method-assign]

    for disturb in ("other", "junk", "gone"):
        with pytest.raises(FrameCacheConflictError, match="frame 3") as caught:
            write(disturb)
        assert caught.value.transient
        assert not cache.cache_exists(TIMELINE)


def test_a_store_that_tags_replies_and_listings_differently_still_settles(store: MemoryStorage) -> None:
    class Odd(CountingStorage):
        def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
            for info in super().list(prefix, start_after=start_after):
                yield ObjectInfo(info.key, info.size_bytes, f"listed-{info.etag}")

    odd = Odd(store)
    cache = FrameCache(odd)
    frames = make_frames(10)
    cache.cache_frames(TIMELINE, frames)
    assert odd.requests["get"] == 10 + 1
    assert cache.check_cache(TIMELINE).whole
    assert [frame.timestamp for frame in cache.iter_cached_frames(TIMELINE)] == [frame.timestamp for frame in frames]


def test_a_writer_that_leaves_tries_again_to_part_its_frames_from_anothers(store: MemoryStorage) -> None:
    """Its frame lies where the manifest of a later writer lists another one; the first look at that fails."""
    slept: list[float] = []
    fault = Fault("get", f"{PREFIX}manifest.json", error=TransientStorageError("away"), times=0)
    broken = FaultStorage(store, fault)
    leaving, staying = FrameCache(broken, wait=Waiting(sleep=slept.append)), FrameCache(store)
    with leaving.writer(TIMELINE, source_identity="a") as writer:
        staying.cache_frames(TIMELINE, make_frames(1, seed=1), source_identity="b")
        (stored,) = store.list(f"{PREFIX}frames/")
        writer.add(0, make_frames(1, seed=2)[0].image, timestamp=0.0, chunk_id="source")
        while not any(info.etag != stored.etag for info in store.list(f"{PREFIX}frames/")):
            time.sleep(0.01)
        fault.times = 1
    assert fault.struck == 1
    assert len(slept) == 1
    assert not staying.cache_exists(TIMELINE)
