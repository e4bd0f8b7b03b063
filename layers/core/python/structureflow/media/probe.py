"""Open a file as one video stream, and tell what it says of itself before a picture is decoded."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from structureflow.errors import (
    InputNotFoundError,
    NotAVideoError,
    StructureFlowError,
    UnsupportedCodecError,
    VideoPartsError,
)
from structureflow.media.geometry import Geometry, geometry_of
from structureflow.media.limits import DecodeLimits
from structureflow.media.opened import OpenedFile

__all__ = ["VideoInfo"]

#: Demuxers of single-file videos; none of them opens a second file (no playlists, no image sequences).
_FORMATS: Final = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,gif,apng,webp_anim,ogg,asf,ivf,nut,yuv4mpegpipe,"
    "h264,hevc,av1,obu,m4v,mxf,gxf,dv,vc1,rm,wtv"
)
_NO_FILM: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
#: Codecs of pictures; beside a real video codec they are covers that the container does not flag as such.
_PICTURE_CODECS: Final = frozenset({"mjpeg", "png", "bmp", "webp", "tiff", "gif"})
#: Decoders that conceal what is missing in a picture, and flag it. Of the others FFmpeg would hand out whatever was in
#: the buffer before; there an error must be an error. (Here it would also end at oddities that harm no picture.)
_FLAG_DAMAGE: Final = frozenset(
    {"h264", "hevc", "vvc", "vc1", "wmv3", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv", "wmv1", "wmv2"}
)
#: FFmpeg's own VP8 and VP9 leave transparency out; libvpx decodes it.
_WITH_ALPHA: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MAX_FPS: Final = 1000.0
#: AVFMT_NOTIMESTAMPS of libavformat/avformat.h
_NO_TIMESTAMPS: Final = 0x80
#: What the decoder may keep in pictures that its threads work on.
_THREAD_BYTES: Final = 256 * 2**20

# FFmpeg is silent but for the moment in which it describes a file; what other threads say then goes nowhere.
logging.getLogger("libav").addHandler(logging.NullHandler())
_log_lock = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video as it is displayed, by what its stream says of itself or (where said so) as it was decoded.

    `width_px` and `height_px` are those of a player's window: square pixels, turned upright. `frames` is what the
    stream promises or, where it promises nothing, the number of its packets; both may be wrong. `fps` is the mean
    rate, 0.0 where no usable one is named.
    """

    frames: int
    fps: float
    width_px: int
    height_px: int
    duration_s: float


class VideoStreamFile:
    """A file, opened, with the stream that a player would show.

    Args:
        file: a local file, or one that lies elsewhere.
        limits: its sizes are checked before a decoder allocates a picture.
        threads: decoder threads; 0 lets the decoder choose.

    Attributes:
        decoder: of the stream.
        stream: the stream.
        fps: the mean rate, 0.0 where no usable one is named.

    Raises:
        InputNotFoundError: no such file.
        VideoPartsError: of a file that is no local one: it does not say how long it is.
        NotAVideoError: it is no video file, or has no video stream but covers.
        UnsupportedCodecError: there is no decoder for the stream's codec.
        MediaLimitError: a side is too large or too small, or there are too many frames or seconds.
    """

    def __init__(self, file: Path | OpenedFile, limits: DecodeLimits, threads: int) -> None:
        if isinstance(file, Path) and not file.is_file():
            raise InputNotFoundError(f"video: expected a file, got {str(file)!r:.300}")
        name = file.name
        self._container = _open(file, limits)
        try:
            self.stream = _choose(self._container, name)
            self.decoder = _decoder(self._container, self.stream, name)
            width, height = self.decoder.width, self.decoder.height
            if not width or not height:
                raise NotAVideoError(f"{name}: expected a video, got a stream of {width}x{height} pixels")
            limits.check_size(name, width, height, "stored")
            self.fps, frames, duration_s = _promise(self._container, self.stream)
            self._frames, self._duration_s = _verified(
                self.fps, frames, duration_s, file=file, limits=limits, index=self.stream.index
            )
            _set_up(self.decoder, limits, threads)
        except BaseException:
            self._container.close()
            raise

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the stream's clock."""
        base = self.stream.time_base
        return Fraction(base.numerator, base.denominator)

    @property
    def has_clock(self) -> bool:
        """Whether frames have times of their own; those of raw streams are made up by FFmpeg."""
        return not self._container.format.flags & _NO_TIMESTAMPS

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield the stream's packets in decoding order; the last one is empty and flushes the decoder.

        Raises:
            FFmpegError: the container is damaged there.
        """
        for other in self._container.streams:
            if other.index != self.stream.index:
                other.discard = Discard.all
        return self._container.demux(self.stream)

    def seek(self, ticks: int) -> None:
        """Go to the last key frame whose decoding time, by the stream's clock, is not above `ticks`.

        Raises:
            FFmpegError: the container knows no such place.
        """
        self._container.seek(ticks, stream=self.stream, backward=True)

    def geometry(self, first: VideoFrame) -> Geometry:
        """Return how pictures are displayed; what the first one carries counts before what the container says."""
        return geometry_of(self.stream, first, self.decoder.height or first.height, self.decoder.width or first.width)

    def info(self, geometry: Geometry) -> VideoInfo:
        """Return what the stream says of itself, at the size at which it is displayed."""
        height, width = geometry.displayed
        return VideoInfo(self._frames, self.fps, width, height, self._duration_s)

    @property
    def format(self) -> str:
        """FFmpeg's names of the container, separated by commas."""
        return self._container.format.name

    @property
    def flags_seams(self) -> bool:
        """Whether a packet that is flagged as damaged may be whole: transport streams flag one at every seam."""
        return self.format == "mpegts"

    def close(self) -> None:
        """Close the file; closing twice is no error."""
        self._container.close()


