"""The job request: one model, validated at the edge, with the field names of older payloads accepted too."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, FailFast, Field, ValidationError, model_validator

from structureflow.errors import InvalidRequestError
from structureflow.limits import (
    MAX_GUIDES,
    MAX_JOB_FRAMES,
    MAX_MASK_GRID_PX,
    MAX_NAMES,
    MAX_OUTPUT_FPS,
    MAX_PROBLEMS,
    MAX_SEGMENT_FRAMES,
    MAX_SEGMENTS,
    MAX_STRUCTURE_VIDEOS,
    MIN_OUTPUT_FPS,
)
from structureflow.models.bounds import check_shape, load_request
from structureflow.models.defaults import shorthand_defaults, with_defaults
from structureflow.models.fields import MotionStrength, RequestModel, Resolution, at_most, id_checker, once_each
from structureflow.models.guidance import in_own_words
from structureflow.models.outputs import (
    MAX_PROMPT_CHARACTERS,
    CannyOptions,
    ExtraOutput,
    NoiseOptions,
    TrackOptions,
)
from structureflow.models.problems import problems_of
from structureflow.models.shorthand import SHORTHAND_NAMES, Shorthand
from structureflow.models.sources import SegmentOverlap, StructureVideo, in_order, segment_starts
from structureflow.models.targets import TARGETS, TargetName
from structureflow.references import Reference

Treatment = Literal["adjust", "clip", "retime"]
EngineName = Literal["auto", "dis", "farneback", "raft"]
Quality = Literal["fast", "balanced", "best"]
FlowSpan = Literal["per_segment", "timeline"]
Anchors = Literal["start", "both"]
Tracking = Literal["anchored", "composed"]
MaskMode = Literal["visibility", "keyframes", "filled"]
Holes = Literal["grey", "warp"]
Seams = Literal["choose", "average"]
MotionPart = Literal["all", "camera", "subject"]
OverlayStage = Literal["flow", "visibility", "guidance", "warp", "path"]


class Guide(RequestModel):
    """Frames of a segment that are given, not generated.

    `at` is a zero-based frame number or an inclusive pair ``[first, last]``. Exactly one of `image` (held),
    `video` (frames `from_frame`, `from_frame` + 1, … of a video) and `fade` (a cross-fade whose last frame is
    the second image) says what they show.
    """

    at: int | tuple[int, int]
    image: Reference | None = None
    video: Reference | None = None
    from_frame: Annotated[
        int, Field(ge=0, validation_alias=AliasChoices("from", "from_frame"), serialization_alias="from")
    ] = 0
    fade: tuple[Reference, Reference] | None = None

    @property
    def first(self) -> int:
        """First guided frame."""
        return self.at if isinstance(self.at, int) else self.at[0]

    @property
    def last(self) -> int:
        """Last guided frame, inclusive."""
        return self.at if isinstance(self.at, int) else self.at[1]

    @model_validator(mode="after")
    def _check(self) -> Guide:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"at: expected 0 <= first <= last, got {self.at}")
        given = [name for name in ("image", "video", "fade") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of image, video, fade, got {' and '.join(given) or 'none'}")
        if self.video is None and self.from_frame:
            raise ValueError("from: only a video guide starts at a frame")
        if isinstance(self.at, int) and (self.video is not None or self.fade is not None):
            raise ValueError(f"at: {given[0]} needs a range [first, last], got {self.at}")
        return self

    def references(self) -> tuple[Reference, ...]:
        """Every file that the guide shows."""
        return self.fade or tuple(ref for ref in (self.image, self.video) if ref is not None)


class Segment(RequestModel):
    """One piece of the generated video: its length and what is given of it, sorted by frame."""

    frames: Annotated[int, Field(ge=2, le=MAX_SEGMENT_FRAMES)]
    #: The first bad guide is told, not each of thousands.
    guides: Annotated[tuple[Guide, ...], FailFast(), at_most(MAX_SEGMENT_FRAMES)] = ()

    @model_validator(mode="after")
    def _check(self) -> Segment:
        ordered = tuple(sorted(self.guides, key=lambda guide: guide.first))
        for guide in ordered:
            if guide.last >= self.frames:
                raise ValueError(
                    f"guide at {guide.at} lies outside the segment's {self.frames} frames (0 to {self.frames - 1})"
                )
        for before, after in itertools.pairwise(ordered):
            if after.first <= before.last:
                raise ValueError(f"guides at {before.at} and {after.at} overlap")
        object.__setattr__(self, "guides", ordered)
        return self

    @property
    def unguided(self) -> int:
        """How many frames of the segment no guide covers."""
        return self.frames - sum(guide.last - guide.first + 1 for guide in self.guides)

    def references(self) -> tuple[Reference, ...]:
        """Every guide file of the segment once, in order of first use."""
        return tuple(dict.fromkeys(ref for guide in self.guides for ref in guide.references()))


class JobRequest(RequestModel):
    """What a user asks for. See the table in the README for every field."""

    task_id: Annotated[
        str, id_checker("task_id"), Field(validation_alias=AliasChoices("task_id", "orchestrator_task_id"))
    ]
    project_id: Annotated[str, Field(max_length=256)] | None = None
    structure_video: Annotated[
        Reference | None, Field(validation_alias=AliasChoices("structure_video", "structure_video_path"))
    ] = None
    structure_videos: Annotated[
        tuple[StructureVideo, ...], at_most(MAX_STRUCTURE_VIDEOS), AfterValidator(in_order)
    ] = ()
    segment_overlap: Annotated[
        SegmentOverlap, Field(validation_alias=AliasChoices("segment_overlap", "frame_overlap_expanded"))
    ] = 0
    flow_cache: Annotated[
        Reference | None, Field(validation_alias=AliasChoices("flow_cache", "structure_flow_cache_url"))
    ] = None
    timeline_id: Annotated[str, id_checker("timeline_id")] | None = None
    treatment: Annotated[Treatment, Field(validation_alias=AliasChoices("treatment", "structure_video_treatment"))] = (
        "retime"
    )
    motion_strength: Annotated[
        MotionStrength, Field(validation_alias=AliasChoices("motion_strength", "structure_video_motion_strength"))
    ] = 1.0
    resolution: Annotated[
        Resolution | None, Field(validation_alias=AliasChoices("resolution", "parsed_resolution_wh"))
    ] = None
    fps: Annotated[
        float,
        Field(
            ge=MIN_OUTPUT_FPS,
            le=MAX_OUTPUT_FPS,
            allow_inf_nan=False,
            validation_alias=AliasChoices("fps", "fps_helpers"),
        ),
    ] = 16
    engine: EngineName = "auto"
    quality: Quality = "balanced"
    flow_span: FlowSpan = "timeline"
    anchors: Anchors = "both"
    tracking: Tracking = "anchored"
    motion: MotionPart = "all"
    seams: Seams = "choose"
    match_color: bool = False
    target: TargetName | None = None
    mask: MaskMode = "visibility"
    holes: Holes = "grey"
    mask_grid: Annotated[int, Field(ge=1, le=MAX_MASK_GRID_PX)] = 16
    outputs: Annotated[tuple[ExtraOutput, ...], at_most(MAX_NAMES), AfterValidator(once_each)] = ()
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] | None = None
    tracks: TrackOptions = TrackOptions()
    noise: NoiseOptions = NoiseOptions()
    canny: CannyOptions = CannyOptions()
    overlays: Annotated[tuple[OverlayStage, ...], at_most(MAX_NAMES), AfterValidator(once_each)] = ()
    segments: Annotated[tuple[Segment, ...], Field(min_length=1), at_most(MAX_SEGMENTS)]

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Fill in what depends on other fields, and turn the shorthand into `segments`."""
        if not isinstance(data, dict):
            return data
        _check_guide_count(data.get("segments"))
        shorthand = {name: data[name] for name in SHORTHAND_NAMES if name in data}
        filled = in_own_words(with_defaults({name: value for name, value in data.items() if name not in shorthand}))
        if not shorthand:
            return filled
        if "segments" in data:
            raise ValueError(f"give either segments or {', '.join(shorthand)}, not both")
        if "images" not in shorthand:
            raise ValueError(f"{', '.join(shorthand)}: only together with images")
        shorthand = shorthand_defaults(data, shorthand)
        if "structure_videos" in filled and "frame_overlap_expanded" not in filled:
            filled.setdefault("segment_overlap", shorthand["overlap"])
        try:
            filled["segments"] = Shorthand.model_validate(shorthand).segments()
        except ValidationError as error:
            raise ValueError("; ".join(problems_of(error))) from None
        return filled

    @model_validator(mode="after")
    def _check_timeline(self) -> JobRequest:
        """Check the sources on the stitched timeline, and let those without an end go on to its end."""
        _check_frame_count(self.segments)
        *_, end = segment_starts([segment.frames for segment in self.segments], self.segment_overlap)
        if not self.structure_videos:
            return self
        for name in ("structure_video", "flow_cache", "timeline_id"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: expected none beside structure_videos")
        last = self.structure_videos[-1]
        if last.start_frame >= end:
            raise ValueError(
                f"structure_videos: expected start_frame below {end}, the end of the timeline, got {last.start_frame}"
            )
        if last.end_frame is None:
            videos = (*self.structure_videos[:-1], last.model_copy(update={"end_frame": end}))
            object.__setattr__(self, "structure_videos", videos)
        return self

    @model_validator(mode="after")
    def _check_motion(self) -> JobRequest:
        """Check that there is one source of motion, and that nothing else is asked of it."""
        if self.flow_cache is not None and self.engine != "auto":
            raise ValueError(f"engine: the flows of flow_cache are taken as they are, {self.engine} has nothing to do")
        if self.structure_video is not None or self.structure_videos:
            return self
        if self.flow_cache is None:
            raise ValueError(
                "structure_video: expected the video whose motion is carried, or structure_videos, or flow_cache; "
                "got none"
            )
        shown = [name for name in self.outputs if name in ("canny", "raw")]
        if shown:
            raise ValueError(f"outputs: {' and '.join(shown)} show the structure video, and none is given")
        if self.tracking == "anchored":
            raise ValueError("tracking: anchored looks at frames of the structure video, and none is given")
        return self

    @model_validator(mode="after")
    def _check_outputs(self) -> JobRequest:
        if "ttm" in self.outputs:
            for number, segment in enumerate(self.segments):
                if not segment.guides or segment.guides[0].first:
                    raise ValueError(
                        f"outputs: ttm needs a guide at frame 0 of every segment, segment {number} has none"
                    )
        if self.resolution is not None:
            self.check_places(*self.resolution)
        return self

    def check_places(self, width: int, height: int) -> None:
        """Check what the request names in a picture of `width` x `height` pixels.

        Raises:
            ValueError: a point to track, or the box of points, lies outside of it.
        """
        if "tracks" in self.outputs:
            self.tracks.places(height, width)

    @property
    def segment_starts(self) -> tuple[int, ...]:
        """Where each segment begins on the stitched timeline, and last where that ends."""
        return segment_starts([segment.frames for segment in self.segments], self.segment_overlap)

    def references(self) -> tuple[Reference, ...]:
        """Every guide file of the job once, in order of first use."""
        return tuple(dict.fromkeys(ref for segment in self.segments for ref in segment.references()))

    @property
    def is_redacted(self) -> bool:
        """Whether it was read from a record, which shows references without the queries of URLs."""
        videos = (video.path for video in self.structure_videos)
        given = (self.structure_video, self.flow_cache, *videos, *self.references())
        return any(reference is not None and reference.is_redacted for reference in given)

    @property
    def motion_source(self) -> Reference:
        """What the motion is taken from, unless there are several: the video, or the archive given without one."""
        reference = self.structure_video or self.flow_cache
        if reference is None:
            raise InvalidRequestError("structure_video: expected one")
        return reference

    @classmethod
    def parse_json(cls, data: bytes, *, expected_task_id: str) -> JobRequest:
        """Validate the bytes of a ``request.json`` that lies in the folder of `expected_task_id`.

        Raises:
            InvalidRequestError: too large, not JSON, not an object, an unknown or bad field (named), or another
                task id.
        """
        request = cls._validated(load_request(data))
        if request.task_id != expected_task_id:
            raise InvalidRequestError(
                f"task_id: expected {expected_task_id!r}, the folder of the request, got {request.task_id!r}"
            )
        return request

    @classmethod
    def parse(cls, document: dict[str, Any]) -> JobRequest:
        """Validate a request that is already a mapping.

        Raises:
            InvalidRequestError: with one line per bad field: its path, what was expected, what came.
        """
        check_shape(document)
        return cls._validated(document)

    @classmethod
    def _validated(cls, document: dict[str, Any]) -> JobRequest:
        try:
            request = cls.model_validate(document)
        except ValidationError as error:
            problems = problems_of(error)
            # Not `from error`: it holds every bad value, and a logged traceback would print them all.
            raise InvalidRequestError("; ".join(problems), problems=problems) from None
        if request.target is not None:
            frames = tuple(segment.frames for segment in request.segments)
            problems = TARGETS[request.target].problems_with(request.resolution, request.fps, frames)
            if problems:
                shown = problems if len(problems) <= MAX_PROBLEMS else [*problems[: MAX_PROBLEMS - 1], "and more"]
                raise InvalidRequestError("; ".join(shown), problems=shown)
        return request

    def to_document(self) -> dict[str, Any]:
        """Return the canonical JSON form; `parse` of it gives an equal request, but for the queries of URLs."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _check_guide_count(segments: Any) -> None:
    """Count the guides of all segments before any of them is looked at."""
    if not isinstance(segments, list | tuple):
        return
    lists = [segment.get("guides") for segment in segments if isinstance(segment, dict)]
    guides = sum(len(found) for found in lists if isinstance(found, list | tuple))
    if guides > MAX_GUIDES:
        raise ValueError(f"segments: expected at most {MAX_GUIDES} guides in all, got {guides}")


def _check_frame_count(segments: tuple[Segment, ...]) -> None:
    frames = sum(segment.frames for segment in segments)
    if frames > MAX_JOB_FRAMES:
        raise ValueError(f"segments: expected at most {MAX_JOB_FRAMES} frames in all, got {frames}")
