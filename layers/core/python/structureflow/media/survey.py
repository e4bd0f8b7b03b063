"""What a video file really holds, found out without decoding more of it than its first frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.probe import VideoInfo, stored_frames
from structureflow.media.structure import broken_structure

__all__ = ["Survey", "survey_video"]


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in a video file.

    Attributes:
        info: what it says of itself, sizes as displayed.
        frames: how many it holds, by its packets; their pictures may still be damaged.
        damage: where the file breaks off, in words; None where it goes on to its end.
    """

    info: VideoInfo
    frames: int
    damage: str | None


def survey_video(path: Path, limits: DecodeLimits) -> Survey:
    """Open a local video, decode as many frames as `limits` ask for at least, and count the packets of all.

    Args:
        path: of the file; it is read once to its end.
        limits: bounds of what is accepted.

    Raises:
        InputNotFoundError, NotAVideoError, UnsupportedCodecError, MediaLimitError, CorruptMediaError: as `VideoReader`.
        VideoTooShortError: there are fewer frames than `limits` ask for.

    Example:
        >>> survey_video(Path("clip.mp4"), DecodeLimits()).frames
        50
    """
    with VideoReader(path, limits, threads=1) as reader:
        # behind the last frame it says that there are too few
        reader.skip(limits.min_frames)
        info = reader.info
    stored = stored_frames(path, limits)
    breaks_off = "the file breaks off in the middle of a frame" if stored.breaks_off else None
    return Survey(info, stored.frames, broken_structure(path) or breaks_off)
