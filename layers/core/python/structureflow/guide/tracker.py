"""Which frames of a segment are given or filled, and which still lack guidance: logic, never pixels."""

from __future__ import annotations

from structureflow.arguments import index_of, shown
from structureflow.errors import GuidanceError


class GuidanceTracker:
    """Keeps, for each frame of a segment, whether it holds guidance. All ranges are inclusive.

    A frame is marked at the moment it is written, and never unmarked.

    >>> tracker = GuidanceTracker(73)
    >>> tracker.mark_guided(0, 19)
    >>> tracker.mark_guided(63, 72)
    >>> tracker.get_unguidanced_ranges()
    [(20, 62)]
    >>> tracker.get_anchor_frame_index(20)
    19
    """

    def __init__(self, total_frames: int) -> None:
        """Start with `total_frames` frames, none of them guided.

        Raises:
            GuidanceError: `total_frames` is not positive.
        """
        total = index_of(total_frames)
        if total is None or total < 1:
            raise GuidanceError(f"total_frames: expected a whole number from 1 on, got {shown(total_frames)}")
        self.total_frames = total
        self._guided = bytearray(total_frames)

    def mark_guided(self, first: int, last: int) -> None:
        """Mark frames `first` to `last`, inclusive, as holding guidance.

        Raises:
            GuidanceError: the range is empty or not inside of the segment.
        """
        if not self._holds(first) or not self._holds(last) or last < first:
            raise GuidanceError(
                f"guided frames: expected 0 <= first <= last < {self.total_frames}, got {shown(first)} to {shown(last)}"
            )
        self._guided[first : last + 1] = b"\x01" * (last + 1 - first)

    def mark_single_frame(self, index: int) -> None:
        """Mark frame `index` as holding guidance.

        Raises:
            GuidanceError: it is not inside of the segment.
        """
        self._check(index, "index")
        self.mark_guided(index, index)

    def is_guided(self, index: int) -> bool:
        """Say whether frame `index` holds guidance.

        Raises:
            GuidanceError: it is not inside of the segment.
        """
        self._check(index, "index")
        return bool(self._guided[index])

    def get_guided_ranges(self) -> list[tuple[int, int]]:
        """Return the longest runs of guided frames as (first, last), both inclusive, in order."""
        return self._runs(1)

    def get_unguidanced_ranges(self) -> list[tuple[int, int]]:
        """Return the longest runs of unguided frames as (first, last), both inclusive, in order."""
        return self._runs(0)

    def get_anchor_frame_index(self, range_start: int) -> int | None:
        """Return the last guided frame before `range_start`, or None if nothing is guided before.

        Raises:
            GuidanceError: `range_start` is not inside of the segment.
        """
        self._check(range_start, "range_start")
        found = self._guided.rfind(1, 0, range_start)
        return None if found < 0 else found

    def get_next_anchor_frame_index(self, range_end: int) -> int | None:
        """Return the first guided frame after `range_end`, or None if nothing is guided after.

        Raises:
            GuidanceError: `range_end` is not inside of the segment.
        """
        self._check(range_end, "range_end")
        found = self._guided.find(1, range_end + 1)
        return None if found < 0 else found

    def debug_summary(self) -> str:
        """Return one line for the log: counts, and all ranges as ``first-last``."""
        guided, unguided = self.get_guided_ranges(), self.get_unguidanced_ranges()
        return (
            f"{self.total_frames} frames: {sum(self._guided)} guided [{_text(guided)}], "
            f"{self.total_frames - sum(self._guided)} unguided [{_text(unguided)}]"
        )

    def _holds(self, frame: int) -> bool:
        number = index_of(frame)
        return number is not None and 0 <= number < self.total_frames

    def _check(self, frame: int, name: str) -> None:
        if not self._holds(frame):
            raise GuidanceError(f"{name}: expected a frame number, 0 to {self.total_frames - 1}, got {shown(frame)}")

    def _runs(self, wanted: int) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        first = self._guided.find(wanted)
        while first >= 0:
            stop = self._guided.find(1 - wanted, first)
            if stop < 0:
                stop = self.total_frames
            runs.append((first, stop - 1))
            first = self._guided.find(wanted, stop)
        return runs


def _text(ranges: list[tuple[int, int]]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
