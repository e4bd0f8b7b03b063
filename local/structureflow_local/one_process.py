"""A whole job in this process: the state machine's own definition, over a folder, on any system.

Nothing is started but threads. The steps are those that run on AWS; what S3 events and Step Functions do there, is a
call here. Segments run beside each other as far as there are processors and memory for them.
"""

from __future__ import annotations

import functools
import json
import logging
import random
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import psutil

from structureflow import LocalStorage, Storage, keys
from structureflow.errors import JobStateError, StructureFlowError
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.documents import load_record, read_status
from structureflow.jobs.estimate import segment_mb
from structureflow.jobs.fail_job import fail_request
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate
from structureflow.jobs.services import Services
from structureflow.limits import MAX_VIDEO_FRAMES, MEMORY_SHARE
from structureflow.models.results import JobStatus
from structureflow.ordered import ordered_map
from structureflow.processors import usable_cpus
from structureflow.runtime.machine import Execution, Machine, StateFailedError, call_step
from structureflow.storage.http import HttpsSource
from structureflow_local.client import PreparedJob
from structureflow_local.exits import NotFinishedError
from structureflow_local.given_files import GivenFiles
from structureflow_local.gpu import DEFAULT_WEIGHTS, wants_gpu
from structureflow_local.raft_here import RaftHere

#: Keys in requests that are no URL are this bucket's; no key says its name.
BUCKET: Final = "data"
#: In a store's folder; the local cloud keeps its objects elsewhere in it.
FOLDER: Final = "files"
#: Larger files are no structure videos of at most 15 minutes.
_MAX_INPUT_BYTES: Final = 32 * 10**9
_POLL_S: Final = 0.1
#: Writings cost nothing here.
_PROGRESS_S: Final = 0.2

_log = logging.getLogger(__name__)


