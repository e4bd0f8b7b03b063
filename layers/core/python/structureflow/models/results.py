"""What the steps of a job hand each other and leave behind, each a model of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from structureflow.errors import shortened
from structureflow.models.cost import StepUsage
from structureflow.models.fields import MotionStrength
from structureflow.models.job import Holes, JobRequest, MaskMode, MotionPart, Tracking
from structureflow.models.outputs import ExtraOutput, OutputDescription
from structureflow.models.targets import TargetName
from structureflow.storage.verified import VerifiedBy

__all__ = ["JobRecord", "JobStatus", "Manifest", "PartProgress", "SegmentResult"]

FlowSourceName = Literal["cache", "frames", "video"]
JobState = Literal["running", "done", "failed"]


def now() -> datetime:
    """Return the present time in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Model(BaseModel):
    """Base of all documents the system writes: frozen, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_json(self) -> bytes:
        """Return the document as it is stored: indented UTF-8 JSON."""
        return self.model_dump_json(indent=2, by_alias=True, exclude_none=True).encode()


class ErrorInfo(Model):
    """A typed error as it stands in ``status.json``; its texts are cut as those of an error are."""

    code: Annotated[str, AfterValidator(shortened)]
    message: Annotated[str, AfterValidator(shortened)]
    stage: str
    detail: dict[str, Any] = {}


class InputPin(Model):
    """An input as it was found: who reads it later gets these bytes, or `InputChangedError`.

    `reference` is for people: the query of a URL is left out. `identity` changes whenever the bytes may have
    changed. `sha256` and `verified_by` (how the bytes were seen to be the store's) are absent until they were read:
    flows that were found in the cache need no video.
    """

    reference: str
    identity: str
    size_bytes: int
    sha256: str | None = None
    verified_by: VerifiedBy | None = None


class SourceInfo(InputPin):
    """The structure video as it was found.

    `timestamps_s` is the time of each frame where the rate varies; empty where times say no more than `fps`.
    """

    frames: int
    fps: float
    width_px: int
    height_px: int
    timestamps_s: tuple[float, ...] = ()


class JoinedSource(SourceInfo):
    """One of several structure videos, and the part of it that the job plays.

    `timeline_id` is whose frame cache has its frames, `flow_cache_key` where all jobs find its flows. The part begins
    at its frame `source_start_frame`; the joined flows have it as `part_frames` frames from `first_frame` on.
    `part_times_s` is when each of these is shown, where the rate varies.
    """

    timeline_id: str
    flow_cache_key: str
    engine: str
    engine_params: dict[str, Any] = {}
    source_start_frame: int
    first_frame: int
    part_frames: int
    part_times_s: tuple[float, ...] = ()


class Fallback(Model):
    """A step that did not go as asked, and what was done instead."""

    stage: str
    wanted: str
    used: str
    reason: str


class JobRecord(Model):
    """``job.json``: the request and everything the orchestrator resolved; input of all later steps.

    `source` is what motion is taken from: the structure video, or the archive of flows that is given without one.
    `guides` are those of ``request.references()``, in that order. `flow_cache` is the archive that the request gives.

    `sources` are those of ``request.structure_videos``, in that order; `source` is then the video of their parts laid
    end to end, which only the archive of its flows is made of. `notices` are what was done otherwise than asked.
    """

    task_id: str
    run_id: str
    request: JobRequest
    source: SourceInfo
    sources: tuple[JoinedSource, ...] = ()
    only_source: int | None = None
    guides: tuple[InputPin, ...] = ()
    flow_cache: InputPin | None = None
    timeline_id: str
    resolution: tuple[int, int]
    engine_requested: str
    engine: str
    engine_params: dict[str, Any] = {}
    flows_key: str | None = None
    flow_cache_key: str | None = None
    flow_cache_hit: bool
    scene_cuts: tuple[int, ...] = ()
    display_max_px: float = 0.0
    fallbacks: tuple[Fallback, ...] = ()
    notices: tuple[str, ...] = ()
    timings_s: dict[str, float] = {}
    usage: tuple[StepUsage, ...] = ()
    created_at: datetime

    def of_source(self, number: int) -> JobRecord:
        """Return the record as it would be if source `number` were the job's only one; it is never stored."""
        source = self.sources[number]
        return self.model_copy(
            update={
                "source": source,
                "only_source": number,
                "sources": (),
                "timeline_id": source.timeline_id,
                "engine": source.engine,
                "engine_params": source.engine_params,
                "flows_key": source.flow_cache_key,
                "flow_cache_key": source.flow_cache_key,
                "scene_cuts": (),
                "display_max_px": 0.0,
            }
        )


class OutputObject(Model):
    """One stored output; `description` says what is in it and who takes it."""

    key: str
    size_bytes: int
    etag: str
    description: OutputDescription | None = None


class FrameEvidence(Model):
    """How well a filled frame is known.

    `kept` is the share of its pixels that an anchor shows; `unlike` is how much structure frame and anchor differ
    there along the path, in levels of contrast.
    """

    frame: int
    kept: float
    unlike: float


class SegmentResult(Model):
    """``result.json`` of a segment: what was made, from what, and how long it took.

    Ranges are inclusive pairs of zero-based frame numbers: `unguided` as planned, `filled` those that show something
    carried by motion, `left_unguided` those left to the generator (white in the mask, grey all over). `kept` is the
    share of all pixels that the mask tells the generator to keep. `mask`, `holes`, `mask_grid` and `target` are those
    of the request. `notices` are what a user should know, in words.

    `tracking` is how their paths were really found. Where they are anchored at full motion strength, `evidence` says
    how well each filled frame is known.

    `structure_frames` is, for each frame of `unguided`, the frame of the structure video (of the parts of several, laid
    end to end) that the motion into it leads to; -1 where no motion does.
    """

    task_id: str
    run_id: str
    index: int
    frames: int
    width_px: int
    height_px: int
    fps: float
    treatment: str
    anchors: str
    motion_strength: MotionStrength
    motion: MotionPart = "all"
    flow_source: FlowSourceName
    engine: str
    flows_used: int
    unguided: tuple[tuple[int, int], ...]
    filled: tuple[tuple[int, int], ...]
    left_unguided: tuple[tuple[int, int], ...]
    mask: MaskMode = "filled"
    holes: Holes = "warp"
    mask_grid: int = 1
    target: TargetName | None = None
    kept: Annotated[float, Field(ge=0, le=1)] | None = None
    notices: tuple[str, ...] = ()
    tracking: Tracking = "composed"
    evidence: tuple[FrameEvidence, ...] = ()
    structure_frames: tuple[int, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    extra_outputs: tuple[ExtraOutput, ...] = ()
    outputs: dict[str, OutputObject] = {}
    timings_s: dict[str, float] = {}
    usage: tuple[StepUsage, ...] = ()


class Manifest(Model):
    """``manifest.json``: every output of a finished job.

    `cost_usd` is an estimate by item, `usage` what the steps beside the segments measured of themselves; `notices` are
    what a user should know of the whole job, in words.
    """

    task_id: str
    run_id: str
    project_id: str | None = None
    timeline_id: str
    engine_requested: str
    engine: str
    flow_cache_hit: bool
    flow_cache_key: str | None = None
    flows: OutputObject | None = None
    report: OutputObject | None = None
    segments: tuple[SegmentResult, ...]
    fallbacks: tuple[Fallback, ...]
    notices: tuple[str, ...] = ()
    timings_s: dict[str, float]
    cost_usd: dict[str, float] = {}
    usage: tuple[StepUsage, ...] = ()
    created_at: datetime
    finished_at: datetime


class PartProgress(Model):
    """How far a part of a run is: `done` of `total` frames, when that was written down.

    `cost_usd` is what its function has taken until then; None where nobody measures.
    """

    step: Literal["extract", "segment"]
    index: int
    done: int
    total: int
    updated_at: datetime
    cost_usd: float | None = None


class RebuildState(Model):
    """``rebuild.json`` of a timeline: where the rebuilding of its frames is that was started last."""

    state: Literal["running", "done", "failed"]
    updated_at: datetime
    error: ErrorInfo | None = None


class Publication(Model):
    """Whose results are being copied to the documented keys, by whom (`token`), and until when it is their turn."""

    run_id: str
    token: str
    until: datetime


class JobStatus(Model):
    """``status.json``: which run a job is at, and where that is.

    Attributes:
        error: why the run failed.
        started_at: when the run began.
        segments: how many the run has, from where they are known.
        cost_usd: what the run cost, as its manifest estimates it by item; while its segments are rendered, what it took
            before them; none of a run that failed.
        published: the run whose results lie at the documented keys; none, or an older one, until this run is done.
        publishing: the turn of whoever puts results there at this moment.
    """

    task_id: str
    run_id: str
    state: JobState
    stage: str
    updated_at: datetime
    started_at: datetime | None = None
    error: ErrorInfo | None = None
    segments: int | None = None
    cost_usd: float | None = None
    published: str | None = None
    publishing: Publication | None = None
