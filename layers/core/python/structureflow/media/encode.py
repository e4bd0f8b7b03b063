"""H.264 files that every player and generator reads alike: yuv420p, BT.709 tagged, constant rate, fast start.

Needs PyAV and numpy; runs where OpenCV is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import EncodeError

#: Visually lossless for a control video; one step below 18 costs a seventh more bytes and no time.
GUIDE_CRF: Final = 17
GUIDE_PRESET: Final = "veryfast"
#: A frame of one value survives any quantiser exactly, so a mask needs no effort.
MASK_CRF: Final = 18
MASK_PRESET: Final = "ultrafast"
MAX_FPS: Final = 1000

_BT709: Final = 1
_LIMITED_RANGE: Final = 1
_BLACK_Y: Final = 16
_WHITE_Y: Final = 235
_NEUTRAL_CHROMA: Final = 128


@dataclass(frozen=True, slots=True)
class EncodedInfo:
    """What an encoded file holds, as read back from it."""

    frames: int
    size_bytes: int
    fps: float
    duration_s: float


def frame_rate(fps: float) -> Fraction:
    """Return the exact rate that a container stores: the nearest fraction with a denominator up to 1001."""
    return Fraction(fps).limit_denominator(1001)


def encode_h264(
    frames: Iterable[NDArray[np.uint8]],
    path: Path,
    *,
    height: int,
    width: int,
    fps: float,
    crf: int = GUIDE_CRF,
    preset: str = GUIDE_PRESET,
    threads: int = 0,
) -> EncodedInfo:
    """Encode frames into an H.264 mp4 and read back how many it has.

    Args:
        frames: each either ``(H * 3 // 2, W)`` uint8 planes (Y, U, V of BT.709 limited range; taken as they
            are) or ``(H, W, 3)`` uint8 RGB (converted). Consumed once, one at a time; none is changed.
        path: the file to write, ending in ``.mp4``; deleted again when encoding fails.
        height, width: of every frame in pixels, even.
        fps: constant frames per second, stored as `frame_rate` gives it.
        crf: x264's rate factor, 0 (lossless) to 51.
        preset: x264's preset.
        threads: x264's threads; 0 lets it choose by the number of CPUs it sees.

    Raises:
        EncodeError: no frame, a frame of another shape or dtype, a refusal by the encoder, or a file with
            another number of frames than were given.
        Whatever `frames` raises passes unchanged.
    """
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise EncodeError(f"expected an even height and width, got {height} and {width}")
    if not 0 < fps < MAX_FPS or frame_rate(fps) <= 0:
        raise EncodeError(f"expected fps above 0 and below {MAX_FPS}, got {fps}")
    try:
        given = _encode(frames, path, height, width, frame_rate(fps), threads, {"crf": str(crf), "preset": preset})
        info = read_back(path)
        if info.frames != given:
            raise EncodeError(f"{path.name}: expected {given} frames, the file has {info.frames}")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return info


def encode_mask(
    masks: Iterable[int], path: Path, *, height: int, width: int, fps: float, threads: int = 0
) -> EncodedInfo:
    """Encode a mask video of one value per frame; decoded, every pixel is exactly that value.

    Args:
        masks: 0 (keep, black) or 255 (generate, white) for each frame.
        path, height, width, fps, threads: as for `encode_h264`.

    Raises:
        EncodeError: another mask value, or as for `encode_h264`.
    """
    return encode_h264(
        mask_planes(masks, height, width),
        path,
        height=height,
        width=width,
        fps=fps,
        crf=MASK_CRF,
        preset=MASK_PRESET,
        threads=threads,
    )


def mask_planes(masks: Iterable[int], height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Iterate over ``(H * 3 // 2, W)`` uint8 planes of constant masks; arrays are shared between frames.

    Raises:
        EncodeError: a value is neither 0 nor 255.
    """
    planes = {}
    for value, luma in ((0, _BLACK_Y), (255, _WHITE_Y)):
        planes[value] = np.full((height * 3 // 2, width), _NEUTRAL_CHROMA, np.uint8)
        planes[value][:height] = luma
        planes[value].flags.writeable = False
    for index, value in enumerate(masks):
        if value not in planes:
            raise EncodeError(f"mask of frame {index}: expected 0 or 255, got {value}")
        yield planes[value]


def read_back(path: Path) -> EncodedInfo:
    """Count the coded frames of a video's first stream without decoding them.

    Raises:
        EncodeError: the file is missing or no video.
    """
    with _typed(f"{path.name}: cannot be read back"), av.open(str(path)) as container:
        if not container.streams.video:
            raise EncodeError(f"{path.name}: has no video stream")
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        rate = stream.average_rate
        base = stream.time_base
        ticks = sum(packet.duration or 0 for packet in packets)
    return EncodedInfo(
        frames=len(packets),
        size_bytes=path.stat().st_size,
        fps=float(rate) if rate else 0.0,
        duration_s=float(ticks * base) if base else 0.0,
    )


def _encode(
    frames: Iterable[NDArray[np.uint8]],
    path: Path,
    height: int,
    width: int,
    rate: Fraction,
    threads: int,
    options: dict[str, str],
) -> int:
    """Write the file and return the number of frames given."""
    count = 0
    with _typed(f"{path.name}: cannot be encoded"), av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / rate
        context = stream.codec_context
        context.thread_count = threads
        context.time_base = 1 / rate
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        for frame in frames:
            picture = _picture(frame, count, height, width)
            picture.pts = count
            picture.time_base = 1 / rate
            picture.duration = 1
            out.mux(stream.encode(picture))
            count += 1
        if not count:
            raise EncodeError(f"{path.name}: expected at least one frame, got none")
        out.mux(stream.encode(None))
    return count


def _picture(frame: NDArray[np.uint8], index: int, height: int, width: int) -> Any:
    if frame.dtype == np.uint8 and frame.shape == (height * 3 // 2, width):
        planes = np.ascontiguousarray(frame)
        # PyAV 19 takes the height of a wrapped yuv420p buffer for a multiple of 4: others must be copied.
        wrap = av.VideoFrame.from_ndarray if height % 4 else av.VideoFrame.from_numpy_buffer
        return wrap(planes, format="yuv420p")
    if frame.dtype == np.uint8 and frame.shape == (height, width, 3):
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
        )
    raise EncodeError(
        f"frame {index}: expected {(height * 3 // 2, width)} planes or {(height, width, 3)} RGB, uint8; "
        f"got {frame.shape} {frame.dtype}"
    )


@contextmanager
def _typed(what: str) -> Iterator[None]:
    """Turn the errors of FFmpeg into `EncodeError`."""
    try:
        yield
    except av.FFmpegError as error:
        raise EncodeError(f"{what}: {error}") from error
