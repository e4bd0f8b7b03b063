"""Thumbnails: the telling frames, in their true colours, small, with one normaliser."""

from __future__ import annotations

import base64
from typing import cast

import cv2
import numpy as np
import pytest

from structureflow.errors import FlowError, GuidanceError, JobStateError
from structureflow.report.pictures import SegmentPictures
from structureflow.report.previews import PreviewCollector, preview_frames
from structureflow.testing.videos import Image, pan_frames


def picture(data: str | None) -> Image:
    assert data is not None
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    return cast("Image", decoded)


def flow_of(dx: float, dy: float, height: int = 180, width: int = 320) -> np.ndarray:
    return np.full((height, width, 2), (dx, dy), np.float16)


@pytest.mark.parametrize(
    ("frames", "unguided", "max_thumbs", "expected"),
    [
        (73, [(20, 62)], 12, (0, 19, 20, 26, 32, 38, 44, 50, 56, 62, 63, 72)),
        (73, [], 12, (0, 72)),
        (5, [(0, 4)], 3, (0, 2, 4)),
        (5, [(1, 1), (3, 3)], 12, (0, 1, 2, 3, 4)),
        (9, [(0, 3)], 12, (0, 1, 2, 3, 4, 8)),
        (2, [(1, 1)], 1, (0,)),
    ],
)
def test_the_chosen_frames_are_the_ends_of_guidance_and_the_gaps_evenly(
    frames: int, unguided: list[tuple[int, int]], max_thumbs: int, expected: tuple[int, ...]
) -> None:
    assert preview_frames(frames, unguided, max_thumbs) == expected


@pytest.mark.parametrize("max_thumbs", [1, 2, 7, 12])
def test_many_gaps_are_thinned_to_the_limit(max_thumbs: int) -> None:
    chosen = preview_frames(400, [(at, at + 1) for at in range(1, 399, 4)], max_thumbs)
    assert len(chosen) == max_thumbs
    assert list(chosen) == sorted(set(chosen))
    assert chosen[0] == 0
    assert 0 <= chosen[-1] < 400


def test_pictures_are_kept_of_the_wanted_frames_only_in_their_colours() -> None:
    collector = PreviewCollector(30, [(10, 19)], flow_max_px=4.0)
    red, blue = (np.full((360, 640, 3), colour, np.uint8) for colour in ((220, 30, 20), (20, 40, 210)))
    for index in range(30):
        gap = 10 <= index <= 19
        collector.guide(index, blue if gap else red, 255 if gap else 0)
        if gap:
            collector.structure(index, red)
    kept = SegmentPictures.parse(collector.to_json())
    assert kept.frames == 30
    assert tuple(entry.index for entry in kept.pictures) == collector.wanted
    assert (kept.height_px, kept.width_px) == (90, 160)
    for entry in kept.pictures:
        gap = 10 <= entry.index <= 19
        assert entry.mask == (255 if gap else 0)
        assert picture(entry.guide).shape == (90, 160, 3)
        assert np.abs(picture(entry.guide).astype(int) - ((20, 40, 210) if gap else (220, 30, 20))).max() < 12
        assert (entry.structure is not None) == gap
        assert entry.flow is None


@pytest.mark.parametrize(
    ("size", "expected"), [((720, 1280), (90, 160)), ((1280, 720), (160, 90)), ((40, 60), (40, 60))]
)
def test_thumbnails_keep_their_shape_and_are_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    collector = PreviewCollector(2, [])
    collector.guide(0, np.zeros((*size, 3), np.uint8), 0)
    kept = SegmentPictures.parse(collector.to_json())
    assert picture(kept.pictures[0].guide).shape[:2] == expected


def test_flows_of_one_job_share_one_scale() -> None:
    """Half the motion is half the colour, in every segment: nothing is normalised by itself."""
    painted = []
    for length in (4.0, 2.0, 0.0):
        collector = PreviewCollector(3, [(1, 1)], flow_max_px=4.0)
        collector.flow(1, flow_of(length, 0))
        kept = SegmentPictures.parse(collector.to_json())
        assert kept.flow_max_share == pytest.approx(4 / 320)
        painted.append(picture(kept.pictures[0].flow).mean((0, 1)))
    full, half, rest = painted
    assert rest == pytest.approx([255] * 3, abs=2)
    assert full == pytest.approx([255, 0, 0], abs=14)
    assert half == pytest.approx((full + rest) / 2, abs=8)


def test_a_whole_segment_of_pictures_is_small() -> None:
    collector = PreviewCollector(73, [(20, 62)], flow_max_px=5)
    for index, frame in enumerate(pan_frames(73, 360, 640, dx=3, dy=1)):
        collector.guide(index, frame, 0)
        collector.structure(index, frame)
        collector.flow(index, flow_of(3, 1))
    assert len(SegmentPictures.parse(collector.to_json()).pictures) == 12
    assert len(collector.to_json()) < 300_000


def test_a_collector_that_got_nothing_gives_an_empty_document() -> None:
    assert SegmentPictures.parse(PreviewCollector(5, [(1, 2)]).to_json()).pictures == ()


def test_flows_need_a_scale_and_must_be_finite() -> None:
    with pytest.raises(GuidanceError, match="flow_max_px"):
        PreviewCollector(3, [(1, 1)]).flow(1, flow_of(1, 1))
    with pytest.raises(FlowError, match="finite"):
        PreviewCollector(3, [(1, 1)], flow_max_px=1).flow(1, flow_of(np.nan, 1))


@pytest.mark.parametrize("unguided", [[(5, 3)], [(0, 3), (3, 4)], [(4, 5), (0, 1)], [(0, 10)], [(-1, 2)]])
def test_ranges_outside_the_segment_are_refused(unguided: list[tuple[int, int]]) -> None:
    with pytest.raises(GuidanceError, match="ranges inside 10 frames"):
        PreviewCollector(10, unguided)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"frames": 3}',
        b'{"frames":3,"width_px":16,"height_px":9,"pictures":[{"index":0,"guide":"\\" onerror=alert(1)"}]}',
        b'{"frames":3,"width_px":16,"height_px":9,"pictures":[{"index":0,"mask":256}]}',
    ],
)
def test_other_bytes_are_no_pictures(data: bytes) -> None:
    with pytest.raises(JobStateError, match="no thumbnails of a segment"):
        SegmentPictures.parse(data)
