"""Decode a local video file frame by frame, as a player would show it: `VideoReader`.

FFmpeg does the work, through PyAV. It may speak no protocol but ``file`` and use no demuxer but those of
single-file videos. Sizes are bounded before the first picture and checked again while decoding. A file is judged by
the clean end of its video stream; what a container promises is told, but nothing depends on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import checked, instance, optional, whole
from structureflow.errors import CorruptMediaError, InvalidArgumentError, VideoTooShortError
from structureflow.media.colour import RgbConverter
from structureflow.media.deinterlace import Deinterlacer
from structureflow.media.limits import DecodeLimits
from structureflow.media.probe import VideoInfo, VideoStreamFile
from structureflow.media.structure import broken_structure
from structureflow.media.timing import FALLBACK_FPS, FrameClock, LossWatch

__all__ = ["DecodeLimits", "DecodedFrame", "VideoInfo", "VideoReader", "read_video_range"]


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame: zero-based `index`, `timestamp_s`, `image` ``(H, W, 3) uint8 RGB``.

    The time is that of presentation, counted from the first frame, which is at 0; it rises from frame to frame, in
    whatever steps the file has. The image is memory that belongs to whoever received it; the reader keeps no reference.
    """

    index: int
    timestamp_s: float
    image: NDArray[np.uint8]


