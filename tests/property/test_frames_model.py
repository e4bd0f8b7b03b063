"""The frame cache against plain dictionaries, step by step: with faults, and with several writers at once.

What a timeline may hold is a set of pictures of it. A step that ends well leaves one; a step that fails for a fault
leaves several, of which the next look at the store keeps those that fit. Whatever is read must be one of them, or a
typed error: never a picture that nobody cached.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from structureflow.errors import (
    FrameCacheError,
    FrameCorruptError,
    FrameNotFoundError,
    NotAnImageError,
    StorageError,
    StructureFlowError,
    TimelineNotFoundError,
)
from structureflow.frames.cache import FrameCache
from structureflow.frames.manifest import compare_listing
from structureflow.frames.overlays import Overlay, load_overlays, save_overlays
from structureflow.frames.repair import repair_frame
from structureflow.frames.slot import Waiting
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.faults import Clock, Faults, Rates, SeededStorage
from tests.conftest import seeds
from tests.property.frames_parts import (
    _T,
    HEIGHT,
    LONGEST,
    TIMELINES,
    VIDEOS,
    WIDTH,
    Cached,
    Guarded,
    Open,
    cached,
    jpeg,
    picture,
    watched,
)


class FrameCacheMachine(RuleBasedStateMachine):
    """One store, two timelines, up to three writers at work; every call may meet a fault."""

    rates = Rates()

    @initialize(seed=st.integers(0, 2**32), videos=st.tuples(*[st.integers(0, VIDEOS - 1)] * len(TIMELINES)))
    def start(self, seed: int, videos: tuple[int, ...]) -> None:
        """Begin with whole caches, so that there is something to read, to race and to lose."""
        self.clock = Clock()
        self.store = Guarded(MemoryStorage(now=self.clock.now))
        wait = Waiting(self.clock.sleep, self.clock.now)
        self.faults = Faults(seed, self.rates, self.clock)
        self.cache = FrameCache(SeededStorage(self.store, self.faults), concurrency=3, workers=1, wait=wait)
        self.clean = FrameCache(self.store, concurrency=3, workers=1, wait=wait)
        self.possible: dict[str, list[Cached]] = {timeline_id: [None] for timeline_id in TIMELINES}
        self.overlays: dict[str, dict[tuple[str, str, int], int]] = {timeline_id: {} for timeline_id in TIMELINES}
        self.writers: list[Open] = []
        self.given_up: set[str] = set()
        note(f"seed of the faults: {seed}")
        for timeline_id, video in zip(TIMELINES, videos, strict=True):
            frames = ((sequence, picture(video, sequence), sequence / 25, "source") for sequence in range(LONGEST))
            self._write(self.clean, timeline_id, video, 90, frames)
            self.now_is(timeline_id, cached(video, LONGEST, 90))

    # --- helpers --------------------------------------------------------------------------------------

    def attempt(self, action: Callable[[], _T]) -> tuple[_T | None, StructureFlowError | None]:
        """Do something; a typed error is an outcome, any other error a failure of the test."""
        try:
            return action(), None
        except (StorageError, FrameCacheError) as error:
            unexpected = error.transient and self.rates == Rates() and not self.writers
            outcome = error
        if unexpected:
            raise outcome
        return None, outcome

    def disturbed(self, timeline_id: str) -> bool:
        """Tell whether a writer at work may have put frames of its own into the timeline."""
        return any(one.timeline_id == timeline_id for one in self.writers)

    def now_is(self, timeline_id: str, state: Cached) -> None:
        self.possible[timeline_id] = [state]

    def may_be(self, timeline_id: str, state: Cached) -> None:
        self.possible[timeline_id] = [None, *[one for one in self.possible[timeline_id] if one], state]

    # --- writing --------------------------------------------------------------------------------------

    @rule(
        timeline_id=st.sampled_from(TIMELINES),
        video=st.integers(0, VIDEOS - 1),
        count=st.integers(1, LONGEST),
        quality=st.sampled_from([60, 90]),
    )
    def write(self, timeline_id: str, video: int, count: int, quality: int) -> None:
        frames = ((sequence, picture(video, sequence), sequence / 25, "source") for sequence in range(count))
        _, error = self.attempt(lambda: self._write(self.cache, timeline_id, video, quality, frames))
        if error is None:
            self.now_is(timeline_id, cached(video, count, quality))
        else:
            self.may_be(timeline_id, cached(video, count, quality))

    @staticmethod
    def _write(cache: FrameCache, timeline_id: str, video: int, quality: int, frames: Iterable[Any]) -> None:
        with cache.writer(timeline_id, quality=quality, source_identity=f"video {video}") as writer:
            for sequence, image, timestamp, chunk_id in frames:
                writer.add(sequence, image, timestamp=timestamp, chunk_id=chunk_id)
            writer.commit()

    @rule(timeline_id=st.sampled_from(TIMELINES), video=st.integers(0, VIDEOS - 1), quality=st.sampled_from([60, 90]))
    def open_writer(self, timeline_id: str, video: int, quality: int) -> None:
        # Threads decide when a writer hears of a fault; what Hypothesis draws must not depend on it.
        if len(self.writers) == 3:
            return
        writer = self.cache.writer(timeline_id, quality=quality, source_identity=f"video {video}")
        self.writers.append(Open(timeline_id, video, quality, writer.__enter__()))
        self.possible[timeline_id] = [None, *self.possible[timeline_id]]

    @rule(which=st.integers(0, 2), count=st.integers(1, 2))
    def add_frames(self, which: int, count: int) -> None:
        if not self.writers:
            return
        one = self.writers[which % len(self.writers)]
        for _ in range(count):
            if one.added < LONGEST:
                _, error = self.attempt(partial(self._add, one))
                if error is not None:
                    self._leave(one, error)
                    return
                one.added += 1

    @staticmethod
    def _add(one: Open) -> None:
        image = picture(one.video, one.added)
        one.writer.add(one.added, image, timestamp=one.added / 25, chunk_id="source")

    @rule(which=st.integers(0, 2), commit=st.booleans())
    def close_writer(self, which: int, commit: bool) -> None:
        if not self.writers:
            return
        one = self.writers[which % len(self.writers)]
        error = None
        if commit and one.added:
            _, error = self.attempt(one.writer.commit)
            state = cached(one.video, one.added, one.quality)
            if error is None:
                # What the other writer of the same video had put there was taken over.
                self.possible[one.timeline_id] = [state]
            else:
                self.may_be(one.timeline_id, state)
        else:
            self.possible[one.timeline_id] = [None, *self.possible[one.timeline_id]]
        self._leave(one, error)

    def _leave(self, one: Open, error: StructureFlowError | None) -> None:
        self.writers.remove(one)
        with watched(logging.getLogger("structureflow.frames.writer")) as messages:
            one.writer.__exit__(type(error) if error else None, error, None)
        if any("uncommitted frames remain" in message for message in messages):
            self.given_up.add(one.timeline_id)

    @rule(timeline_id=st.sampled_from(TIMELINES), overlays=st.booleans())
    def clear(self, timeline_id: str, overlays: bool) -> None:
        _, error = self.attempt(lambda: self.cache.clear_cache(timeline_id, overlays=overlays))
        if error is None:
            self.now_is(timeline_id, None)
            if overlays:
                self.overlays[timeline_id] = {}
        else:
            self.may_be(timeline_id, None)

    # --- reading --------------------------------------------------------------------------------------

    def fits(self, timeline_id: str, found: dict[int, bytes], *, whole: bool) -> bool:
        """Tell whether what was read is of one state that the timeline may have; keep those only."""
        fitting = [
            state
            for state in self.possible[timeline_id]
            if state is not None
            and all(state.get(sequence) == data for sequence, data in found.items())
            and (not whole or set(found) == set(state))
        ]
        return bool(fitting) or self.is_mixture_of_one_video(found)

    @staticmethod
    def is_mixture_of_one_video(found: dict[int, bytes]) -> bool:
        """Two writers of one video at two qualities end with frames of both: all show the video."""
        return any(
            all(data in (jpeg(video, sequence, 60), jpeg(video, sequence, 90)) for sequence, data in found.items())
            for video in range(VIDEOS)
        )

    @rule(timeline_id=st.sampled_from(TIMELINES), first=st.integers(0, LONGEST - 1), count=st.integers(1, LONGEST))
    def load_range(self, timeline_id: str, first: int, count: int) -> None:
        wanted = range(first, first + count)
        loaded, error = self.attempt(lambda: list(self.cache.iter_cached_jpegs(timeline_id, wanted)))
        if loaded is not None:
            assert [record.sequence for record, _ in loaded] == list(wanted)
            assert self.fits(timeline_id, {record.sequence: data for record, data in loaded}, whole=False)
            assert all(record.timestamp == record.sequence / 25 for record, _ in loaded)
        elif isinstance(error, FrameNotFoundError) and not self.disturbed(timeline_id) and self.rates == Rates():
            states = [state for state in self.possible[timeline_id] if state is not None]
            assert any(not set(wanted) <= set(state) for state in states)

    @rule(timeline_id=st.sampled_from(TIMELINES))
    def load_pixels(self, timeline_id: str) -> None:
        frames, error = self.attempt(lambda: self.cache.load_cached_frames(timeline_id))
        if frames is not None:
            stored = dict(self.attempt(lambda: self._jpegs(timeline_id))[0] or {})
            for frame in frames:
                assert frame.image.shape == (HEIGHT, WIDTH, 3)
                assert frame.chunk_id == "source"
                nearest = min(
                    range(VIDEOS),
                    key=lambda video: int(
                        np.abs(frame.image.astype(int) - picture(video, frame.sequence).astype(int)).sum()
                    ),
                )
                near = np.abs(frame.image.astype(int) - picture(nearest, frame.sequence).astype(int)).mean()
                assert near < 25, (frame.sequence, near, len(stored))
        elif self.rates == Rates() and not self.disturbed(timeline_id):
            assert isinstance(error, TimelineNotFoundError), error
            assert None in self.possible[timeline_id]

    def _jpegs(self, timeline_id: str) -> Iterator[tuple[int, bytes]]:
        return iter([(record.sequence, data) for record, data in self.cache.iter_cached_jpegs(timeline_id)])

    @rule(timeline_id=st.sampled_from(TIMELINES), limit=st.integers(1, 3))
    def load_pages(self, timeline_id: str, limit: int) -> None:
        found: dict[int, bytes] = {}
        page: str | None = None
        while True:
            load = partial(self.cache.load_cached_frames_b64, timeline_id, page=page, limit=limit)
            loaded, _ = self.attempt(load)
            if loaded is None:
                return
            found |= {frame.sequence: base64.b64decode(frame.jpeg_base64) for frame in loaded.frames}
            page = loaded.next_page
            if page is None:
                break
        assert self.fits(timeline_id, found, whole=True)

    @rule(timeline_id=st.sampled_from(TIMELINES))
    def exists(self, timeline_id: str) -> None:
        found, _ = self.attempt(lambda: self.cache.cache_exists(timeline_id))
        if found is False:
            assert None in self.possible[timeline_id]
        if found is True:
            assert any(state is not None for state in self.possible[timeline_id])

    # --- damage and repair ----------------------------------------------------------------------------

    @rule(timeline_id=st.sampled_from(TIMELINES), which=st.integers(0, LONGEST - 1), gone=st.booleans())
    def damage_and_repair(self, timeline_id: str, which: int, gone: bool) -> None:
        if self.writers:
            return
        try:
            manifest = self.clean.manifest(timeline_id)
        except TimelineNotFoundError:
            return
        video = int(manifest.source_identity.removeprefix("video "))
        record = manifest.record(which % manifest.total)
        if gone:
            self.store.inner.delete([record.key])
        else:
            self.store.inner.put(record.key, b"rotten")
        _, error = self.attempt(
            lambda: repair_frame(self.cache.storage, manifest, record.sequence, picture(video, record.sequence))
        )
        if error is not None:
            self.faults.active = False
            repair_frame(self.store, self.clean.manifest(timeline_id), record.sequence, picture(video, record.sequence))
            self.faults.active = True
        assert compare_listing(self.store.inner, self.clean.manifest(timeline_id)).whole
        found = {record.sequence: jpeg for record, jpeg in self.clean.iter_cached_jpegs(timeline_id)}
        assert self.fits(timeline_id, found, whole=True)

    @rule(hours=st.integers(1, 12))
    def wait(self, hours: int) -> None:
        self.clock.sleep(timedelta(hours=hours).total_seconds())

    # --- overlays -------------------------------------------------------------------------------------

    @rule(
        timeline_id=st.sampled_from(TIMELINES),
        job_id=st.sampled_from(["job", "job-2"]),
        stage=st.sampled_from(["flow", "warp"]),
        sequence=st.integers(0, 3),
        shade=st.integers(0, 255),
    )
    def save_overlay(self, timeline_id: str, job_id: str, stage: str, sequence: int, shade: int) -> None:
        image = np.full((4, 5, 3), shade, np.uint8)
        store = self.cache.storage
        _, error = self.attempt(
            lambda: save_overlays(store, timeline_id, job_id, stage, [Overlay(sequence, "x", image)])  # type: ignore[arg-type]
        )
        if error is None:
            self.overlays[timeline_id][job_id, stage, sequence] = shade
        else:
            # The older one, the newer one, or none: whatever is there must be one that was saved.
            self.overlays[timeline_id].pop((job_id, stage, sequence), None)

    @rule(
        timeline_id=st.sampled_from(TIMELINES),
        job_id=st.sampled_from(["job", "job-2"]),
        stage=st.sampled_from(["flow", "warp"]),
    )
    def load_overlays(self, timeline_id: str, job_id: str, stage: str) -> None:
        store = self.cache.storage
        try:
            found = {one.sequence: one.image for one in load_overlays(store, timeline_id, job_id, stage)}  # type: ignore[arg-type]
        except (StorageError, NotAnImageError):
            assert self.rates != Rates()
            return
        for (job, of, sequence), shade in self.overlays[timeline_id].items():
            if (job, of) == (job_id, stage):
                assert np.array_equal(found[sequence], np.full((4, 5, 3), shade, np.uint8))
        for image in found.values():
            assert len(np.unique(image)) == 1

    # --- always ---------------------------------------------------------------------------------------

    @invariant()
    def no_frame_was_taken_from_a_manifest(self) -> None:
        if hasattr(self, "store"):
            assert self.store.torn == [], f"deleted though listed: {self.store.torn}; {self.faults}"

    def teardown(self) -> None:
        """Once all writers have left and faults are over, every timeline is whole, or absent, and can be written."""
        if not hasattr(self, "store"):
            return
        for one in list(self.writers):
            self._leave(one, None)
            self.possible[one.timeline_id] = [None, *self.possible[one.timeline_id]]
        self.faults.active = False
        # Marks of removals that broke off are void by then.
        self.clock.sleep(600)
        for timeline_id in TIMELINES:
            if self.clean.cache_exists(timeline_id):
                whole = compare_listing(self.store.inner, self.clean.manifest(timeline_id)).whole
                if not whole and timeline_id in self.given_up:
                    # The store refused every try to clean up: who reads is told, and nobody gets a wrong frame.
                    with pytest.raises((FrameCorruptError, FrameNotFoundError)):
                        list(self.clean.iter_cached_jpegs(timeline_id))
                else:
                    assert whole, str(self.faults)
                    found = {record.sequence: data for record, data in self.clean.iter_cached_jpegs(timeline_id)}
                    assert self.fits(timeline_id, found, whole=True), str(self.faults)
            self._write(self.clean, timeline_id, 1, 90, ((0, picture(1, 0), 0.0, "source"),))
            (only,) = self.clean.iter_cached_jpegs(timeline_id)
            assert only[1] == jpeg(1, 0, 90)


class FaultyFrameCacheMachine(FrameCacheMachine):
    """The same, where one request in five meets a fault."""

    rates = Rates(error=0.06, lost=0.04, flip=0.05, truncate=0.03, delay=0.02)


TestPeace = FrameCacheMachine.TestCase
TestPeace.settings = settings(max_examples=seeds(300), stateful_step_count=16)
TestFaults = FaultyFrameCacheMachine.TestCase
TestFaults.settings = settings(max_examples=seeds(700), stateful_step_count=16)
