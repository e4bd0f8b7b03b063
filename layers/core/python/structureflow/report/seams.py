"""Where segments meet: the last picture of one beside the first of the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from structureflow.report.segments import SegmentView

#: Pictures of more borders than this would make the page heavy; segments show theirs anyway.
MAX_SEAMS: Final = 60


@dataclass(frozen=True, slots=True)
class Seam:
    """The border between segments `before` and `after`: base64 JPEGs of the frames on both sides of it."""

    before: int
    after: int
    last: str
    first: str
    last_frame: int


def seams_between(segments: Sequence[SegmentView]) -> list[Seam]:
    """Return the borders of which both pictures are known, at most `MAX_SEAMS`."""
    found = []
    for one, other in pairwise(segments):
        last, first = _guide(one, one.result.frames - 1), _guide(other, 0)
        if last is not None and first is not None:
            found.append(Seam(one.result.index, other.result.index, last, first, one.result.frames - 1))
    return found[:MAX_SEAMS]


def _guide(view: SegmentView, frame: int) -> str | None:
    """Return the guide's picture of a frame, if the page has one."""
    if view.pictures is None:
        return None
    row = next((row for row in view.pictures.rows if row.label == "Guide"), None)
    at = next((at for at, (index, _) in enumerate(view.pictures.columns) if index == frame), None)
    return row.pictures[at] if row is not None and at is not None else None
