"""Masks: clean, of whole blocks, one for each of the model's groups; and what the guide shows under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.guide.gap import GapFrame
from structureflow.guide.groups import in_groups
from structureflow.guide.masks import Blocks, Masking, shrunk, unseen
from structureflow.guide.pictures import PLANES, RGB, PictureFormat
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderOutcome, RenderSettings, render_segment
from structureflow.guide.scene import GuideOptions
from structureflow.guide.ways import Way, known
from structureflow.media.planes import mask_to_planes, planes_to_rgb, rgb_to_planes
from structureflow.models.job import MaskMode, Segment
from structureflow.references import Reference
from structureflow.testing.scenes import ArrayFlows, Scene, join, pan_scene

Frame = NDArray[np.uint8]


class Sink:
    def __init__(self, height: int, width: int) -> None:
        self.frames: list[Frame] = []
        self.masks: list[Frame] = []
        self._shape = (height, width)

    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        assert index == len(self.frames)
        self.frames.append(guide.copy())
        self.masks.append(np.full(self._shape, mask, np.uint8))


class Guides:
    def __init__(self, frames: Any, form: PictureFormat) -> None:
        self._frames = frames
        self._form = form

    def image(self, reference: Reference) -> Frame:
        frame: Frame = np.ascontiguousarray(self._frames[int(str(reference).rpartition("/")[2])])
        return frame if self._form is RGB else rgb_to_planes(frame)

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        raise NotImplementedError


def rendered(
    scene: Scene, guides: list[dict[str, Any]], frames: int, masking: Masking, form: PictureFormat = RGB, **changes: Any
) -> tuple[Sink, RenderOutcome]:
    height, width = scene.frames.shape[1:3]
    settings = RenderSettings(
        height,
        width,
        "clip",
        changes.pop("anchors", "start"),
        changes.pop("motion_strength", 1.0),
        0,
        len(scene.forward),
        form=form,
        masking=masking,
        seams="choose",
    )
    assert not changes
    sink = Sink(height, width)
    segment = Segment.model_validate({"frames": frames, "guides": guides})
    outcome = render_segment(segment, ArrayFlows.of(scene), Guides(scene.frames, form), settings, sink)
    return sink, outcome


START = [{"at": 0, "image": "images/0"}]
#: Content goes 3 px to the right per frame: a strip on the left comes into view.
PAN = pan_scene(3, frames=16, height=96, width=128)


# --- clean --------------------------------------------------------------------------------------------


def test_specks_go_holes_close_and_what_is_left_grows() -> None:
    known_share = np.full((60, 80), 255, np.uint8)
    known_share[5, 5] = known_share[40, 70] = 0
    known_share[20:40, 20:40] = 0
    known_share[29:32, 29:32] = 255
    white = unseen(known_share)
    assert set(np.unique(white)) == {0, 255}
    assert white[5, 5] == white[40, 70] == 0, "a speck"
    assert (white[22:38, 22:38] == 255).all(), "with its hole closed"
    assert white[30, 19] == white[30, 40] == 255, "a margin"
    assert white[30, 14] == white[30, 46] == 0


def test_half_known_is_not_known() -> None:
    soft = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
    white = unseen(soft)
    assert (white[:, soft[0] < 180] == 255).all()
    assert (white[:, soft[0] > 230] == 0).all()


def test_undecided_pixels_are_made_anew() -> None:
    undecided = np.zeros((40, 40), np.bool_)
    undecided[10:20, 10:20] = True
    white = unseen(np.full((40, 40), 255, np.uint8), undecided)
    assert (white[10:20, 10:20] == 255).all()
    assert white[30, 30] == 0


def test_an_anchor_that_gives_nothing_need_not_show_anything() -> None:
    """Two pixels, and who shows them: start, end; then who gives them."""
    still = np.zeros((1, 4, 2), np.float32)
    start = Way(still, seen=np.array([[255, 255, 0, 0]], np.uint8))
    end = Way(still, seen=np.array([[255, 0, 255, 0]], np.uint8))

    def of(share: int) -> list[int]:
        found: list[int] = known(start, end, np.full((1, 4), share, np.uint8))[0].tolist()
        return found

    assert of(0) == [255, 255, 0, 0]
    assert of(255) == [255, 0, 255, 0]
    assert of(128) == [255, 127, 128, 0]
    assert known(None, end, None) is end.seen


# --- blocks -------------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    grid=st.integers(1, 33),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_a_mask_is_made_of_whole_blocks(height: int, width: int, grid: int, seed: int, share: float) -> None:
    hidden = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8) * np.uint8(255)
    mask = Blocks(height, width, grid).of(hidden)
    assert mask.shape == (height, width)
    for top in range(0, height, grid):
        for left in range(0, width, grid):
            block = mask[top : top + grid, left : left + grid]
            assert block.min() == block.max()
            white = float(hidden[top : top + grid, left : left + grid].mean()) / 255
            # where a block is cut off by the edge, its last row and column count for those that are missing
            if top + grid <= height and left + grid <= width:
                assert block[0, 0] == 255 or white < 0.09
                # a block may be white for those around it alone
                assert block[0, 0] == 0 or white > 0.05 or grid > 1
    assert share < 1 or mask.min() == 255
    assert share > 0 or mask.max() == 0


def test_the_pixels_of_blocks_stay_where_they_are() -> None:
    hidden = np.zeros((48, 64), np.uint8)
    hidden[20, 35:48] = 255
    hidden[21, 35:48] = 255
    mask = Blocks(48, 64, 16).of(hidden)
    assert (mask[16:32, 32:48] == 255).all()
    assert int((mask == 255).sum()) == 256


def test_single_black_blocks_between_white_ones_are_white() -> None:
    hidden = np.full((80, 80), 255, np.uint8)
    hidden[32:48, 32:48] = 0
    assert Blocks(80, 80, 16).of(hidden).min() == 255
    hidden[32:80, 16:64] = 0
    assert int((Blocks(80, 80, 16).of(hidden) == 0).sum()) >= 6 * 256, "what is wider stays"


def test_colour_is_painted_over_only_where_all_of_its_pixels_are_white() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:2, :3] = 255
    assert shrunk(mask, 2, 3).tolist() == [[255, 0, 0], [0, 0, 0]]
    assert shrunk(mask, 4, 6) is mask


# --- groups -------------------------------------------------------------------------------------------


def gap_frames(masks: list[int | None]) -> list[GapFrame | None]:
    """Frames whose mask is white in the columns below a number."""
    still = np.zeros((1, 8, 2), np.float32)
    columns = np.arange(8)[None]
    return [
        None if white is None else GapFrame(still, None, unseen=np.where(columns < white, 255, 0).astype(np.uint8))
        for white in masks
    ]


def widths(frames: Iterator[GapFrame | None]) -> list[int | None]:
    return [None if frame is None else int((frame.unseen == 255).sum()) for frame in frames]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("first", "group", "given", "expected"),
    [
        (1, 1, [1, 2, 3, 4], [1, 2, 3, 4]),
        (1, 4, [1, 2, 3, 4, 5, 6], [4, 4, 4, 4, 6, 6]),
        (3, 4, [1, 2, 3, 2, 1], [2, 2, 3, 3, 3]),
        (5, 4, [4, 0, 1, 2], [4, 4, 4, 4]),
        (0, 4, [5, 1, 2], [5, 2, 2]),
        (1, 8, [1, 0, 0, 0, 0, 0, 0, 2, 3], [2] * 8 + [3]),
        (1, 4, [1, 2, None, 3, 0], [8, 8, None, 8, 0]),
        (1, 4, [None, None], [None, None]),
    ],
)
def test_frames_that_a_model_takes_as_one_have_one_mask(
    first: int, group: int, given: list[int | None], expected: list[int | None]
) -> None:
    assert widths(in_groups(iter(gap_frames(given)), first, group)) == expected


# --- whole segments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [RGB, PLANES], ids=["rgb", "planes"])
@pytest.mark.parametrize("anchors", ["start", "both"])
def test_what_came_into_view_is_white_and_grey_and_what_was_there_is_kept(form: PictureFormat, anchors: str) -> None:
    guides = START if anchors == "start" else [*START, {"at": 15, "image": "images/15"}]
    sink, outcome = rendered(PAN, guides, 16, Masking("visibility", "grey", 16), form, anchors=anchors)
    filled, _ = rendered(PAN, guides, 16, Masking("filled", "warp"), form, anchors=anchors)
    assert outcome.filled == ((1, 15 if anchors == "start" else 14),)
    assert sink.masks[0].max() == 0
    for index in range(1, 15):
        mask, strip = sink.masks[index], 3 * index
        if anchors == "start":
            assert (mask[:, :strip] == 255).all(), index
            # a margin, and the rest of a block
            assert (mask[:, strip + 32 :] == 0).all(), index
        else:
            assert (mask == 0).mean() > 0.75, index
        grey = form.parts(form.grey(96, 128))
        for shown, plain, nothing in zip(
            form.parts(sink.frames[index]), form.parts(filled.frames[index]), grey, strict=True
        ):
            step = 96 // shown.shape[0]
            hidden = mask.reshape(96 // step, step, 128 // step, step).min(axis=(1, 3)) == 255
            np.testing.assert_array_equal(shown[hidden], nothing[hidden])
            np.testing.assert_array_equal(shown[~hidden], plain[~hidden])
    kept = float(np.mean([(mask == 0).mean() for mask in sink.masks]))
    assert outcome.kept == pytest.approx(kept)


def test_what_was_cropped_away_is_not_known() -> None:
    """The structure video shows what comes in from the left, but the anchor's picture was cut there."""
    cropped = np.ascontiguousarray(PAN.frames[:, :, 32:96])
    settings = RenderSettings(96, 64, "clip", "start", 1.0, 0, 15, masking=Masking("visibility", "grey", 1))
    sink = Sink(96, 64)
    segment = Segment.model_validate({"frames": 16, "guides": START})
    render_segment(segment, ArrayFlows.of(PAN), Guides(cropped, RGB), settings, sink)
    for index in range(2, 10):
        assert (sink.masks[index][:, : 3 * index] == 255).all(), index
        assert (sink.masks[index][:, 3 * index + 10 :] == 0).all(), index


