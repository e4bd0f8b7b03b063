"""Two pictures where they disagree: chosen, not averaged; their colours led over; and cross-fades by a cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.guide.drift import Drift
from structureflow.guide.masks import Masking
from structureflow.guide.pictures import PLANES, RGB, PictureFormat
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.guide.seams import Fade, choose, differing_structure, disagreement
from structureflow.guide.ways import Moment, Way, end_share
from structureflow.media.planes import planes_to_rgb, rgb_to_planes
from structureflow.models.job import Segment
from structureflow.references import Reference
from structureflow.testing.scenes import ArrayFlows, WaveTexture

Frame = NDArray[np.uint8]
HEIGHT, WIDTH = 96, 128
FRAMES = 13
#: Colour at half the size comes back a little blurred.
TOLERANCE = {"rgb": 12, "planes": 45}


def texture(seed: int) -> Frame:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    return WaveTexture(seed)(x, y)


class Kept:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.masks: list[Frame] = []

    def write(self, index: int, guide: Frame, mask: Mask) -> None:  # noqa: ARG002 - frames come in order
        self.frames.append(guide.copy())
        self.masks.append(np.full((HEIGHT, WIDTH), mask, np.uint8))


class Two:
    def __init__(self, pictures: list[Frame], form: PictureFormat) -> None:
        self._pictures = [picture if form is RGB else rgb_to_planes(picture) for picture in pictures]

    def image(self, reference: Reference) -> Frame:
        return self._pictures[int(str(reference).rpartition("/")[2])]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        raise NotImplementedError


def between(first: Frame, second: Frame, form: PictureFormat = RGB, **changes: Any) -> Kept:
    """Render the gap between two pictures, with flows that stand still."""
    still = np.zeros((FRAMES, HEIGHT, WIDTH, 2), np.float32)
    guides = [{"at": 0, "image": "images/0"}, {"at": FRAMES - 1, "image": "images/1"}]
    settings = RenderSettings(
        HEIGHT, WIDTH, "clip", "both", 1.0, 0, FRAMES - 1, form=form, **{"seams": "choose", **changes}
    )
    sink = Kept()
    segment = Segment.model_validate({"frames": FRAMES, "guides": guides})
    render_segment(segment, ArrayFlows(still, still), Two([first, second], form), settings, sink)
    if form is PLANES:
        sink.frames = [planes_to_rgb(frame) for frame in sink.frames]
    return sink


def doubled(shown: Frame, first: Frame, second: Frame, tolerance: int = 12) -> float:
    """Share of pixels that are neither the first picture's nor the second's."""
    away = [np.abs(shown.astype(int) - other).max(axis=-1) > tolerance for other in (first, second)]
    return float((away[0] & away[1]).mean())


# --- gaps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [RGB, PLANES], ids=["rgb", "planes"])
def test_pictures_that_disagree_are_never_shown_at_once(form: PictureFormat) -> None:
    first, second = texture(1), texture(2)
    chosen, averaged = between(first, second, form), between(first, second, form, seams="average")
    for index in range(1, FRAMES - 1):
        assert doubled(chosen.frames[index], first, second, TOLERANCE[form.name]) < 0.02, index
    middle = FRAMES // 2
    assert doubled(averaged.frames[middle], first, second) > 0.5, "what there was to avoid"
    assert np.abs(chosen.frames[1].astype(int) - first).mean() < 4
    assert np.abs(chosen.frames[-2].astype(int) - second).mean() < 4


def test_where_only_a_part_disagrees_only_that_is_chosen() -> None:
    """Both show the same, in slightly other light, but for a patch."""
    first = np.asarray(np.clip(texture(1).astype(int), 0, 250), np.uint8)
    second = np.asarray(first + 4, np.uint8)
    second[30:66, 40:88] = texture(2)[30:66, 40:88]
    chosen = between(first, second)
    for index in range(1, FRAMES - 1):
        mixed = first.astype(float) + 4 * index / (FRAMES - 1)
        around = np.ones((HEIGHT, WIDTH), np.bool_)
        around[20:76, 30:98] = False
        assert np.abs(chosen.frames[index] - mixed)[around].max() <= 1.5, "mixed by time"
        assert doubled(chosen.frames[index][36:60, 46:82], first[36:60, 46:82], second[36:60, 46:82]) < 0.05, index


def test_where_nothing_tells_which_is_right_the_generator_decides() -> None:
    masked = between(texture(1), texture(2), masking=Masking("visibility", "grey", 16))
    white = [float((mask == 255).mean()) for mask in masked.masks]
    assert white[FRAMES // 2] > 0.95
    assert max(white[:3] + white[-3:]) < 0.05
    alike = between(texture(1), texture(1), masking=Masking("visibility", "grey", 16))
    assert all(mask.max() == 0 for mask in alike.masks)


def test_an_anchor_that_does_not_see_is_not_chosen() -> None:
    still = np.zeros((40, 60, 2), np.float32)
    everywhere = np.full((20, 30), 255, np.uint8)
    half = everywhere.copy()
    half[:, :15] = 0
    apart = np.ones((20, 30), np.float32)
    ways = Way(still, half), Way(still, everywhere)
    for moment in (Moment(1, 9), Moment(5, 5), Moment(9, 1)):
        share, undecided = choose(moment, *ways, apart)
        assert (share[:, :9] == 255).all(), "the start anchor does not show this half"
        assert not undecided[:, :9].any()
    share, _ = choose(Moment(1, 9), *ways, apart)
    assert (share[:, 21:] == 0).all()
    np.testing.assert_array_equal(choose(Moment(5, 5), *ways, apart * 0)[0], end_share(Moment(5, 5), *ways))


def test_noise_is_no_disagreement() -> None:
    random = np.random.default_rng(1)
    one = random.uniform(0, 255, (30, 40, 3)).astype(np.float32)
    assert disagreement(one, one + random.normal(0, 4, one.shape).astype(np.float32)).max() == 0
    assert disagreement(one, one[::-1].copy()).mean() > 0.9


def small(picture: Frame) -> NDArray[np.float32]:
    return picture[::2, ::2].astype(np.float32)


@pytest.mark.parametrize("contrast", [0.3, 1.0])
def test_structure_that_is_elsewhere_differs_however_faint_and_light_does_not(contrast: float) -> None:
    """Thin strokes on a flat ground, the same two pixels on, and the same in other light."""
    strokes = np.full((60, 80, 3), 110, np.float32)
    strokes[10:50, 12:70:9] += 120 * contrast
    moved = np.roll(strokes, 4, axis=1)
    lit = strokes * np.float32(0.8) + np.linspace(0, 30, 80, dtype=np.float32)[None, :, None]
    inner = (slice(14, 46), slice(20, 62))
    assert differing_structure(strokes, moved)[inner].min() > 0.9
    assert differing_structure(strokes, lit).max() < 0.1
    assert differing_structure(strokes, strokes + np.float32(40)).max() == 0


def test_what_is_off_by_a_fraction_of_a_pixel_is_the_same_structure() -> None:
    one = small(texture(1))
    shifted = cv2.warpAffine(
        one,
        np.array([[1, 0, 0.2], [0, 1, 0]], np.float64),
        (one.shape[1], one.shape[0]),
        borderMode=cv2.BORDER_REPLICATE,
    )
    assert differing_structure(one, np.asarray(shifted, np.float32)).mean() < 0.05
    assert differing_structure(one, small(texture(2))).mean() > 0.9


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_channel_is_enough_to_disagree(channel: int) -> None:
    """In planes a difference of light is in luma alone, in RGB in all three: both say the same of it."""
    one = np.full((30, 40, 3), 90, np.float32)
    other = one.copy()
    other[..., channel] += 40
    assert disagreement(one, other, (20, 40)).min() == 1
    assert disagreement(one, other, (41, 60)).max() == 0
    assert disagreement(one, other, (30, 50))[15, 20] == pytest.approx(0.5)


# --- colours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [RGB, PLANES], ids=["rgb", "planes"])
def test_colours_lead_over_from_one_anchor_to_the_other(form: PictureFormat) -> None:
    """The same picture, 12 % brighter and warmer at the end: every frame has the colours of its time."""
    first = np.asarray(np.clip(texture(1) * 0.7, 0, 255), np.uint8)
    drifted = np.asarray(np.clip(np.rint(first * 1.12 + np.array([14, 0, -10])), 0, 255), np.uint8)
    matched = between(first, drifted, form, match_color=True)
    for index in range(1, FRAMES - 1):
        share = index / (FRAMES - 1)
        expected = first + (drifted.astype(float) - first) * share
        assert np.abs(matched.frames[index].mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 2, index
        assert np.abs(matched.frames[index] - expected).mean() < 3, index


def test_drift_is_found_and_undone() -> None:
    random = np.random.default_rng(2)
    start = random.uniform(30, 200, (40, 50, 3)).astype(np.float32)
    gain, offset = np.array([1.1, 0.9, 1.0]), np.array([5.0, -8.0, 3.0])
    end = (start * gain + offset).astype(np.float32)
    shared = np.ones((40, 50), np.bool_)
    # a tenth of the frame shows something else
    end[:4] = random.uniform(0, 255, end[:4].shape)
    found = Drift.between(start, end, shared)
    assert found is not None
    np.testing.assert_allclose(found.gain, gain, atol=0.03)
    np.testing.assert_allclose(found.offset, offset, atol=4)
    for share in (0.0, 0.3, 1.0):
        first, second = found.led_over(start, end, share)
        np.testing.assert_allclose(first[6:], second[6:], atol=3)
    np.testing.assert_array_equal(found.tables(0.0)[0], np.tile(np.arange(256, dtype=np.uint8), (3, 1)))
    np.testing.assert_array_equal(found.tables(1.0)[1], np.tile(np.arange(256, dtype=np.uint8), (3, 1)))


def test_without_a_common_part_colours_stay() -> None:
    one = np.zeros((10, 10, 3), np.float32)
    assert Drift.between(one, one, np.zeros((10, 10), np.bool_)) is None
    plain = between(texture(1), texture(1))
    matched = between(texture(1), texture(1), match_color=True)
    for one_frame, other in zip(plain.frames, matched.frames, strict=True):
        assert np.abs(one_frame.astype(int) - other).max() <= 1


# --- cross-fades --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [RGB, PLANES], ids=["rgb", "planes"])
def test_a_cut_of_least_error_passes_from_left_to_right(form: PictureFormat) -> None:
    first, second = texture(3), texture(4)
    before, after = (picture if form is RGB else rgb_to_planes(picture) for picture in (first, second))
    shares = [number / 8 for number in range(1, 9)]
    fade = Fade(form, before, after, shares)
    taken = []
    for number, share in enumerate(shares):
        drawn = fade.frame(number, share, np.empty_like(before))
        shown = drawn if form is RGB else planes_to_rgb(drawn)
        assert doubled(shown, first, second, TOLERANCE[form.name]) < 0.06
        nearer = np.abs(shown.astype(int) - second).sum(axis=-1) < np.abs(shown.astype(int) - first).sum(axis=-1)
        taken.append(float(nearer.mean()))
        assert share == 1 or abs(nearer.mean() - share) < 0.2
        if share == 1:
            np.testing.assert_array_equal(drawn, after)
    assert taken == sorted(taken)


def test_the_cut_takes_the_way_where_both_look_alike() -> None:
    first, second = texture(5), texture(6)
    same = np.zeros((HEIGHT, WIDTH), np.bool_)
    for row in range(HEIGHT):
        middle = 60 + row // 12
        same[row, middle - 3 : middle + 4] = True
    second[same] = first[same]
    fade = Fade(RGB, first, second, [0.5])
    drawn = fade.frame(0, 0.5, np.empty_like(first))
    assert doubled(drawn, first, second, tolerance=20) < 0.03
    assert np.abs(drawn[:, :50].astype(int) - second[:, :50]).mean() < 2
    assert np.abs(drawn[:, 80:].astype(int) - first[:, 80:]).mean() < 2


def test_pictures_that_agree_fade_as_ever() -> None:
    first = np.asarray(texture(1) // 2 + 60, np.uint8)
    second = np.asarray(first + 6, np.uint8)
    drawn = Fade(RGB, first, second, [0.5]).frame(0, 0.5, np.empty_like(first))
    assert np.abs(drawn - (first.astype(float) + 3)).max() <= 1.5
