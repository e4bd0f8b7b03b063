"""The job request: one model, validated at the edge, with the field names of older payloads accepted too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError, model_validator

from structureflow.errors import InvalidRequestError
from structureflow.limits import (
    MAX_GUIDES,
    MAX_MASK_GRID_PX,
    MAX_NAMES,
    MAX_OUTPUT_FPS,
    MAX_OUTPUT_SIDE_PX,
    MAX_SEGMENT_FRAMES,
    MAX_SEGMENTS,
    MAX_STRUCTURE_VIDEOS,
    MIN_OUTPUT_FPS,
)
from structureflow.models.bounds import check_shape, load_request
from structureflow.models.checked import RequestModel, is_said, items_of
from structureflow.models.defaults import shorthand_defaults, with_defaults
from structureflow.models.fields import (
    MotionStrength,
    Resolution,
    at_most,
    id_checker,
    list_of,
    once_each,
    whole_number,
)
from structureflow.models.guidance import in_own_words
from structureflow.models.outputs import (
    MAX_PROMPT_CHARACTERS,
    CannyOptions,
    ExtraOutput,
    NoiseOptions,
    TrackOptions,
)
from structureflow.models.problems import Problem, lines_of, problems_in, shown
from structureflow.models.rules import job_rules
from structureflow.models.shorthand import SHORTHAND_NAMES, Shorthand
from structureflow.models.sources import SegmentOverlap, StructureVideo, in_order, segment_starts
from structureflow.models.targets import TargetName, output_size
from structureflow.references import Reference

__all__ = ["JobRequest"]

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


def _frames(value: Any) -> int | tuple[int, int]:
    """Return a frame number, or the first and last of several."""
    several = isinstance(value, list | tuple)
    numbers = [whole_number(one) for one in (value if several else [value])]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(known) != (2 if several else 1):
        raise ValueError(f"expected a frame number or [first, last], got {shown(value)}")
    if not 0 <= known[0] <= known[-1]:
        raise ValueError(f"expected 0 <= first <= last, got {shown(value)}")
    return (known[0], known[1]) if several else known[0]


class Guide(RequestModel):
    """Frames of a segment that are given, not generated.

    `at` is a zero-based frame number or an inclusive pair ``[first, last]``. Exactly one of `image` (held),
    `video` (frames `from_frame`, `from_frame` + 1, … of a video) and `fade` (a cross-fade whose last frame is
    the second image) says what they show.
    """

    at: Annotated[int | tuple[int, int], BeforeValidator(_frames)]
    image: Reference | None = None
    video: Reference | None = None
    from_frame: Annotated[
        int, Field(ge=0, validation_alias=AliasChoices("from", "from_frame"), serialization_alias="from")
    ] = 0
    fade: Annotated[tuple[Reference, Reference], list_of("[image, image]", 2)] | None = None

    @property
    def first(self) -> int:
        """First guided frame."""
        return self.at if isinstance(self.at, int) else self.at[0]

    @property
    def last(self) -> int:
        """Last guided frame, inclusive."""
        return self.at if isinstance(self.at, int) else self.at[1]

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:
        """See `RequestModel.rules`."""
        given = [name for name in ("image", "video", "fade") if is_said(said, cls, name)]
        if len(given) != 1:
            yield Problem((), f"expected exactly one of image, video, fade, got {' and '.join(given) or 'none'}")
        if given and "video" not in given and good.get("from_frame"):
            yield Problem(
                ("from_frame",), f"expected none, for only a video starts at a frame, got {good['from_frame']}"
            )
        if isinstance(good.get("at"), int) and len(given) == 1 and given != ["image"]:
            yield Problem(("at",), f"expected [first, last], for {given[0]} needs a range, got {good['at']}")

    def references(self) -> tuple[Reference, ...]:
        """Every file that the guide shows."""
        return self.fade or tuple(ref for ref in (self.image, self.video) if ref is not None)


class Segment(RequestModel):
    """One piece of the generated video: its length and what is given of it, sorted by frame."""

    frames: Annotated[int, Field(ge=2, le=MAX_SEGMENT_FRAMES)]
    guides: Annotated[tuple[Guide, ...], items_of(Guide, MAX_SEGMENT_FRAMES)] = ()

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """See `RequestModel.rules`."""
        frames = good.get("frames")
        there = [(guide.first, index, guide) for index, guide in enumerate(good.get("guides", ())) if guide is not None]
        before: tuple[int, Guide] | None = None
        for first, index, guide in sorted(there, key=lambda one: one[:2]):
            place = ("guides", index, "at")
            if frames is not None and guide.last >= frames:
                yield Problem(place, f"expected frames 0 to {frames - 1} of the segment, got {shown(guide.at)}")
            if before is not None and first <= before[1].last:
                yield Problem(
                    place,
                    f"expected frames that no other guide has, got {shown(guide.at)}; guides[{before[0]}] has "
                    f"{shown(before[1].at)}",
                )
            before = index, guide

    @model_validator(mode="after")
    def _sorted(self) -> Segment:
        object.__setattr__(self, "guides", tuple(sorted(self.guides, key=lambda guide: guide.first)))
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
    structure_videos: Annotated[tuple[StructureVideo, ...], items_of(StructureVideo, MAX_STRUCTURE_VIDEOS)] = ()
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
    segments: Annotated[tuple[Segment, ...], Field(min_length=1), items_of(Segment, MAX_SEGMENTS)]

    @classmethod
    def known_names(cls) -> list[str]:
        """See `RequestModel.known_names`; the shorthand's are among them."""
        return [*super().known_names(), *SHORTHAND_NAMES]

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem], frozenset[str]]:
        """Fill in what depends on other fields, and turn the shorthand into `segments`."""
        guides = _count_of_guides(data.get("segments"))
        if guides > MAX_GUIDES:
            problem = Problem(("segments",), f"expected at most {MAX_GUIDES} guides in all, got {guides}")
            return {name: data[name] for name in data if name != "segments"}, [problem], frozenset({"segments"})
        short = {name: value for name, value in data.items() if name in SHORTHAND_NAMES}
        filled, problems = in_own_words(
            with_defaults({name: value for name, value in data.items() if name not in short})
        )
        settled = (
            {"structure_videos"} if "structure_guidance" in data and "structure_videos" not in filled else set[str]()
        )
        if short:
            shorthand, found = _shorthand_of(data, short)
            problems += found
            if shorthand is None:
                settled.add("segments")
            else:
                filled["segments"] = shorthand.segments()
                if "structure_videos" in filled and "frame_overlap_expanded" not in filled:
                    filled.setdefault("segment_overlap", shorthand.overlap)
        return filled, problems, frozenset(settled)

    @classmethod
    def written(cls, problem: Problem, data: Mapping[str, Any]) -> Problem:
        """See `RequestModel.written`; other words than the canonical ones count too."""
        place = problem.place
        if place[:1] == ("structure_videos",) and "structure_guidance" in data and place[0] not in data:
            return Problem(("structure_guidance", "videos", *place[1:]), problem.sentence)
        if place[:1] == ("segments",) and place[2:] == ("frames",) and "images" in data and "segments" not in data:
            return Problem(("frames",), problem.sentence)
        return super().written(problem, data)

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:
        """See `RequestModel.rules`."""
        yield from job_rules(cls, good, said)

    @model_validator(mode="after")
    def _ordered(self) -> JobRequest:
        """Put the sources in the order of the timeline; one without an end goes on to its end."""
        videos = in_order(self.structure_videos)
        if videos and videos[-1].end_frame is None:
            videos = (*videos[:-1], videos[-1].model_copy(update={"end_frame": self.segment_starts[-1]}))
        object.__setattr__(self, "structure_videos", videos)
        return self

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of the job's videos where the structure video has `width` x `height` pixels."""
        return self.resolution or output_size(self.target, width, height)

    def problems_of_size(self, width: int, height: int) -> list[Problem]:
        """Return what is wrong where the structure video has `width` x `height` pixels."""
        size = self.size_for(width, height)
        if max(size) > MAX_OUTPUT_SIDE_PX:
            said = (
                f"expected one of at most {MAX_OUTPUT_SIDE_PX} pixels a side, for the structure video has "
                f"{width}x{height}, got none"
            )
            return [Problem(("resolution",), said)]
        return list(self.tracks.outside(size[1], size[0])) if "tracks" in self.outputs else []

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
            return cls.model_validate(document)
        except ValidationError as error:
            lines = lines_of(problems_in(error))
        # Not `from error`: it holds what came, and a logged traceback would print it all.
        raise InvalidRequestError("; ".join(lines), problems=lines)

    def to_document(self) -> dict[str, Any]:
        """Return the canonical JSON form; `parse` of it gives an equal request, but for the queries of URLs."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _count_of_guides(segments: Any) -> int:
    """Count the guides of all segments before any of them is looked at."""
    if not isinstance(segments, list | tuple):
        return 0
    lists = [segment.get("guides") for segment in segments if isinstance(segment, dict)]
    return sum(len(found) for found in lists if isinstance(found, list | tuple))


def _shorthand_of(data: dict[str, Any], short: dict[str, Any]) -> tuple[Shorthand | None, list[Problem]]:
    """Return the shorthand of a request, or what is wrong with it."""
    if "segments" in data:
        return None, [Problem((name,), "expected none beside segments, got one") for name in short]
    if "images" not in short:
        return None, [Problem((name,), "expected none without images, got one") for name in short]
    try:
        return Shorthand.model_validate(shorthand_defaults(data, short)), []
    except ValidationError as error:
        return None, problems_in(error)
