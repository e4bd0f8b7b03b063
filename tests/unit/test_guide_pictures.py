"""A segment rendered as the encoder's planes is the one that RGB gives, converted; held frames are not copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.guide.pictures import PLANES, RGB, PictureFormat
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.media.planes import chroma, frozen, luma, planes_to_rgb, rgb_to_planes
from structureflow.models.job import Segment
from structureflow.references import Reference
from structureflow.testing.scenes import ArrayFlows, Scene, occlusion_scene, pan_scene, psnr_db, zoom_scene

Frame = NDArray[np.uint8]


class Guides:
    """Frames of a scene, by number, in a format."""

    def __init__(self, frames: Frame, form: PictureFormat) -> None:
        self.given = [frozen(frame if form is RGB else rgb_to_planes(frame)) for frame in frames]

    def image(self, reference: Reference) -> Frame:
        return self.given[int(str(reference))]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:  # noqa: ARG002 - there is one
        shared = np.empty_like(self.given[0])
        for frame in self.given[first : first + count]:
            np.copyto(shared, frame)
            yield shared


class Kept:
    """Keeps what it is given: by reference where that is allowed."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.masks: list[Mask] = []

    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        assert index == len(self.frames)
        self.frames.append(guide.copy() if guide.flags.writeable else guide)
        self.masks.append(mask)


def render(scene: Scene, wanted: dict[str, Any], form: PictureFormat, **options: Any) -> tuple[Kept, Guides]:
    sink, guides = Kept(), Guides(scene.frames, form)
    height, width = scene.frames.shape[1:3]
    flows = ArrayFlows.of(scene)
    chosen: dict[str, Any] = {
        "height": height,
        "width": width,
        "treatment": "clip",
        "anchors": "both",
        "motion_strength": 1.0,
        "flow_start": 0,
        "flow_stop": flows.meta.total_flows,
        "form": form,
    }
    render_segment(Segment.model_validate(wanted), flows, guides, RenderSettings(**chosen | options), sink)
    return sink, guides


def gap(count: int) -> dict[str, Any]:
    return {"frames": count + 2, "guides": [{"at": 0, "image": "0"}, {"at": count + 1, "image": str(count + 1)}]}


EVERYTHING = {
    "frames": 24,
    "guides": [
        {"at": [0, 2], "image": "0"},
        {"at": [7, 9], "video": "v", "from": 7},
        {"at": [14, 18], "fade": ["3", "9"]},
    ],
}


@pytest.mark.parametrize("anchors", ["start", "both"])
@pytest.mark.parametrize(
    ("scene", "least_db"),
    # at the edges of the disc one chroma sample stands for pixels that move differently
    [(pan_scene(1.5, 0.75), 42), (zoom_scene(1.02), 42), (occlusion_scene(), 34)],
    ids=["pan", "zoom", "occlusion"],
)
def test_planes_are_what_rgb_gives_converted(anchors: str, scene: Scene, least_db: float) -> None:
    soft = replace(scene, frames=np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in scene.frames]))
    wanted = gap(8)
    rgb, _ = render(soft, wanted, RGB, anchors=anchors)
    planes, _ = render(soft, wanted, PLANES, anchors=anchors)
    assert planes.masks == rgb.masks
    for index, (ours, plain) in enumerate(zip(planes.frames, rgb.frames, strict=True)):
        expected = rgb_to_planes(plain)
        assert psnr_db(luma(ours), luma(expected), margin_px=8) > 44, index
        for one, other in zip(chroma(ours), chroma(expected), strict=True):
            assert psnr_db(one, other, margin_px=6) > least_db, index


def test_every_kind_of_frame_is_the_same_in_both_formats() -> None:
    scene = pan_scene(2, frames=12)
    rgb, _ = render(scene, EVERYTHING, RGB)
    planes, _ = render(scene, EVERYTHING, PLANES)
    assert planes.masks == rgb.masks
    for index in (0, 1, 2, 7, 8, 9, 18, *[i for i, mask in enumerate(rgb.masks) if mask == 255]):
        assert np.abs(planes.frames[index].astype(int) - rgb_to_planes(rgb.frames[index])).max() <= 1, index
    for index in range(14, 19):
        assert np.abs(planes.frames[index].astype(int) - rgb_to_planes(rgb.frames[index])).max() <= 2, index


def test_colour_travels_with_its_picture() -> None:
    """A red block on grey, 4 pixels a frame: where it is bright and where it is red stay one place."""
    frames = np.full((12, 48, 96, 3), 128, np.uint8)
    for index, frame in enumerate(frames):
        frame[16:32, 10 + 4 * index : 26 + 4 * index] = (255, 0, 0)
    forward = np.zeros((11, 48, 96, 2), np.float32)
    forward[..., 0] = 4
    hidden = np.zeros((11, 48, 96), bool)
    scene = Scene(frames, forward, -forward, hidden)
    sink, _ = render(scene, {"frames": 9, "guides": [{"at": 0, "image": "0"}]}, PLANES, anchors="start")
    for index, planes in enumerate(sink.frames):
        red = chroma(planes)[1] > 180
        assert np.argwhere(red).mean(axis=0) == pytest.approx([11.5, (17.5 + 4 * index) / 2 - 0.25], abs=0.3)
        shown = planes_to_rgb(planes)
        assert np.abs(shown[20:28, 14 + 4 * index : 22 + 4 * index].astype(int) - (255, 0, 0)).max() <= 4


def test_motionless_flows_leave_planes_still_to_the_bit() -> None:
    frames = pan_scene(0, height=90, width=150).frames
    still = np.zeros((9, 36, 52, 2), np.float32)
    sink = Kept()
    guides = Guides(frames, PLANES)
    flows = ArrayFlows(still, still, original=(180, 260))
    settings = RenderSettings(90, 150, "clip", "start", 1.0, 0, 9, form=PLANES)
    render_segment(Segment.model_validate(gap(8)), flows, guides, settings, sink)
    for index in range(1, 9):
        np.testing.assert_array_equal(sink.frames[index], guides.given[0])


def test_held_and_grey_frames_are_passed_on_by_reference() -> None:
    scene = pan_scene(1)
    wanted = {"frames": 20, "guides": [{"at": [3, 9], "image": "4"}]}
    sink, guides = render(scene, wanted, PLANES, anchors="start", flow_stop=6)
    assert all(frame is guides.given[4] for frame in sink.frames[3:10])
    grey = [frame for frame, mask in zip(sink.frames, sink.masks, strict=True) if mask == 255]
    assert len({id(frame) for frame in grey}) == 1
    assert np.abs(planes_to_rgb(grey[0]).astype(int) - 128).max() <= 1


def test_planes_need_even_sides() -> None:
    with pytest.raises(GuidanceError, match="even sides, got 15x16"):
        RenderSettings(16, 15, "clip", "start", 1.0, 0, 0, form=PLANES)
    RenderSettings(16, 15, "clip", "start", 1.0, 0, 0, form=RGB)
