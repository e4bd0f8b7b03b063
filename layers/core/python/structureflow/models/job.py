"""The job request: one model, validated at the edge, with the field names of older payloads accepted too."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sized
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

from structureflow.errors import InvalidIdError, InvalidRequestError
from structureflow.keys import check_id
from structureflow.limits import (
    MAX_GUIDES,
    MAX_NAMES,
    MAX_OUTPUT_FPS,
    MAX_OUTPUT_SIDE_PX,
    MAX_PROBLEMS,
    MAX_SEGMENT_FRAMES,
    MAX_SEGMENTS,
    MIN_OUTPUT_FPS,
    MIN_OUTPUT_SIDE_PX,
)
from structureflow.models.bounds import check_shape, load_request
from structureflow.models.outputs import (
    MAX_PROMPT_CHARACTERS,
    CannyOptions,
    ExtraOutput,
    NoiseOptions,
    TrackOptions,
)
from structureflow.references import Reference, without_queries

Treatment = Literal["adjust", "clip", "retime"]
EngineName = Literal["auto", "dis", "farneback", "raft"]
Quality = Literal["fast", "balanced", "best"]
FlowSpan = Literal["per_segment", "timeline"]
Anchors = Literal["start", "both"]
Tracking = Literal["anchored", "composed"]
MotionPart = Literal["all", "camera", "subject"]
OverlayStage = Literal["flow", "visibility", "guidance", "warp", "path"]

_Item = TypeVar("_Item")
_RESOLUTION = re.compile(r"\s*([0-9]{1,6})\s*[xX]\s*([0-9]{1,6})\s*")


def _at_most(count: int) -> BeforeValidator:
    """Look at the length of a list before any of its items is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, Sized) and not isinstance(value, str) and len(value) > count:
            raise ValueError(f"expected at most {count} items, got {len(value)}")
        return value

    return BeforeValidator(check)


def _once_each(names: tuple[_Item, ...]) -> tuple[_Item, ...]:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"expected every name once, got {name!r} {count} times")
    return names


def _id_checker(what: str) -> Any:
    def check(value: str) -> str:
        try:
            return check_id(value, what)
        except InvalidIdError as error:
            raise ValueError(error.message) from error

    return AfterValidator(check)


def _resolution(value: Any) -> Any:
    """Accept ``"1280x720"`` beside ``[1280, 720]``."""
    if isinstance(value, str):
        match = _RESOLUTION.fullmatch(value)
        if match is None:
            raise ValueError(f"expected [width, height] or 'WIDTHxHEIGHT', got {value!r:.60}")
        return int(match[1]), int(match[2])
    return value


def _check_resolution(value: tuple[int, int]) -> tuple[int, int]:
    for side, name in zip(value, ("width", "height"), strict=True):
        if side % 2 or not MIN_OUTPUT_SIDE_PX <= side <= MAX_OUTPUT_SIDE_PX:
            raise ValueError(
                f"{name}: expected an even number from {MIN_OUTPUT_SIDE_PX} to {MAX_OUTPUT_SIDE_PX}, got {side}"
            )
    return value


