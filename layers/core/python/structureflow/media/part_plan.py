"""Cut a video into parts by its container's index, without its pictures.

FFmpeg's demuxer itself lists all packets, from a file whose pictures are blank. So times and order are those that a
decoder sees, edit lists and all. A part begins at a key frame before which nothing is shown that is decoded after it.
Whatever is not known to be safe is no part: containers without a whole index, codecs whose key frames may lean on
pictures before them, pictures that are deinterlaced together with their neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Final

from av.error import FFmpegError
from av.video.frame import VideoFrame

from structureflow.errors import CorruptMediaError, VideoPartsError
from structureflow.media.limits import DecodeLimits
from structureflow.media.opened import OpenedFile
from structureflow.media.parts import PartReader, VideoPart, VideoParts
from structureflow.media.probe import VideoStreamFile

#: Codecs by FFmpeg's names of their decoders. Key frames of H.264 and HEVC are looked at once more by `PartReader`.
_CODECS: Final = frozenset(
    {"h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "mjpeg", "prores", "dnxhd", "ffv1"}
)


def plan_parts(file: OpenedFile, limits: DecodeLimits, frames_per_part: int) -> VideoParts:
    """Cut a video into parts of about `frames_per_part` frames, by its index and its first picture.

    Returns:
        The parts; a single one where there is no key frame to cut at.

    Raises:
        VideoPartsError: it cannot be decoded in parts, or exceeds `limits`; the message says why.
        NotAVideoError, MediaLimitError, CorruptMediaError: as `VideoReader`.
    """
    video = VideoStreamFile(file, limits, 1)
    try:
        _check_kind(video, file.name)
        first = _first_frame(video, file.name)
        geometry = video.geometry(first)
        height, width = geometry.displayed
        limits.check_size(file.name, width, height, "displayed")
        info, described = video.info(geometry), repr(geometry)
    finally:
        video.close()
    packets, base = _listed(file, limits)
    _check_packets(packets, base, info.frames, limits, file.name)
    parts = VideoParts(info, described, tuple(_cut(packets, frames_per_part)))
    if len(parts.parts) > 1:
        # Key frames of one video are of one kind, mostly; what is seen here fails no worker later.
        with PartReader(file, parts, 1, limits, threads=1) as reader:
            reader.check()
    return parts


@dataclass(frozen=True, slots=True)
class _Listed:
    """A packet by the index: when it is shown and decoded, and whether it is a key frame."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_shown: bool


class _Blanked:
    """A file whose bytes are all zero, from a moment on."""

    def __init__(self, file: OpenedFile) -> None:
        self.name = file.name
        self.size_bytes = file.size_bytes
        self.blank = False
        self._file = file
        self._place = 0

    def read(self, size: int, /) -> bytes:
        if self.blank:
            data = bytes(max(0, min(size, self.size_bytes - self._place)))
        else:
            self._file.seek(self._place, 0)
            data = self._file.read(size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int, /) -> int:
        self._place = offset + (0, self._place, self.size_bytes)[whence]
        return self._place

    def tell(self) -> int:
        return self._place


def _check_kind(video: VideoStreamFile, name: str) -> None:
    if "mp4" not in video.format.split(","):
        raise VideoPartsError(f"{name}: a container of kind {video.format} has no index of all frames")
    if video.decoder.name not in _CODECS:
        raise VideoPartsError(f"{name}: key frames of {video.decoder.name} may lean on frames before them")


def _first_frame(video: VideoStreamFile, name: str) -> VideoFrame:
    try:
        for packet in video.packets():
            for frame in video.decoder.decode(packet if packet.size else None):
                if frame.interlaced_frame:
                    raise VideoPartsError(f"{name}: its pictures are interlaced")
                return frame
    except FFmpegError as error:
        raise CorruptMediaError(f"{name}: damaged at frame 0: {error.strerror}", decoded=0) from error
    raise VideoPartsError(f"{name}: it has no frame")


def _listed(file: OpenedFile, limits: DecodeLimits) -> tuple[list[_Listed], Fraction]:
    """List the packets in order of decoding, and return the seconds of a tick.

    What is a key frame is taken from the container's table: of blank pictures a parser says that none is, behind those
    that were read while the file was opened.
    """
    blanked = _Blanked(file)
    video = VideoStreamFile(blanked, limits, 1)
    try:
        blanked.blank = True
        packets: list[tuple[int | None, int | None, bool]] = []
        for packet in video.packets():
            if not packet.size:
                break
            limits.check_frames(file.name, len(packets) + 1)
            packets.append((packet.pts, packet.dts, not (packet.is_discard or packet.is_corrupt)))
        table = video.stream.index_entries
        if [entry.timestamp for entry in table] != [dts for _, dts, _ in packets]:
            raise VideoPartsError(f"{file.name}: its index is not that of its {len(packets)} frames")
        listed = [
            _Listed(pts, dts, entry.is_keyframe, shown) for (pts, dts, shown), entry in zip(packets, table, strict=True)
        ]
        return listed, video.time_base
    except FFmpegError as error:
        raise VideoPartsError(f"{file.name}: its index is not whole: {error.strerror}") from error
    finally:
        video.close()


def _check_packets(packets: Sequence[_Listed], base: Fraction, frames: int, limits: DecodeLimits, name: str) -> None:
    if len(packets) != frames or not packets:
        raise VideoPartsError(f"{name}: its index lists {len(packets)} frames of {frames}")
    if not all(packet.is_shown for packet in packets):
        raise VideoPartsError(f"{name}: an edit list hides some of its frames")
    shown = sorted(packet.pts for packet in packets if packet.pts is not None)
    decoded = [packet.dts for packet in packets if packet.dts is not None]
    times = [float(ticks * base) for ticks in shown]
    if len(times) != len(packets) or len(decoded) != len(packets):
        raise VideoPartsError(f"{name}: some of its frames have no time")
    if any(one >= other for one, other in pairwise(decoded)) or any(one >= other for one, other in pairwise(times)):
        raise VideoPartsError(f"{name}: the times of its frames do not rise")
    if not packets[0].is_key or packets[0].pts != shown[0]:
        raise VideoPartsError(f"{name}: it does not begin with a key frame")
    if times[-1] - times[0] > limits.max_duration_s:
        raise VideoPartsError(f"{name}: it is longer than {limits.max_duration_s:g} s")


def _cut(packets: Sequence[_Listed], frames_per_part: int) -> Iterator[VideoPart]:
    """Yield parts that begin at the key frames nearest to where they should."""
    shown = [packet.pts or 0 for packet in packets]
    earlier = list(accumulate(shown, max))
    later = list(accumulate(reversed(shown), min))[::-1]
    # Before such a key frame in time is what stands before it in the file, and nothing else: it is frame `index`.
    places = [
        index
        for index, packet in enumerate(packets)
        if index and packet.is_key and earlier[index - 1] < shown[index] == later[index]
    ]
    total = len(packets)
    begins = [0]
    while (found := bisect_right(places, begins[-1])) < len(places):
        aim = begins[-1] + frames_per_part
        after = max(found, bisect_left(places, aim))
        best = min(places[max(found, after - 1) : after + 1], key=lambda place: abs(place - aim))
        # What is left behind shall not be a part too small to be worth a worker.
        if total - best < frames_per_part // 2:
            break
        begins.append(best)
    for begin, end in pairwise([*begins, total]):
        border = () if end == total else (shown[end],)
        yield VideoPart(begin, end - begin, packets[begin].dts or 0, (*sorted(shown[begin:end]), *border))
