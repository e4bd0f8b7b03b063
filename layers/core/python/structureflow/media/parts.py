"""Parts of a video, each of which is decoded alone, with the very pictures that decoding the whole gives.

`structureflow.media.part_plan` finds them in the container's index. What only decoding shows, `PartReader` finds, and
refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from structureflow.errors import CorruptMediaError, VideoPartsError
from structureflow.media.colour import RgbConverter
from structureflow.media.decode import DecodedFrame
from structureflow.media.limits import DecodeLimits
from structureflow.media.opened import OpenedFile
from structureflow.media.probe import VideoInfo, VideoStreamFile
from structureflow.media.timing import FrameClock

#: NAL units at which a decoder may begin: IDR of H.264 (table 7-1), BLA, IDR and CRA of HEVC (table 7-1).
_ENTRIES: Final = {"h264": (frozenset({5}), 0x1F, 0), "hevc": (frozenset(range(16, 22)), 0x3F, 1)}


@dataclass(frozen=True, slots=True)
class VideoPart:
    """A part of a video.

    Attributes:
        first: number of its first frame, which is a key frame; zero-based.
        frames: how many frames are its own.
        key_dts: when that key frame is decoded, in ticks of the stream's clock.
        pts: when its frames are shown, in ticks; rising. One more than `frames`, which is the next part's first one,
            in all parts but the last.
    """

    first: int
    frames: int
    key_dts: int
    pts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VideoParts:
    """A video, cut into parts.

    Attributes:
        info: as `VideoReader.info` of the whole.
        geometry: how its pictures are displayed; equal where they are displayed alike.
        parts: in order; together they have all frames.
    """

    info: VideoInfo
    geometry: str
    parts: tuple[VideoPart, ...]

    @property
    def frames(self) -> int:
        """Of the whole."""
        return self.parts[-1].first + self.parts[-1].frames


class PartReader:
    """Read the frames of one part in order, and the one after it; a context manager, and an iterable to walk once.

    Args:
        file: of the whole video.
        parts: how it is cut.
        number: which part.
        limits: as for `plan_parts`.
        threads: of decoding and conversion.

    Raises:
        VideoPartsError: the part begins otherwise than the index said.
        NotAVideoError, MediaLimitError: as `VideoReader`.
    """

    def __init__(
        self, file: OpenedFile, parts: VideoParts, number: int, limits: DecodeLimits, *, threads: int = 0
    ) -> None:
        self.part = parts.parts[number]
        self._name = file.name
        self._parts = parts
        self._threads = threads
        self._file = VideoStreamFile(file, limits, threads)
        origin_s = float(parts.parts[0].pts[0] * self._file.time_base)
        self._clock = FrameClock(self._file.time_base, self._file.fps, origin_s=origin_s)
        self._read = 0

    def __enter__(self) -> PartReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder; closing twice is no error."""
        self._file.close()

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Decode the part's frames, and the next part's first one; numbers and times are those of the whole video.

        Raises:
            VideoPartsError: frames come otherwise than the index said, or are interlaced.
            CorruptMediaError: a frame can't be decoded whole, or the file breaks off.
        """
        convert: RgbConverter | None = None
        for frame in self._decoded():
            geometry = self._file.geometry(frame)
            if convert is None:
                if repr(geometry) != self._parts.geometry:
                    raise VideoPartsError(f"{self._name}: its pictures change their shape at {self._here}")
                convert = RgbConverter(geometry.height, geometry.width, self._threads)
                shape = geometry
            try:
                image = convert(frame)
            except FFmpegError as error:
                raise self._corrupt(f"its {frame.format.name} pixels cannot be converted: {error.strerror}") from error
            shown = np.ascontiguousarray(shape.orientation.apply(shape.cropping.apply(image)))
            yield DecodedFrame(self.part.first + self._read - 1, self._clock(frame), shown)

    def check(self) -> None:
        """Look at the part's key frame, without decoding it.

        Raises:
            VideoPartsError: no part can begin there.
        """
        next(self._packets(), None)

    @property
    def _here(self) -> str:
        return f"frame {self.part.first + self._read}"

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in (*self._packets(), None):
            try:
                frames = self._file.decoder.decode(packet)
            except FFmpegError as error:
                raise self._corrupt(error.strerror or type(error).__name__) from error
            yield from self._expected(frames)
        if self._read != len(self.part.pts):
            raise VideoPartsError(
                f"{self._name}: expected {len(self.part.pts)} frames from {self.part.first} on, got {self._read}"
            )

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield the packets of the part and the key frame behind it: as many as there are frames."""
        try:
            self._file.seek(self.part.key_dts)
        except FFmpegError as error:
            raise VideoPartsError(f"{self._name}: its index leads nowhere at {self._here}") from error
        packets = self._file.packets()
        count = 0
        while count < len(self.part.pts):
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                raise self._corrupt(error.strerror or type(error).__name__) from error
            if packet is None or not packet.size:
                return
            if not count and packet.dts is not None and packet.dts < self.part.key_dts:
                # A demuxer may go back further than it was asked to.
                continue
            if not count:
                self._check_entry(packet)
            if packet.is_corrupt:
                raise self._corrupt("the file breaks off in the middle of a frame")
            count += 1
            yield packet

    def _check_entry(self, packet: Packet[VideoStream]) -> None:
        if (packet.dts, packet.pts) != (self.part.key_dts, self.part.pts[0]):
            raise VideoPartsError(f"{self._name}: its index leads elsewhere at {self._here}")
        extradata = self._file.decoder.extradata
        if not _enters(self._file.decoder.name, bytes(packet), bytes(extradata or b"")):
            raise VideoPartsError(
                f"{self._name}: frame {self.part.first} is a key frame that leans on frames before it"
            )

    def _expected(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if self._read == len(self.part.pts) or frame.pts != self.part.pts[self._read]:
                raise VideoPartsError(f"{self._name}: {self._here} is not shown when its index says")
            if frame.interlaced_frame:
                raise VideoPartsError(f"{self._name}: {self._here} is interlaced")
            if frame.is_corrupt:
                raise self._corrupt("a part of the picture is missing")
            self._read += 1
            yield frame

    def _corrupt(self, reason: str) -> CorruptMediaError:
        number = self.part.first + self._read
        return CorruptMediaError(f"{self._name}: damaged at frame {number}: {reason}", decoded=number)


def _enters(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Tell whether a decoder that knows nothing may begin with this packet (ISO/IEC 14496-15, 5.3.3 and 8.3.3)."""
    if codec not in _ENTRIES:
        return True
    wanted, mask, shift = _ENTRIES[codec]
    place = {"h264": 4, "hevc": 21}[codec]
    if len(extradata) <= place or extradata[0] != 1:
        return False
    length = (extradata[place] & 3) + 1
    start = 0
    while start + length < len(packet):
        size = int.from_bytes(packet[start : start + length], "big")
        if packet[start + length] >> shift & mask in wanted:
            return True
        start += length + size
    return False
