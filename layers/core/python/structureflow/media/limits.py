"""Bounds of what is decoded, and the check of what a stream tells of itself before its first picture."""

from __future__ import annotations

from dataclasses import dataclass

from structureflow.arguments import check_fields, number, whole
from structureflow.errors import MediaLimitError
from structureflow.limits import MAX_VIDEO_S, MAX_VIDEO_SIDE_PX, MIN_VIDEO_SIDE_PX


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds of what is decoded.

    Attributes:
        max_frames: most frames.
        min_frames: fewest frames; a structure video needs two to have motion.
        max_side_px, min_side_px: bounds of width and of height, as stored and as displayed.
        max_duration_s: longest time from the first frame to the last.
    """

    max_frames: int = 5000
    min_frames: int = 2
    max_side_px: int = MAX_VIDEO_SIDE_PX
    min_side_px: int = MIN_VIDEO_SIDE_PX
    max_duration_s: float = MAX_VIDEO_S

    def __post_init__(self) -> None:
        """Refuse what bounds nothing.

        Raises:
            InvalidArgumentError: a value of another type, or below 1 (seconds: not above 0).
        """
        sides = whole(1)
        check_fields(self, max_frames=sides, min_frames=whole(0), max_side_px=sides, min_side_px=sides)
        check_fields(self, max_duration_s=number(above=0))

    @property
    def max_pixels(self) -> int:
        """Most pixels of one picture that a decoder may allocate memory for."""
        return self.max_side_px**2

    def check_size(self, name: str, width_px: int, height_px: int, what: str) -> None:
        """Refuse a picture whose sides are outside the bounds.

        Args:
            name: of the file, for the message.
            width_px, height_px: the picture's size.
            what: which size it is, as in ``displayed``.

        Raises:
            MediaLimitError: a side is too large or too small.
        """
        smallest, largest = sorted((width_px, height_px))
        if smallest < self.min_side_px or largest > self.max_side_px:
            raise MediaLimitError(
                f"{name}: expected sides of {self.min_side_px} to {self.max_side_px} pixels, "
                f"got {width_px}x{height_px} {what}",
                width_px=width_px,
                height_px=height_px,
            )

    def check_frames(self, name: str, frames: int) -> None:
        """Refuse a number of frames, decoded or counted as packets, that is too large.

        Raises:
            MediaLimitError: there are more than `max_frames`.
        """
        if frames > self.max_frames:
            raise MediaLimitError(
                f"{name}: expected at most {self.max_frames} frames, got more", frames=frames, limit=self.max_frames
            )

    def check_time(self, name: str, time_s: float) -> None:
        """Refuse a frame that is shown too long after the first one.

        Raises:
            MediaLimitError: it is later than `max_duration_s`.
        """
        if time_s > self.max_duration_s:
            raise MediaLimitError(
                f"{name}: expected at most {self.max_duration_s:g} s, got a frame at {time_s:.3f} s",
                time_s=time_s,
                limit=self.max_duration_s,
            )
