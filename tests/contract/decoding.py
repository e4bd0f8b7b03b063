"""What the tests of the decoder share: a pan with known truth, and the comparison with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoReader
from structureflow.testing.videos import Image, pan_frames

COUNT, HEIGHT, WIDTH = 12, 96, 128
needs_animated_webp = pytest.mark.skipif(
    "webp_anim" not in av.formats_available, reason="PyAV before 19, which Python 3.11 has, knows no animated WebP"
)
LIMIT = 4.0


def pan(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH, **motion: int) -> list[Image]:
    """Return a camera pan in muted colours, which halved chroma planes carry nearly whole."""
    pictures = pan_frames(count, height, width, **{"dx": 3, "dy": 1, **motion})
    return [(image * 0.3 + image.mean(-1, keepdims=True) * 0.7).astype(np.uint8) for image in pictures]


def decode(path: Path, **limits: int) -> list[DecodedFrame]:
    with VideoReader(path, DecodeLimits(**{"min_frames": 1, **limits}), threads=1) as reader:
        frames = list(reader)
        assert {frame.image.shape for frame in frames} == {(reader.info.height_px, reader.info.width_px, 3)}
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[0].timestamp_s == 0
    assert all(after.timestamp_s > before.timestamp_s for before, after in pairwise(frames))
    return frames


def error(one: Image, other: Image) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.int16) - other).mean())


def assert_shows(path: Path, truth: list[Image], limit: float = LIMIT) -> list[DecodedFrame]:
    frames = decode(path)
    assert len(frames) == len(truth)
    assert max(error(frame.image, image) for frame, image in zip(frames, truth, strict=True)) < limit
    return frames