def test_holes_may_show_the_warp() -> None:
    grey, _ = rendered(PAN, START, 16, Masking("visibility", "grey", 16))
    warp, _ = rendered(PAN, START, 16, Masking("visibility", "warp", 16))
    filled, _ = rendered(PAN, START, 16, Masking("filled", "warp"))
    for index in range(16):
        np.testing.assert_array_equal(warp.frames[index], filled.frames[index])
        np.testing.assert_array_equal(warp.masks[index], grey.masks[index])
        assert filled.masks[index].max() == 0


def test_keyframes_keep_only_what_was_given_and_motion_is_a_hint() -> None:
    sink, outcome = rendered(PAN, START, 16, Masking("keyframes", "warp", 16))
    filled, plain = rendered(PAN, START, 16, Masking("filled", "warp"))
    assert [int(mask.min()) for mask in sink.masks] == [0] + [255] * 15
    for index in range(16):
        np.testing.assert_array_equal(sink.frames[index], filled.frames[index])
    assert outcome.filled == plain.filled == ((1, 15),)
    assert (outcome.kept, plain.kept) == (1 / 16, 1.0)
    grey, _ = rendered(PAN, START, 16, Masking("keyframes", "grey", 16))
    assert (grey.frames[10][:, :30] == 128).all(), "what no anchor shows is no hint"
    np.testing.assert_array_equal(grey.frames[10][:, 64:], filled.frames[10][:, 64:])


