"""The frame cache: 100 frames of 720p written and read, against one object at a time through temporary files.

The contender is the first sketch of such a cache, written anew: every frame goes through a temporary file and is
transferred alone. On the bare servers it is measured twice: with the SDK's `upload_file` and `download_file`, which
is how programs move files, and with one plain PUT or GET per file, which is the least that can be done. With S3's
documented 0.1 s per request injected, it is the plain one, so that both sides wait once per object. Both use the
same JPEG settings; the objects are compared byte for byte.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.harness import Context, Row
from structureflow import keys
from structureflow.frames.cache import Frame, FrameCache
from structureflow.media.decode import VideoReader
from structureflow.storage.base import Storage
from structureflow.storage.s3 import S3Storage
from structureflow.testing.storage import CountingStorage, LatencyStorage
from structureflow.testing.storage_servers import make_bucket, moto_server, rclone_server

FRAMES = 100
MANY = 10_000
LATENCY_S = 0.1


class OriginalSketch:
    """One object at a time through temporary files."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def upload(self, path: Path, key: str) -> None:
        """Send a file in one request."""
        self._storage.put_file(key, path)

    def download(self, key: str, path: Path) -> None:
        """Receive a file in one request."""
        self._storage.get_to_file(key, path)

    def cache_frames(self, timeline_id: str, frames: list[Frame]) -> None:
        """Write each frame to a temporary file and upload that."""
        parameters = [
            cv2.IMWRITE_JPEG_QUALITY,
            85,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        ]
        for frame in frames:
            with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
                cv2.imwrite(file.name, cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), parameters)
                self.upload(Path(file.name), keys.timeline_frame(timeline_id, frame.sequence))

    def load_cached_frames(self, timeline_id: str) -> list[NDArray[np.uint8]]:
        """Download each frame to a temporary file and read that."""
        images = []
        for info in self._storage.list(keys.timeline_frames_prefix(timeline_id)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "frame.jpg"
                self.download(info.key, path)
                read = cv2.imread(str(path))
                assert read is not None
                images.append(cast("NDArray[np.uint8]", cv2.cvtColor(read, cv2.COLOR_BGR2RGB)))
        return images


class SdkSketch(OriginalSketch):
    """The same, with the transfer functions of the SDK."""

    def __init__(self, storage: S3Storage) -> None:
        super().__init__(storage)
        self._s3 = storage

    def upload(self, path: Path, key: str) -> None:
        """Send a file as the SDK does."""
        self._s3.client.upload_file(str(path), self._s3.bucket, key)

    def download(self, key: str, path: Path) -> None:
        """Receive a file as the SDK does."""
        self._s3.client.download_file(self._s3.bucket, key, str(path))


@contextmanager
def _bucket(server: str, folder: Path) -> Iterator[S3Storage]:
    if server == "moto":
        with moto_server() as url:
            yield make_bucket(url, "frames")
    else:
        folder.mkdir(exist_ok=True)
        with rclone_server(folder) as url:
            yield make_bucket(url, "frames")


def _assert_same(storage: Storage) -> None:
    """The objects of both are byte-identical, and so are the pixels that both read."""
    for number in range(FRAMES):
        theirs = storage.get(keys.timeline_frame("original", number)).data
        assert storage.get(keys.timeline_frame("ours", number)).data == theirs
    ours = FrameCache(storage).iter_cached_frames("ours")
    for frame, image in zip(ours, OriginalSketch(storage).load_cached_frames("original"), strict=True):
        assert np.array_equal(frame.image, image)


def _compare(context: Context, server: str, frames: list[Frame], *, latency_s: float) -> list[Row]:
    with _bucket(server, context.folder / f"{server}-{latency_s}") as bare:
        storage = LatencyStorage(bare, latency_s) if latency_s else bare
        ours = FrameCache(storage)
        sketches = {"plain": OriginalSketch(storage)} | ({} if latency_s else {"sdk": SdkSketch(bare)})
        rounds, warm_up = (2, 0) if latency_s else (5, 1)
        writing: dict[str, Callable[[], object]] = {
            name: partial(sketch.cache_frames, "original", frames) for name, sketch in sketches.items()
        }
        reading: dict[str, Callable[[], object]] = {
            name: partial(sketch.load_cached_frames, "original") for name, sketch in sketches.items()
        }
        writing["ours"] = partial(ours.cache_frames, "ours", frames)
        reading["ours"] = partial(ours.load_cached_frames, "ours")
        written = context.compare(writing, rounds=rounds, warm_up=warm_up)
        _assert_same(bare)
        read = context.compare(reading, rounds=rounds, warm_up=warm_up)
    where = f"{server}, {latency_s * 1000:.0f} ms per request" if latency_s else f"{server}, bare"
    against = {"plain": "one plain request per file", "sdk": "the SDK's file transfers"}
    found = []
    for name in sketches:
        # moto spends more time in its own Python than either side; no target there.
        target = 10.0 if latency_s else {"rclone": 1.5}.get(server)
        for verb, times in (("write", written), ("read", read)):
            row = Row(
                "frames",
                f"{verb} {FRAMES} frames 720p, {where}",
                "s",
                times[name],
                times["ours"],
                target,
                note=f"against {against[name]}",
            )
            context.log(f"{row.name} ({row.note}): {times[name]:.3g} s, {row.ours:.3g} s, {row.ratio:.2f}x")
            found.append(row)
    return found


def _many(context: Context) -> list[Row]:
    """List, check and clear 10,000 frames on a real server."""
    image = np.zeros((16, 16, 3), np.uint8)
    with _bucket("rclone", context.folder / "many") as bare:
        counting = CountingStorage(bare)
        cache = FrameCache(counting)
        frames = (Frame(number, "chunk", number / 25, image) for number in range(MANY))
        manifest = cache.cache_frames("many", frames)
        counting.reset()
        seconds = {"check": context.measure(lambda: cache.check_cache("many"), rounds=3)}
        tracemalloc.start()
        assert cache.check_cache("many").whole
        checked_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        assert cache.clear_cache("many") == MANY + 1
        cleared_bytes = tracemalloc.get_traced_memory()[1] - held
        tracemalloc.stop()
        assert next(bare.list(keys.timeline_prefix("many")), None) is None
    size = len(manifest.to_json()) / 1e6
    return [
        Row("frames", f"list and check {MANY:,} frames", "s", None, seconds["check"], note="rclone, bare"),
        Row("frames", "memory at its peak: check", "MB", None, checked_bytes / 1e6, note=f"manifest {size:.2f} MB"),
        Row("frames", "memory at its peak: clear", "MB", None, cleared_bytes / 1e6, note="a page of 1,000 keys"),
    ]


def rows(context: Context) -> list[Row]:
    """Measure all stores."""
    with VideoReader(context.clip) as reader:
        frames = [Frame(frame.index, "source", frame.timestamp_s, frame.image) for frame in islice(reader, FRAMES)]
    found: list[Row] = []
    for server, latency_s in (("rclone", LATENCY_S), ("rclone", 0.0), ("moto", 0.0)):
        found += _compare(context, server, frames, latency_s=latency_s)
    return found + _many(context)
