"""The real S3 client against a real S3 server behind a layer that misbehaves by seed: right bytes, or a typed error.

A dictionary says what may lie in the bucket: a write that failed may have been done or not, so either is right, until
a read has told which.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import pytest

from structureflow.errors import (
    FrameCacheConflictError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from structureflow.frames.cache import Frame, FrameCache
from structureflow.storage.base import ByteRange
from structureflow.storage.s3 import S3Storage
from structureflow.storage.verified import fetch_verified, get_verified
from structureflow.testing.faults import Clock, Faults, Rates
from structureflow.testing.faulty_http import faulty_server, forward_to
from structureflow.testing.storage_servers import loopback_settings, make_bucket, moto_server
from structureflow.testing.videos import texture

SEEDS = 4
STEPS = 30
KEYS = ("a", "b/c", "b/d")


class RealClock(Clock):
    """Delays are real here: the client's patience is what is tried."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits up to some seconds before it tries again."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))


@contextmanager
def behind_faults(server: str, rates: Rates, **settings: Any) -> Iterator[tuple[S3Storage, Faults]]:
    """Yield a store, empty at first, through the faulty layer, and the layer's faults; a test sets their seed."""
    # Always the same for a test, as what happens to a request follows from its path too, and another for each test.
    bucket = f"faults-{hashlib.sha256(repr((rates, settings)).encode()).hexdigest()[:12]}"
    make_bucket(server, bucket)
    faults = Faults(0, rates, clock=RealClock() if rates.delay else Clock())
    with faulty_server(forward_to(server), faults) as url:
        chosen: dict[str, Any] = {"max_attempts": 1, "conditional_writes": "yes"} | settings
        yield S3Storage(bucket, settings=replace(loopback_settings(url), **chosen)), faults


@dataclass
class Model:
    """What may lie in a bucket: for each key the bytes that it may have, None for an absent object.

    A write that nobody waited for any longer may still be done, after later ones: it stays possible (`late`).
    """

    storage: S3Storage
    folder: Path
    prefix: str
    patient: bool = True
    may: dict[str, set[bytes | None]] = field(default_factory=dict)
    late: dict[str, set[bytes | None]] = field(default_factory=dict)
    failed: int = 0
    done: int = 0

    def step(self, source: random.Random) -> None:
        """Do something; every error must be typed, every read right."""
        key = self.prefix + source.choice(KEYS)
        act = source.choice([self.write, self.write, self.create, self.delete, self.read, self.download, self.part])
        try:
            act(key, source)
        except StorageError as error:
            if not self.is_right(key, error):
                raise
            self.failed += 1
            if not self.patient:
                self.late.setdefault(key, set()).update(self.possible(key))
        else:
            self.done += 1

    def is_right(self, key: str, error: StorageError) -> bool:
        """Tell whether an error is what may be said of a key."""
        if isinstance(error, ObjectNotFoundError):
            return None in self.possible(key)
        return isinstance(error, TransientStorageError | ObjectExistsError) or "missing" in error.detail

    def possible(self, key: str) -> set[bytes | None]:
        return self.may.setdefault(key, {None})

    def knows(self, key: str, content: bytes | None) -> None:
        """Note what lies there, but for what may come late."""
        self.may[key] = {content} | self.late.get(key, set())

    def write(self, key: str, source: random.Random) -> None:
        data = source.randbytes(source.randrange(1, 3000))
        before = self.possible(key)
        self.may[key] = before | {data}
        self.storage.put(key, data)
        self.knows(key, data)

    def create(self, key: str, source: random.Random) -> None:
        data = source.randbytes(20)
        before = self.possible(key)
        self.may[key] = before | {data} if None in before else before
        try:
            self.storage.put(key, data, if_absent=True)
        except ObjectExistsError:
            assert before != {None}
            raise
        assert None in before
        self.knows(key, data)

    def delete(self, key: str, _: random.Random) -> None:
        self.may[key] = self.possible(key) | {None}
        self.storage.delete([key])
        self.knows(key, None)

    def read(self, key: str, _: random.Random) -> None:
        data, _verified = get_verified(self.storage, key, lambda: self.storage.get(key))
        assert data in self.possible(key)
        self.knows(key, data)

    def download(self, key: str, _: random.Random) -> None:
        path = self.folder / "file"
        fetch_verified(self.storage, key, path)
        data = path.read_bytes()
        path.unlink()
        assert data in self.possible(key)
        self.knows(key, data)

    def part(self, key: str, _: random.Random) -> None:
        found = self.storage.get(key, byte_range=ByteRange(0, 8))
        assert len(found.data) == min(8, found.info.size_bytes)

    def settle(self, faults: Faults) -> None:
        """Compare the whole bucket with what it may hold."""
        faults.active = False
        for key, possible in self.may.items():
            found = self.storage.get(key).data if self.storage.exists(key) else None
            assert found in possible, key
        listed = {info.key for info in self.storage.list(self.prefix)}
        assert listed == {key for key in self.may if self.storage.exists(key)}


