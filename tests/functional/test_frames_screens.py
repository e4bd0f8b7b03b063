"""Frames for screens: base64, thumbnails, pages, URLs; and clearing them."""

from __future__ import annotations

import base64
import itertools

import pytest

from structureflow import keys
from structureflow.errors import (
    FrameCacheError,
    TransientStorageError,
)
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import decode_jpeg, perceptual_hash
from structureflow.frames.pages import FrameB64
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.frames import make_frames
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage

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


def test_base64_of_stored_frames(cache: FrameCache, store: MemoryStorage) -> None:
    frames = make_frames(5)
    cache.cache_frames(TIMELINE, frames)
    page = cache.load_cached_frames_b64(TIMELINE)
    assert (page.total, page.next_page, len(page.frames)) == (5, None, 5)
    for before, shown in zip(frames, page.frames, strict=True):
        assert base64.b64decode(shown.jpeg_base64) == store.get(keys.timeline_frame(TIMELINE, shown.sequence)).data
        assert (shown.timestamp, shown.chunk_id) == (before.timestamp, before.chunk_id)
        assert (shown.width_px, shown.height_px) == (64, 48)


def test_base64_thumbnails(cache: FrameCache) -> None:
    frames = make_frames(5, height=90, width=160)
    cache.cache_frames(TIMELINE, frames)
    page = cache.load_cached_frames_b64(TIMELINE, [4, 1], width_px=32, quality=70)
    assert [frame.sequence for frame in page.frames] == [4, 1]
    assert page.total == 2
    for shown in page.frames:
        image = decode_jpeg(base64.b64decode(shown.jpeg_base64))
        assert image.shape == (18, 32, 3) == (shown.height_px, shown.width_px, 3)
        assert shown.timestamp == frames[shown.sequence].timestamp


def test_frames_in_memory_to_base64(cache: FrameCache) -> None:
    frames = make_frames(3, height=90, width=160)
    shown = cache.frames_to_b64(frames, width_px=80)
    assert [frame.timestamp for frame in shown] == [frame.timestamp for frame in frames]
    assert [frame.perceptual_hash for frame in shown] == [perceptual_hash(frame.image) for frame in frames]
    assert decode_jpeg(base64.b64decode(shown[2].jpeg_base64)).shape == (45, 80, 3)
    sizes = [len(cache.frames_to_b64(frames, quality=quality)[0].jpeg_base64) for quality in (40, 75, 95)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("width_px", [None, 24])
def test_pages_join_to_the_whole_and_keep_their_size(cache: FrameCache, width_px: int | None) -> None:
    cache.cache_frames(TIMELINE, make_frames(23))
    whole = cache.load_cached_frames_b64(TIMELINE, width_px=width_px).frames
    joined: list[FrameB64] = []
    page = None
    for _ in itertools.count():
        part = cache.load_cached_frames_b64(TIMELINE, page=page, limit=7, width_px=width_px, max_bytes=9_000)
        assert part.total == 23
        assert 1 <= len(part.frames) <= 7
        assert len(part.model_dump_json()) <= 9_000
        joined += part.frames
        page = part.next_page
        if page is None:
            break
    assert tuple(joined) == whole


def test_page_refusals(cache: FrameCache) -> None:
    cache.cache_frames(TIMELINE, make_frames(3))
    with pytest.raises(FrameCacheError, match=r"frame 0 alone exceeds a page of 500 bytes.*width_px"):
        cache.load_cached_frames_b64(TIMELINE, max_bytes=500)
    for page in ("0", "3", "-1", "x", "", "1e3", "٣"):
        with pytest.raises(FrameCacheError, match="page"):
            cache.load_cached_frames_b64(TIMELINE, page=page)
        with pytest.raises(FrameCacheError, match="page"):
            cache.load_frame_urls(TIMELINE, page=page)


def test_urls(store: MemoryStorage) -> None:
    counting = CountingStorage(store)
    cache = FrameCache(counting)
    frames = make_frames(5)
    cache.cache_frames(TIMELINE, frames)
    counting.reset()
    first = cache.load_frame_urls(TIMELINE, limit=3)
    assert (len(first.frames), first.next_page, first.total) == (3, "3", 5)
    second = cache.load_frame_urls(TIMELINE, limit=3, page=first.next_page)
    assert second.next_page is None
    assert counting.requests == {"get": 2}
    for before, shown in zip(frames, first.frames + second.frames, strict=True):
        data = base64.b64decode(shown.url.partition(",")[2])
        assert data == store.get(keys.timeline_frame(TIMELINE, shown.sequence)).data
        assert (shown.timestamp, shown.size_bytes) == (before.timestamp, len(data))


def test_clear_leaves_overlays_unless_asked(cache: FrameCache, store: MemoryStorage) -> None:
    cache.cache_frames(TIMELINE, make_frames(3))
    overlay = keys.timeline_overlay(TIMELINE, "job", "flow", 1, "x")
    store.put(overlay, b"png")
    store.put("timelines/timeline-1/chunks/a.mp4", b"chunk")
    assert cache.clear_cache(TIMELINE) == 4
    assert _keys(store) == [overlay, "timelines/timeline-1/chunks/a.mp4"]
    cache.cache_frames(TIMELINE, make_frames(3))
    assert cache.clear_cache(TIMELINE, overlays=True) == 5
    assert _keys(store) == ["timelines/timeline-1/chunks/a.mp4"]


def test_clearing_that_dies_half_way_leaves_no_cache(store: MemoryStorage) -> None:
    FrameCache(store).cache_frames(TIMELINE, make_frames(3))
    dying = FaultStorage(store, Fault("delete", f"{PREFIX}frames/*", error=TransientStorageError("503")))
    with pytest.raises(TransientStorageError):
        FrameCache(dying).clear_cache(TIMELINE)
    assert not FrameCache(store).cache_exists(TIMELINE)
    assert FrameCache(store).clear_cache(TIMELINE) == 3
