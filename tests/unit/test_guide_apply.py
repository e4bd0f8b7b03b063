"""`apply_structure_motion`: the renderer's pixels for a list of frames, and the tracker's marks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import FlowError, GuidanceError, InvalidArgumentError
from structureflow.guide.apply import apply_structure_motion
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.guide.tracker import GuidanceTracker
from structureflow.models.job import Segment
from structureflow.references import Reference
from structureflow.testing.scenes import ArrayFlows, join, pan_scene, psnr_db, rotation_scene

Frame = NDArray[np.uint8]


class Pictures:
    """Guide images named by the frame that they stand at."""

    def __init__(self, frames: list[Frame]) -> None:
        self._frames = frames

    def image(self, reference: Reference) -> Frame:
        return self._frames[int(str(reference))]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        raise AssertionError(f"{reference} {first} {count}")


class Kept:
    """Copies of what is rendered."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.masks: list[Mask] = []

    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        assert index == len(self.frames)
        self.frames.append(guide.copy())
        self.masks.append(mask)


def given(count: int, guided: list[int], pictures: NDArray[np.uint8]) -> tuple[list[Frame], GuidanceTracker]:
    """Frames with a picture where one is guided, junk elsewhere."""
    frames = [np.full_like(pictures[0], 7) for _ in range(count)]
    tracker = GuidanceTracker(count)
    for index in guided:
        frames[index] = pictures[index % len(pictures)]
        tracker.mark_single_frame(index)
    return frames, tracker


@pytest.mark.parametrize("treatment", ["adjust", "clip", "retime"])
@pytest.mark.parametrize("anchors", ["start", "both"])
@pytest.mark.parametrize("strength", [0.0, 1.0, 1.7])
def test_it_gives_what_the_renderer_gives(treatment: Any, anchors: Any, strength: float) -> None:
    scene = join(rotation_scene(0.02, frames=8), pan_scene(2, frames=9))
    guided = [2, 3, 9, 17]
    frames, tracker = given(20, guided, scene.frames)
    before = [frame.copy() for frame in frames]
    flows = ArrayFlows.of(scene)

    filled = apply_structure_motion(
        frames, tracker, flows, treatment=treatment, motion_strength=strength, anchors=anchors, flow_start=1
    )

    segment = Segment.model_validate({"frames": 20, "guides": [{"at": index, "image": str(index)} for index in guided]})
    sink = Kept()
    total = flows.meta.total_flows
    settings = RenderSettings(96, 128, treatment, anchors, strength, 1, total)
    outcome = render_segment(segment, flows, Pictures(frames), settings, sink)
    np.testing.assert_array_equal(np.stack(filled), np.stack(sink.frames))
    assert tracker.get_unguidanced_ranges() == list(outcome.left_unguided)
    assert [tracker.is_guided(index) for index in range(20)] == [mask == 0 for mask in sink.masks]
    assert all(filled[index] is frames[index] for index in guided)
    np.testing.assert_array_equal(np.stack(frames), np.stack(before))


def test_flows_go_on_from_range_to_range_and_anchors_start_anew() -> None:
    scene = pan_scene(3, frames=12)
    frames, tracker = given(12, [0, 5], scene.frames)
    filled = apply_structure_motion(frames, tracker, ArrayFlows.of(scene), treatment="clip")
    assert tracker.get_unguidanced_ranges() == []
    for index in range(1, 5):
        assert psnr_db(filled[index], scene.frames[index], margin_px=32) > 45
    for index in range(6, 12):
        assert psnr_db(filled[index], scene.frames[index], margin_px=32) > 45


def test_clip_leaves_the_rest_grey_and_unmarked() -> None:
    scene = pan_scene(1, frames=4)
    frames, tracker = given(9, [1], scene.frames)
    filled = apply_structure_motion(frames, tracker, ArrayFlows.of(scene), treatment="clip")
    # the flow of the frame before the first guide is played by it, although it stays grey
    assert tracker.get_unguidanced_ranges() == [(0, 0), (4, 8)]
    for index in (0, 4, 5, 6, 7, 8):
        assert (filled[index] == 128).all()


