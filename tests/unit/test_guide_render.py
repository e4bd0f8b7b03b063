"""A whole segment on drawn scenes: where content goes, which frames are kept, what both anchors and cuts do."""

from __future__ import annotations

import numpy as np
import pytest

from structureflow.errors import GuidanceError
from structureflow.testing.scenes import (
    ArrayFlows,
    Scene,
    occlusion_scene,
    pan_scene,
    psnr_db,
    rotation_scene,
    zoom_scene,
)
from tests.unit.rendering import Frame, Kept, gap, render, segment


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


@pytest.mark.parametrize("count", [3, 4, 7, 9, 19, 39])
def test_retime_keeps_the_travel_at_any_ratio(count: int) -> None:
    """40 pixels into the guide behind the gap, the last step among them."""
    scene = pan_scene(2, frames=21)
    sink, _ = render(gap(count, 0, 0), ArrayFlows.of(scene), scene.frames, treatment="retime")
    assert travelled(sink, scene.frames, count) == 40 - 40 // (count + 1)
    assert travelled(sink, scene.frames, (count + 1) // 2) == 40 * ((count + 1) // 2) // (count + 1)


@pytest.mark.parametrize("at", [(0, 16), (0,), (16,), (0, 8, 16), (8,), (5, 11)])
@pytest.mark.parametrize("anchors", ["start", "both"])
def test_retime_gives_a_video_its_own_frames_back(at: tuple[int, ...], anchors: str) -> None:
    """As many frames as the video has, some of its own as guides: each frame is the one of its number."""
    scene = pan_scene(2, 1, frames=17)
    wanted = segment(17, *({"at": one, "image": str(one)} for one in at))
    sink, outcome = render(wanted, ArrayFlows.of(scene), scene.frames, treatment="retime", anchors=anchors)
    left = {index for first, last in outcome.left_unguided for index in range(first, last + 1)}
    assert left == (set(range(at[0])) if anchors == "start" else set())
    for index in set(range(17)) - left:
        near = max(abs(index - one) for one in at)
        assert psnr_db(sink.frames[index], scene.frames[index], margin_px=2 * near + 2) > 40, index


def test_a_held_guide_takes_no_time() -> None:
    """16 steps over 8 flows, of which half lie before the guide that is held and half behind it."""
    scene = pan_scene(2, frames=9)
    wanted = segment(19, {"at": 0, "image": "0"}, {"at": [8, 10], "image": "4"}, {"at": 18, "image": "8"})
    sink, _ = render(wanted, ArrayFlows.of(scene), scene.frames, treatment="retime", anchors="both")
    assert [travelled(sink, scene.frames, index) for index in range(19)] == [*range(9), 8, 8, *range(9, 17)]


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
