"""Frames of source chunks: real videos, in order, on one clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import InputChangedError, MediaError, NotAVideoError, StorageError, TimelineNotFoundError
from structureflow.frames.cache import Chunk, FrameCache
from structureflow.frames.chunks import list_chunks
from structureflow.media.decode import VideoReader
from structureflow.storage.base import ObjectInfo
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.frames import psnr
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, OpaqueStorage, WrapperStorage
from structureflow.testing.videos import pan_frames, write_clip

UNEVEN_S = (0.0, 0.05, 0.09, 0.2, 0.24, 0.4)


def _clip(path: Path, count: int, *, seed: int, timestamps_s: tuple[float, ...] | None = None) -> list[np.ndarray]:
    frames = [np.ascontiguousarray(frame) for frame in pan_frames(count, 64, 96, dx=2, dy=1, seed=seed)]
    write_clip(path, frames, 20, timestamps_s=timestamps_s)
    return frames


@pytest.fixture
def store(tmp_path: Path) -> MemoryStorage:
    """A timeline of three chunks: constant rate, variable rate, and one whose number has two digits."""
    store = MemoryStorage()
    for name, count, seed, times in (
        ("chunk-1.mp4", 5, 1, None),
        ("chunk-2.mp4", 6, 2, UNEVEN_S),
        ("chunk-10.mp4", 4, 3, None),
    ):
        _clip(tmp_path / name, count, seed=seed, timestamps_s=times)
        store.put_file(f"timelines/t/chunks/{name}", tmp_path / name)
    return store


def test_chunks_in_order_on_one_clock(store: MemoryStorage, tmp_path: Path) -> None:
    cache = FrameCache(store)
    manifest = cache.rebuild("t")
    loaded = cache.load_cached_frames("t")
    assert [frame.sequence for frame in loaded] == list(range(15))
    assert [frame.chunk_id for frame in loaded] == ["chunk-1.mp4"] * 5 + ["chunk-2.mp4"] * 6 + ["chunk-10.mp4"] * 4
    times = [frame.timestamp for frame in loaded]
    assert times[:5] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2], abs=1e-3)
    assert times[5:11] == pytest.approx([0.25 + time for time in UNEVEN_S], abs=2e-3)
    median_step = 0.05
    assert times[11:] == pytest.approx([0.65 + median_step + 0.05 * number for number in range(4)], abs=2e-3)
    assert times == sorted(set(times))
    truth = []
    for name in ("chunk-1.mp4", "chunk-2.mp4", "chunk-10.mp4"):
        with VideoReader(tmp_path / name) as reader:
            truth += [frame.image for frame in reader]
    assert all(psnr(frame.image, image) > 33 for frame, image in zip(loaded, truth, strict=True))
    assert manifest.source_identity.startswith("chunks:")


def test_identity_follows_the_chunks(store: MemoryStorage) -> None:
    cache = FrameCache(store)
    before = cache.rebuild("t").source_identity
    assert cache.rebuild("t", quality=70).source_identity == before
    assert cache.rebuild("t", source_identity="mine").source_identity == "mine"
    store.copy("timelines/t/chunks/chunk-1.mp4", "timelines/t/chunks/chunk-2.mp4")
    assert cache.rebuild("t").source_identity != before


def test_rebuild_mends_a_damaged_cache(store: MemoryStorage) -> None:
    cache = FrameCache(store)
    cache.rebuild("t")
    store.delete([keys.timeline_frame("t", 4)])
    store.put(keys.timeline_frame("t", 5), b"junk")
    store.put(keys.timeline_frame("t", 99), b"leftover")
    assert not cache.check_cache("t").whole
    cache.rebuild("t")
    assert cache.check_cache("t").whole
    assert len(cache.load_cached_frames("t")) == 15
    assert not store.exists(keys.timeline_frame("t", 99))


def test_rebuild_without_chunks_changes_nothing(store: MemoryStorage) -> None:
    cache = FrameCache(store)
    cache.rebuild("t")
    store.delete([info.key for info in list_chunks(store, "t")])
    with pytest.raises(TimelineNotFoundError, match="timelines/t/chunks/"):
        cache.rebuild("t")
    assert cache.check_cache("t").whole


def test_rebuild_downloads_each_chunk_once(store: MemoryStorage) -> None:
    counting = CountingStorage(store)
    FrameCache(counting).rebuild("t")
    assert counting.requests["get_to_file"] == 3


def test_a_bad_chunk_is_named_and_leaves_no_cache(store: MemoryStorage) -> None:
    store.put("timelines/t/chunks/chunk-3.mp4", b"this is no video" * 100)
    cache = FrameCache(store)
    with pytest.raises(NotAVideoError, match=r"chunk-3\.mp4"):
        cache.rebuild("t")
    assert not cache.cache_exists("t")
    assert list(store.list("cache/")) == []


def test_chunk_size_cap(store: MemoryStorage) -> None:
    with pytest.raises(StorageError, match="expected at most 100 bytes"):
        FrameCache(store).rebuild("t", max_chunk_bytes=100)


def test_local_videos(tmp_path: Path) -> None:
    frames = _clip(tmp_path / "one.mp4", 3, seed=5)
    store = MemoryStorage()
    cache = FrameCache(store)
    manifest = cache.cache_videos("t", [Chunk("one", tmp_path / "one.mp4")], source_identity="file:one")
    assert (manifest.total, manifest.source_identity) == (3, "file:one")
    for frame, image in zip(cache.load_cached_frames("t"), frames, strict=True):
        assert psnr(frame.image, image) > 28


def test_a_real_clip(bigbuckbunny: Path) -> None:
    store = MemoryStorage()
    cache = FrameCache(store)
    manifest = cache.cache_videos("t", [Chunk("source", bigbuckbunny)])
    assert manifest.total == 132
    assert manifest.record(25).timestamp == pytest.approx(1.0, abs=1e-3)
    with VideoReader(bigbuckbunny) as reader:
        for cached, decoded in zip(cache.iter_cached_frames("t"), reader, strict=True):
            if decoded.index % 33 == 0:
                assert psnr(cached.image, decoded.image) > 36


def test_a_corrupt_clip_is_refused_or_whole(corrupted_clip: Path) -> None:
    """Whatever the decoder makes of damaged bytes, there is a whole cache or none."""
    store = MemoryStorage()
    cache = FrameCache(store)
    try:
        cache.cache_videos("t", [Chunk("source", corrupted_clip)])
    except MediaError:
        assert list(store.list("")) == []
    else:
        assert cache.check_cache("t").whole


@pytest.mark.parametrize("change", ["overwrite", "add", "remove"])
def test_chunks_that_change_while_they_are_read_are_not_cached(store: MemoryStorage, change: str) -> None:
    """Half of the old chunks and half of the new ones is no video."""

    class Meddling(WrapperStorage):
        def get_to_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
            info = super().get_to_file(key, path, **options)
            if key.endswith("chunk-2.mp4"):
                other = "timelines/t/chunks/chunk-1.mp4"
                if change == "overwrite":
                    store.copy(key, other)
                elif change == "add":
                    store.copy(key, "timelines/t/chunks/chunk-11.mp4")
                else:
                    store.delete([other])
            return info

    with pytest.raises(InputChangedError, match="timeline t"):
        FrameCache(Meddling(store)).rebuild("t")
    assert list(store.list("cache/")) == []


def test_a_flipped_bit_in_a_chunk_never_reaches_the_cache(store: MemoryStorage) -> None:
    FrameCache(store).rebuild("t")
    expected = [frame.image for frame in FrameCache(store).load_cached_frames("t")]

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        return bytes(changed)

    struck = FaultStorage(OpaqueStorage(store), Fault("get_to_file", "*chunk-2.mp4", change=flip))
    FrameCache(struck).rebuild("t")
    for found, wanted in zip(FrameCache(store).load_cached_frames("t"), expected, strict=True):
        assert np.array_equal(found.image, wanted)
