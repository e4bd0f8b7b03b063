"""Small H.264 clips with known truth, and plain ways to look into a video; for tests."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

__all__ = ["pan_frames", "write_clip"]

Image = NDArray[np.uint8]

#: Milliseconds: fine enough for any variable rate that a test asks for, and what phones record in.
_VFR_TIME_BASE: Final = Fraction(1, 1000)


def texture(height: int, width: int, *, seed: int = 0) -> Image:
    """Return a seeded ``(height, width, 3)`` uint8 RGB picture with detail at several scales, 20 to 235.

    Every octave is interpolated smoothly, so flow can be measured everywhere and compression is mild.
    """
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell, weight in ((64, 1.0), (24, 0.8), (9, 0.6), (5, 0.3)):
        grid = random.standard_normal((height // cell + 3, width // cell + 3, 3)).astype(np.float32)
        rows = _smooth_weights(height, cell)
        columns = _smooth_weights(width, cell)
        across = (
            grid[:, columns[0]] * (1 - columns[1])[None, :, None] + grid[:, columns[0] + 1] * columns[1][None, :, None]
        )
        total += weight * (
            across[rows[0]] * (1 - rows[1])[:, None, None] + across[rows[0] + 1] * rows[1][:, None, None]
        )
    low, high = np.percentile(total, (1, 99))
    picture: Image = np.clip(20 + (total - low) / (high - low) * 215, 20, 235).astype(np.uint8)
    return picture


def _smooth_weights(size: int, cell: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    position = np.arange(size, dtype=np.float32) / cell
    index = position.astype(np.intp)
    share = position - index.astype(np.float32)
    return index, (share * share * (3 - 2 * share)).astype(np.float32)


def pan_frames(count: int, height: int, width: int, *, dx: int, dy: int, seed: int = 0) -> Iterator[Image]:
    """Iterate over `count` pictures of a camera pan with exactly known motion.

    The content moves by (`dx`, `dy`) whole pixels per frame, right and down: a pixel at ``(y, x)`` of frame t
    is at ``(y + dy, x + dx)`` of frame t + 1.

    Yields:
        ``(height, width, 3)`` uint8 RGB.
    """
    span_y, span_x = abs(dy) * (count - 1), abs(dx) * (count - 1)
    canvas = texture(height + span_y, width + span_x, seed=seed)
    for index in range(count):
        top = span_y - dy * index if dy > 0 else -dy * index
        left = span_x - dx * index if dx > 0 else -dx * index
        yield canvas[top : top + height, left : left + width]


def write_clip(
    path: Path,
    frames: Iterable[Image],
    fps: float = 25,
    *,
    timestamps_s: Sequence[float] | None = None,
    rotation_deg: int = 0,
    crf: int = 12,
    preset: str = "veryfast",
    gop: int = 12,
) -> Path:
    """Write a real H.264 mp4 (yuv420p, BT.709) as a camera or an editor would, and return its path.

    Args:
        path: the file, ending in ``.mp4``.
        frames: ``(H, W, 3)`` uint8 RGB, all of one even size, at least one.
        fps: constant rate; ignored when `timestamps_s` is given.
        timestamps_s: presentation time of each frame, rising: a variable rate, in whole milliseconds.
        rotation_deg: 0, 90, 180 or 270 clockwise, in the metadata only, as phones do; the pixels stay.
        crf, preset: of x264.
        gop: frames from one key frame to the next.
    """
    rate = Fraction(fps).limit_denominator(1001)
    time_base = 1 / rate if timestamps_s is None else _VFR_TIME_BASE
    iterator = iter(frames)
    first = next(iterator)
    height, width = first.shape[:2]
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset, "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = time_base
        context = stream.codec_context
        context.time_base = time_base
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for index, image in enumerate((first, *iterator)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=1, dst_color_range=1
            )
            frame.pts = index if timestamps_s is None else round(timestamps_s[index] * 1000)
            frame.time_base = time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    if rotation_deg:
        _set_rotation(path, rotation_deg)
    return path


def write_damaged_clip(path: Path) -> Path:
    """Write a clip of 40 frames that opens, counts and begins like a whole one; a picture in its middle is damaged."""
    write_clip(path, pan_frames(40, 96, 160, dx=2, dy=0, seed=1), 20)
    data = bytearray(path.read_bytes())
    pictures = data.find(b"mdat")
    middle = pictures + (len(data) - pictures) * 6 // 10
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    return path


def _set_rotation(path: Path, degrees: int) -> None:
    """Overwrite the matrix of the track header (ISO/IEC 14496-12, 8.3.2) with a clockwise rotation."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") - 4
    if data[at + 8] != 0:
        raise ValueError("expected a track header of version 0")
    one = 1 << 16
    matrix = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    data[at + 48 : at + 84] = matrix
    path.write_bytes(data)


def decode_rgb(path: Path) -> Iterator[Image]:
    """Iterate over a video's decoded pictures, ``(H, W, 3)`` uint8 RGB, rotation metadata not applied."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def count_frames(path: Path) -> int:
    """Count a video's frames by decoding all of them."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
