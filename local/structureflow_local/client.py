"""Talks to a data bucket, local or deployed: upload a job, watch it, fetch or remove what it made."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from structureflow import keys
from structureflow.errors import InputNotFoundError, InvalidRequestError, JobStateError
from structureflow.jobs.documents import get_document
from structureflow.limits import MAX_REQUEST_BYTES
from structureflow.models.bounds import check_request_bytes, check_shape, read_object
from structureflow.models.results import JobStatus
from structureflow.storage.base import ObjectInfo, Storage
from structureflow_local.exits import NotFinishedError
from structureflow_local.material import ROLES

_TRANSFERS = 8
_POLL_S = 0.1
_INPUTS = "inputs/"
#: Part of a job's folder that only the system reads.
_RUNS = "runs/"
#: What a job leaves in its folder, as patterns; nothing else is ever removed from a user's.
_LEFT_BY_A_JOB = (
    "request.json",
    "job.json",
    "status.json",
    "manifest.json",
    "report.html",
    "structure_flows_*.npz",
    "segments/[0-9]*/*.mp4",
    "segments/[0-9]*/result.json",
    "inputs/[0-9a-f]*_*",
)


@dataclass(frozen=True)
class PreparedJob:
    """A request ready to be put, and the local files that must be there before it.

    Attributes:
        task_id: of the job.
        request: its ``request.json``.
        uploads: the files, by their keys.
        given: what the job file calls them, by their keys.
    """

    task_id: str
    request: bytes
    uploads: dict[str, Path]
    given: dict[str, str] = field(default_factory=dict)

    def in_own_words(self, text: str) -> str:
        """Return a text in which files are called what the job file calls them."""
        for key in sorted(self.given, key=len, reverse=True):
            text = text.replace(key, self.given[key])
        return text


def prepare_job(text: str, *, name: str, folder: Path, changes: Mapping[str, Any] | None = None) -> PreparedJob:
    """Turn a job file's text into a request: local paths in it become keys of files to upload.

    Args:
        text: content of the job file.
        name: what the job is called when it has no ``task_id``.
        folder: where relative paths in it start.
        changes: fields in place of the file's own.

    Raises:
        InvalidRequestError: it is no JSON object, or has more bytes, fields, items or levels than a request may have.
        InvalidIdError: the task id can't be part of a key.
        InputNotFoundError: a path that is absolute, or starts with a dot, leads to no file.
    """
    data = text.encode()
    check_request_bytes(len(data))
    document = read_object(data, "job file") | dict(changes or {})
    # of editors
    document.pop("$schema", None)
    check_shape(document)
    id_field = "orchestrator_task_id" if "orchestrator_task_id" in document else "task_id"
    if id_field not in document:
        document = {id_field: f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}", **document}
    task_id = keys.check_id(str(document[id_field]), "task_id")
    uploads: dict[str, Path] = {}
    given: dict[str, str] = {}
    document = _with_uploads(document, task_id, folder, uploads, given)
    request = json.dumps(document, indent=2).encode()
    if len(request) > MAX_REQUEST_BYTES:
        request = json.dumps(document, separators=(",", ":")).encode()
    return PreparedJob(task_id, request, uploads, given)


def _with_uploads(
    node: Any, task_id: str, folder: Path, uploads: dict[str, Path], given: dict[str, str], name: str = ""
) -> Any:
    """Replace every reference to a local file by its future key; collect files in `uploads`, their names in `given`."""
    if isinstance(node, dict):
        return {key: _with_uploads(value, task_id, folder, uploads, given, key) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_uploads(value, task_id, folder, uploads, given, name) for value in node]
    if isinstance(node, str) and name in ROLES and "://" not in node:
        path = local_file(folder, node) or fetched_input(folder, node)
        if path is not None:
            key = keys.job_input(task_id, _upload_name(path))
            uploads[key] = path
            given.setdefault(key, node)
            return key
    return node


_UPLOADED = re.compile(r"[0-9a-f]{8}_[A-Za-z0-9._-]{1,100}\Z")


def local_file(folder: Path, reference: str) -> Path | None:
    """Return the file of this machine that a reference names, None where it may be a key of the bucket.

    Raises:
        InputNotFoundError: it looks like a path (absolute, or begins with a dot or a tilde), and leads to no file.
    """
    path = folder / Path(reference).expanduser()
    if path.is_file():
        return path
    if reference.startswith(("/", ".", "~")):
        raise InputNotFoundError(f"{reference}: there is no such file (looked for {path})", reference=reference)
    return None


def fetched_input(folder: Path, reference: str) -> Path | None:
    """Return the file that `JobClient.fetch` put beside a request for one of its inputs."""
    parts = reference.split("/")
    if len(parts) != 4 or parts[0] != "jobs" or parts[2] != "inputs":
        return None
    path = folder / "inputs" / parts[3]
    return path if path.is_file() else None


def _upload_name(path: Path) -> str:
    """A plain, unique name: files of the same name in different folders must not meet."""
    if path.parent.name == "inputs" and _UPLOADED.match(path.name):
        # of an input that was fetched: it has such a name already
        return path.name
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in path.name).replace("..", "_.")
    return f"{digest}_{plain[-100:]}"


class JobClient:
    """Jobs of one data bucket."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def storage(self) -> Storage:
        """Their bucket."""
        return self._storage

    def submit(self, job: PreparedJob, *, transferred: Callable[[int], None] = lambda _: None) -> None:
        """Upload a job's files, then its request, whose arrival starts it.

        `transferred` is called with the size in bytes of each file that is there.
        """
        with ThreadPoolExecutor(_TRANSFERS, thread_name_prefix="upload") as pool:
            for info in pool.map(lambda item: self._storage.put_file(item[0], item[1]), job.uploads.items()):
                transferred(info.size_bytes)
        self._storage.put(keys.job_request(job.task_id), job.request, content_type="application/json")

    def status(self, task_id: str) -> JobStatus | None:
        """Return a job's status, or None where none was written yet."""
        key = keys.job_status(task_id)
        if not self._storage.exists(key):
            return None
        return get_document(self._storage, key, JobStatus, made_by="the orchestrator")

    def wait(
        self,
        task_id: str,
        *,
        timeout_s: float,
        poll_s: float = _POLL_S,
        watch: Callable[[JobStatus | None], None] = lambda _: None,
        newer_than: JobStatus | None = None,
    ) -> JobStatus:
        """Poll until the job is done or failed; `watch` sees every poll.

        `newer_than` is the status before the request was put again: until it changes, it does not count.

        Raises:
            NotFinishedError: the job did not end within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status(task_id)
            if status is not None and newer_than is not None and status == newer_than:
                status = None
            watch(status)
            if status is not None and status.state != "running":
                return status
            if time.monotonic() > deadline:
                raise NotFinishedError(
                    f"job {task_id}: expected an end within {timeout_s:.0f} s, "
                    f"but it is {status.stage if status else 'not started'}"
                )
            time.sleep(poll_s)

    def outputs(self, task_id: str, *, inputs: bool = False) -> Iterator[ObjectInfo]:
        """Iterate over what a user collects of a job's folder, with the `inputs` that were uploaded for it if asked."""
        prefix = keys.job_prefix(task_id)
        left_out = (_RUNS,) if inputs else (_RUNS, _INPUTS)
        for info in self._storage.list(prefix):
            if not info.key.removeprefix(prefix).startswith(left_out):
                yield info

    def objects(self, task_id: str) -> Iterator[ObjectInfo]:
        """Iterate over everything in a job's folder."""
        return iter(self._storage.list(keys.job_prefix(task_id)))

    def task_ids(self) -> Iterator[str]:
        """Iterate over the ids of all jobs, one listing request each: `list` starts behind the folder before."""
        after: str | None = None
        while (found := next(iter(self._storage.list("jobs/", start_after=after)), None)) is not None:
            task_id = found.key.split("/")[1]
            yield task_id
            after = f"jobs/{task_id}/\U0010ffff"

    def fetch(
        self,
        task_id: str,
        target: Path,
        *,
        inputs: bool = False,
        transferred: Callable[[int], None] = lambda _: None,
    ) -> list[Path]:
        """Download a job's folder into `target`, in place of what an earlier job left there.

        It is downloaded beside `target` and put in its place when it is whole; files of the user's stay.

        Args:
            inputs: download the files that were uploaded for the job too, below ``inputs/``: its request then runs
                again from `target`, wherever.
            transferred: called with the size in bytes of each file that is there.

        Returns:
            The files, each `target`, as it was given, with the name below it.

        Raises:
            JobStateError: nothing is known of the job.
            InvalidRequestError: `target` holds files but none that a job leaves.
        """
        prefix = keys.job_prefix(task_id)
        found = list(self.outputs(task_id, inputs=inputs))
        if not found:
            raise JobStateError(f"job {task_id}: nothing at {self._storage.uri}/{prefix}")
        check_target(target)
        place = target.resolve()
        with TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as beside:
            fresh = Path(beside) / "fresh"

            def fetch_one(info: ObjectInfo) -> Path:
                name = info.key.removeprefix(prefix)
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._storage.get_to_file(info.key, path)
                return target / name

            with ThreadPoolExecutor(_TRANSFERS, thread_name_prefix="fetch") as pool:
                files = []
                for info, path in zip(found, pool.map(fetch_one, found), strict=True):
                    files.append(path)
                    transferred(info.size_bytes)
            _swap(fresh, place, Path(beside) / "replaced")
        return sorted(files)

    def clean(self, task_id: str) -> int:
        """Delete a job's folder; return how many objects were there.

        Request and status go first: steps that are under way then find their job gone, and leave nothing behind.
        """
        first = [keys.job_request(task_id), keys.job_status(task_id)]
        found = {info.key for info in self._storage.list(keys.job_prefix(task_id))}
        self._storage.delete(key for key in first if key in found)
        # what was written until then
        found |= {info.key for info in self._storage.list(keys.job_prefix(task_id))}
        self._storage.delete(found - {*first})
        return len(found)