def test_forward_flows_as_arrays_move_content_along() -> None:
    """A dot at x = 30 is at 30 + 4 k after k steps; flows as a list, as an array, or as a source do the same."""
    frames = [np.zeros((48, 96, 3), np.uint8) for _ in range(6)]
    frames[0][20:23, 29:32] = 255
    forward = np.zeros((5, 48, 96, 2))
    forward[..., 0] = 4
    whole = [
        apply_structure_motion(frames, marked(6), flows, treatment="clip")
        for flows in (forward, list(forward.astype(np.float32)), ArrayFlows(forward, None))
    ]
    for index in range(1, 6):
        _, xs = np.nonzero(whole[0][index][..., 0] > 127)
        assert xs.mean() == pytest.approx(30 + 4 * index, abs=0.3)
    for other in whole[1:]:
        np.testing.assert_array_equal(np.stack(whole[0]), np.stack(other))


def marked(count: int) -> GuidanceTracker:
    tracker = GuidanceTracker(count)
    tracker.mark_single_frame(0)
    return tracker


def test_a_single_frame_and_no_flows() -> None:
    frame = pan_scene(1, frames=2).frames[0]
    assert apply_structure_motion([frame], marked(1), None)[0] is frame
    nothings: list[list[Frame] | None] = [None, []]
    for nothing in nothings:
        tracker = marked(3)
        filled = apply_structure_motion([frame, frame, frame], tracker, nothing)
        assert (filled[1] == 128).all()
        assert tracker.get_unguidanced_ranges() == [(1, 2)]
    free = GuidanceTracker(2)
    filled = apply_structure_motion([frame, frame], free, ArrayFlows.of(pan_scene(1)))
    assert all((picture == 128).all() for picture in filled)
    assert free.get_unguidanced_ranges() == [(0, 1)]


def test_frames_are_marked_when_they_are_written_and_not_before() -> None:
    """A guided frame that cannot be used ends the work: what was written before it is marked, nothing behind."""
    scene = pan_scene(1, frames=12)
    frames, tracker = given(12, [0, 4], scene.frames)
    frames[4] = frames[4][:50]
    with pytest.raises(GuidanceError, match=r"guide at \(4, 4\)"):
        apply_structure_motion(frames, tracker, ArrayFlows.of(scene), treatment="clip")
    assert tracker.get_guided_ranges() == [(0, 4)]


def test_refusals() -> None:
    scene = pan_scene(1, frames=4)
    frames = list(scene.frames)
    with pytest.raises(GuidanceError, match="expected 5, as the tracker has, got 4"):
        apply_structure_motion(frames, marked(5), None)
    with pytest.raises(InvalidArgumentError, match="uint8"):
        apply_structure_motion([frame.astype(np.float32) for frame in frames], marked(4), None)
    tracker = marked(4)
    tracker.mark_single_frame(3)
    with pytest.raises(GuidanceError, match=r"guide at \(3, 3\)"):
        apply_structure_motion([*frames[:3], frames[3][:50]], tracker, None)
    with pytest.raises(GuidanceError, match="motion_strength"):
        apply_structure_motion(frames, marked(4), None, motion_strength=11)
    with pytest.raises(GuidanceError, match="flow window"):
        apply_structure_motion(frames, marked(4), ArrayFlows.of(scene), flow_stop=9)
    with pytest.raises(FlowError, match="flow 1: expected shape"):
        apply_structure_motion(frames, marked(4), [np.zeros((4, 4, 2)), np.zeros((4, 5, 2))])
    with pytest.raises(FlowError, match="flow 0"):
        apply_structure_motion(frames, marked(4), [np.full((4, 4, 2), np.nan)])