class OneProcess:
    """Runs one job in threads of this process; a context manager.

    Args:
        job: what to do; its local files are read where they lie.
        store: folder that keeps the caches from one run to the next; None keeps nothing.
        raft_weights: folder of RAFT's weights, for a job that asks for RAFT; None takes `DEFAULT_WEIGHTS`.
        workers: threads that a step may use; None takes all processors that this process may use.
        memory_mb: that segments may take together; None takes what is free.

    Attributes:
        storage: where the job's folder is, while the block lasts.
        workers: as given, or as found.
    """

    storage: Storage

    def __init__(
        self,
        job: PreparedJob,
        *,
        store: Path | None,
        raft_weights: Path | None = None,
        workers: int | None = None,
        memory_mb: int | None = None,
    ) -> None:
        self._job = job
        self._store = store
        self._raft_weights = raft_weights or DEFAULT_WEIGHTS
        self.workers = workers or usable_cpus()
        self._memory_mb = memory_mb or psutil.virtual_memory().available // 2**20
        self._stop = threading.Event()
        self._files = ExitStack()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        folder = self._store
        if folder is None:
            folder = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="structureflow-run-")))
        self.storage = GivenFiles(LocalStorage(folder / FOLDER), self._job.uploads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the steps that are under way at their next frame; the caches stay, the job's folder goes."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            prefix = keys.job_prefix(self._job.task_id)
            self.storage.delete([info.key for info in self.storage.list(prefix)])
        self._files.close()

    def start(self) -> None:
        """Put the request and begin."""
        self.storage.put(keys.job_request(self._job.task_id), self._job.request, content_type="application/json")
        self._thread = threading.Thread(target=self._guarded, name=f"job-{self._job.task_id}")
        self._thread.start()

    def wait(self, *, timeout_s: float, watch: Callable[[JobStatus | None], None] = lambda _: None) -> JobStatus:
        """Wait until the job is done or failed; `watch` sees its status ten times a second, and at the end.

        Raises:
            NotFinishedError: it did not end within `timeout_s`.
            Exception: an unexpected one of this module itself.
        """
        if self._thread is None:
            raise JobStateError(f"job {self._job.task_id}: was not started")
        deadline = time.monotonic() + timeout_s
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
            watch(read_status(self.storage, self._job.task_id))
            if self._thread.is_alive() and time.monotonic() > deadline:
                raise NotFinishedError(f"job {self._job.task_id}: expected an end within {timeout_s:.0f} s")
        if self._error is not None:
            raise self._error
        status = read_status(self.storage, self._job.task_id)
        if status is None or status.state == "running":
            raise JobStateError(f"job {self._job.task_id}: its steps ended, but it did not")
        return status

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._error = error

    def _run(self) -> None:
        started: list[Mapping[str, Any]] = []
        services = self._services(lambda _, payload: started.append(payload))
        key = keys.job_request(self._job.task_id)
        etag = self.storage.head(key).etag
        try:
            found = orchestrate(OrchestrateInput(bucket=BUCKET, key=key), services)
            if services.gpu is not None and isinstance(services.gpu, RaftHere):
                services.gpu.carry_out(services)
        except Exception as error:  # noqa: BLE001 - as Lambda hands it to the function's destination
            _log_unexpected("Orchestrator", error)
            fail_request(key, etag, *_named(error), services)
            return
        status = read_status(self.storage, self._job.task_id)
        if status is None or status.state != "running":
            return
        # the arrival of the archive, or the orchestrator itself where it could not be written
        arrival = {"detail": {"bucket": {"name": BUCKET}, "object": {"key": keys.job_flows(self._job.task_id)}}}
        execution = Execution(str(uuid.uuid4()), datetime.now(UTC).isoformat())
        machine = Machine(
            definition(),
            invoke=functools.partial(_invoke, services=services),
            sleep=self._sleep,
            source=random.Random(),  # noqa: S311 - jitter
            each=functools.partial(self._beside_each_other, found.run_id),
            read_items=lambda key: json.loads(self.storage.get(key).data),
        )
        try:
            machine.run(execution, started[0] if started else arrival)
        except StateFailedError as failure:
            # The job's status says it already, unless FailJob itself failed; then `wait` does.
            _log.info("the execution failed: %s", failure)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _services(self, start_segments: Callable[[str, Mapping[str, Any]], None]) -> Services:
        counts: Counter[str] = Counter()

        def count(name: str, value: int) -> None:
            counts[name] += value

        hosts = _hosts_named(self._job.request)
        web = HttpsSource(hosts, max_bytes=_MAX_INPUT_BYTES) if hosts else None
        return Services(
            storage=self.storage,
            inputs=Inputs(self.storage, BUCKET, web=web, max_bytes=_MAX_INPUT_BYTES),
            max_video_frames=MAX_VIDEO_FRAMES,
            max_input_bytes=_MAX_INPUT_BYTES,
            workers=self.workers,
            work_dir=Path(tempfile.gettempdir()),
            start_segments=start_segments,
            count=count,
            gpu=RaftHere(self._raft_weights) if wants_gpu(self._job) else None,
            memory_mb=self._memory_mb,
            deadline=_Stoppable(self._stop),
            progress_every_s=_PROGRESS_S,
        )

    def _beside_each_other(self, run_id: str, items: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
        """Do a Map's items, as many at once as there are processors and memory for."""
        record = load_record(self.storage, self._job.task_id, run_id)
        needs_mb = segment_mb(record.request, *record.resolution)
        fitting = int(MEMORY_SHARE * self._memory_mb / needs_mb)
        at_once = max(1, min(fitting, self.workers, len(items)))
        with ThreadPoolExecutor(at_once, thread_name_prefix="segment") as pool:
            return list(ordered_map(items, do, at_once - 1, pool=pool))


class _Stoppable(Deadline):
    """No end but the one that whoever waits calls for."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop

    def check(self, doing: str) -> None:
        """Go on, unless nobody waits any more."""
        if self._stop.is_set():
            raise JobStateError(f"{doing}: stopped")


def definition() -> dict[str, Any]:
    """Return the state machine's definition: in a wheel, beside this module; in a checkout, where SAM has it too."""
    packaged = resources.files("structureflow_local") / "segments.asl.json"
    path = packaged if packaged.is_file() else Path(__file__).parents[2] / "statemachines" / "segments.asl.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _invoke(step: str, payload: Any, *, services: Services) -> Any:
    try:
        return call_step(step, payload, services)
    except StateFailedError:
        raise
    except Exception as error:
        _log_unexpected(step, error)
        # as Lambda reports it, and the job ends as failed
        raise StateFailedError.of_function(*_named(error)) from error


def _named(error: Exception) -> tuple[str, str]:
    if isinstance(error, StructureFlowError):
        return error.code, error.message
    return type(error).__name__, str(error)


def _log_unexpected(step: str, error: Exception) -> None:
    """Tell the log where in the code it happened; the job's status tells what."""
    if not isinstance(error, StructureFlowError):
        _log.error("%s failed", step, exc_info=error)


def _hosts_named(request: bytes) -> list[str]:
    """Return the hosts of all ``https://`` URLs in a request: whoever writes a job to run it here may fetch from there.

    What is no request names none: the orchestrator refuses it.
    """
    try:
        waiting = [json.loads(request)]
    except ValueError:
        return []
    hosts: set[str] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and one.startswith("https://"):
            hosts.add(urlsplit(one).netloc.rpartition("@")[2])
    return sorted(hosts)
