"""What shall be extracted for which run, how whoever carries it out finds it, and what is there already."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from structureflow import keys
from structureflow.errors import FlowCacheError, JobStateError, ObjectNotFoundError, StructureFlowError
from structureflow.flow.address import flow_address, given_address
from structureflow.flow.archive import open_flow_archive
from structureflow.flow.fields import FlowMeta
from structureflow.jobs.documents import get_document, load_record, put_document, whole_request
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.models.cost import StepUsage
from structureflow.models.job import JobRequest
from structureflow.models.results import Fallback, InputPin, JobRecord, Model
from structureflow.storage.base import Storage

__all__ = ["note_failure"]


class ExtractionOrder(Model):
    """What to extract, for which run of which job.

    Attributes:
        bucket: the data bucket's name.
        request: the whole request.
        source: the structure video, as the orchestrator found it; of several, the one that they are joined to.
        sources: of several structure videos, each.
        guides: as in `JobRecord`.
        flow_cache: the archive that the request gives in place of an extraction.
        engine: what computes the flows: ``dis``, ``farneback`` or ``raft``.
        fallbacks, notices, timings_s, usage: what happened before.
        route: who carries it out, if it is left for somebody: a GPU task, or a Batch job.
        deadline: when the order counts as lost; only one that was left has it.
        weights: of RAFT, where the GPU task has others than the preset names.
        failure: what the task said of itself when it failed.
    """

    bucket: str
    task_id: str
    run_id: str
    request: JobRequest
    source: InputPin | None = None
    sources: tuple[InputPin, ...] = ()
    guides: tuple[InputPin, ...] = ()
    flow_cache: InputPin | None = None
    timeline_id: str
    engine: str
    created_at: datetime
    fallbacks: tuple[Fallback, ...] = ()
    notices: tuple[str, ...] = ()
    timings_s: dict[str, float] = Field(default_factory=dict)
    usage: tuple[StepUsage, ...] = ()
    route: Literal["gpu", "batch"] = "gpu"
    deadline: datetime | None = None
    weights: str | None = None
    failure: str | None = None

    @property
    def found(self) -> InputPin:
        """The structure video.

        Raises:
            JobStateError: it was not looked up yet.
        """
        if self.source is None:
            raise JobStateError(f"run {self.run_id}: the structure video was not looked up")
        return self.source

    @property
    def identity(self) -> str:
        """That of the structure video."""
        return self.found.identity

    @property
    def shared_key(self) -> str:
        """Where all jobs find these flows."""
        if self.flow_cache is not None:
            return keys.flow_cache(given_address(self.flow_cache.identity))
        return keys.flow_cache(flow_address(self.identity, self.engine, self.request.quality, weights=self.weights))

    def falling_back(self, stage: str, wanted: str, used: str, reason: str) -> ExtractionOrder:
        """Return the order with one more fallback on record."""
        step = Fallback(stage=stage, wanted=wanted, used=used, reason=reason)
        return self.model_copy(update={"fallbacks": (*self.fallbacks, step)})


def load_order(storage: Storage, key: str) -> ExtractionOrder:
    """Read an order that the orchestrator left at `key`.

    Raises:
        JobStateError: there is none.
    """
    return get_document(storage, key, ExtractionOrder, made_by="the orchestrator")


def note_failure(storage: Storage, key: str, error: StructureFlowError) -> None:
    """Write into the order at `key` why its task failed, for the record of the job; an order that is gone stays gone.

    Raises:
        StorageError: the store refuses or broke off.
    """
    try:
        order = load_order(storage, key)
    except JobStateError:
        return
    put_document(storage, key, order.model_copy(update={"failure": f"{error.code}: {error.message}"[:1000]}))


def order_source(order: ExtractionOrder, services: Services) -> Source:
    """Return the structure video of an order that another process left.

    Raises:
        SupersededRunError: its URL stands in the request only, and that was put again, or deleted.
        InputChangedError, InputNotAllowedError: as `Inputs.known`.
    """
    request = whole_request(services.storage, order.task_id, order.run_id, order.request)
    return services.inputs.known(request.motion_source, order.found)


def committed_record(storage: Storage, order: ExtractionOrder) -> JobRecord | None:
    """Return the record of this very run if somebody wrote it already, else None."""
    key = keys.run_record(order.task_id, order.run_id)
    return load_record(storage, order.task_id, order.run_id) if storage.exists(key) else None


def look_up(order: ExtractionOrder, services: Services) -> tuple[ExtractionOrder, FlowMeta | None]:
    """Look for an order's flows in the shared cache.

    An unusable archive is removed; the order that is returned says so.
    """
    try:
        return order, open_flow_archive(services.storage, order.shared_key).meta
    except ObjectNotFoundError:
        return order, None
    except FlowCacheError as error:
        services.count("Fallbacks", 1)
        services.storage.delete([order.shared_key])
        reason = f"{order.shared_key} is unusable: {error}"
        return order.falling_back("lookup", "cache", "video", reason), None