def holds_results(target: Path) -> bool:
    """Tell whether an earlier job left its results in a folder."""
    return (target / "manifest.json").is_file()


def check_target(target: Path, task_id: str | None = None, *, replace: bool = False) -> None:
    """Make sure that `JobClient.fetch` may put a job's files into `target`; its parents are made if need be.

    Args:
        target: the folder.
        task_id: of the job; None where it may be any.
        replace: whether it may be put in the place of another job's.

    Raises:
        InvalidRequestError: it is no folder, cannot be made or written to, holds files but none that a job leaves, or
            those of another job.
    """
    if target.exists() and not target.is_dir():
        raise InvalidRequestError(f"{target}: expected a folder, got a file")
    other = None if task_id is None or replace else _other_job(target, task_id)
    if other is not None:
        raise InvalidRequestError(
            f"{target}: expected an empty folder or one of job {task_id}, got that of {other}; "
            "--replace puts the new one in its place"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(f"{target}: the folder cannot be made: {error.strerror}") from error
    # results are made beside it and take its place
    for folder in (target.resolve().parent, target):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InvalidRequestError(f"{folder}: the folder cannot be written to: {error.strerror}") from error
    if any(target.iterdir()) and not (target / "status.json").is_file():
        raise InvalidRequestError(f"{target}: expected an empty folder or one of an earlier job")


#: What `prepare_job` puts behind a job's name that has no ``task_id``.
_STAMP = re.compile(r"-\d{8}-\d{6}\Z")


def _other_job(target: Path, task_id: str) -> str | None:
    """Say whose files a folder holds, where they are not those of a job called like this one."""
    try:
        status = JobStatus.model_validate_json((target / "status.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "a job whose status.json cannot be read"
    if _STAMP.sub("", status.task_id) == _STAMP.sub("", task_id):
        return None
    return f"job {status.task_id}"


def _swap(fresh: Path, target: Path, replaced: Path) -> None:
    """Put `fresh` in the place of `target`; `replaced` gets what a job had left there, the user's files stay."""
    target.rename(replaced)
    try:
        fresh.rename(target)
    except OSError:
        replaced.rename(target)
        raise
    left = {path for pattern in _LEFT_BY_A_JOB for path in replaced.glob(pattern)}
    for path in sorted(replaced.rglob("*")):
        if path.is_dir() or path in left:
            continue
        kept = target / path.relative_to(replaced)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.rename(kept)
