"""Frames that lie in a folder without a manifest are adopted."""

from __future__ import annotations

import pytest

from structureflow.errors import (
    FrameCacheError,
    FrameCorruptError,
    TimelineNotFoundError,
)
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import encode_jpeg
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.frames import make_frames, psnr

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


def test_unpadded_frames_are_adopted_in_order_of_number(cache: FrameCache, store: MemoryStorage) -> None:
    frames = make_frames(12)
    for frame in frames:
        store.put(f"{PREFIX}frames/{frame.sequence}.jpg", encode_jpeg(frame.image, 90))
    assert not cache.cache_exists(TIMELINE)
    manifest = cache.adopt_frames(TIMELINE, fps=12.5, chunk_id="old")
    assert cache.cache_exists(TIMELINE)
    loaded = cache.load_cached_frames(TIMELINE)
    assert [frame.sequence for frame in loaded] == list(range(12))
    assert [frame.timestamp for frame in loaded] == [number / 12.5 for number in range(12)]
    assert {frame.chunk_id for frame in loaded} == {"old"}
    assert all(psnr(a.image, b.image) > 30 for a, b in zip(frames, loaded, strict=True))
    assert manifest.record(10).key == f"{PREFIX}frames/10.jpg"
    assert cache.check_cache(TIMELINE).whole
    cache.cache_frames(TIMELINE, frames)
    assert len(_keys(store, f"{PREFIX}frames/")) == 12


def test_what_cannot_be_adopted(cache: FrameCache, store: MemoryStorage) -> None:
    with pytest.raises(TimelineNotFoundError):
        cache.adopt_frames(TIMELINE, fps=25)
    image = make_frames(1)[0].image
    store.put(f"{PREFIX}frames/5.jpg", encode_jpeg(image))
    store.put(f"{PREFIX}frames/000005.jpg", encode_jpeg(image))
    with pytest.raises(FrameCacheError, match="both frame 5"):
        cache.adopt_frames(TIMELINE, fps=25)
    store.put(f"{PREFIX}frames/000005.jpg", b"junk")
    store.delete([f"{PREFIX}frames/5.jpg"])
    with pytest.raises(FrameCorruptError, match="frame 5"):
        cache.adopt_frames(TIMELINE, fps=25)
    with pytest.raises(ValueError, match="fps"):
        cache.adopt_frames(TIMELINE, fps=0)
    assert not cache.cache_exists(TIMELINE)
