"""How a long video is extracted in parts: the plan that the orchestrator leaves, and what each part leaves.

All of it lies in a folder of the run, outside of the job's: what is left there expires by the bucket's rule. A part
commits by its result, which names its blocks by their own digest; so whoever was late, or was started twice, spoils
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, Field

from structureflow import keys
from structureflow.errors import (
    JobStateError,
    ObjectExistsError,
    ObjectNotFoundError,
    StructureFlowError,
    VideoPartsError,
)
from structureflow.flow.parts import PartFlows
from structureflow.jobs.documents import describe_error, get_document, put_document
from structureflow.jobs.extraction_order import ExtractionOrder
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import KeptFrames
from structureflow.limits import MAX_ALONE_FRAMES, PART_FRAMES
from structureflow.media.limits import DecodeLimits
from structureflow.media.part_plan import plan_parts
from structureflow.media.parts import VideoParts
from structureflow.models.cost import StepUsage
from structureflow.models.results import ErrorInfo, Model
from structureflow.storage.base import Storage

STAGE: Final = "extract"
#: Names of files: of all parts, and of each.
PLAN: Final = "plan.json"
RESULT: Final = "result.json"
FAILURE: Final = "failure.json"
#: Starts a state machine, as ``start(execution_name, input)``.
StartMachine = Callable[[str, Mapping[str, Any]], None]


class PartsPlan(Model):
    """What is extracted in parts, and how it is cut.

    Attributes:
        order: what to do.
        video: the parts.
        whole: why it is extracted in one piece after all; None while it is not. There is one part then.
    """

    order: ExtractionOrder
    video: VideoParts
    whole: str | None = None

    @property
    def parts(self) -> tuple[int, ...]:
        """Numbers of the parts that there are to do."""
        return tuple(range(1 if self.whole is not None else len(self.video.parts)))

    def to_json(self) -> bytes:
        """Return the document as it is stored: compact, since it has a number for each frame."""
        return self.model_dump_json(exclude_none=True).encode()


class PartResult(Model):
    """What a part has made.

    Attributes:
        flows: what is known of its flows.
        blocks_key, blocks_etag: where their blocks lie.
        frames: in the frame cache.
        timings_s: seconds by part of the work.
        usage: of the worker.
    """

    flows: PartFlows
    blocks_key: str
    blocks_etag: str
    frames: KeptFrames
    timings_s: dict[str, float] = Field(default_factory=dict)
    usage: tuple[StepUsage, ...] = ()

    def to_json(self) -> bytes:
        """Return the document as it is stored: compact."""
        return self.model_dump_json(exclude_none=True).encode()


class PartsState(BaseModel):
    """What the state machine carries from round to round: numbers of parts, never what they made.

    Attributes:
        parts: what there is to do.
        round: how often parts were done again.
        joined: whether the run has its flows.
    """

    task_id: str
    run_id: str
    parts: tuple[int, ...]
    round: int = 0
    joined: bool = False


def cut_video(source: Source, services: Services) -> VideoParts | None:
    """Cut a video into parts, by its index; None where it is so short that one function does it sooner.

    Raises:
        VideoPartsError: it has no parts; the message says why.
        MediaError, InputNotFoundError, InputChangedError, TransientError: it cannot be read.
    """
    if not source.is_ranged:
        raise VideoPartsError(f"{source.name}: parts of a URL are not read")
    with source.opened() as file:
        parts = plan_parts(file, DecodeLimits(max_frames=services.max_video_frames), PART_FRAMES)
    if parts.frames <= MAX_ALONE_FRAMES:
        return None
    if len(parts.parts) < 2:
        raise VideoPartsError(f"{source.name}: it has no key frame to begin a part at")
    return parts


def leave_plan(plan: PartsPlan, storage: Storage) -> PartsPlan:
    """Leave a plan for the parts' workers; return the one that counts, which an earlier try may have left."""
    run_id = plan.order.run_id
    try:
        put_document(storage, keys.parts_file(run_id, PLAN), plan, if_absent=True)
    except ObjectExistsError:
        return load_plan(storage, run_id)
    return plan


def load_plan(storage: Storage, run_id: str) -> PartsPlan:
    """Read the plan of a run.

    Raises:
        JobStateError: there is none.
    """
    return get_document(storage, keys.parts_file(run_id, PLAN), PartsPlan, made_by="the orchestrator")


def start_parts(plan: PartsPlan, start: StartMachine, *, at_once: int) -> None:
    """Start the state machine over all parts, `at_once` at the same time; a second start of the same run is a no-op."""
    order = plan.order
    state = PartsState(task_id=order.task_id, run_id=order.run_id, parts=plan.parts)
    payload: dict[str, Any] = {
        # as the event that starts the segments, so that whoever ends the job reads both alike
        "detail": {"bucket": {"name": order.bucket}, "object": {"key": keys.job_flows(order.task_id)}},
        "join": state.model_dump(mode="json"),
        "max_concurrency": at_once,
    }
    start(f"{order.task_id[:60]}-{order.run_id}", payload)


def note_part_failure(storage: Storage, run_id: str, number: int, error: StructureFlowError) -> None:
    """Leave why a part failed for good: a distributed Map does not tell."""
    put_document(storage, keys.parts_file(run_id, FAILURE, number), describe_error(error, STAGE))


def part_failures(storage: Storage, run_id: str, numbers: Iterable[int]) -> dict[int, ErrorInfo]:
    """Return what parts said of their failures."""
    found = {}
    for number in numbers:
        try:
            found[number] = get_document(
                storage, keys.parts_file(run_id, FAILURE, number), ErrorInfo, made_by="a worker of a part"
            )
        except JobStateError as error:
            if not isinstance(error.__cause__, ObjectNotFoundError):
                raise
    return found


def remove_parts(storage: Storage, run_id: str) -> None:
    """Delete all that a run's parts left."""
    storage.delete([info.key for info in storage.list(keys.parts_prefix(run_id))])