def test_left_frames_are_white_in_every_mode() -> None:
    scene = join(pan_scene(3, frames=6), pan_scene(-3, frames=6, seed=4))
    for masking in (Masking("visibility"), Masking("keyframes", "warp"), Masking("filled", "warp")):
        sink, outcome = rendered(scene, START, 12, masking)
        assert outcome.left_unguided == ((6, 11),)
        assert all(mask.min() == 255 for mask in sink.masks[6:])
        assert all((frame == 128).all() for frame in sink.frames[6:])


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("mode", ["visibility", "keyframes"])
def test_a_frame_that_shows_nothing_of_what_motion_carries_is_left(mode: MaskMode, group: int) -> None:
    """Two anchors that stand still and differ all over: nothing says which one is right."""
    other = np.ascontiguousarray(255 - PAN.frames)
    scene = replace(PAN, frames=np.concatenate([PAN.frames[:8], other[8:]]))
    guides = [*START, {"at": 15, "image": "images/15"}]
    options: Any = {"anchors": "both", "motion_strength": 0.0}
    sink, outcome = rendered(scene, guides, 16, Masking(mode, "grey", 16, group), **options)
    grey = [index for index in range(16) if (sink.frames[index] == 128).all()]
    assert grey, "else nothing is tried"
    assert list(within(outcome.left_unguided)) == grey
    assert list(within(outcome.filled)) == [index for index in range(1, 15) if index not in grey]
    assert not set(grey) & set(outcome.evidence)
    assert all((sink.masks[index] == 255).all() for index in grey)
    warp, shown = rendered(scene, guides, 16, Masking(mode, "warp", 16, group), **options)
    assert shown.filled == ((1, 14),), "a hint is shown, whatever the mask says"
    assert not any((frame == 128).all() for frame in warp.frames)


def within(ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)


def test_groups_reach_the_segment() -> None:
    sink, _ = rendered(PAN, [{"at": [0, 2], "image": "images/0"}], 16, Masking("visibility", "grey", 4, 4))
    assert all(mask.max() == 0 for mask in sink.masks[:3]), "guided frames are kept, whatever shares their group"
    for first in (5, 9):
        for index in range(first, first + 4):
            np.testing.assert_array_equal(sink.masks[index], sink.masks[first])
    assert (sink.masks[5] == 255).sum() < (sink.masks[9] == 255).sum()


def test_masks_come_back_from_their_planes() -> None:
    mask = (np.random.default_rng(3).random((16, 24)) < 0.5).astype(np.uint8) * np.uint8(255)
    np.testing.assert_array_equal(planes_to_rgb(mask_to_planes(mask)), np.repeat(mask[..., None], 3, axis=-1))


@pytest.mark.parametrize(
    "wrong", [{"mode": "bogus"}, {"holes": "bogus"}, {"grid": 0}, {"grid": 1.5}, {"group": 0}], ids=str
)
def test_a_masking_that_no_request_can_ask_for_is_refused(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(GuidanceError, match=rf"masking\.{field}: expected .*, got"):
        Masking(**wrong)


@pytest.mark.parametrize("wrong", [{"quality": "x"}, {"motion_strength": "1"}, {"motion_strength": {0: "1"}}], ids=str)
def test_options_that_the_rendering_would_not_notice_are_refused(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(GuidanceError, match=f"{field}: expected .*, got"):
        GuideOptions(**wrong)
