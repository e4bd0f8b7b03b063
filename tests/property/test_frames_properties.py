"""Invariants of the frame cache over generated timelines."""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from structureflow import keys
from structureflow.frames.cache import Frame, FrameCache
from structureflow.frames.chunks import Chunk, decode_chunks
from structureflow.frames.jpeg import decode_jpeg, encode_jpeg, perceptual_hash
from structureflow.frames.manifest import FrameManifest
from structureflow.storage.memory import MemoryStorage

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)


@st.composite
def timelines(draw: st.DrawFn) -> list[Frame]:
    sequences = sorted(draw(st.sets(st.integers(0, 2_000_000), min_size=1, max_size=12)))
    seed = draw(st.integers(0, 1000))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    chunk_ids = draw(st.lists(st.text(max_size=8), min_size=1, max_size=3, unique=True))
    random = np.random.default_rng(seed)
    return [
        Frame(
            sequence,
            chunk_ids[number * len(chunk_ids) // len(sequences)],
            draw(st.floats(0, 1e6, allow_nan=False)),
            random.integers(0, 256, (height, width, 3), np.uint8),
        )
        for number, sequence in enumerate(sequences)
    ]


@given(timeline_id=IDS, frames=timelines(), quality=st.integers(1, 100), concurrency=st.integers(1, 5))
@settings(max_examples=60)
def test_what_is_written_is_read(timeline_id: str, frames: list[Frame], quality: int, concurrency: int) -> None:
    """Fast (concurrent, streaming) equals plain (one at a time, by hand)."""
    store = MemoryStorage()
    cache = FrameCache(store, concurrency=concurrency, pixel_bytes=1)
    manifest = cache.cache_frames(timeline_id, frames, quality=quality)
    assert FrameManifest.parse(manifest.to_json(), timeline_id) == manifest
    for before, after in zip(frames, cache.iter_cached_frames(timeline_id), strict=True):
        plain = encode_jpeg(before.image, quality)
        assert store.get(keys.timeline_frame(timeline_id, before.sequence)).data == plain
        assert np.array_equal(after.image, decode_jpeg(plain))
        assert (after.sequence, after.chunk_id, after.timestamp, after.perceptual_hash) == (
            before.sequence,
            before.chunk_id,
            before.timestamp,
            perceptual_hash(before.image),
        )
    assert cache.check_cache(timeline_id).whole


@given(frames=timelines(), data=st.data())
@settings(max_examples=40)
def test_any_selection_keeps_its_order(frames: list[Frame], data: Any) -> None:
    cache = FrameCache(MemoryStorage(), concurrency=3)
    cache.cache_frames("t", frames)
    wanted = data.draw(st.lists(st.sampled_from([frame.sequence for frame in frames]), max_size=20))
    assert [frame.sequence for frame in cache.iter_cached_frames("t", wanted)] == wanted


@given(frames=timelines(), limit=st.integers(1, 5), slack=st.integers(0, 3000))
@settings(max_examples=40)
def test_pages_split_and_join(frames: list[Frame], limit: int, slack: int) -> None:
    store = MemoryStorage()
    cache = FrameCache(store, concurrency=3)
    manifest = cache.cache_frames("t", frames)
    largest = max(len(base64.b64encode(bytes(size))) for size in manifest.frames.size_bytes) + 320
    seen: list[int] = []
    page: str | None = None
    while True:
        part = cache.load_cached_frames_b64("t", page=page, limit=limit, max_bytes=largest + slack)
        seen += [frame.sequence for frame in part.frames]
        page = part.next_page
        if page is None:
            break
    assert seen == [frame.sequence for frame in frames]


class _Timed:
    def __init__(self, timestamp_s: float) -> None:
        self.timestamp_s = timestamp_s
        self.image = np.zeros((1, 1, 3), np.uint8)


class _Video:
    """A decoder's stand-in: frames with given times."""

    def __init__(self, times: list[float]) -> None:
        self._times = times

    def __enter__(self) -> list[_Timed]:
        return [_Timed(time) for time in self._times]

    def __exit__(self, *error: object) -> None:
        return None


STEPS = st.lists(st.floats(0.001, 2), min_size=1, max_size=10)


@given(chunks=st.lists(STEPS, min_size=1, max_size=5))
def test_the_clock_of_chunks_runs_on(chunks: list[list[float]]) -> None:
    videos = {str(number): [0.0, *np.cumsum(steps).tolist()] for number, steps in enumerate(chunks)}
    found = list(
        decode_chunks([Chunk(name, Path(name)) for name in videos], opener=lambda path: _Video(videos[path.name]))
    )
    times = [frame.timestamp for frame in found]
    assert all(before < after for before, after in pairwise(times))
    assert [frame.sequence for frame in found] == list(range(len(found)))
    for name, own in videos.items():
        part = [frame.timestamp for frame in found if frame.chunk_id == name]
        assert np.allclose(np.diff(part), np.diff(own), atol=2e-6)
