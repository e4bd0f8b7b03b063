"""What callers without a job give to have a guide made of: flows, key frames, options; opened and checked."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import Check, check_fields, index_of, instance, optional, refuse, shown, whole
from structureflow.errors import GuidanceError, InputNotFoundError
from structureflow.extras import importing
from structureflow.flow.archive import FlowArchive, open_flow_file
from structureflow.flow.engines import Quality
from structureflow.flow.fields import FlowSource, Treatment
from structureflow.flow.sources import flow_source
from structureflow.guide.images import fit, load_guide_image
from structureflow.guide.masks import Masking
from structureflow.guide.pictures import RGB, PictureFormat
from structureflow.guide.ports import Picture, SegmentSink
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import path_plan, render_segment
from structureflow.guide.settings import CHOICES, MotionStrength, RenderOutcome, RenderSettings, check_strength
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

    def __post_init__(self) -> None:
        """Refuse what names no frames of a file.

        Raises:
            InvalidArgumentError: no path, or no frame number.
        """
        check_fields(self, path=arguments.path, first=whole(0))


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
        """Refuse what no rendering can be asked for.

        Raises:
            GuidanceError: an unknown choice, or a strength or flow number that is none.
        """
        for name, known in {**CHOICES, "quality": tuple(MATCHING)}.items():
            if getattr(self, name) not in known:
                raise GuidanceError(f"{name}: expected one of {', '.join(known)}, got {shown(getattr(self, name))}")
        check_strength(self.motion_strength)
        if not isinstance(self.masking, Masking):
            raise GuidanceError(f"masking: expected Masking, got {shown(self.masking)}")
        for name, number in (("flow_start", self.flow_start), ("flow_stop", self.flow_stop or 0)):
            if index_of(number) is None or number < 0:
                raise GuidanceError(f"{name}: expected a whole number from 0 on, got {shown(number)}")


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
            # a job goes on without; here it was asked for
            grays.read()
        return cls(pictures.segment, source, pictures, settings, grays)

    def render(self, sink: SegmentSink) -> RenderOutcome:
        """Render into a sink."""
        if isinstance(self.flows, FlowArchive):
            start, stop = path_plan(self.segment, self.settings, self.flows.meta).flows_read
            if start < stop:
                self.flows.expect(start, stop)
        return render_segment(self.segment, self.flows, self.pictures, self.settings, sink, self.structure)


def _flows(value: Any, name: str) -> None:
    arguments.path(value, name) if isinstance(value, (str, os.PathLike)) else flow_source(value, name)


def _structure(value: Any, name: str) -> None:
    if isinstance(value, (str, os.PathLike)):
        arguments.path(value, name)
    elif not isinstance(value, (Sequence, np.ndarray)):
        refuse(value, name, "a video's file, or its frames")
    else:
        for frame in value:
            arguments.picture(frame, name)


def _keyframes(value: Any, name: str) -> None:
    if not isinstance(value, Mapping):
        refuse(value, name, "frame numbers, or ranges of them, and their pictures")
    for at, picture in value.items():
        ends = at if isinstance(at, tuple) else (at, at)
        if len(ends) != 2 or index_of(ends[0]) is None or index_of(ends[1]) is None:
            refuse(at, name, "a frame number, or a range (first, last)")
        if isinstance(picture, np.ndarray):
            if picture.ndim == 4 and not len(picture):
                refuse(picture, f"{name}: at {at}", "at least one picture")
            for each in picture[:1] if picture.ndim == 4 else (picture,):
                arguments.picture(each, f"{name}: at {at}")
        elif not isinstance(picture, VideoFrames):
            arguments.path(picture, f"{name}: at {at}")


#: Of what `Scene.of` takes, for the functions that callers give it to.
SCENE: dict[str, Check] = {
    "flows": optional(_flows),
    "keyframes": _keyframes,
    "frames": whole(1),
    "structure": optional(_structure),
    "size": optional(arguments.size),
    "options": instance(GuideOptions, "GuideOptions"),
    "workers": optional(whole(1)),
}


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
        self._places: dict[str, At] = {}
        self._last: tuple[str, Picture] | None = None
        tracker = GuidanceTracker(frames)
        guides = []
        for number, (at, picture) in enumerate(keyframes.items()):
            first, last, name = *_range(at, picture), str(number)
            if not 0 <= first <= last < frames:
                raise GuidanceError(f"key frame at {at}: expected 0 <= first <= last < {frames}, got {first} to {last}")
            if any(tracker.is_guided(index) for index in range(first, last + 1)):
                raise GuidanceError(f"key frame at {at}: expected frames that no other one covers")
            tracker.mark_guided(first, last)
            self._given[name] = picture
            self._places[name] = at
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
            raise GuidanceError(f"key frame at {self._places[name]}: expected a picture, got frames of a video")
        path, where = Path(picture), f"key frame at {self._places[name]}"
        try:
            with path.open("rb") as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise InputNotFoundError(f"{where}: {path} cannot be read: {error.strerror}") from error
        return load_guide_image(data, height=self._height, width=self._width, what=f"{where}: {path}")

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
