"""Decode a local video file frame by frame, bounded before the first pixel and checked after the last.

OpenCV's own FFmpeg does the work. It would also open URLs, playlists and image sequences; here it gets
absolute paths of existing files only, may speak no protocol but ``file`` and use no demuxer but those of
single-file videos. What a container says of itself is a promise, not a fact: frames are counted by decoding.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import (
    CorruptMediaError,
    InputNotFoundError,
    MediaLimitError,
    NotAVideoError,
    VideoTooShortError,
)

#: Demuxers of single-file videos; none of them opens a second file (no playlists, no image sequences).
_FORMATS: Final = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,gif,ogg,asf,ivf,nut,yuv4mpegpipe,h264,hevc,m4v,mxf"
_CAPTURE_OPTIONS: Final = f"protocol_whitelist;file|format_whitelist;{_FORMATS}"
_FFMPEG_QUIET: Final = "-8"
_MAX_FPS: Final = 1000.0
_configure_lock = threading.Lock()
_configured = False


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds of what is decoded.

    Attributes:
        max_frames: most frames, promised or decoded.
        min_frames: fewest frames; a structure video needs two to have motion.
        max_side_px, min_side_px: bounds of width and of height, after rotation.
        max_duration_s: longest duration, promised or by timestamps.
        max_missing_fraction: share of the promised frames that may fail to decode (at least two frames).
    """

    max_frames: int = 5000
    min_frames: int = 2
    max_side_px: int = 4096
    min_side_px: int = 32
    max_duration_s: float = 900.0
    max_missing_fraction: float = 0.05


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video, after rotation, as its container promises or (where said so) as it was decoded.

    `frames` is 0 where the container promises no number, `fps` is 0.0 where it names no usable rate.
    """

    frames: int
    fps: float
    width_px: int
    height_px: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame: zero-based `index`, the container's `timestamp_s`, `image` ``(H, W, 3) uint8 RGB``.

    The image is a fresh array that belongs to whoever received it; the reader keeps no reference.
    """

    index: int
    timestamp_s: float
    image: NDArray[np.uint8]


