"""Seeded flows, frames with known motion, archives in memory: shared by the tests of everything that has flow."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.errors import ObjectChangedError, ObjectNotFoundError, RangeNotSatisfiableError
from structureflow.flow.archive import FlowArchiveWriter, FlowBlock, compress_flow, quantise
from structureflow.storage.base import ByteRange, ObjectInfo, Storage, StoredObject, Suffix


class BytesReader:
    """A `RangeReader` over objects in memory that keeps a log of (key, range, bytes sent)."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.log: list[tuple[str, ByteRange | Suffix | None, int]] = []

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read a part of an object; errors as `Storage.get`."""
        if key not in self.objects:
            raise ObjectNotFoundError(f"no object {key}")
        data = self.objects[key]
        etag = hashlib.sha256(data).hexdigest()[:16]
        if if_match is not None and if_match != etag:
            raise ObjectChangedError(f"{key}: another ETag")
        start, stop = 0, len(data)
        if isinstance(byte_range, Suffix):
            start = max(0, stop - byte_range.length)
        elif byte_range is not None:
            start, stop = byte_range.start, min(stop, byte_range.stop)
            if start >= stop:
                raise RangeNotSatisfiableError(f"{key}: {start} is past {stop}")
        self.log.append((key, byte_range, stop - start))
        return StoredObject(data[start:stop], ObjectInfo(key, len(data), etag), start)


def smooth_flows(count: int, height: int, width: int, *, seed: int = 0, scale_px: float = 4.0) -> NDArray[np.float32]:
    """Make flows ``(count, height, width, 2) float32`` that vary slowly over the picture, as real ones do."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, scale_px, (count, 4, 4, 2)).astype(np.float32)
    return np.stack([cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse])


def archive_bytes(
    forward: NDArray[Any],
    backward: NDArray[Any] | None = None,
    *,
    scene_cuts: tuple[int, ...] = (),
    engine: str = "dis",
) -> bytes:
    """Write flows ``(N, h, w, 2)`` into an archive and return its bytes."""
    _, height, width, _ = forward.shape
    return packed_archive(
        [compress_flow(quantise(flow)) for flow in forward],
        height,
        width,
        None if backward is None else [compress_flow(quantise(flow)) for flow in backward],
        scene_cuts=scene_cuts,
        engine=engine,
    )


def packed_archive(
    forward: list[FlowBlock],
    height: int,
    width: int,
    backward: list[FlowBlock] | None = None,
    *,
    scene_cuts: tuple[int, ...] = (),
    engine: str = "dis",
) -> bytes:
    """Write blocks, sound or not, into an archive of fields of one size and return its bytes."""
    total = len(forward)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flows.npz"
        with FlowArchiveWriter(path, height=height, width=width, backward=backward is not None) as writer:
            for index in range(total):
                writer.feed_blocks(forward[index], None if backward is None else backward[index])
            writer.finish(
                original_height=2 * height,
                original_width=2 * width,
                original_fps=25.0,
                engine=engine,
                engine_params={"finest_scale": 0},
                timestamps_s=np.arange(total + 1) / 25,
                scene_cuts=scene_cuts,
                source_video="s3://bucket/video.mp4",
                source_identity="5a" * 32,
            )
        return path.read_bytes()


def texture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Make a picture ``(height, width, 3) uint8 RGB`` with detail at all scales, so that motion is visible."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (6, 16, 48, 120):
        grid = generator.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = float(picture.min()), float(picture.max())
    scaled: NDArray[np.float32] = (picture - low) * np.float32(255 / (high - low))
    return scaled.astype(np.uint8)


def panning_frames(
    count: int, height: int, width: int, step_px: tuple[int, int], *, seed: int = 0
) -> list[NDArray[np.uint8]]:
    """Make frames ``(height, width, 3) uint8 RGB`` of a texture that moves `step_px` = (dx, dy) per frame."""
    dx, dy = step_px
    margin_x, margin_y = abs(dx) * count, abs(dy) * count
    scene = texture(height + 2 * margin_y, width + 2 * margin_x, seed=seed)
    frames = []
    for index in range(count):
        x, y = margin_x - dx * index, margin_y - dy * index
        frames.append(np.ascontiguousarray(scene[y : y + height, x : x + width]))
    return frames


def write_lossless(path: Path, frames: list[NDArray[np.uint8]], *, fps: float = 25.0) -> Path:
    """Write frames ``(H, W, 3) uint8 RGB`` as FFV1 into `path` (``.mkv`` or ``.avi``); return `path`."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), fps, (width, height))
    if not writer.isOpened():
        raise RuntimeError(f"no encoder for {path}")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@st.composite
def flow_sequences(draw: st.DrawFn, *, max_flows: int = 7, max_side_px: int = 24) -> NDArray[np.float32]:
    """Draw flows ``(N, h, w, 2) float32`` of any character: still, smooth, noise, huge."""
    count = draw(st.integers(1, max_flows))
    height, width = draw(st.integers(1, max_side_px)), draw(st.integers(1, max_side_px))
    seed = draw(st.integers(0, 2**16))
    kind = draw(st.sampled_from(["still", "smooth", "noise", "huge", "sparse"]))
    generator = np.random.default_rng(seed)
    shape = (count, height, width, 2)
    if kind == "still":
        return np.zeros(shape, np.float32)
    if kind == "smooth":
        return smooth_flows(*shape[:3], seed=seed)
    if kind == "noise":
        return generator.normal(0, 5, shape).astype(np.float32)
    if kind == "huge":
        return generator.uniform(-5000, 5000, shape).astype(np.float32)
    return np.where(generator.random(shape) < 0.02, generator.normal(0, 30, shape), 0).astype(np.float32)


def put_noisy_flows(
    storage: Storage, key: str, path: Path, *, count: int, height: int, width: int, longest_px: float = 1.0
) -> int:
    """Put a seeded archive that hardly compresses, so that little of it lies in the tail; return its size in bytes.

    Args:
        storage, key: where it goes, in place of what is there.
        path: a file for it on the way.
        count, height, width: of its flows, in both directions, the two of one size.
        longest_px: bound of each vector's components.
    """
    random = np.random.default_rng(5)
    with FlowArchiveWriter(path, height=height, width=width) as writer:
        for _ in range(count):
            flow = random.uniform(-longest_px, longest_px, (height, width, 2)).astype(np.float32)
            writer.feed(quantise(flow), quantise(-flow))
        writer.finish(
            original_height=height,
            original_width=width,
            original_fps=25.0,
            engine="dis",
            engine_params={},
            timestamps_s=np.arange(count + 1) / 25,
            scene_cuts=(),
            display_max_px=4.0,
            source_video="videos/pan.mp4",
            source_identity="",
        )
    storage.delete([key])
    return storage.put_file(key, path).size_bytes
