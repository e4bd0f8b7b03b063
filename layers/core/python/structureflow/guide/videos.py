"""A guide and its mask, as arrays or as video files, for callers who have flows and pictures but no job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError, InputNotFoundError
from structureflow.extras import importing
from structureflow.flow.archive import FlowArchive, open_flow_file
from structureflow.flow.engines import Quality
from structureflow.flow.fields import FlowSource, Treatment
from structureflow.guide.images import fit, load_guide_image
from structureflow.guide.masks import Masking
from structureflow.guide.pictures import PLANES, RGB, PictureFormat
from structureflow.guide.ports import Mask, Picture, SegmentSink
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import render_segment
from structureflow.guide.settings import MotionStrength, RenderOutcome, RenderSettings
from structureflow.guide.structure import DecodedGrays
from structureflow.guide.tracker import GuidanceTracker
from structureflow.limits import MAX_IMAGE_BYTES, MAX_WORKING_GRID_PX
from structureflow.media.planes import frozen, mask_to_planes, rgb_to_planes
from structureflow.models.job import Anchors, Guide, MotionPart, Seams, Segment
from structureflow.processors import usable_cpus
from structureflow.references import Reference

PathLike = str | os.PathLike[str]
Frame = NDArray[np.uint8]
KeyFrame = PathLike | Frame
"""A picture's file, or ``(H, W, 3)`` uint8 RGB; or ``(n, H, W, 3)``: n frames that follow each other."""
At = int | tuple[int, int]
"""A frame number from 0, or an inclusive range."""
Structure = PathLike | Sequence[Frame] | Frame