class VideoReader:
    """Read a local video in order; a context manager, and an iterable that can be walked once.

    Pictures come as they are displayed: of the stream that a player shows, with square pixels, turned and mirrored by
    the display matrix, deinterlaced where they are flagged as interlaced, in the colours that their tags name.
    Transparent pixels are laid on mid-grey (128). All have one size, also where the stream changes its own.

    Args:
        path: a local file.
        limits: bounds, checked at opening as far as the stream tells, and again while decoding.
        threads: threads of decoding and conversion; each decoder thread holds a few frames of its own. 0 lets the
            decoder choose by the CPUs that it sees.

    Raises:
        InputNotFoundError: no such file.
        NotAVideoError: it is no video file, or has no video stream but covers.
        UnsupportedCodecError: there is no decoder for the stream's codec.
        MediaLimitError: a side is too large or too small, or there are more frames or seconds than `limits` allow.
        CorruptMediaError, VideoTooShortError: the first frame cannot be decoded, or there is none.

    >>> with VideoReader("clip.mp4") as video:
    ...     sizes = {frame.image.shape for frame in video}
    >>> sizes, video.info.fps
    ({(96, 160, 3)}, 25.0)
    """

    @checked(path=arguments.path, limits=optional(instance(DecodeLimits, "DecodeLimits")), threads=whole(0))
    def __init__(self, path: Path, limits: DecodeLimits | None = None, *, threads: int = 0) -> None:
        self._path = Path(path)
        self._limits = limits or DecodeLimits()
        self._file = VideoStreamFile(self._path, self._limits, threads)
        self._threads = threads
        self._clock = FrameClock(self._file.time_base if self._file.has_clock else None, self._file.fps)
        self._losses = LossWatch(1 / (self._file.fps or FALLBACK_FPS))
        self._read = 0
        self._next = 0
        self._time_s = -math.inf
        try:
            decoded = self._decoded()
            first = next(decoded, None)
            if first is None:
                self._check_end()
                raise VideoTooShortError(f"{self._path.name}: expected a video, it has no frame", decoded=0)
            self._geometry = self._file.geometry(first)
            height, width = self._geometry.displayed
            self._limits.check_size(self._path.name, width, height, "displayed")
        except BaseException:
            self._file.close()
            raise
        self._info = self._file.info(self._geometry)
        self._convert = RgbConverter(self._geometry.height, self._geometry.width, threads)
        self._frames = self._decode(itertools.chain([first], decoded))

    @property
    def info(self) -> VideoInfo:
        """What the stream promises, sizes as displayed."""
        return self._info

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder; closing twice is no error."""
        self._frames.close()
        self._file.close()

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Decode the remaining frames in order.

        Raises:
            MediaLimitError: there are more frames, or more seconds, than allowed.
            VideoTooShortError: the stream ended before `min_frames`.
            CorruptMediaError: a frame can't be decoded whole, or the file breaks off; the message says where.
        """
        for frame in self._frames:
            yield DecodedFrame(self._next - 1, self._time_s, self._displayed(frame))

    def skip(self, count: int) -> int:
        """Decode `count` frames without converting them; return how many there were."""
        whole(0)(count, "count")
        for skipped in range(count):
            if next(self._frames, None) is None:
                return skipped
        return count

    def _displayed(self, frame: VideoFrame) -> NDArray[np.uint8]:
        geometry = self._geometry
        try:
            image = self._convert(frame)
        except FFmpegError as error:
            raise self._corrupt(f"its {frame.format.name} pixels cannot be converted: {error.strerror}") from error
        return np.ascontiguousarray(geometry.orientation.apply(geometry.cropping.apply(image)))

    def _decode(self, decoded: Iterable[VideoFrame]) -> Generator[VideoFrame]:
        """Yield the stream's frames, deinterlaced, counted and timed; check its end."""
        for frame in self._progressive(decoded):
            self._limits.check_frames(self._path.name, self._next + 1)
            self._time_s = self._clock(frame)
            self._limits.check_time(self._path.name, self._time_s)
            self._next += 1
            yield frame
        self._check_end()

    def _progressive(self, decoded: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the decoder's frames; from the first interlaced one on, through a deinterlacer."""
        fields: Deinterlacer | None = None
        for frame in decoded:
            if fields is not None and not fields.fits(frame):
                yield from fields.finish()
                fields = None
            if fields is None and frame.interlaced_frame:
                fields = Deinterlacer(frame, self._threads)
            if fields is None:
                yield frame
            else:
                yield from fields.feed(frame)
        if fields is not None:
            yield from fields.finish()

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            try:
                frames = self._file.decoder.decode(packet if packet.size else None)
            except FFmpegError as error:
                yield from self._flushed()
                raise self._corrupt(error.strerror or type(error).__name__) from error
            yield from self._whole(frames)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield the stream's packets; the last one is empty and flushes the decoder."""
        packets = self._file.packets()
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                raise self._corrupt(error.strerror or type(error).__name__) from error
            if packet is None:
                return
            if packet.is_corrupt and not self._file.flags_seams:
                raise self._corrupt("the file breaks off in the middle of a frame")
            if packet.is_corrupt:
                self._losses.suspect()
            self._read += bool(packet.size)
            yield packet

    def _whole(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if frame.is_corrupt:
                raise self._corrupt("a part of the picture is missing")
            if self._losses.is_hole(frame):
                raise self._corrupt("frames before it are missing")
            yield frame

    def _flushed(self) -> Iterator[VideoFrame]:
        """Yield what the decoder has finished before the packet that it failed at."""
        try:
            frames = self._file.decoder.decode(None)
        except (FFmpegError, ValueError):  # of the same damage, which the caller reports; or it was never opened
            return
        yield from self._whole(frames)

    def _check_end(self) -> None:
        if not self._next and self._read:
            raise self._corrupt(f"none of its {self._read} packets holds a picture")
        broken = broken_structure(self._path)
        if broken is not None:
            raise self._corrupt(broken)
        if self._next < self._limits.min_frames:
            raise VideoTooShortError(
                f"{self._path.name}: expected at least {self._limits.min_frames} frames, got {self._next}",
                decoded=self._next,
            )

    def _corrupt(self, reason: str) -> CorruptMediaError:
        after = f" (after {self._time_s:.3f} s)" if self._next else ""
        return CorruptMediaError(
            f"{self._path.name}: damaged at frame {self._next}{after}: {reason}",
            decoded=self._next,
        )


def read_video_range(
    path: Path, first: int, count: int, limits: DecodeLimits | None = None, *, threads: int = 0
) -> list[NDArray[np.uint8]]:
    """Decode frames `first` (inclusive) to ``first + count`` (exclusive) of a local video.

    The frames before `first` are decoded too, since seeking is not exact in every container.

    Returns:
        `count` images, each ``(H, W, 3) uint8 RGB``, owned by the caller.

    Raises:
        VideoTooShortError: the video ends before the range does.
        InputNotFoundError, NotAVideoError, MediaLimitError, CorruptMediaError: as `VideoReader`.
    """
    if first < 0 or count < 1:
        raise InvalidArgumentError(f"expected first >= 0 and count >= 1, got {first}, {count}")
    bounds = limits or DecodeLimits(min_frames=1)
    images: list[NDArray[np.uint8]] = []
    with VideoReader(path, bounds, threads=threads) as reader:
        available = reader.skip(first)
        if available == first:
            for frame in reader:
                images.append(frame.image)
                if len(images) == count:
                    return images
    raise VideoTooShortError(
        f"{Path(path).name}: expected frames {first} to {first + count - 1}, got {available + len(images)} frames",
        decoded=available + len(images),
    )
