"""A whole segment on drawn scenes: where content goes, which frames are kept, what both anchors and cuts do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import FlowError, GuidanceError
from structureflow.flow.fields import FlowSource
from structureflow.guide.given import cross_fade
from structureflow.guide.masks import MaskValue, grey_frame, mask_frame
from structureflow.guide.ports import MotionSink
from structureflow.guide.render import RenderOutcome, RenderSettings, render_segment
from structureflow.models.job import Segment
from structureflow.references import Reference
from structureflow.testing.scenes import (
    ArrayFlows,
    Scene,
    join,
    occlusion_scene,
    pan_scene,
    psnr_db,
    rotation_scene,
    zoom_scene,
)

Frame = NDArray[np.uint8]


class SceneGuides:
    """Guides named by number: frame n of a scene; a video is the scene itself."""

    def __init__(self, frames: Frame) -> None:
        self._frames = frames
        self.asked: list[Reference] = []

    def image(self, reference: Reference) -> Frame:
        self.asked.append(reference)
        frame: Frame = self._frames[int(str(reference))].copy()
        frame.setflags(write=False)
        return frame

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        self.asked.append(reference)
        shared = np.empty_like(self._frames[0])
        for frame in self._frames[first : first + count]:
            np.copyto(shared, frame)
            yield shared


class Kept:
    """A sink that keeps copies, and checks that frames come once and in order."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.masks: list[int] = []

    def write(self, index: int, guide: Frame, mask: MaskValue) -> None:
        assert index == len(self.frames)
        self.frames.append(guide.copy())
        self.masks.append(mask)


class KeptMotion(Kept):
    """A sink that wants everything."""

    wants_flow = True
    wants_visibility = True

    def __init__(self) -> None:
        super().__init__()
        self.flows: list[NDArray[np.float32]] = []
        self.visibilities: list[Frame] = []

    def flow(self, index: int, flow: NDArray[np.float32]) -> None:
        assert index == len(self.flows) == len(self.frames)
        self.flows.append(flow.copy())

    def visibility(self, index: int, visibility: Frame) -> None:
        assert index == len(self.visibilities) == len(self.frames)
        self.visibilities.append(visibility.copy())


def segment(frames: int, *guides: dict[str, Any]) -> Segment:
    return Segment.model_validate({"frames": frames, "guides": list(guides)})


def gap(count: int, start: int = 0, end: int | None = None) -> Segment:
    """One gap of `count` frames between scene frames `start` and `end`."""
    last = count + 1 if end is None else end
    return segment(count + 2, {"at": 0, "image": str(start)}, {"at": count + 1, "image": str(last)})


def render(
    wanted: Segment, flows: FlowSource | None, frames: Frame, sink: Kept | None = None, **options: Any
) -> tuple[Kept, RenderOutcome]:
    sink = sink or Kept()
    height, width = frames.shape[1:3]
    chosen: dict[str, Any] = {
        "height": height,
        "width": width,
        "treatment": "clip",
        "anchors": "start",
        "motion_strength": 1.0,
        "flow_start": 0,
        "flow_stop": flows.meta.total_flows if flows else 0,
    }
    outcome = render_segment(wanted, flows, SceneGuides(frames), RenderSettings(**chosen | options), sink)
    assert len(sink.frames) == wanted.frames
    return sink, outcome


# --- where content goes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scene", "least_db"),
    [
        (pan_scene(3), 50),
        (pan_scene(0, -2), 50),
        (pan_scene(1.5, 0.75), 36),
        (zoom_scene(1.02), 34),
        (zoom_scene(0.98), 34),
        (rotation_scene(0.02), 34),
    ],
)
def test_the_anchor_becomes_the_real_frames(scene: Scene, least_db: float) -> None:
    sink, _ = render(gap(10), ArrayFlows.of(scene), scene.frames)
    for index in range(1, 11):
        assert psnr_db(sink.frames[index], scene.frames[index], margin_px=32) > least_db


