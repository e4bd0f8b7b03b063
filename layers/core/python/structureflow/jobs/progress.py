"""How far a run is, written down as it happens: small objects beside its results, for whoever polls.

They are no part of any promise: each part of a run has objects of its own, nobody's status is touched, and what is
lost or late is a number on a screen. They lie in the run's folder and go with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from types import TracebackType
from typing import Any, Final, Literal, Self

from pydantic import ValidationError

from structureflow.errors import ObjectNotFoundError, StructureFlowError
from structureflow.jobs import live_keys
from structureflow.limits import MAX_CLAIM_BYTES
from structureflow.models.bounds import validate_json
from structureflow.models.results import JobStatus, PartProgress, now
from structureflow.storage.base import ObjectInfo, Storage
from structureflow.storage.bounded import read_bounded

__all__ = ["EVERY_S", "PartReport", "RunProgress", "read_progress"]

_log = logging.getLogger(__name__)
Step = Literal["extract", "segment"]

#: Least time between two writings of a part: a PUT costs as much as 0.2 s of a function.
EVERY_S: Final = 2.0
#: Parts under way that are read of a run, the last ones written; an inline Map runs 40 at a time.
MAX_PARTS: Final = 64
_READS: Final = 16
#: Whole parts whose cost is read of a run, the last ones written.
_SAMPLE: Final = 4
_UNKNOWN: Final = datetime.min.replace(tzinfo=UTC)


class PartReport:
    """A context manager that writes down how far a part of a run is, at most every `every_s` seconds.

    Nothing is written of a part that takes less. When the block ends the part's progress is taken away. A store that
    refuses is said in the log, once; the work goes on without.

    Args:
        storage: where the run is.
        task_id, run_id: the run.
        step: which sort of part.
        index: which one, from 0.
        total: frames that it has.
        every_s: least time between two writings.
        clock: tells the time.
        cost: tells what the part has taken, in US dollars; None where nobody measures.
    """

    def __init__(
        self,
        storage: Storage,
        task_id: str,
        run_id: str,
        step: Step,
        index: int,
        total: int,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], datetime] = now,
        cost: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._cost = cost
        self._live = live_keys.run_progress(task_id, run_id, step, index, ended=False)
        self._ended = live_keys.run_progress(task_id, run_id, step, index, ended=True)
        self._clock = clock
        self._every = timedelta(seconds=every_s)
        self._first = PartProgress(step=step, index=index, done=0, total=total, updated_at=clock())
        self._due = self._first.updated_at + self._every
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._writing: Future[None] | None = None
        self._refused = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the progress away."""
        self._pool.shutdown(wait=True)
        if self._writing is not None:
            self._try(lambda: self._storage.delete([self._live]))

    def announce(self) -> None:
        """Write down that the part is whole, for whoever counts them."""
        whole = self._first.model_copy(update={"done": self._first.total} | self._said(self._clock()))
        self._try(lambda: self._storage.put(self._ended, whole.to_json(), content_type="application/json"))

    def advance(self, done: int) -> None:
        """Say that `done` frames are done; from any thread, as often as one likes."""
        with self._lock:
            moment = self._clock()
            if moment < self._due or self._refused or (self._writing is not None and not self._writing.done()):
                return
            self._due = moment + self._every
            known = self._first.model_copy(update={"done": done} | self._said(moment))
            self._writing = self._pool.submit(self._write, known)

    def _said(self, moment: datetime) -> dict[str, Any]:
        cost_usd = self._cost()
        return {"updated_at": moment, "cost_usd": None if cost_usd is None else round(cost_usd, 8)}

    def _write(self, known: PartProgress) -> None:
        self._try(lambda: self._storage.put(self._live, known.to_json(), content_type="application/json"))

    def _try(self, request: Callable[[], object]) -> None:
        try:
            request()
        except StructureFlowError as error:
            if not self._refused:
                _log.warning("progress is not written any more: %s", error, extra={"error": error.as_dict()})
            self._refused = True


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is.

    Attributes:
        segments_done: how many segments are whole; None before it is known how many there are.
        whole: which ones, by index.
        parts: that are under way.
        cost_usd: what the run has taken until now, about; None where nobody measures, or it was not asked for.
    """

    segments_done: int | None
    whole: frozenset[int]
    parts: tuple[PartProgress, ...]
    cost_usd: float | None = None


def read_progress(storage: Storage, status: JobStatus, *, reads: int | None = None) -> RunProgress:
    """Return how far the run of a status is; nothing is asked for where it has ended.

    Args:
        storage: where the run is.
        status: of the job.
        reads: how many parts are read beside the one listing, whole ones and those under way by halves; None: each of
            the `MAX_PARTS` under way that were written last, and some whole ones for their cost. What the parts that
            are not read have taken counts as the mean of those of their sort that are.
    """
    if status.state != "running":
        done = status.segments if status.state == "done" else None
        return RunProgress(done, frozenset(range(done or 0)), ())
    whole: dict[tuple[str, int], ObjectInfo] = {}
    live: dict[tuple[str, int], ObjectInfo] = {}
    for info in storage.list(live_keys.run_progress_prefix(status.task_id, status.run_id)):
        found = live_keys.parse_run_progress(info.key)
        if found is not None:
            (whole if found[0] else live)[found[1:]] = info
    segments = frozenset(index for step, index in whole if step == "segment")
    segments_done = None if status.segments is None else len(segments)
    # A part that was tried again after its function died may have left both.
    alive = [info for part, info in live.items() if part not in whole]
    ended = _newest(whole.values(), _SAMPLE if reads is None else min(len(whole), (reads + 1) // 2))
    under_way = _newest(alive, MAX_PARTS if reads is None else reads - len(ended))
    read = dict(zip((one.key for one in under_way + ended), _read_all(storage, under_way + ended), strict=True))
    now_at = [part for info in under_way if (part := read[info.key]) is not None]
    spent = [status.cost_usd]
    for sample, count in ((ended, len(whole)), (under_way, len(alive))):
        costs = [part.cost_usd for info in sample if (part := read[info.key]) is not None and part.cost_usd is not None]
        if costs:
            spent.append(sum(costs) / len(costs) * count)
    known = [one for one in spent if one is not None]
    return RunProgress(
        segments_done,
        segments,
        tuple(sorted(now_at, key=lambda one: (one.step, one.index))),
        round(sum(known), 8) if known else None,
    )


def _newest(found: Iterable[ObjectInfo], count: int) -> list[ObjectInfo]:
    return nlargest(count, found, key=lambda info: info.last_modified or _UNKNOWN)


def _read_all(storage: Storage, found: Sequence[ObjectInfo]) -> list[PartProgress | None]:
    if not found:
        return []
    with ThreadPoolExecutor(min(_READS, len(found)), thread_name_prefix="progress") as pool:
        return list(pool.map(lambda info: _read(storage, info.key), found))


def _read(storage: Storage, key: str) -> PartProgress | None:
    """Read a part's progress; None where it ended meanwhile, or where somebody put something else there."""
    try:
        found = read_bounded(storage, key, MAX_CLAIM_BYTES)
        return validate_json(PartProgress, found.data)
    except ObjectNotFoundError:
        return None
    except ValidationError:
        _log.warning("%s: expected progress of RenderSegment or the orchestrator", key)
        return None
