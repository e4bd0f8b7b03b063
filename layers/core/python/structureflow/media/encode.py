"""H.264 files that every player and generator reads alike: yuv420p, BT.709 tagged, constant rate, fast start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import av
import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import checked, instance, number, shown, whole
from structureflow.errors import EncodeError
from structureflow.files import new_file
from structureflow.media.planes import planes_shape, rgb_to_planes

__all__ = ["EncodedInfo", "EncoderSettings", "encode_h264"]

MAX_FPS: Final = 1000

_BT709: Final = 1
_LIMITED_RANGE: Final = 1


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """How x264 encodes.

    Attributes:
        crf: rate factor, 0 (lossless) to 51.
        preset: x264's preset.
        params: further options of x264, as ``name=value:name=value``.
    """

    crf: int
    preset: str
    params: str = ""


#: Visually lossless for a control video. Against the preset ``veryfast``, on two segments of 73 frames at 720p: 0.4 dB
#: and more better in luma, 2 and 12 % larger, half of its processor time. Trees over 10 frames of looking ahead pay
#: for most of what the cheaper search loses, and carried frames are as good a reference as any: no B frames.
GUIDE: Final = EncoderSettings(17, "superfast", "rc-lookahead=10:mbtree=1:bframes=0")
#: With `planes.mask_to_planes` any mask is read as it was, to the byte (noise too; from 20 on single pixels are not),
#: and the file stays in a profile that every player has, which x264's lossless one is not.
MASK: Final = EncoderSettings(18, "ultrafast", "qp=12")


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


class H264Writer:
    """Writes frames into an H.264 mp4, one after the other.

    A context manager: left by an exception, or without `finish`, it deletes the file.
    """

    def __init__(
        self, path: Path, *, height: int, width: int, fps: float, settings: EncoderSettings = GUIDE, threads: int = 0
    ) -> None:
        """Create the file.

        Args:
            path: the file to write, ending in ``.mp4``.
            height, width: of every frame in pixels, even.
            fps: constant frames per second, stored as `frame_rate` gives it.
            settings: of x264.
            threads: x264's threads; 0 lets it choose by the number of CPUs it sees.

        Raises:
            EncodeError: impossible sizes, rates or settings, or the file cannot be made.
        """
        if height < 2 or width < 2 or height % 2 or width % 2:
            raise EncodeError(f"expected an even height and width, got {height} and {width}")
        if not 0 < fps < MAX_FPS or frame_rate(fps) <= 0:
            raise EncodeError(f"expected fps above 0 and below {MAX_FPS}, got {fps}")
        self._path, self._height, self._width = path, height, width
        self._base = 1 / frame_rate(fps)
        self._written = 0
        self._finished = False
        options = {"crf": str(settings.crf), "preset": settings.preset}
        if settings.params:
            options["x264-params"] = settings.params
        with self._typed():
            self._out = av.open(str(path), "w", options={"movflags": "faststart"})
            self._stream = self._out.add_stream("libx264", rate=1 / self._base, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.thread_count = threads
        self._stream.time_base = context.time_base = self._base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            # what is half-made goes away, so whether its end can be written is of no interest
            with contextlib.suppress(av.FFmpegError):
                self._out.close()
            self._path.unlink(missing_ok=True)

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame: `Planes`, taken as they are, or ``(H, W, 3)`` uint8 RGB, converted; not changed, not kept.

        Raises:
            EncodeError: another shape or dtype, or the encoder refuses.
        """
        picture = self._picture(frame)
        picture.pts = self._written
        picture.time_base = self._base
        picture.duration = 1
        with self._typed():
            self._out.mux(self._stream.encode(picture))
        self._written += 1

    def finish(self) -> EncodedInfo:
        """Write the end of the file, and read back how many frames it has.

        Raises:
            EncodeError: no frame was written, or the file has another number of frames than were given.
        """
        if not self._written:
            raise EncodeError(f"{self._path.name}: frames: expected at least one frame, got none")
        with self._typed():
            self._out.mux(self._stream.encode(None))
            self._out.close()
        info = read_back(self._path)
        if info.frames != self._written:
            raise EncodeError(f"{self._path.name}: expected {self._written} frames, the file has {info.frames}")
        self._finished = True
        return info

    def _picture(self, frame: NDArray[np.uint8]) -> av.VideoFrame:
        expected = planes_shape(self._height, self._width)
        if not isinstance(frame, np.ndarray):
            raise EncodeError(f"frames: frame {self._written}: expected an array, got {shown(frame)}")
        if frame.dtype == np.uint8 and frame.shape == expected:
            # PyAV 19 takes the height of a wrapped yuv420p buffer for a multiple of 4: others must be copied
            wrap = av.VideoFrame.from_ndarray if self._height % 4 else av.VideoFrame.from_numpy_buffer
            return wrap(np.ascontiguousarray(frame), format="yuv420p")
        if frame.dtype == np.uint8 and frame.shape == (self._height, self._width, 3):
            return self._picture(rgb_to_planes(np.ascontiguousarray(frame)))
        raise EncodeError(
            f"frames: frame {self._written}: expected {expected} planes or {(self._height, self._width, 3)} RGB, "
            f"uint8; got {frame.shape} {frame.dtype}"
        )

    def _typed(self) -> contextlib.AbstractContextManager[None]:
        return _typed(f"{self._path.name}: cannot be encoded")


@checked(
    frames=arguments.iterable("pictures, (H, W, 3) uint8 RGB, or planes"),
    path=arguments.path,
    height=whole(1),
    width=whole(1),
    fps=number(above=0),
    settings=instance(EncoderSettings, "EncoderSettings"),
    threads=whole(0),
)
def encode_h264(
    frames: Iterable[NDArray[np.uint8]],
    path: Path,
    *,
    height: int,
    width: int,
    fps: float,
    settings: EncoderSettings = GUIDE,
    threads: int = 0,
) -> EncodedInfo:
    """Encode frames into an H.264 mp4; arguments as of `H264Writer`, frames as `H264Writer.write` takes them.

    Raises:
        EncodeError: as `H264Writer`; an older file stays then.
        OutputError: the file cannot be written.
        Whatever `frames` raises passes unchanged.

    >>> grey = np.full((96, 160, 3), 128, np.uint8)
    >>> encode_h264([grey] * 5, Path("grey.mp4"), height=96, width=160, fps=16).frames
    5
    """
    with (
        new_file(path, "path") as part,
        H264Writer(part, height=height, width=width, fps=fps, settings=settings, threads=threads) as writer,
    ):
        for frame in frames:
            writer.write(frame)
        return writer.finish()


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


@contextlib.contextmanager
def _typed(what: str) -> Iterator[None]:
    """Turn the errors of FFmpeg into `EncodeError`."""
    try:
        yield
    except av.FFmpegError as error:
        raise EncodeError(f"{what}: {error}") from error
