"""What callers without a job give to have a guide made of: flows, key frames, options; opened and checked."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError, InputNotFoundError
from structureflow.extras import importing
from structureflow.flow.archive import FlowArchive, open_flow_file
from structureflow.flow.engines import Quality
from structureflow.flow.fields import FlowSource, Treatment
from structureflow.guide.images import fit, load_guide_image
from structureflow.guide.masks import Masking
from structureflow.guide.pictures import RGB, PictureFormat
from structureflow.guide.ports import Picture, SegmentSink
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import path_plan, render_segment
from structureflow.guide.settings import MotionStrength, RenderOutcome, RenderSettings
from structureflow.guide.structure import DecodedGrays
from structureflow.guide.tracker import GuidanceTracker
from structureflow.limits import MAX_IMAGE_BYTES, MAX_WORKING_GRID_PX
from structureflow.media.limits import DecodeLimits
from structureflow.media.planes import frozen, rgb_to_planes
from structureflow.models.job import Anchors, Guide, MotionPart, Seams, Segment
from structureflow.processors import usable_cpus
from structureflow.references import Reference

PathLike = str | os.PathLike[str]
Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """Frames of a video file, as key frames of an inclusive range, such as the end of the segment before.

    Attributes:
        path: a local file.
        first: the frame of it that the range begins with, from 0.

    >>> guide = render_guide("flows.npz", {(0, 3): VideoFrames("clip.mp4", first=8)}, 9)
    >>> guide.outcome.unguided
    ((4, 8),)
    """

    path: PathLike
    first: int = 0


KeyFrame = PathLike | Frame | VideoFrames
"""A picture's file, or ``(H, W, 3)`` uint8 RGB; or ``(n, H, W, 3)``: n frames that follow each other; or a video's."""
At = int | tuple[int, int]
"""A frame number from 0, or an inclusive range."""
Structure = PathLike | Sequence[Frame] | Frame


@dataclass(frozen=True, slots=True)
class GuideOptions:
    """How a guide is made; the defaults are those of a job.

    Attributes:
        treatment: how the flows become steps: ``retime`` by time, one per unguided frame and one into the key frame
            behind a gap; ``adjust`` and ``clip`` by number, one per unguided frame, see `adjust_flow_field_count`.
        anchors: ``both``: the frame before a gap is carried forward and the one behind it back; ``start``: forward.
        motion_strength: 0 (still) to 10; or key frames of it: frame number to strength, linear between.
        motion: which part of it is applied: ``all``, ``camera`` or ``subject``.
        masking: what of motion-filled frames is white, see `Masking`.
        seams: where two anchors show different things: ``choose`` one of them per pixel, or ``average``.
        match_color: lead the colours of the frame before a gap over into those of the one behind.
        quality: of the look at the structure's frames: ``fast``, ``balanced`` or ``best``.
        flow_start, flow_stop: the flows to play, start inclusive, stop exclusive; None: to the end.

    >>> GuideOptions(anchors="start", motion_strength={0: 0.5, 40: 1.2}).treatment
    'retime'
    """

    treatment: Treatment = "retime"
    anchors: Anchors = "both"
    motion_strength: MotionStrength = 1.0
    motion: MotionPart = "all"
    masking: Masking = field(default_factory=Masking)
    seams: Seams = "choose"
    match_color: bool = False
    quality: Quality = "balanced"
    flow_start: int = 0
    flow_stop: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the rendering would not notice.

        Raises:
            GuidanceError: an unknown quality, or a strength that is no number.
        """
        if self.quality not in MATCHING:
            raise GuidanceError(f"quality: expected one of {', '.join(MATCHING)}, got {self.quality!r:.40}")
        strength = self.motion_strength
        values = tuple(strength.values()) if isinstance(strength, Mapping) else (strength,)
        if not all(isinstance(value, int | float) for value in values):
            raise GuidanceError(
                f"motion_strength: expected a number, or frame numbers to numbers, got {strength!r:.60}"
            )


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a rendering needs, checked."""

    segment: Segment
    flows: FlowSource | None
    pictures: KeyFrames
    settings: RenderSettings
    structure: DecodedGrays | None

    @classmethod
    def of(
        cls,
        flows: FlowSource | PathLike | None,
        keyframes: Mapping[At, KeyFrame],
        frames: int,
        structure: Structure | None,
        size: tuple[int, int] | None,
        options: GuideOptions,
        workers: int | None,
        form: PictureFormat,
    ) -> Scene:
        """Open and check what callers give; arguments as of `videos.render_guide`, errors too."""
        source = _opened(flows)
        height, width = _size(source, size, keyframes, form)
        total = 0 if source is None else source.meta.total_flows
        stop = total if options.flow_stop is None else options.flow_stop
        settings = RenderSettings(
            height=height,
            width=width,
            treatment=options.treatment,
            anchors=options.anchors,
            motion_strength=options.motion_strength,
            flow_start=options.flow_start,
            flow_stop=stop,
            workers=workers or usable_cpus(),
            form=form,
            matching=MATCHING[options.quality] if structure is not None else None,
            motion=options.motion,
            masking=options.masking,
            seams=options.seams,
            match_color=options.match_color,
        )
        pictures = KeyFrames(keyframes, frames, height, width, form)
        grays = None
        if structure is not None and source is not None:
            # a path may be looked at in the frame behind its last flow
            first, last = path_plan(pictures.segment, settings, source.meta).flows_read
            meta = source.meta
            grays = DecodedGrays(structure, height=meta.height, width=meta.width, first=first, last=last)
        return cls(pictures.segment, source, pictures, settings, grays)

    def render(self, sink: SegmentSink) -> RenderOutcome:
        """Render into a sink."""
        if isinstance(self.flows, FlowArchive):
            start, stop = path_plan(self.segment, self.settings, self.flows.meta).flows_read
            if start < stop:
                self.flows.expect(start, stop)
        return render_segment(self.segment, self.flows, self.pictures, self.settings, sink, self.structure)


def _opened(flows: FlowSource | PathLike | None) -> FlowSource | None:
    opened = open_flow_file(Path(flows)) if isinstance(flows, (str, os.PathLike)) else flows
    return opened.within(MAX_WORKING_GRID_PX) if isinstance(opened, FlowArchive) else opened


def _size(
    flows: FlowSource | None,
    size: tuple[int, int] | None,
    keyframes: Mapping[At, KeyFrame],
    form: PictureFormat,
) -> tuple[int, int]:
    """Return (height, width)."""
    if size is not None:
        width, height = size
        return height, width
    if flows is None:
        arrays = [picture for picture in keyframes.values() if isinstance(picture, np.ndarray)]
        if not arrays or arrays[0].ndim < 3:
            raise GuidanceError("size: expected (width, height), as there are no flows to tell it")
        height, width = arrays[0].shape[-3:-1]
    else:
        height, width = flows.meta.original_height, flows.meta.original_width
    return (height, width) if form is RGB else (height // 2 * 2, width // 2 * 2)


class KeyFrames:
    """The key frames as a `GuideSource`, and the segment that they make; each file is read when it is needed."""

    def __init__(
        self, keyframes: Mapping[At, KeyFrame], frames: int, height: int, width: int, form: PictureFormat
    ) -> None:
        self._height = height
        self._width = width
        self._form = form
        self._given: dict[str, KeyFrame] = {}
        self._last: tuple[str, Picture] | None = None
        tracker = GuidanceTracker(frames)
        guides = []
        for number, (at, picture) in enumerate(keyframes.items()):
            first, last, name = *_range(at, picture), str(number)
            if 0 <= first <= last < frames and any(tracker.is_guided(index) for index in range(first, last + 1)):
                raise GuidanceError(f"key frame at {at}: expected frames that no other one covers")
            tracker.mark_guided(first, last)
            self._given[name] = picture
            follows = isinstance(picture, VideoFrames) or (isinstance(picture, np.ndarray) and picture.ndim == 4)
            reference = Reference(name)
            guides.append(
                Guide(at=(first, last), video=reference) if follows else Guide(at=(first, last), image=reference)
            )
        guides.sort(key=lambda guide: guide.first)
        # limits of requests do not hold here
        self.segment = Segment.model_construct(frames=frames, guides=tuple(guides))

    def image(self, reference: Reference) -> Picture:
        """See `GuideSource.image`; the last one is kept, for those that are held in turns."""
        name = reference.reveal()
        if self._last is None or self._last[0] != name:
            self._last = name, frozen(self._formed(self._loaded(self._given[name], name)))
        return self._last[1]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Picture]:
        """See `GuideSource.video`."""
        given = self._given[reference.reveal()]
        images = _decoded(given) if isinstance(given, VideoFrames) else (image for image in np.asarray(given)[first:])
        with closing(images):
            for image in itertools.islice(images, count):
                yield self._formed(fit(image, self._height, self._width))

    def _loaded(self, picture: KeyFrame, name: str) -> Frame:
        if isinstance(picture, np.ndarray):
            return fit(picture, self._height, self._width)
        if isinstance(picture, VideoFrames):
            raise GuidanceError(f"key frame {name}: expected a picture, got frames of a video")
        path = Path(picture)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise InputNotFoundError(f"key frame {name}: {path} cannot be read: {error.strerror}") from error
        return load_guide_image(data, height=self._height, width=self._width, what=str(path))

    def _formed(self, frame: Frame) -> Picture:
        # a caller's own array must not become read-only, nor change under the renderer
        return frame.copy() if self._form is RGB else rgb_to_planes(frame)


def _decoded(given: VideoFrames) -> Generator[Frame]:
    # only where it is needed: guides in memory need no decoder
    with importing("VideoFrames"):
        from structureflow.media.decode import VideoReader
    with VideoReader(Path(given.path), DecodeLimits(min_frames=1), threads=usable_cpus()) as reader:
        reader.skip(given.first)
        for frame in reader:
            yield frame.image


def _range(at: At, picture: KeyFrame) -> tuple[int, int]:
    count = len(picture) if isinstance(picture, np.ndarray) and picture.ndim == 4 else None
    if isinstance(picture, VideoFrames) and (not isinstance(at, tuple) or picture.first < 0):
        raise GuidanceError(f"key frame at {at}: expected frames of a video from 0 on, at a range (first, last)")
    if isinstance(at, tuple):
        first, last = at
        if count is not None and count != last + 1 - first:
            raise GuidanceError(f"key frame at {at}: expected {last + 1 - first} frames, got {count}")
        return first, last
    return at, at + (count or 1) - 1