def test_a_pan_to_the_right_moves_content_to_the_right() -> None:
    """A bright dot starts at x = 30 and is at 30 + 4 k after k steps; pulled along the forward flow it goes left."""
    frames = np.zeros((7, 48, 96, 3), np.uint8)
    frames[:, 20:23, 29:32] = 255
    forward = np.zeros((6, 48, 96, 2), np.float32)
    forward[..., 0] = 4
    for flows in (ArrayFlows(forward, -forward), ArrayFlows(forward, None)):
        sink, _ = render(gap(5), flows, frames)
        for index in range(1, 6):
            ys, xs = np.nonzero(sink.frames[index][..., 0] > 127)
            assert xs.mean() == pytest.approx(30 + 4 * index, abs=0.3)
            assert ys.mean() == pytest.approx(21, abs=0.3)


def test_the_end_anchor_is_carried_back() -> None:
    scene = pan_scene(3)
    later = segment(11, {"at": 10, "image": "11"})
    sink, outcome = render(later, ArrayFlows.of(scene), scene.frames, anchors="both")
    assert outcome.filled == ((0, 9),)
    # frame 0 is one flow on, and the way into the anchor is the last flow: it is looked at, not consumed
    for index in range(10):
        assert psnr_db(sink.frames[index], scene.frames[index + 1], margin_px=36) > 45
    assert outcome.flows_used == 10


@pytest.mark.parametrize("treatment", ["adjust", "clip", "retime"])
def test_both_anchors_share_by_time_where_both_are_seen(treatment: str) -> None:
    """Between a dark and a bright picture and without motion, brightness rises evenly."""
    still = np.zeros((12, 24, 32, 2), np.float32)
    ends = np.stack([np.full((24, 32, 3), 40, np.uint8), np.full((24, 32, 3), 220, np.uint8)])
    sink, _ = render(gap(9, 0, 1), ArrayFlows(still, still), ends, anchors="both", treatment=treatment)
    for index, frame in enumerate(sink.frames):
        assert np.abs(frame - (40 + 180 * index / 10)).max() <= 1.5


def test_one_way_lost_is_found_from_the_other_side() -> None:
    """With both anchors, what leaves the frame or comes from behind the disc is seen by one of them."""
    scene = occlusion_scene(frames=16)
    one, _ = render(gap(14), ArrayFlows.of(scene), scene.frames)
    two, _ = render(gap(14), ArrayFlows.of(scene), scene.frames, anchors="both")
    single = np.mean([psnr_db(one.frames[i], scene.frames[i]) for i in range(1, 15)])
    double = np.mean([psnr_db(two.frames[i], scene.frames[i]) for i in range(1, 15)])
    assert double > single + 4


def test_sampling_once_stays_sharp() -> None:
    scene = pan_scene(0.37, 0.21, frames=32)
    sink, _ = render(gap(30), ArrayFlows.of(scene), scene.frames)

    def detail(frame: Frame) -> float:
        inner = frame[8:-8, 16:-8].astype(np.float64)
        return float((np.diff(inner, 2, axis=0) ** 2).mean() + (np.diff(inner, 2, axis=1) ** 2).mean())

    assert detail(sink.frames[30]) > 0.85 * detail(scene.frames[30])


def test_flows_of_a_small_grid_are_scaled_and_cropped_like_the_guides() -> None:
    """Flow at half size of a wide video, output square: motion is doubled, and only the middle of it is shown."""
    scene = pan_scene(4, 2, frames=6, height=64, width=128)
    small = scene.forward[:, ::2, ::2] / 2
    middle = np.ascontiguousarray(scene.frames[:, :, 32:96])
    flows = ArrayFlows(small, -small, original=(64, 128))
    sink, _ = render(gap(4), flows, middle)
    for index in range(1, 5):
        assert psnr_db(sink.frames[index], middle[index], margin_px=20) > 45


# --- treatments --------------------------------------------------------------------------------------