@dataclass(frozen=True, slots=True)
class GuideOptions:
    """How a guide is made; the defaults are those of a job.

    Attributes:
        treatment: how the flows become one step per unguided frame: ``retime`` by time; ``adjust`` and ``clip`` by
            number, see `adjust_flow_field_count`.
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


_DEFAULTS: Final = GuideOptions()


@dataclass(frozen=True, eq=False)
class RenderedGuide:
    """A guide in memory.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8 RGB; mid-grey (128) where nothing is known.
        masks: ``(T, H, W)`` uint8, of 0 (keep) and 255 (generate) only.
        outcome: what became of the frames.
    """

    frames: Frame
    masks: Frame
    outcome: RenderOutcome

    def save(self, folder: PathLike, *, fps: float = 16.0) -> tuple[Path, Path]:
        """Write ``guide.mp4`` and ``mask.mp4`` (H.264) into a folder, and return their paths.

        Raises:
            EncodeError: a side is odd, or the folder cannot be written to.
        """
        with importing("RenderedGuide.save"):
            from structureflow.media.encode import MASK, encode_h264

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        height, width = self.masks.shape[1:]
        masks = (mask_to_planes(mask) for mask in self.masks)
        encode_h264(self.frames, place / "guide.mp4", height=height, width=width, fps=fps)
        encode_h264(masks, place / "mask.mp4", height=height, width=width, fps=fps, settings=MASK)
        return place / "guide.mp4", place / "mask.mp4"


def render_guide(
    flows: FlowSource | PathLike | None,
    keyframes: Mapping[At, KeyFrame],
    frames: int,
    *,
    structure: Structure | None = None,
    size: tuple[int, int] | None = None,
    options: GuideOptions = _DEFAULTS,
    workers: int | None = None,
) -> RenderedGuide:
    """Make a guide and its mask in memory: your pictures at their places, carried by the motion between them.

    Args:
        flows: the structure video's: what `extract_flows` or `open_flows` gives, or an archive's file; None: no motion.
        keyframes: what is given: a frame's number, or an inclusive range in which the picture is held, to a picture. An
            array of n frames begins at its number, or fills a range of n. Pictures are cut to `size`, not stretched.
        frames: how many the guide has.
        structure: the structure video itself, a file or its frames: paths are then looked at in them, and do not drift.
            Without it they are made of flows alone.
        size: (width, height) in pixels; default the structure video's.
        options: how it is made.
        workers: threads; None takes all that this process may use. The result does not depend on it.

    Raises:
        GuidanceError: key frames overlap, lie outside, or are no pictures; or an option is out of its range.
        NotAnImageError, InputNotFoundError: a picture's file cannot be read.
        FlowError, FlowCacheError: the flows cannot be used.

    >>> guide = render_guide("flows.npz", {0: "a.png", 16: "b.png"}, 17, structure="clip.mp4")
    >>> guide.frames.shape, guide.masks.shape
    ((17, 96, 160, 3), (17, 96, 160))
    >>> guide.outcome.filled, guide.outcome.tracking
    (((1, 15),), 'anchored')
    """
    scene = _Scene.of(flows, keyframes, frames, structure, size, options, workers, RGB)
    sink = _Arrays(frames, scene.settings.height, scene.settings.width)
    return RenderedGuide(sink.guide, sink.masks, scene.render(sink))


def write_guide(
    flows: FlowSource | PathLike | None,
    keyframes: Mapping[At, KeyFrame],
    frames: int,
    folder: PathLike,
    *,
    fps: float = 16.0,
    structure: Structure | None = None,
    size: tuple[int, int] | None = None,
    options: GuideOptions = _DEFAULTS,
    workers: int | None = None,
) -> RenderOutcome:
    """Write ``guide.mp4`` and ``mask.mp4`` into a folder, encoded as they are made: what a job makes of one segment.

    Memory does not grow with the number of frames. Older files of these names are replaced when both are whole.

    Args:
        folder: is made if need be.
        fps: of the videos, frames per second.
        flows, keyframes, frames, structure, options, workers: as `render_guide`.
        size: (width, height), both even; default the structure video's, made even.

    Returns:
        What became of the frames.

    Raises:
        EncodeError: a side is odd, or the folder cannot be written to.
        Otherwise as `render_guide`.

    >>> outcome = write_guide("flows.npz", {0: "a.png", (12, 16): "b.png"}, 17, "guide", fps=16)
    >>> outcome.filled
    ((1, 11),)
    """
    scene = _Scene.of(flows, keyframes, frames, structure, size, options, workers, PLANES)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    parts = {name: place / f".{name}.part.mp4" for name in ("guide", "mask")}
    try:
        with _Videos(parts, scene.settings, fps) as sink:
            outcome = scene.render(sink)
            sink.finish()
        for name, part in parts.items():
            part.replace(place / f"{name}.mp4")
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return outcome


@dataclass(frozen=True, slots=True)
class _Scene:
    """Everything that a rendering needs, checked."""

    segment: Segment
    flows: FlowSource | None
    pictures: _Pictures
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
    ) -> _Scene:
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
        pictures = _Pictures(keyframes, frames, height, width, form)
        grays = None
        if structure is not None and source is not None:
            # a path may be looked at in the frame behind its last flow, and the way into an end anchor one further on
            last = min(stop + 1, total)
            meta = source.meta
            grays = DecodedGrays(structure, height=meta.height, width=meta.width, first=options.flow_start, last=last)
        return cls(pictures.segment, source, pictures, settings, grays)

    def render(self, sink: SegmentSink) -> RenderOutcome:
        if isinstance(self.flows, FlowArchive) and self.settings.flow_start < self.settings.flow_stop:
            self.flows.expect(self.settings.flow_start, min(self.settings.flow_stop + 1, self.flows.meta.total_flows))
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


class _Pictures:
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
            follows = isinstance(picture, np.ndarray) and picture.ndim == 4
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
        frames = self._given[reference.reveal()]
        for frame in np.asarray(frames)[first : first + count]:
            yield self._formed(fit(frame, self._height, self._width))

    def _loaded(self, picture: KeyFrame, name: str) -> Frame:
        if isinstance(picture, np.ndarray):
            return fit(picture, self._height, self._width)
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


def _range(at: At, picture: KeyFrame) -> tuple[int, int]:
    count = len(picture) if isinstance(picture, np.ndarray) and picture.ndim == 4 else None
    if isinstance(at, tuple):
        first, last = at
        if count is not None and count != last + 1 - first:
            raise GuidanceError(f"key frame at {at}: expected {last + 1 - first} frames, got {count}")
        return first, last
    return at, at + (count or 1) - 1


class _Arrays:
    """A sink that keeps everything."""

    def __init__(self, frames: int, height: int, width: int) -> None:
        self.guide = np.empty((frames, height, width, 3), np.uint8)
        self.masks = np.empty((frames, height, width), np.uint8)

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        self.guide[index] = guide
        self.masks[index] = mask


class _Videos:
    """A sink that encodes; a context manager."""

    def __init__(self, paths: Mapping[str, Path], settings: RenderSettings, fps: float) -> None:
        # only where it is needed: guides in memory need no encoder
        with importing("write_guide"):
            from structureflow.media.background import BackgroundEncoder
            from structureflow.media.encode import GUIDE, MASK

        self._files = ExitStack()

        def encoder(name: str, **options: Any) -> BackgroundEncoder:
            return BackgroundEncoder(paths[name], height=settings.height, width=settings.width, fps=fps, **options)

        self._guide = encoder("guide", settings=GUIDE, threads=settings.workers)
        self._mask = encoder("mask", settings=MASK, threads=1)
        self._plain = {
            value: frozen(mask_to_planes(np.full((settings.height, settings.width), value, np.uint8)))
            for value in (0, 255)
        }

    def __enter__(self) -> _Videos:
        for encoder in (self._guide, self._mask):
            self._files.enter_context(encoder)
        return self

    def __exit__(self, *details: Any) -> None:
        self._files.__exit__(*details)

    def write(self, index: int, guide: Picture, mask: Mask) -> None:  # noqa: ARG002 - in order
        self._guide.write(guide)
        self._mask.write(self._plain[mask] if isinstance(mask, int) else mask_to_planes(mask))

    def finish(self) -> None:
        self._guide.finish()
        self._mask.finish()