class VideoReader:
    """Read a local video in order; a context manager, and an iterable that can be walked once.

    Args:
        path: a local file.
        limits: bounds, checked against the container's promise at opening and again while decoding.
        threads: decoder threads; each holds a few frames of its own. 0 lets the decoder choose by the CPUs
            that it sees.

    Raises:
        InputNotFoundError: no such file.
        NotAVideoError: no decoder opens it.
        MediaLimitError: the container promises more than `limits` allow, or a side is too small.
    """

    def __init__(self, path: Path, limits: DecodeLimits | None = None, *, threads: int = 0) -> None:
        self._path = Path(path)
        self._limits = limits or DecodeLimits()
        self._capture = _open(self._path, threads)
        try:
            self._info = _promised(self._capture, self._path)
            _check_promise(self._info, self._limits, self._path)
        except BaseException:
            self._capture.release()
            raise
        self._buffer = np.empty((self._info.height_px, self._info.width_px, 3), np.uint8)
        self._next = 0
        self._time_s = -math.inf

    @property
    def info(self) -> VideoInfo:
        """What the container promises, sizes after rotation."""
        return self._info

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder; closing twice is no error."""
        self._capture.release()

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Decode the remaining frames in order.

        Raises:
            MediaLimitError: there are more frames, or more seconds, than allowed.
            VideoTooShortError: the stream ended before `min_frames`.
            CorruptMediaError: the stream ended early, lost more frames than tolerated, or changed its size.
        """
        while self._grab():
            index = self._next - 1
            ok, raw = self._capture.retrieve(self._buffer)
            frame = cast("NDArray[np.uint8]", raw)
            if not ok or frame.shape != self._buffer.shape or frame.dtype != np.uint8:
                raise CorruptMediaError(
                    f"{self._path.name}: frame {index}: expected {self._buffer.shape} uint8, "
                    f"got {frame.shape if ok else 'nothing'}",
                    frame=index,
                )
            image = cast("NDArray[np.uint8]", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            yield DecodedFrame(index, self._time_s, image)
        self._check_count()

    def skip(self, count: int) -> int:
        """Decode `count` frames without converting them; return how many there were."""
        for skipped in range(count):
            if not self._grab():
                return skipped
        return count

    def _grab(self) -> bool:
        if not self._capture.grab():
            return False
        limits = self._limits
        if self._next >= limits.max_frames:
            raise MediaLimitError(
                f"{self._path.name}: expected at most {limits.max_frames} frames, got more", limit=limits.max_frames
            )
        time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not math.isfinite(time_s) or time_s <= self._time_s:
            # Raw streams and broken containers have no rising clock: go on at the nominal rate.
            time_s = self._time_s + 1 / (self._info.fps or 25.0) if self._next else 0.0
        if time_s > limits.max_duration_s:
            raise MediaLimitError(
                f"{self._path.name}: expected at most {limits.max_duration_s:g} s, got a frame at {time_s:.3f} s",
                limit=limits.max_duration_s,
            )
        self._time_s = time_s
        self._next += 1
        return True

    def _check_count(self) -> None:
        decoded, promised = self._next, self._info.frames
        missing = promised - decoded
        tolerated = max(2, math.ceil(promised * self._limits.max_missing_fraction))
        if promised >= 2 and missing > (tolerated if decoded > 1 else 0) and not self._covers_duration(tolerated):
            raise CorruptMediaError(
                f"{self._path.name}: the container promises {promised} frames, only {decoded} decode",
                promised=promised,
                decoded=decoded,
            )
        if decoded < self._limits.min_frames:
            raise VideoTooShortError(
                f"{self._path.name}: expected at least {self._limits.min_frames} frames, got {decoded}", decoded=decoded
            )

    def _covers_duration(self, tolerated: int) -> bool:
        """Tell whether a container that promises a duration, not a count, kept that promise.

        For Matroska and the like OpenCV multiplies duration by nominal rate, which a variable rate belies.
        """
        if _counts_frames(self._path) or not self._info.fps:
            return False
        return self._time_s + (tolerated + 1) / self._info.fps >= self._info.duration_s


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
        raise ValueError(f"expected first >= 0 and count >= 1, got {first}, {count}")
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


def _configure() -> None:
    # The FFmpeg of OpenCV takes these options from the C environment alone. Set once: changing the
    # environment while another thread reads it is undefined behaviour in C.
    global _configured
    with _configure_lock:
        if not _configured:
            os.putenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", _CAPTURE_OPTIONS)
            # What a decoder finds wrong is told once, as a typed error, not line by line on the console.
            os.putenv("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
            _configured = True


def _open(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise InputNotFoundError(f"video: expected a file, got {str(path)!r:.300}")
    _configure()
    # An absolute path can't be taken for a URL.
    parameters = [cv2.CAP_PROP_N_THREADS, threads] if threads > 0 else []
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG, parameters)
    if not capture.isOpened():
        capture.release()
        raise NotAVideoError(f"{path.name}: expected a video, no decoder opens it", size_bytes=path.stat().st_size)
    return capture


def _promised(capture: Any, path: Path) -> VideoInfo:
    frames = _whole(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    width, height = _whole(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), _whole(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if not width or not height:
        raise NotAVideoError(f"{path.name}: expected a video, got a stream of {width}x{height} pixels")
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    if not math.isfinite(fps) or not 0 < fps <= _MAX_FPS:
        fps = 0.0
    return VideoInfo(frames, fps, width, height, frames / fps if fps else 0.0)


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) and 0 < value < 2**53 else 0


def _check_promise(info: VideoInfo, limits: DecodeLimits, path: Path) -> None:
    smallest, largest = sorted((info.width_px, info.height_px))
    if smallest < limits.min_side_px or largest > limits.max_side_px:
        raise MediaLimitError(
            f"{path.name}: expected sides of {limits.min_side_px} to {limits.max_side_px} pixels, "
            f"got {info.width_px}x{info.height_px}",
            width_px=info.width_px,
            height_px=info.height_px,
        )
    if info.frames > limits.max_frames:
        raise MediaLimitError(
            f"{path.name}: expected at most {limits.max_frames} frames, the container promises {info.frames}",
            frames=info.frames,
            limit=limits.max_frames,
        )
    if info.duration_s > limits.max_duration_s:
        raise MediaLimitError(
            f"{path.name}: expected at most {limits.max_duration_s:g} s, got {info.duration_s:.1f} s promised",
            duration_s=info.duration_s,
            limit=limits.max_duration_s,
        )


def _counts_frames(path: Path) -> bool:
    """Tell by its first bytes whether the container (ISO base media, QuickTime, AVI) holds a frame count."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") or head[:4] == b"RIFF"