def _open(file: Path | OpenedFile, limits: DecodeLimits) -> InputContainer:
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        # for the pictures that FFmpeg decodes to find out what the stream is
        "max_pixels": str(limits.max_pixels),
        "threads": "1",
    }
    try:
        if not isinstance(file, Path):
            file.seek(0, 0)
        # An absolute path can't be taken for a URL.
        opened: InputContainer = av.open(str(file.resolve()) if isinstance(file, Path) else file, "r", options=options)
        return opened
    except StructureFlowError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        size_bytes = file.stat().st_size if isinstance(file, Path) else file.size_bytes
        raise NotAVideoError(
            f"{file.name}: expected a video, got a file that no decoder opens", size_bytes=size_bytes
        ) from error


def _choose(container: InputContainer, name: str) -> VideoStream:
    """Return the stream that a player shows: no cover or thumbnail, the default one, else the largest."""
    streams = container.streams.video
    films = [stream for stream in streams if not stream.disposition & _NO_FILM]
    if not films:
        found = f"{len(streams)} cover pictures" if streams else "no video stream"
        raise NotAVideoError(f"{name}: expected a video, got {found}")

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        codec: Any = stream.codec_context
        picture = codec is not None and codec.name in _PICTURE_CODECS
        area = codec.width * codec.height if codec is not None else 0
        return not stream.disposition & Disposition.default, picture, -area, stream.index

    return min(films, key=rank)


def _decoder(container: InputContainer, stream: VideoStream, file_name: str) -> VideoCodecContext:
    context: VideoCodecContext | None = stream.codec_context
    if context is None:
        name = _codec_name(container, stream.index)
        raise UnsupportedCodecError(f"{file_name}: there is no decoder for its video codec, {name}", codec=name)
    if stream.metadata.get("alpha_mode") != "1" or context.name not in _WITH_ALPHA:
        return context
    both: Any = CodecContext.create(_WITH_ALPHA[context.name], "r")
    both.width, both.height, both.extradata = context.width, context.height, context.extradata
    return both  # type: ignore[no-any-return]


def _codec_name(container: InputContainer, index: int) -> str:
    """Take the codec's name, or its four characters, from FFmpeg's description; PyAV has no other way to it."""
    with _log_lock:
        before = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            description = container.dumps_format()
        finally:
            av.logging.set_level(before)
    described = re.search(rf"Stream #0:{index}\D.*?Video: (\S+)(?: \((.{{4}}) /)?", description)
    if described is None:
        return "unknown"
    name, code = described.groups()
    return repr(code) if name == "none" and code else name.rstrip(",")