def run(server: str, tmp_path: Path, rates: Rates, **settings: Any) -> tuple[int, int]:
    """Run some seeds; return how many steps were done and how many failed."""
    done = failed = 0
    with behind_faults(server, rates, **settings) as (storage, faults):
        for faults.seed in range(SEEDS):
            model, source = Model(storage, tmp_path, f"{faults.seed}/", not rates.delay), random.Random(faults.seed)
            faults.active = True
            try:
                for _ in range(STEPS):
                    model.step(source)
                model.settle(faults)
            except BaseException as error:
                error.add_note(f"{faults}; the last: {faults.struck[-5:]}")
                raise
            done, failed = done + model.done, failed + model.failed
    assert len(faults.struck) > SEEDS, "nothing was tried"
    assert list(tmp_path.iterdir()) == [], "a failed download left a file"
    return done, failed


def test_error_bursts(server: str, tmp_path: Path) -> None:
    """A server that answers 503 again and again: typed, or done; a failed write is done or not, nothing between."""
    done, failed = run(server, tmp_path, Rates(error=0.2, burst=3))
    assert failed
    assert done


def test_error_bursts_that_the_sdk_outlasts(server: str, tmp_path: Path) -> None:
    """With tries of its own the SDK hides nearly all of them."""
    done, failed = run(server, tmp_path, Rates(error=0.15, burst=1), max_attempts=5)
    assert done > 10 * failed or failed < 40


def test_bodies_that_end_early(server: str, tmp_path: Path) -> None:
    done, _ = run(server, tmp_path, Rates(truncate=0.5))
    assert done


def test_flipped_bits_in_reads_and_whole_downloads(server: str, tmp_path: Path) -> None:
    """Verified reads never give a wrong byte; they read again, or say that nothing can be verified."""
    done, _ = run(server, tmp_path, Rates(flip=0.4))
    assert done


def test_lost_acknowledgements(server: str, tmp_path: Path) -> None:
    """A write whose answer is lost counts as failed, and is then there or not, whole."""
    _, failed = run(server, tmp_path, Rates(lost=0.3))
    assert failed


def test_lost_acknowledgements_that_the_sdk_repeats(server: str, tmp_path: Path) -> None:
    """The repeated creation finds its own object and is no conflict."""
    run(server, tmp_path, Rates(lost=0.2), max_attempts=4)


def test_dropped_connections(server: str, tmp_path: Path) -> None:
    """The connection is reset before or after the request was done."""
    _, failed = run(server, tmp_path, Rates(drop=0.3))
    assert failed


def test_missing_headers(server: str, tmp_path: Path) -> None:
    """Without ETag or Last-Modified an object could change unseen: a typed error; without a length the body ends."""
    _, failed = run(server, tmp_path, Rates(header=0.3))
    assert failed


def test_delays_beyond_the_clients_patience(server: str, tmp_path: Path) -> None:
    _, failed = run(server, tmp_path, Rates(delay=0.08, delay_s=0.6), read_timeout_s=0.25)
    assert failed


def test_everything_at_once(server: str, tmp_path: Path) -> None:
    rates = Rates(error=0.05, lost=0.05, flip=0.1, truncate=0.1, drop=0.05, header=0.05)
    run(server, tmp_path, rates, max_attempts=2)


def test_stale_lists_of_a_frame_cache(server: str) -> None:
    """The manifest says what a timeline has; a list may lack new frames, or still show old ones."""
    written = 0
    with behind_faults(server, Rates(stale=0.3)) as (storage, faults):
        cache = FrameCache(storage)
        for faults.seed in range(SEEDS):
            timeline = f"t{faults.seed}"
            for quality, count in ((80, 3), (60, 2), (90, 4)):
                images = [texture(32, 48, seed=number) for number in range(count)]
                frames = [Frame(number, "c", float(number), image) for number, image in enumerate(images)]
                try:
                    cache.cache_frames(timeline, frames, quality=quality)
                except FrameCacheConflictError:
                    # As if another writer were there; a later try, by a list that is right, succeeds.
                    faults.active = False
                    cache.cache_frames(timeline, frames, quality=quality)
                    faults.active = True
                else:
                    written += 1
                assert [frame.sequence for frame in cache.load_cached_frames(timeline)] == list(range(count))
                assert cache.manifest(timeline).quality == quality
            faults.active = False
            assert cache.check_cache(timeline).whole
            faults.active = True
    assert faults.struck, "nothing was tried"
    assert written > SEEDS


def test_a_swap_through_a_bad_line_is_one_writers(server: str) -> None:
    """Two writers swap in turn through errors and lost answers: what is there is what one of them wrote last."""
    with behind_faults(server, Rates(error=0.1, lost=0.15, drop=0.1), max_attempts=3) as (storage, faults):
        for faults.seed in range(SEEDS):
            key, won = f"pointer{faults.seed}", [b"0"]
            faults.active = False
            storage.put(key, won[0])
            faults.active = True
            for number in range(1, 20):
                _swap(storage, key, str(number).encode(), won)
            faults.active = False
            assert storage.get(key).data in won


def _swap(storage: S3Storage, key: str, mine: bytes, won: list[bytes]) -> None:
    try:
        found = storage.get(key)
    except TransientStorageError:
        return
    assert found.data in won
    try:
        storage.put(key, mine, if_match=found.info.etag)
    except TransientStorageError:
        won.append(mine)
    except ObjectChangedError as error:
        raise AssertionError("nobody else wrote") from error
    else:
        del won[:]
        won.append(mine)
