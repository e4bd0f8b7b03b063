"""Videos as generators' scripts read them: FFmpeg's own conversion to RGB, frames counted by decoding."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.uint8]
"""``(frames, height, width, 3)`` RGB."""


def read_video(path: Path) -> tuple[Video, float]:
    """Return all frames and the rate; yuv420p H.264 is asked for, as browsers and most loaders want it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate is not None
        return np.stack(frames), float(stream.average_rate)


def is_same_video(one: bytes, other: bytes) -> bool:
    """Say whether two files are the same encoding of the same frames.

    Mostly that is byte for byte. x264's AVX-512 code writes other bytes of the same frames now and then (3 of 1,200
    encodings in one thread; none with ``asm=avx2``), so files that differ are looked at: none of their frames may
    differ by more than half a level in the mean.
    """
    if one == other:
        return True
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / "one.mp4", Path(folder) / "other.mp4"]
        for path, data in zip(paths, (one, other), strict=True):
            path.write_bytes(data)
        (ours, rate), (theirs, other_rate) = (read_video(path) for path in paths)
    if ours.shape != theirs.shape or rate != other_rate:
        return False
    apart = np.abs(ours.astype(np.int16) - theirs).mean(axis=(1, 2, 3))
    return bool(apart.max() < 0.5)
