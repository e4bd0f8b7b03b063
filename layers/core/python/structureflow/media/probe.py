"""Open a local file as one video stream, and tell what it says of itself before a picture is decoded."""

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
from av.sidedata.sidedata import Type as SideData
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from structureflow.errors import InputNotFoundError, NotAVideoError, UnsupportedCodecError
from structureflow.media.limits import DecodeLimits
from structureflow.media.orientation import Cropping, Orientation, square_size

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


@dataclass(frozen=True, slots=True)
class Geometry:
    """How stored pictures become displayed ones.

    Attributes:
        height, width: with square pixels, neither cropped nor turned.
        cropping: what is then cut off.
        orientation: how the rest is then turned.
    """

    height: int
    width: int
    cropping: Cropping
    orientation: Orientation

    @property
    def displayed(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return self.orientation.size(*self.cropping.size(self.height, self.width))


class VideoStreamFile:
    """A local file, opened, with the stream that a player would show.

    Args:
        path: a local file.
        limits: its sizes are checked before a decoder allocates a picture.
        threads: decoder threads; 0 lets the decoder choose.

    Attributes:
        decoder: of the stream.
        fps: the mean rate, 0.0 where no usable one is named.

    Raises:
        InputNotFoundError: no such file.
        NotAVideoError: it is no video file, or has no video stream but covers.
        UnsupportedCodecError: there is no decoder for the stream's codec.
        MediaLimitError: a side is too large or too small, or there are too many frames or seconds.
    """

    def __init__(self, path: Path, limits: DecodeLimits, threads: int) -> None:
        if not path.is_file():
            raise InputNotFoundError(f"video: expected a file, got {str(path)!r:.300}")
        self._path = path
        self._container = _open(path, limits)
        try:
            self._stream = _choose(self._container, path)
            self.decoder = _decoder(self._container, self._stream, path)
            width, height = self.decoder.width, self.decoder.height
            if not width or not height:
                raise NotAVideoError(f"{path.name}: expected a video, got a stream of {width}x{height} pixels")
            limits.check_size(path.name, width, height, "stored")
            self.fps, frames, duration_s = _promise(self._container, self._stream)
            self._frames, self._duration_s = _verified(
                self.fps, frames, duration_s, path=path, limits=limits, index=self._stream.index
            )
            _set_up(self.decoder, limits, threads)
        except BaseException:
            self._container.close()
            raise

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the stream's clock."""
        base = self._stream.time_base
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
            if other.index != self._stream.index:
                other.discard = Discard.all
        return self._container.demux(self._stream)

    def geometry(self, first: VideoFrame) -> Geometry:
        """Return how pictures are displayed; what the first one carries counts before what the container says."""
        return _geometry(self._stream, first, self.decoder.height or first.height, self.decoder.width or first.width)

    def info(self, geometry: Geometry) -> VideoInfo:
        """Return what the stream says of itself, at the size at which it is displayed."""
        height, width = geometry.displayed
        return VideoInfo(self._frames, self.fps, width, height, self._duration_s)

    @property
    def flags_seams(self) -> bool:
        """Whether a packet that is flagged as damaged may be whole: transport streams flag one at every seam."""
        return self._container.format.name == "mpegts"

    def close(self) -> None:
        """Close the file; closing twice is no error."""
        self._container.close()


def _open(path: Path, limits: DecodeLimits) -> InputContainer:
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        # for the pictures that FFmpeg decodes to find out what the stream is
        "max_pixels": str(limits.max_pixels),
        "threads": "1",
    }
    try:
        # An absolute path can't be taken for a URL.
        return av.open(str(path.resolve()), options=options)
    except (FFmpegError, OSError, ValueError) as error:
        raise NotAVideoError(
            f"{path.name}: expected a video, got a file that no decoder opens", size_bytes=path.stat().st_size
        ) from error


def _choose(container: InputContainer, path: Path) -> VideoStream:
    """Return the stream that a player shows: no cover or thumbnail, the default one, else the largest."""
    streams = container.streams.video
    films = [stream for stream in streams if not stream.disposition & _NO_FILM]
    if not films:
        found = f"{len(streams)} cover pictures" if streams else "no video stream"
        raise NotAVideoError(f"{path.name}: expected a video, got {found}")

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        codec: Any = stream.codec_context
        picture = codec is not None and codec.name in _PICTURE_CODECS
        area = codec.width * codec.height if codec is not None else 0
        return not stream.disposition & Disposition.default, picture, -area, stream.index

    return min(films, key=rank)


def _decoder(container: InputContainer, stream: VideoStream, path: Path) -> VideoCodecContext:
    context: VideoCodecContext | None = stream.codec_context
    if context is None:
        name = _codec_name(container, stream.index)
        raise UnsupportedCodecError(f"{path.name}: there is no decoder for its video codec, {name}", codec=name)
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


def _geometry(stream: VideoStream, first: VideoFrame, height: int, width: int) -> Geometry:
    # PyAV before 19, which Python 3.11 has, does not tell what the container says; the frame has the matrix too.
    said: dict[str, bytes] = dict(getattr(stream.codec_context, "coded_side_data", {}))
    matrix = first.side_data.get(SideData.DISPLAYMATRIX)
    ratio = stream.sample_aspect_ratio
    tall, wide = square_size(height, width, float(ratio) if ratio and ratio.denominator else 0.0)
    cropping = Cropping.from_side_data(said.get("frame_cropping", b""), height, width)
    orientation = Orientation.from_matrix(bytes(matrix) if matrix is not None else said.get("display_matrix", b""))
    return Geometry(tall, wide, cropping.scaled(tall / height, wide / width), orientation)


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
    fps: float, frames: int, duration_s: float, *, path: Path, limits: DecodeLimits, index: int
) -> tuple[int, float]:
    """Count what a stream really holds, without decoding it, where it promises nothing, or more than is allowed.

    Returns:
        (frames, seconds), promised or counted.

    Raises:
        MediaLimitError: it really is more than is allowed.
    """
    if 0 < frames <= limits.max_frames and duration_s <= limits.max_duration_s:
        return frames, duration_s
    stored = _stored(path, limits, index, fps)
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
        stream = _choose(container, path)
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
