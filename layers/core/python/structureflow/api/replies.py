"""What the routes answer with, each a model of its own; pages of frames are `structureflow.frames.pages`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from structureflow.models.results import ErrorInfo, Fallback, JobState, JobStatus, Model, PartProgress
from structureflow.models.targets import Size

Span = tuple[int, int]
"""First and last frame of a range, both inclusive."""
FrameState = Literal["guided", "filled", "generated"]


class Refusal(Model):
    """A typed error, as every route answers it."""

    code: str
    message: str
    detail: dict[str, Any] = Field(default_factory=dict)


# --- about -------------------------------------------------------------------------------------------


class TargetInfo(Model):
    """A generator that guides are made for; see `structureflow.models.targets.Target`."""

    name: str
    model: str
    side_multiple: int
    sizes: tuple[Size, ...]
    also: tuple[Size, ...]
    frame_step: int
    frames: int
    rates_fps: tuple[float, ...]
    fixed: bool
    white: str


class Limits(Model):
    """Bounds of what a job may ask for."""

    max_segments: int
    max_segment_frames: int
    max_guides: int
    max_video_bytes: int
    max_video_frames: int
    max_image_bytes: int


class PriceInfo(Model):
    """By which prices costs are estimated."""

    region: str
    as_of: str


class About(Model):
    """What is here: version, store, and what a request may name; whether jobs and rebuildings can be started."""

    version: str
    store: str
    prices: PriceInfo
    limits: Limits
    targets: tuple[TargetInfo, ...]
    overlay_stages: tuple[str, ...]
    masks: tuple[str, ...]
    treatments: tuple[str, ...]
    outputs: tuple[str, ...]
    sends: bool
    rebuilds: bool


# --- jobs --------------------------------------------------------------------------------------------


class Progress(Model):
    """How far a run is: segments that are made, and the parts under way (`MAX_PARTS` of them at most)."""

    segments_done: int | None
    parts: tuple[PartProgress, ...]


class JobView(JobStatus):
    """``status.json``, and how far the run is.

    `elapsed_s` counts from the start to the end, or to now; `cost_usd` of a run that goes on is what it took until now.
    """

    elapsed_s: float | None
    progress: Progress


class JobRow(Model):
    """A job in the list; of one whose status nobody can read, `state` is ``unreadable``, and `error` says why.

    `cost_usd` of a run that goes on is what it took until now, estimated by a few of its parts: 64 are read for a page,
    so where more jobs run at once, some say what the steps before their segments took.
    """

    task_id: str
    state: JobState | Literal["requested", "unreadable"]
    stage: str | None = None
    segments: int | None = None
    segments_done: int | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None
    elapsed_s: float | None = None
    cost_usd: float | None = None
    error: ErrorInfo | None = None


class JobPage(Model):
    """A page of jobs, in the order of their ids; `next_page` is None on the last one."""

    jobs: tuple[JobRow, ...]
    next_page: str | None


class SourceView(Model):
    """A structure video as the run found it; `timeline_id` has its frames, where they are kept."""

    reference: str
    timeline_id: str
    frames: int
    fps: float
    width_px: int
    height_px: int


class RequestView(Model):
    """What a run was asked for, as it took it: defaults filled in, queries of URLs left out."""

    task_id: str
    run_id: str
    timeline_id: str
    engine_requested: str
    engine: str
    resolution: Size
    sources: tuple[SourceView, ...]
    flow_cache_hit: bool
    flow_cache_key: str | None
    scene_cuts: tuple[int, ...]
    request: dict[str, Any]


class FileView(Model):
    """A file that a job made; `path` is below the job's folder."""

    name: str
    path: str
    size_bytes: int
    url: str
    kind: str
    consumer: str | None = None
    meaning: str | None = None
    segment: int | None = None


class FlowsView(Model):
    """The archive of flows that a job plays."""

    key: str
    size_bytes: int
    url: str


class SegmentView(Model):
    """A finished segment. `guided`, `filled` and `generated` cover its frames, each once.

    `kept` is the share of all pixels that the mask tells the generator to keep; `path_error` the mean of the frames
    that have one, in levels of contrast. `videos` are those among `files` that play, by the name of the output.
    """

    index: int
    frames: int
    width_px: int
    height_px: int
    fps: float
    duration_s: float
    first_on_timeline: int
    guided: tuple[Span, ...]
    filled: tuple[Span, ...]
    generated: tuple[Span, ...]
    kept: float | None
    path_error: float | None
    flow_source: str
    engine: str
    tracking: str
    treatment: str
    mask: str
    target: str | None
    seconds: float | None
    fallbacks: tuple[Fallback, ...]
    notices: tuple[str, ...]
    videos: dict[str, FileView]
    files: tuple[FileView, ...]


class SegmentPage(Model):
    """A page of a finished job's segments, and what is said of the job as a whole."""

    task_id: str
    run_id: str
    timeline_id: str
    engine: str
    flow_cache_hit: bool
    cost_usd: dict[str, float]
    timings_s: dict[str, float]
    fallbacks: tuple[Fallback, ...]
    notices: tuple[str, ...]
    report_url: str | None
    flows: FlowsView | None
    total: int
    segments: tuple[SegmentView, ...]
    next_page: str | None


class SegmentFrames(Model):
    """The frames of a segment, a column per attribute.

    `kept` and `path_error` are known of frames that motion filled from anchored paths. `structure_frame` is the frame
    of the timeline `structure_timeline` whose motion leads to the frame; None where none does.
    """

    task_id: str
    index: int
    timeline_id: str
    frames: int
    state: tuple[FrameState, ...]
    kept: tuple[float | None, ...]
    path_error: tuple[float | None, ...]
    structure_frame: tuple[int | None, ...]
    structure_timeline: tuple[str | None, ...]


class FileGroup(Model):
    """Files for one who takes them, by name."""

    consumer: str
    files: tuple[FileView, ...]


class Downloads(Model):
    """Every file of a finished job by who takes it; what nobody feeds to a generator comes last."""

    task_id: str
    run_id: str
    groups: tuple[FileGroup, ...]


class UploadTicket(Model):
    """How a file is sent: by a request of `method` to `url` with these `headers` and the file as its body.

    `key` is what a request then names.
    """

    key: str
    method: str
    url: str
    headers: dict[str, str]
    expires_s: int


class InputView(Model):
    """A file that was uploaded for a job."""

    key: str
    name: str
    task_id: str
    kind: str
    size_bytes: int
    updated_at: datetime | None
    url: str


class InputPage(Model):
    """Uploaded files of a page of jobs; `next_page` is None on the last one."""

    inputs: tuple[InputView, ...]
    next_page: str | None


class CheckedSegment(Model):
    """A segment of a checked request: its length, and the frames that no guide covers."""

    frames: int
    unguided: tuple[Span, ...]


class CheckedRequest(Model):
    """What is wrong with a request; if nothing is, the request with its defaults filled in."""

    valid: bool
    problems: tuple[str, ...]
    request: dict[str, Any] | None
    segments: tuple[CheckedSegment, ...]


class SentJob(Model):
    """A job whose request was put."""

    task_id: str
    state: Literal["requested"]


class JobOutputs(Model):
    """URLs of a finished job's objects, by their path in the job's folder."""

    task_id: str
    run_id: str
    expires_s: int
    urls: dict[str, str]
