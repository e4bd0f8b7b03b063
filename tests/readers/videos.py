"""Videos as generators' scripts read them: FFmpeg's own conversion to RGB, frames counted by decoding."""

from __future__ import annotations

from pathlib import Path

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
