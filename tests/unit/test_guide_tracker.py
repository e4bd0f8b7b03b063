"""Which frames hold guidance: ranges, anchors, refusals."""

from __future__ import annotations

import pytest

from structureflow.errors import GuidanceError
from structureflow.guide.tracker import GuidanceTracker


def test_the_original_example() -> None:
    tracker = GuidanceTracker(73)
    tracker.mark_guided(0, 19)
    tracker.mark_guided(63, 72)
    assert tracker.get_unguidanced_ranges() == [(20, 62)]
    assert tracker.get_guided_ranges() == [(0, 19), (63, 72)]
    assert tracker.get_anchor_frame_index(20) == 19
    assert tracker.get_next_anchor_frame_index(62) == 63


def test_nothing_guided_is_one_range_without_anchor() -> None:
    tracker = GuidanceTracker(5)
    assert tracker.get_unguidanced_ranges() == [(0, 4)]
    assert tracker.get_anchor_frame_index(0) is None
    assert tracker.get_next_anchor_frame_index(4) is None


def test_frames_written_one_by_one_close_a_range() -> None:
    tracker = GuidanceTracker(6)
    tracker.mark_single_frame(0)
    tracker.mark_single_frame(3)
    assert tracker.get_unguidanced_ranges() == [(1, 2), (4, 5)]
    tracker.mark_single_frame(1)
    assert tracker.get_unguidanced_ranges() == [(2, 2), (4, 5)]
    assert tracker.get_anchor_frame_index(2) == 1
    for index in (2, 4, 5):
        tracker.mark_single_frame(index)
    assert tracker.get_unguidanced_ranges() == []
    assert tracker.is_guided(5)


def test_marking_twice_changes_nothing() -> None:
    tracker = GuidanceTracker(4)
    tracker.mark_guided(1, 2)
    tracker.mark_guided(2, 2)
    assert tracker.get_unguidanced_ranges() == [(0, 0), (3, 3)]


def test_the_anchor_may_lie_further_back() -> None:
    tracker = GuidanceTracker(9)
    tracker.mark_single_frame(2)
    assert tracker.get_anchor_frame_index(7) == 2
    assert tracker.get_anchor_frame_index(2) is None


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (0, 4), (3, 2), (4, 4)])
def test_ranges_outside_are_refused(first: int, last: int) -> None:
    with pytest.raises(GuidanceError, match=f"got {first} to {last}"):
        GuidanceTracker(4).mark_guided(first, last)


def test_other_refusals() -> None:
    with pytest.raises(GuidanceError, match="total_frames"):
        GuidanceTracker(0)
    with pytest.raises(GuidanceError, match="range_start"):
        GuidanceTracker(3).get_anchor_frame_index(3)
    with pytest.raises(GuidanceError, match="range_end"):
        GuidanceTracker(3).get_next_anchor_frame_index(-1)
    with pytest.raises(GuidanceError, match="frame"):
        GuidanceTracker(3).is_guided(3)


def test_summary_names_counts_and_ranges() -> None:
    tracker = GuidanceTracker(10)
    tracker.mark_guided(0, 2)
    tracker.mark_single_frame(9)
    assert tracker.debug_summary() == "10 frames: 4 guided [0-2, 9], 6 unguided [3-8]"