def travelled(sink: Kept, frames: Frame, index: int, most: int = 60) -> int:
    """How far (in whole pixels to the right) frame `index` is from frame 0, by best match."""
    width = frames.shape[2]
    moved, still = sink.frames[index].astype(int), frames[0].astype(int)
    errors = [np.abs(moved[:, shift:] - still[:, : width - shift]).mean() for shift in range(most)]
    assert min(errors) < 1
    return int(np.argmin(errors))


@pytest.mark.parametrize(("count", "travel"), [(10, 20), (20, 40), (5, 10)])
def test_adjust_changes_the_travel(count: int, travel: int) -> None:
    scene = pan_scene(2, frames=21)
    sink, outcome = render(gap(count, 0, 0), ArrayFlows.of(scene), scene.frames, treatment="adjust")
    assert travelled(sink, scene.frames, count) == travel
    assert outcome.left_unguided == ()


@pytest.mark.parametrize("count", [6, 10, 14, 20, 40, 60])
def test_retime_keeps_the_travel_at_any_ratio(count: int) -> None:
    scene = pan_scene(2, frames=21)
    sink, _ = render(gap(count, 0, 0), ArrayFlows.of(scene), scene.frames, treatment="retime")
    assert travelled(sink, scene.frames, count) == 40
    if count % 2 == 0:
        assert travelled(sink, scene.frames, count // 2) == 20


@pytest.mark.parametrize("count", [3, 5, 20, 30])
@pytest.mark.parametrize("anchors", ["start", "both"])
def test_retime_of_a_turn_ends_at_the_real_frame(count: int, anchors: str) -> None:
    scene = rotation_scene(0.02, frames=11)
    wanted = segment(count + 1, {"at": 0, "image": "0"})
    sink, _ = render(wanted, ArrayFlows.of(scene), scene.frames, treatment="retime", anchors=anchors)
    assert psnr_db(sink.frames[-1], scene.frames[10], margin_px=30) > 32


def test_clip_leaves_the_rest_unguided_grey_and_white() -> None:
    scene = pan_scene(2, frames=6)
    sink, outcome = render(gap(9, 0, 5), ArrayFlows.of(scene), scene.frames)
    assert outcome.filled == ((1, 5),)
    assert outcome.left_unguided == ((6, 9),)
    assert outcome.unguided == ((1, 9),)
    assert outcome.flows_used == 5
    assert sink.masks == [0] * 6 + [255] * 4 + [0]
    assert all((frame == 128).all() for frame in sink.frames[6:10])


def test_both_anchors_under_clip_fill_no_frame_that_has_no_flow() -> None:
    scene = pan_scene(2, frames=6)
    _, outcome = render(gap(9, 0, 5), ArrayFlows.of(scene), scene.frames, anchors="both")
    assert outcome.left_unguided == ((6, 9),)


# --- ranges ------------------------------------------------------------------------------------------


def test_flows_are_consumed_in_order_and_the_anchor_is_reset_at_each_range() -> None:
    scene = pan_scene(1, frames=12)
    forward = scene.forward.copy()
    forward[..., 0] = np.array([1, 1, 1, 5, 5, 5, 0, 0, 0, 0, 0], np.float32)[:, None, None]
    wanted = segment(9, {"at": 0, "image": "0"}, {"at": [4, 5], "image": "0"})
    sink, outcome = render(wanted, ArrayFlows(forward, -forward), scene.frames)
    assert outcome.filled == ((1, 3), (6, 8))
    assert [travelled(sink, scene.frames, index) for index in (1, 2, 3)] == [1, 2, 3]
    assert [travelled(sink, scene.frames, index) for index in (6, 7, 8)] == [5, 10, 15]


def test_before_the_first_guide_nothing_is_carried_but_flows_pass() -> None:
    scene = pan_scene(1, frames=12)
    forward = scene.forward.copy()
    forward[..., 0] = np.arange(11, dtype=np.float32)[:, None, None]
    wanted = segment(6, {"at": 2, "image": "0"})
    sink, outcome = render(wanted, ArrayFlows(forward, -forward), scene.frames)
    assert sink.masks == [255, 255, 0, 0, 0, 0]
    assert all((frame == 128).all() for frame in sink.frames[:2])
    assert outcome.left_unguided == ((0, 1),)
    assert [travelled(sink, scene.frames, index) for index in (3, 4, 5)] == [2, 5, 9]


def test_no_guides_at_all() -> None:
    scene = pan_scene(1)
    sink, outcome = render(segment(4), ArrayFlows.of(scene), scene.frames, anchors="both")
    assert sink.masks == [255] * 4
    assert (outcome.filled, outcome.left_unguided) == ((), ((0, 3),))


def test_no_flows_at_all() -> None:
    scene = pan_scene(1)
    for flows, start in ((None, 0), (ArrayFlows.of(scene), 4)):
        sink, outcome = render(gap(3), flows, scene.frames, anchors="both", flow_start=start, flow_stop=start)
        assert sink.masks == [0, 255, 255, 255, 0]
        assert outcome.left_unguided == ((1, 3),)
        assert outcome.flows_used == 0


def test_nothing_unguided() -> None:
    scene = pan_scene(1)
    sink, outcome = render(segment(3, {"at": [0, 2], "image": "4"}), ArrayFlows.of(scene), scene.frames)
    assert sink.masks == [0, 0, 0]
    assert (outcome.unguided, outcome.filled, outcome.left_unguided, outcome.flows_used) == ((), (), (), 0)


def test_a_window_is_kept_to() -> None:
    scene = pan_scene(1, frames=30)
    flows = ArrayFlows.of(scene)
    render(gap(8, 10, 19), flows, scene.frames, flow_start=10, flow_stop=18)
    assert flows.reads == [("backward", 10, 18)]
    with pytest.raises(GuidanceError, match="flow window"):
        render(gap(8), flows, scene.frames, flow_start=10, flow_stop=31)


# --- cuts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut_scene() -> Scene:
    return join(pan_scene(2, frames=7), zoom_scene(1.02, frames=9))


def test_from_the_start_nothing_is_carried_across_a_cut(cut_scene: Scene) -> None:
    sink, outcome = render(gap(13), ArrayFlows.of(cut_scene), cut_scene.frames)
    assert outcome.filled == ((1, 6),)
    assert outcome.left_unguided == ((7, 13),)
    assert psnr_db(sink.frames[6], cut_scene.frames[6], margin_px=20) > 45


def test_both_anchors_meet_at_the_cut(cut_scene: Scene) -> None:
    sink, outcome = render(gap(13), ArrayFlows.of(cut_scene), cut_scene.frames, anchors="both")
    assert outcome.left_unguided == ()
    for index in range(1, 14):
        assert psnr_db(sink.frames[index], cut_scene.frames[index], margin_px=24) > 33


@pytest.mark.parametrize("count", [5, 9, 14, 31])
@pytest.mark.parametrize("treatment", ["adjust", "retime"])
def test_other_treatments_mix_nothing_across_a_cut(cut_scene: Scene, treatment: str, count: int) -> None:
    """Every filled frame shows one of the two scenes, none of them the noise between."""
    ends = np.stack([np.full((96, 128, 3), 40, np.uint8), np.full((96, 128, 3), 220, np.uint8)])
    sink, outcome = render(gap(count, 0, 1), ArrayFlows.of(cut_scene), ends, anchors="both", treatment=treatment)
    assert outcome.left_unguided == ()
    values = [int(frame[48, 64, 0]) for frame in sink.frames]
    assert set(values) == {40, 220}
    assert values == sorted(values)


def test_between_two_cuts_frames_stay_unguided() -> None:
    scene = join(join(pan_scene(1, frames=4), pan_scene(2, frames=4)), pan_scene(1, frames=4))
    _, outcome = render(gap(10), ArrayFlows.of(scene), scene.frames, anchors="both")
    assert scene.cuts == (3, 7)
    assert outcome.left_unguided == ((4, 7),)


def test_a_cut_right_before_the_end_anchor_stops_it() -> None:
    scene = join(pan_scene(1, frames=6), pan_scene(2, frames=4))
    both, outcome = render(gap(5), ArrayFlows.of(scene), scene.frames, anchors="both")
    start, _ = render(gap(5), ArrayFlows.of(scene), scene.frames)
    assert outcome.left_unguided == ()
    for one, other in zip(both.frames, start.frames, strict=True):
        np.testing.assert_array_equal(one, other)


# --- strength ----------------------------------------------------------------------------------------


def test_strength_zero_leaves_the_anchor_still_to_the_bit() -> None:
    scene = zoom_scene(1.05)
    sink, _ = render(gap(8), ArrayFlows.of(scene), scene.frames, motion_strength=0.0)
    for index in range(1, 9):
        np.testing.assert_array_equal(sink.frames[index], scene.frames[0])
        assert sink.masks[index] == 0


def test_motionless_flows_leave_the_anchor_still_to_the_bit() -> None:
    frames = pan_scene(0, height=90, width=150).frames
    flows = ArrayFlows(np.zeros((9, 36, 52, 2)), np.zeros((9, 36, 52, 2)), original=(180, 260))
    sink, _ = render(gap(8), flows, frames)
    for index in range(1, 9):
        np.testing.assert_array_equal(sink.frames[index], frames[0])


@pytest.mark.parametrize(("strength", "travel"), [(0.5, 8), (2.0, 32)])
def test_strength_scales_the_way(strength: float, travel: int) -> None:
    scene = pan_scene(2)
    sink, _ = render(gap(8), ArrayFlows.of(scene), scene.frames, motion_strength=strength)
    assert travelled(sink, scene.frames, 8) == travel


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_strength_scales_the_steps_of_a_zoom(strength: float) -> None:
    scene = zoom_scene(1.02)
    truth = zoom_scene(1.02**strength)
    sink, _ = render(gap(8, 0, 0), ArrayFlows.of(scene), scene.frames, motion_strength=strength)
    assert psnr_db(sink.frames[8], truth.frames[8], margin_px=16) > 32


def test_strength_bends_no_turn() -> None:
    """Twice the motion of a turn is twice the angle, not twice the chord."""
    scene = rotation_scene(0.03)
    truth = rotation_scene(0.06)
    sink, _ = render(gap(8, 0, 0), ArrayFlows.of(scene), scene.frames, motion_strength=2.0)
    assert psnr_db(sink.frames[8], truth.frames[8], margin_px=32) > 27


def test_strength_holds_for_flows_of_one_direction_too() -> None:
    scene = pan_scene(2)
    sink, _ = render(gap(8), ArrayFlows.of(scene, backward=False), scene.frames, motion_strength=1.5)
    assert travelled(sink, scene.frames, 8) == 24


# --- guides ------------------------------------------------------------------------------------------


def test_every_kind_of_guide_is_shown_as_given() -> None:
    scene = pan_scene(2, frames=12)
    wanted = segment(
        12,
        {"at": [0, 1], "image": "3"},
        {"at": 2, "image": "7"},
        {"at": [3, 6], "video": "v", "from": 4},
        {"at": [7, 11], "fade": ["1", "9"]},
    )
    sink, _ = render(wanted, ArrayFlows.of(scene), scene.frames)
    for index, number in ((0, 3), (1, 3), (2, 7), (3, 4), (4, 5), (5, 6), (6, 7), (11, 9)):
        np.testing.assert_array_equal(sink.frames[index], scene.frames[number])
    for place, index in enumerate(range(7, 12), start=1):
        exact = scene.frames[1] + (scene.frames[9].astype(float) - scene.frames[1]) * place / 5
        assert np.abs(sink.frames[index] - exact).max() <= 0.6
    assert sink.masks == [0] * 12


def test_a_video_guide_is_an_anchor_at_its_last_and_first_frame() -> None:
    scene = pan_scene(2, frames=12)
    wanted = segment(8, {"at": [0, 2], "video": "v"}, {"at": [6, 7], "video": "v", "from": 6})
    flows = ArrayFlows.of(scene)
    start, _ = render(wanted, flows, scene.frames, flow_start=2, flow_stop=5)
    both, _ = render(wanted, flows, scene.frames, flow_start=2, flow_stop=5, anchors="both")
    for index in range(3, 6):
        assert psnr_db(start.frames[index], scene.frames[index], margin_px=16) > 45
        assert psnr_db(both.frames[index], scene.frames[index], margin_px=16) > 45
    np.testing.assert_array_equal(both.frames[6], scene.frames[6])
    np.testing.assert_array_equal(both.frames[7], scene.frames[7])


def test_an_anchor_is_kept_although_a_video_reuses_its_memory() -> None:
    scene = pan_scene(0, frames=12)
    other = pan_scene(0, frames=12, seed=9)
    frames = np.concatenate([scene.frames[:3], other.frames[3:]])
    wanted = segment(8, {"at": [0, 2], "video": "v"}, {"at": [6, 7], "video": "v", "from": 6})
    sink, _ = render(wanted, ArrayFlows.of(scene), frames, anchors="start")
    np.testing.assert_array_equal(sink.frames[5], scene.frames[2])


def test_a_short_guide_video_is_refused_by_name() -> None:
    scene = pan_scene(1, frames=5)
    wanted = segment(8, {"at": [0, 7], "video": "clip", "from": 2})
    with pytest.raises(GuidanceError, match=r"expected 8 frames from frame 2 of clip, got 3"):
        render(wanted, ArrayFlows.of(scene), scene.frames)


def test_a_guide_of_another_size_is_refused() -> None:
    scene = pan_scene(1, frames=5)
    with pytest.raises(GuidanceError, match="guide at 0"):
        render(gap(2), ArrayFlows.of(scene), scene.frames, height=64)


def test_fade_ends_are_exact() -> None:
    before, after = pan_scene(1, frames=2).frames
    np.testing.assert_array_equal(cross_fade(before, after, 0), before)
    np.testing.assert_array_equal(cross_fade(before, after, 1), after)


# --- extra outputs -----------------------------------------------------------------------------------


def test_flow_shown_points_where_content_goes_and_strength_shows() -> None:
    scene = pan_scene(3, 1)
    for strength in (1.0, 0.5, 0.0):
        sink = KeptMotion()
        assert isinstance(sink, MotionSink)
        wanted = segment(10, {"at": [0, 1], "image": "0"}, {"at": [6, 6], "image": "5"})
        render(wanted, ArrayFlows.of(scene), scene.frames, sink, motion_strength=strength)
        expected = np.array([3, 1]) * strength
        for index in range(10):
            shown = sink.flows[index][40, 60]
            np.testing.assert_allclose(shown, [0, 0] if index in (0, 1, 6) else expected, atol=1e-3)


def test_retimed_flow_shown_is_as_long_as_the_steps() -> None:
    scene = pan_scene(3)
    sink = KeptMotion()
    render(gap(22, 0, 0), ArrayFlows.of(scene), scene.frames, sink, treatment="retime", anchors="both")
    for index in range(1, 23):
        assert sink.flows[index][40, 60, 0] == pytest.approx(1.5, abs=1e-3)


def test_visibility_falls_where_the_anchor_shows_nothing() -> None:
    scene = pan_scene(4, frames=14)
    wanted = segment(14, {"at": 0, "image": "0"})
    sink = KeptMotion()
    render(wanted, ArrayFlows.of(scene), scene.frames, sink)
    assert (sink.visibilities[0] == 255).all()
    for index in (3, 8, 12):
        shown = sink.visibilities[index]
        assert (shown[:, 4 * index + 14 :] == 255).all()
        assert (shown[:, : 4 * index - 10] == 0).all()


def test_visibility_of_both_is_what_either_shows() -> None:
    scene = pan_scene(4, frames=14)
    sink = KeptMotion()
    _, outcome = render(gap(11, 0, 12), ArrayFlows.of(scene), scene.frames, sink, anchors="both")
    assert outcome.left_unguided == ()
    # on the left the end anchor shows what the start anchor does not
    assert (sink.visibilities[6][:, : 128 - 4 * 6 - 14] == 255).all()


def test_visibility_of_unguided_frames_is_none() -> None:
    scene = pan_scene(1, frames=4)
    sink = KeptMotion()
    render(gap(6, 0, 1), ArrayFlows.of(scene), scene.frames, sink)
    assert [int(visibility.max()) for visibility in sink.visibilities] == [255] * 4 + [0] * 3 + [255]


def test_what_is_not_wanted_is_not_worked_out() -> None:
    scene = pan_scene(1)
    sink = KeptMotion()
    sink.wants_flow = sink.wants_visibility = False
    flows = ArrayFlows.of(scene)
    render(gap(5), flows, scene.frames, sink)
    assert sink.flows == sink.visibilities == []
    assert {direction for direction, _, _ in flows.reads} == {"backward"}


def test_extra_outputs_do_not_change_the_guide() -> None:
    scene = occlusion_scene()
    for treatment in ("clip", "retime", "adjust"):
        plain, _ = render(gap(8, 0, 9), ArrayFlows.of(scene), scene.frames, anchors="both", treatment=treatment)
        extra, _ = render(
            gap(8, 0, 9), ArrayFlows.of(scene), scene.frames, KeptMotion(), anchors="both", treatment=treatment
        )
        np.testing.assert_array_equal(np.stack(plain.frames), np.stack(extra.frames))


# --- refusals and values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"motion_strength": -0.1}, {"motion_strength": 10.5}, {"motion_strength": float("nan")}, {"workers": 0}]
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    scene = pan_scene(1)
    with pytest.raises(GuidanceError, match=next(iter(options))):
        render(gap(3), ArrayFlows.of(scene), scene.frames, **options)


def test_broken_flows_stop_the_segment() -> None:
    scene = pan_scene(1)
    flows = ArrayFlows.of(scene)
    flows.read("backward", 0, 11)[4, 2, 2] = np.nan
    with pytest.raises(FlowError, match="flow 4"):
        render(gap(8), flows, scene.frames)


def test_wild_flows_are_survived() -> None:
    random = np.random.default_rng(0)
    wild = (random.normal(0, 1, (11, 32, 32, 2)) * 60_000).clip(-65_000, 65_000)
    frames = pan_scene(1, height=32, width=32).frames
    for strength in (1.0, 10.0, 0.3):
        sink, _ = render(
            gap(9), ArrayFlows(wild, -wild), frames, KeptMotion(), anchors="both", motion_strength=strength
        )
        assert len(sink.frames) == 11


def test_a_sinks_error_ends_the_work() -> None:
    class Full(Kept):
        def write(self, index: int, guide: Frame, mask: MaskValue) -> None:
            if index == 4:
                raise OSError("disk full")
            super().write(index, guide, mask)

    scene = pan_scene(1)
    with pytest.raises(OSError, match="disk full"):
        render(gap(8), ArrayFlows.of(scene), scene.frames, Full())


def test_grey_and_masks_have_the_agreed_values() -> None:
    assert (grey_frame(4, 6) == 128).all()
    assert grey_frame(4, 6).shape == (4, 6, 3)
    assert (mask_frame(4, 6, 255) == 255).all()
    out = np.ones((4, 6, 3), np.uint8)
    assert mask_frame(4, 6, 0, out) is out
    assert not out.any()
