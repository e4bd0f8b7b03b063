"""The frame cache over a store in memory: what it keeps, what it refuses, and what it survives."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import (
    FrameCacheError,
    InvalidIdError,
    NotAnImageError,
    StorageError,
    TimelineNotFoundError,
    TransientStorageError,
)
from structureflow.frames.cache import Frame, FrameCache
from structureflow.frames.jpeg import decode_jpeg, encode_jpeg, perceptual_hash
from structureflow.frames.manifest import ChunkEntry, FrameManifest, FrameRecord
from structureflow.storage.base import ObjectInfo, StoredObject
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


def _keys(store: MemoryStorage, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_frames_come_back_with_pixels_times_chunks_and_hashes(cache: FrameCache, store: MemoryStorage) -> None:
    frames = make_frames(12, per_chunk=5)
    manifest = cache.cache_frames(TIMELINE, frames, source_identity="s3:abc:1")
    loaded = cache.load_cached_frames(TIMELINE)
    assert len(loaded) == manifest.total == 12
    for before, after in zip(frames, loaded, strict=True):
        assert (after.sequence, after.chunk_id, after.timestamp) == (
            before.sequence,
            before.chunk_id,
            before.timestamp,
        )
        assert after.perceptual_hash == perceptual_hash(before.image)
        assert np.array_equal(after.image, decode_jpeg(encode_jpeg(before.image, 85)))
        assert psnr(after.image, before.image) > 30
    assert [chunk.chunk_id for chunk in manifest.chunks] == ["chunk-0", "chunk-1", "chunk-2"]
    assert _keys(store) == [f"{PREFIX}frames/{number:06d}.jpg" for number in range(12)] + [f"{PREFIX}manifest.json"]


def test_manifest_tells_the_truth_about_every_object(cache: FrameCache, store: MemoryStorage) -> None:
    manifest = cache.cache_frames(TIMELINE, make_frames(6), quality=60, source_identity="s3:abc:1")
    assert cache.manifest(TIMELINE) == manifest
    assert (manifest.quality, manifest.source_identity) == (60, "s3:abc:1")
    for record in manifest.records():
        info = store.head(record.key)
        assert (info.etag, info.size_bytes) == (record.etag, record.size_bytes)


def test_only_what_is_asked_for_is_read(store: MemoryStorage) -> None:
    FrameCache(store).cache_frames(TIMELINE, make_frames(30))
    counting = CountingStorage(store)
    cache = FrameCache(counting)
    ranged = cache.load_cached_frames(TIMELINE, range(10, 14))
    assert [frame.sequence for frame in ranged] == [10, 11, 12, 13]
    assert counting.requests == {"get": 5}
    counting.reset()
    listed = cache.load_cached_frames(TIMELINE, [7, 2, 21])
    assert [frame.sequence for frame in listed] == [7, 2, 21]
    assert {key for _, key in counting.keys} == {
        keys.timeline_manifest(TIMELINE),
        *(keys.timeline_frame(TIMELINE, number) for number in (2, 7, 21)),
    }


def test_frames_may_begin_anywhere_and_have_gaps(cache: FrameCache) -> None:
    frames = [frame for frame in make_frames(9, start=100) if frame.sequence % 3]
    cache.cache_frames(TIMELINE, frames)
    assert [frame.sequence for frame in cache.iter_cached_frames(TIMELINE)] == [100, 101, 103, 104, 106, 107]


def test_several_timelines_do_not_meet(cache: FrameCache) -> None:
    for name, seed in (("a", 1), ("a-b", 2), ("ab", 3), ("a.b", 4)):
        cache.cache_frames(name, make_frames(3, seed=seed))
    assert cache.clear_cache("a") == 4
    assert not cache.cache_exists("a")
    for name in ("a-b", "ab", "a.b"):
        assert cache.cache_exists(name)
        assert cache.check_cache(name).whole


def test_writing_is_concurrent_and_bounded(store: MemoryStorage) -> None:
    counting = CountingStorage(LatencyStorage(store, 0.01))
    cache = FrameCache(counting, concurrency=6)
    cache.cache_frames(TIMELINE, make_frames(40))
    assert counting.requests == {"get": 1, "put": 41, "list": 1}
    assert 3 <= counting.most_in_flight <= 6
    assert counting.keys[0] == ("get", keys.timeline_manifest(TIMELINE))
    assert [key for operation, key in counting.keys if operation == "put"][-1] == keys.timeline_manifest(TIMELINE)
    counting.reset()
    assert len(cache.load_cached_frames(TIMELINE)) == 40
    assert counting.requests == {"get": 41}
    assert 3 <= counting.most_in_flight <= 6


def test_exists_is_one_request(store: MemoryStorage) -> None:
    counting = CountingStorage(store)
    cache = FrameCache(counting)
    assert not cache.cache_exists(TIMELINE)
    assert counting.total == 1
    cache.cache_frames(TIMELINE, make_frames(2), source_identity="one")
    counting.reset()
    assert cache.cache_exists(TIMELINE)
    assert cache.cache_exists(TIMELINE, source_identity="one")
    assert not cache.cache_exists(TIMELINE, source_identity="two")
    assert counting.total == 3


def test_a_slow_store_holds_back_the_decoder(store: MemoryStorage) -> None:
    """With room for two pictures, no more than two are handed over before one is encoded and let go."""
    gate = threading.Event()

    class Gated(LatencyStorage):
        def get(self, key: str, **options: Any) -> StoredObject:
            gate.wait(10)
            return super().get(key, **options)

    frames = make_frames(12)
    cache = FrameCache(Gated(store, 0.0), concurrency=4, workers=1, pixel_bytes=2 * frames[0].image.nbytes)
    added: list[int] = []

    def produce() -> Iterator[Frame]:
        for frame in frames:
            added.append(frame.sequence)
            yield frame

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(cache.cache_frames, TIMELINE, produce())
        while not writing.done() and len(added) < 8:
            gate.wait(0.001)
        # As JPEGs: four on their way to the store, one in the encoder's hand; as pixels: two, and one produced.
        gate.wait(0.05)
        held = len(added)
        gate.set()
        assert writing.result().total == 12
    assert held <= 8


def test_reading_ahead_is_bounded(store: MemoryStorage) -> None:
    frames = make_frames(30)
    FrameCache(store).cache_frames(TIMELINE, frames)
    counting = CountingStorage(store)
    cache = FrameCache(counting, concurrency=8, pixel_bytes=3 * frames[0].image.nbytes)
    reading = cache.iter_cached_frames(TIMELINE)
    for _ in range(4):
        next(reading)
    assert counting.requests["get"] <= 1 + 4 + 3
    reading.close()  # type: ignore[attr-defined]
    assert counting.requests["get"] <= 1 + 4 + 3


class _EndlessListing(MemoryStorage):
    """Lists and deletes 10,000 frames that take no memory; everything else is real."""

    def __init__(self, manifest: FrameManifest) -> None:
        super().__init__()
        self._manifest = manifest
        self.deleted = 0
        super().put(keys.timeline_manifest(TIMELINE), manifest.to_json())

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        assert start_after is None
        return (
            ObjectInfo(record.key, record.size_bytes, record.etag)
            for record in self._manifest.records()
            if record.key.startswith(prefix)
        )

    def delete(self, keys: Iterable[str]) -> int:
        count = 0
        for key in keys:
            if "/frames/" not in key:
                super().delete([key])
            count += 1
        self.deleted += count
        return count


def test_ten_thousand_frames_are_checked_and_cleared_a_page_at_a_time() -> None:
    records = (
        FrameRecord(number, keys.timeline_frame(TIMELINE, number), "0" * 32, 150_000, 1, number / 25, "c", "0" * 16)
        for number in range(10_000)
    )
    chunk = ChunkEntry(chunk_id="c", width_px=1280, height_px=720)
    manifest = FrameManifest.build(TIMELINE, records, [chunk], quality=85, source_identity="")
    store = _EndlessListing(manifest)
    counting = CountingStorage(store)
    cache = FrameCache(counting)
    manifest_bytes = len(manifest.to_json())
    tracemalloc.start()
    assert cache.check_cache(TIMELINE).whole
    check_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    assert cache.clear_cache(TIMELINE) == 10_001
    clear_peak = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    assert store.deleted == 10_001
    assert counting.requests["list"] == 2 * 11
    assert counting.requests["delete"] == 1 + 10
    # A page of 1,000 entries is some 0.5 MB; all of them would be ten times that.
    assert clear_peak < 2_000_000
    assert check_peak < 10 * manifest_bytes


def test_a_block_left_without_commit_leaves_nothing(cache: FrameCache, store: MemoryStorage) -> None:
    frames = make_frames(8)

    def die() -> None:
        with cache.writer(TIMELINE) as writer:
            for frame in frames[:5]:
                writer.add(frame.sequence, frame.image, timestamp=frame.timestamp, chunk_id="c")
            raise RuntimeError("the decoder died")

    with pytest.raises(RuntimeError, match="decoder died"):
        die()
    assert not cache.cache_exists(TIMELINE)
    assert _keys(store) == []
    with cache.writer(TIMELINE) as writer:
        writer.add(0, frames[0].image, timestamp=0.0, chunk_id="c")
    assert not cache.cache_exists(TIMELINE)
    assert _keys(store) == []


def test_a_process_that_was_killed_leaves_no_cache(cache: FrameCache, store: MemoryStorage) -> None:
    """Frames without a manifest are leftovers; the next writing is right whatever they are."""
    for number in (0, 1, 2, 40):
        store.put(keys.timeline_frame(TIMELINE, number), b"half a JPEG")
    store.put(f"{PREFIX}frames/7.jpg", b"of an older program")
    assert not cache.cache_exists(TIMELINE)
    with pytest.raises(TimelineNotFoundError):
        cache.load_cached_frames(TIMELINE)
    cache.cache_frames(TIMELINE, make_frames(5))
    assert cache.check_cache(TIMELINE).whole
    assert len(cache.load_cached_frames(TIMELINE)) == 5
    assert len(_keys(store, f"{PREFIX}frames/")) == 5


def test_the_old_manifest_goes_before_the_first_frame_is_overwritten(store: MemoryStorage) -> None:
    FrameCache(store).cache_frames(TIMELINE, make_frames(10, seed=1))
    dying = FaultStorage(store, Fault("put", error=StorageError("disk full"), skip=2, times=None))
    dying.add(Fault("delete", f"{PREFIX}frames/*", error=StorageError("gone"), times=None))
    with pytest.raises(StorageError, match="disk full"):
        FrameCache(dying).cache_frames(TIMELINE, make_frames(10, seed=2))
    assert not FrameCache(store).cache_exists(TIMELINE)


@pytest.mark.parametrize("key", [f"{PREFIX}frames/000003.jpg", f"{PREFIX}manifest.json"])
def test_a_failing_store_is_reported_and_leaves_no_manifest(store: MemoryStorage, key: str) -> None:
    failing = FaultStorage(store, Fault("put", key, error=TransientStorageError("503"), times=None))
    with pytest.raises(TransientStorageError, match="503"):
        FrameCache(failing).cache_frames(TIMELINE, make_frames(20))
    assert not FrameCache(store).cache_exists(TIMELINE)
    # Who cannot write the manifest's place cannot hold it either, and then leaves frames alone.
    left = [] if key.endswith(".jpg") else [keys.timeline_frame(TIMELINE, number) for number in range(20)]
    assert _keys(store) == left


def test_add_reports_an_earlier_failure_early(store: MemoryStorage) -> None:
    failing = FaultStorage(store, Fault("put", error=StorageError("denied"), times=None))
    frame = make_frames(1)[0]
    cache = FrameCache(failing, concurrency=2)

    def add_many() -> int:
        with cache.writer(TIMELINE) as writer:
            for number in range(100_000):
                writer.add(number, frame.image, timestamp=number / 25, chunk_id="c")
        return number

    with pytest.raises(StorageError, match="denied"):
        add_many()


def test_lost_reply_of_the_manifest_is_mended_by_writing_again(store: MemoryStorage) -> None:
    lost = FaultStorage(
        store, Fault("put", f"{PREFIX}manifest.json", error=TransientStorageError("reply lost"), after=True)
    )
    cache = FrameCache(lost)
    frames = make_frames(4)
    with pytest.raises(TransientStorageError):
        cache.cache_frames(TIMELINE, frames)
    cache.cache_frames(TIMELINE, frames)
    assert cache.check_cache(TIMELINE).whole


def test_writer_refuses_misuse(cache: FrameCache) -> None:
    frame = make_frames(1)[0]
    image = frame.image
    with pytest.raises(FrameCacheError, match="none"):
        cache.cache_frames(TIMELINE, [])
    with pytest.raises(FrameCacheError, match="above 0, got 0"):
        cache.cache_frames(TIMELINE, [frame, frame])
    other = Frame(1, frame.chunk_id, 0.1, np.zeros((50, 64, 3), np.uint8))
    with pytest.raises(FrameCacheError, match="64x48 as in the rest of chunk 'chunk-0', got 64x50"):
        cache.cache_frames(TIMELINE, [frame, other])
    with pytest.raises(NotAnImageError):
        cache.cache_frames(TIMELINE, [Frame(0, "c", 0.0, np.zeros((4, 4), np.uint8))])
    writer = cache.writer(TIMELINE)
    with pytest.raises(FrameCacheError, match="inside the with block"):
        writer.add(0, image, timestamp=0.0, chunk_id="c")
    with pytest.raises(FrameCacheError, match="inside the with block"):
        writer.commit()
    with writer:
        writer.add(0, image, timestamp=0.0, chunk_id="c")
        writer.commit()
        with pytest.raises(FrameCacheError):
            writer.commit()
        with pytest.raises(FrameCacheError):
            writer.add(1, image, timestamp=0.1, chunk_id="c")
    assert cache.cache_exists(TIMELINE)
    with pytest.raises(ValueError, match="quality"):
        cache.writer(TIMELINE, quality=0)


@pytest.mark.parametrize("name", ["", "../a", "a/b", "a\nb", ".hidden", "a..b", "x" * 129, "a b", "ä"])
def test_bad_ids_are_refused_everywhere(cache: FrameCache, store: MemoryStorage, name: str) -> None:
    store.put("cache/timelines/keep/frames/000000.jpg", b"x")
    for call in (
        cache.cache_exists,
        cache.manifest,
        cache.load_cached_frames,
        cache.check_cache,
        cache.clear_cache,
        cache.rebuild,
        cache.load_cached_frames_b64,
        cache.load_frame_urls,
        cache.writer,
        lambda name: cache.cache_frames(name, make_frames(1)),
        lambda name: cache.adopt_frames(name, fps=25),
    ):
        with pytest.raises(InvalidIdError):
            call(name)
    assert _keys(store) == ["cache/timelines/keep/frames/000000.jpg"]


def test_missing_timelines(cache: FrameCache) -> None:
    for call in (
        cache.manifest,
        cache.load_cached_frames,
        cache.check_cache,
        cache.load_cached_frames_b64,
        cache.load_frame_urls,
        cache.rebuild,
        cache.source_identity,
    ):
        with pytest.raises(TimelineNotFoundError, match=TIMELINE):
            call(TIMELINE)
    assert cache.clear_cache(TIMELINE) == 0