def _set_up(decoder: VideoCodecContext, limits: DecodeLimits, threads: int) -> None:
    picture_bytes = 2 * decoder.width * decoder.height
    most = max(1, _THREAD_BYTES // picture_bytes)
    decoder.thread_count = min(threads, most) if threads else (0 if most >= 16 else most)
    decoder.thread_type = "AUTO"
    explode = "" if decoder.name in _FLAG_DAMAGE else "+explode"
    decoder.options = {"max_pixels": str(limits.max_pixels), "err_detect": f"crccheck{explode}"}


def _promise(container: InputContainer, stream: VideoStream) -> tuple[float, int, float]:
    """Return (rate, frames, seconds) as they are promised, each 0 where it is not."""
    fps = next((rate for rate in map(_rate, (stream.average_rate, stream.guessed_rate)) if rate), 0.0)
    duration_s = _duration_s(container, stream)
    frames = stream.frames
    by_time = round(duration_s * fps)
    if not frames or 0 < by_time < frames:  # an edit list hides some of the frames that are stored
        frames = by_time
    return fps, frames, duration_s or (frames / fps if fps else 0.0)


def _rate(value: Any) -> float:
    fps = float(value) if value is not None and value.denominator else 0.0
    return fps if 0 < fps <= _MAX_FPS else 0.0


def _duration_s(container: InputContainer, stream: VideoStream) -> float:
    """Return the stream's own duration; the container's counts only where no other stream may be longer."""
    if stream.duration is not None and stream.time_base.denominator:
        return max(0.0, float(stream.duration * stream.time_base))
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if clock is not None:
        hours, minutes, seconds = clock.groups()
        start_s = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
        return max(0.0, int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start_s)
    if container.duration is not None and len(container.streams) == 1:
        return max(0.0, container.duration / av.time_base)
    return 0.0


def _verified(
    fps: float, frames: int, duration_s: float, *, file: Path | OpenedFile, limits: DecodeLimits, index: int
) -> tuple[int, float]:
    """Count what a stream really holds, without decoding it, where it promises nothing, or more than is allowed.

    Returns:
        (frames, seconds), promised or counted.

    Raises:
        MediaLimitError: it really is more than is allowed.
        VideoPartsError: it cannot be counted, since it is no local file.
    """
    if 0 < frames <= limits.max_frames and duration_s <= limits.max_duration_s:
        return frames, duration_s
    if not isinstance(file, Path):
        raise VideoPartsError(f"{file.name}: its container does not say how many frames it has, or promises too many")
    stored = _stored(file, limits, index, fps)
    return stored.frames, stored.span_s + 1 / fps if fps else stored.span_s


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """What a file holds of a video, by its packets: nothing of it was decoded.

    Attributes:
        frames: how many are shown.
        span_s: seconds from the first one to the last.
        breaks_off: whether the file ends, or is damaged, in the middle.
    """

    frames: int
    span_s: float
    breaks_off: bool


def stored_frames(path: Path, limits: DecodeLimits) -> StoredFrames:
    """Count what a local file really holds of the video that a player would show; it is read once to its end.

    Raises:
        NotAVideoError: it is no video file.
        MediaLimitError: there are more frames or seconds than `limits` allow.
    """
    with _open(path, limits) as container:
        stream = _choose(container, path.name)
        index, fps = stream.index, _promise(container, stream)[0]
    return _stored(path, limits, index, fps)


def _stored(path: Path, limits: DecodeLimits, index: int, fps: float) -> StoredFrames:
    with _open(path, limits) as container:
        stream: Any = container.streams[index]
        # A packet may hold one field, half a frame.
        fields = 2 if stream.codec_context.field_order > 1 else 1
        seams = container.format.name == "mpegts"
        packets, span_s, breaks_off = _tally(container.demux(stream), limits, path.name, fields)
    if fields == 2:
        packets = min(packets, round(span_s * fps) + 1)
    return StoredFrames(packets, span_s, breaks_off and not seams)


def _tally(
    packets: Iterator[Packet[VideoStream]], limits: DecodeLimits, name: str, fields: int
) -> tuple[int, float, bool]:
    """Count packets that are shown, and the seconds from the first one to the last; and whether one is damaged."""
    count, first_s, last_s, damaged = 0, math.inf, -math.inf, False
    try:
        for packet in packets:
            damaged |= packet.is_corrupt
            if not packet.size or packet.is_discard:
                continue
            count += 1
            limits.check_frames(name, -(-count // fields))
            if packet.pts is not None:
                time_s = float(packet.pts * packet.time_base)
                first_s, last_s = min(first_s, time_s), max(last_s, time_s)
                limits.check_time(name, last_s - first_s)
    except FFmpegError as error:
        # Decoding ends there too, and then says where; up to there the count is right.
        _log.debug("%s: counting its frames stopped after %d: %s", name, count, error)
        damaged = True
    return count, max(0.0, last_s - first_s), damaged