Resolution = Annotated[tuple[int, int], BeforeValidator(_resolution), AfterValidator(_check_resolution)]
"""(width, height) in pixels, both even."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=False)


class Guide(_Model):
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


class Segment(_Model):
    """One piece of the generated video: its length and what is given of it, sorted by frame."""

    frames: Annotated[int, Field(ge=2, le=MAX_SEGMENT_FRAMES)]
    #: The first bad guide is told, not each of thousands.
    guides: Annotated[tuple[Guide, ...], FailFast(), _at_most(MAX_SEGMENT_FRAMES)] = ()

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

    def references(self) -> tuple[Reference, ...]:
        """Every guide file of the segment once, in order of first use."""
        return tuple(dict.fromkeys(ref for guide in self.guides for ref in guide.references()))


class JobRequest(_Model):
    """What a user asks for. See the table in the README for every field."""

    task_id: Annotated[
        str, _id_checker("task_id"), Field(validation_alias=AliasChoices("task_id", "orchestrator_task_id"))
    ]
    project_id: Annotated[str, Field(max_length=256)] | None = None
    structure_video: Annotated[
        Reference, Field(validation_alias=AliasChoices("structure_video", "structure_video_path"))
    ]
    timeline_id: Annotated[str, _id_checker("timeline_id")] | None = None
    treatment: Annotated[Treatment, Field(validation_alias=AliasChoices("treatment", "structure_video_treatment"))] = (
        "adjust"
    )
    motion_strength: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            allow_inf_nan=False,
            validation_alias=AliasChoices("motion_strength", "structure_video_motion_strength"),
        ),
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
    flow_span: FlowSpan = "per_segment"
    anchors: Anchors = "start"
    tracking: Tracking = "anchored"
    motion: MotionPart = "all"
    outputs: Annotated[tuple[ExtraOutput, ...], _at_most(MAX_NAMES), AfterValidator(_once_each)] = ()
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] | None = None
    tracks: TrackOptions = TrackOptions()
    noise: NoiseOptions = NoiseOptions()
    canny: CannyOptions = CannyOptions()
    overlays: Annotated[tuple[OverlayStage, ...], _at_most(MAX_NAMES), AfterValidator(_once_each)] = ()
    segments: Annotated[tuple[Segment, ...], Field(min_length=1), _at_most(MAX_SEGMENTS)]

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, data: Any) -> Any:
        """Turn `images`, `frames`, `overlap`, `fade` into `segments`."""
        if not isinstance(data, dict):
            return data
        _check_guide_count(data.get("segments"))
        shorthand = {name: data[name] for name in ("images", "frames", "overlap", "fade") if name in data}
        if not shorthand:
            return data
        if "segments" in data:
            raise ValueError(f"give either segments or {', '.join(shorthand)}, not both")
        if "images" not in shorthand:
            raise ValueError(f"{', '.join(shorthand)}: only together with images")
        expanded = {name: value for name, value in data.items() if name not in shorthand}
        try:
            expanded["segments"] = _Shorthand.model_validate(shorthand).segments()
        except ValidationError as error:
            raise ValueError("; ".join(_problems(error))) from None
        return expanded

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

    def references(self) -> tuple[Reference, ...]:
        """Every guide file of the job once, in order of first use."""
        return tuple(dict.fromkeys(ref for segment in self.segments for ref in segment.references()))

    @property
    def is_redacted(self) -> bool:
        """Whether it was read from a record, which shows references without the queries of URLs."""
        return any(reference.is_redacted for reference in (self.structure_video, *self.references()))

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
            problems = _problems(error)
            # Not `from error`: it holds every bad value, and a logged traceback would print them all.
            raise InvalidRequestError("; ".join(problems), problems=problems) from None

    def to_document(self) -> dict[str, Any]:
        """Return the canonical JSON form; `parse` of it gives an equal request, but for the queries of URLs."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class _Shorthand(_Model):
    """N images make N-1 segments of `frames` frames: hold the first, cross-fade to the second at the end."""

    images: Annotated[tuple[Reference, ...], Field(min_length=2), _at_most(MAX_SEGMENTS + 1)]
    frames: Annotated[int, Field(ge=2, le=MAX_SEGMENT_FRAMES)] = 73
    overlap: Annotated[int, Field(ge=1)] = 20
    fade: Annotated[int, Field(ge=0)] = 10

    @model_validator(mode="after")
    def _check(self) -> _Shorthand:
        if self.overlap + self.fade > self.frames:
            raise ValueError(f"overlap {self.overlap} + fade {self.fade} exceed frames {self.frames}")
        return self

    def segments(self) -> list[dict[str, Any]]:
        segments = []
        for start, end in itertools.pairwise(self.images):
            guides: list[dict[str, Any]] = [{"at": [0, self.overlap - 1], "image": start}]
            if self.fade:
                guides.append({"at": [self.frames - self.fade, self.frames - 1], "fade": [start, end]})
            segments.append({"frames": self.frames, "guides": guides})
        return segments


def _check_guide_count(segments: Any) -> None:
    """Count the guides of all segments before any of them is looked at."""
    if not isinstance(segments, list | tuple):
        return
    lists = [segment.get("guides") for segment in segments if isinstance(segment, dict)]
    guides = sum(len(found) for found in lists if isinstance(found, list | tuple))
    if guides > MAX_GUIDES:
        raise ValueError(f"segments: expected at most {MAX_GUIDES} guides in all, got {guides}")


def _problems(error: ValidationError) -> list[str]:
    """Return a line for each bad field, at most `MAX_PROBLEMS` and how many more there are."""
    found = _causes(error.errors(include_url=False, include_context=False))
    problems = [_describe(problem) for problem in found[:MAX_PROBLEMS]]
    return problems if len(found) <= MAX_PROBLEMS else [*problems[:-1], f"and {len(found) - MAX_PROBLEMS + 1} more"]


def _causes(problems: list[Any]) -> list[Any]:
    """Drop what only follows from another problem: a list counts as too short when one of its items is bad."""
    places = {tuple(problem["loc"][:depth]) for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or tuple(problem["loc"]) not in places]


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "request"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown field"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix(f"{path}: ")
    got = problem.get("input")
    if problem["type"] in ("missing", "value_error"):
        return f"{path}: {message}"
    # Before it is cut: half a URL's query would not be known as one.
    return f"{path}: {message}, got {without_queries(repr(got)):.120}"
