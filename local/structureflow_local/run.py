"""Run a whole job on the local cloud, say what happens while it does, and collect what was made."""

from __future__ import annotations

import shlex
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from structureflow import keys
from structureflow.jobs.documents import get_document, load_record
from structureflow.models.results import Fallback, JobStatus, Manifest, SegmentResult
from structureflow.storage.base import Storage
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings
from structureflow_local.client import JobClient, PreparedJob, holds_results
from structureflow_local.cloud import LocalCloud
from structureflow_local.costs import cost_table, measured_cost
from structureflow_local.gpu import gpu_part, wants_gpu, what_is_missing

TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"
BUCKET = "DataBucket"


def run_job(
    job: PreparedJob,
    target: Path,
    *,
    store: Path | None,
    timeout_s: float,
    console: Console,
    raft_weights: Path | None = None,
) -> tuple[JobStatus, list[Path]]:
    """Run `job` on a local cloud of its own and download the job's folder into `target`, when it is done.

    A job that failed leaves the results of an earlier one in `target` as they are.

    Args:
        store: folder that keeps the caches from one run to the next; None keeps nothing.
        raft_weights: folder of RAFT's weights, for a job that asks for RAFT; None takes `DEFAULT_WEIGHTS`.

    Returns:
        How the job ended (`done` or `failed`), and the files now in `target` that are its own.
    """
    begin = time.perf_counter()
    progress = _Progress(console, begin)
    gpu = gpu_part(raft_weights) if wants_gpu(job) else {}
    with LocalCloud(TEMPLATE, persist=store, **gpu) as cloud:
        progress.say("cloud", f"local cloud at {cloud.endpoint_url}, wired by {TEMPLATE.name}")
        storage = bucket_of(cloud)
        client = JobClient(storage)
        client.submit(job)
        size = sum(path.stat().st_size for path in job.uploads.values())
        progress.say("upload", f"{len(job.uploads)} files, {_bytes(size)}, then {keys.job_request(job.task_id)}")
        missing = what_is_missing(raft_weights) if gpu else None
        if missing is not None:
            progress.say("gpu", f"RAFT cannot run: {missing}")
        status = client.wait(job.task_id, timeout_s=timeout_s, watch=lambda s: progress.watch(storage, s))
        progress.watch(storage, status)
        files: list[Path] = []
        if status.state == "done" or not holds_results(target):
            progress.say("fetch", str(target))
            files = client.fetch(job.task_id, target)
        cloud.wait_idle(60)
        cost = measured_cost(cloud, stored_bytes=sum(path.stat().st_size for path in files))
    progress.say("end", f"job {job.task_id} is {status.state}")
    if status.state == "done":
        console.print()
        console.print(cost_table(cost))
    return status, files


def serve_cloud(*, store: Path | None, console: Console, raft_weights: Path | None = None) -> None:
    """Run a local cloud until the process is interrupted; print what other processes need to reach it."""
    with LocalCloud(TEMPLATE, persist=store, **gpu_part(raft_weights)) as cloud:
        for name, value in {**cloud.environment(), "DATA_BUCKET": cloud.bucket(BUCKET)}.items():
            console.print(f"export {name}={shlex.quote(value)}", soft_wrap=True, highlight=False, markup=False)
        console.print("# the local cloud runs until Ctrl-C", highlight=False)
        threading.Event().wait()


def bucket_of(cloud: LocalCloud) -> Storage:
    """Return the data bucket of a local cloud."""
    return S3Storage(
        cloud.bucket(BUCKET),
        client=cloud.client("s3"),
        settings=S3Settings(endpoint_url=cloud.endpoint_url, region=cloud.region, addressing_style="path"),
    )


def print_result(console: Console, status: JobStatus, target: Path, files: list[Path]) -> None:
    """Print the closing tables: what was made, how long each stage took, where the report is; or the error."""
    if status.error is not None:
        console.print(
            f"[bold red]{status.error.code}[/] ({status.error.stage}): {status.error.message}", soft_wrap=True
        )
        return
    manifest = Manifest.model_validate_json((target / "manifest.json").read_bytes())
    console.print()
    console.print(_stages(manifest))
    console.print(_made(target, files, manifest))
    for fallback in manifest.fallbacks:
        console.print(_fallback(fallback), soft_wrap=True)
    console.print(f"Report: {(target / 'report.html').resolve()}", soft_wrap=True)


class _Progress:
    """Prints a line when something new is in the bucket."""

    def __init__(self, console: Console, begin: float) -> None:
        self._console = console
        self._begin = begin
        self._stage = ""
        self._recorded = False
        self._ended: set[int] = set()

    def say(self, stage: str, text: str) -> None:
        elapsed = time.perf_counter() - self._begin
        self._console.print(f"[dim]{elapsed:7.2f} s[/]  [bold]{stage:<12}[/] {text}", soft_wrap=True, highlight=False)

    def watch(self, storage: Storage, status: JobStatus | None) -> None:
        if status is None:
            return
        if not self._recorded:
            self._say_record(storage, status)
        if status.stage != self._stage and status.state == "running":
            self._stage = status.stage
            self.say(status.stage, _STAGES.get(status.stage, ""))
        if self._recorded and status.segments is not None:
            self._say_segments(storage, status, status.segments)

    def _say_record(self, storage: Storage, status: JobStatus) -> None:
        if not storage.exists(keys.run_record(status.task_id, status.run_id)):
            return
        record = load_record(storage, status.task_id, status.run_id)
        self._recorded = True
        source, origin = record.source, "found in the cache" if record.flow_cache_hit else "extracted"
        if record.flow_cache is not None:
            origin = f"given as {record.flow_cache.reference}"
        self.say(
            "flows",
            f"{source.frames - 1} flows by {record.engine}, {origin}; video {source.width_px}x{source.height_px}, "
            f"{source.frames} frames, {source.fps:g} fps, {len(record.scene_cuts)} cuts",
        )

    def _say_segments(self, storage: Storage, status: JobStatus, count: int) -> None:
        for index in range(count):
            if status.state == "done":
                key = keys.segment_file(status.task_id, index, "result.json")
            else:
                key = keys.run_segment_file(status.task_id, status.run_id, index, "result.json")
            if index in self._ended or not storage.exists(key):
                continue
            self._ended.add(index)
            result = get_document(storage, key, SegmentResult, made_by="RenderSegment")
            filled = sum(last - first + 1 for first, last in result.filled)
            left = sum(last - first + 1 for first, last in result.left_unguided)
            self.say(
                f"segment {index}",
                f"{result.frames} frames {result.width_px}x{result.height_px}: {filled} filled by motion, {left} left "
                f"to the generator; flow from {result.flow_source}, "
                f"made in {result.timings_s['segment']:.2f} s",
            )


_STAGES = {
    "orchestrate": "the request arrived",
    "gpu": "RAFT runs as a task of its own; without a GPU a pair takes seconds",
    "extract": "decoding once: frames and flows",
    "segments": "the state machine fans out",
}


def _stages(manifest: Manifest) -> Table:
    table = Table(title="Stages", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, seconds in manifest.timings_s.items():
        table.add_row(name, f"{seconds:.2f}")
    for result in manifest.segments:
        table.add_row(f"segment {result.index}", f"{result.timings_s['segment']:.2f}")
    return table


def _made(target: Path, files: list[Path], manifest: Manifest) -> Table:
    table = Table(title=f"Made in {target}", title_justify="left")
    table.add_column("file")
    table.add_column("size", justify="right")
    table.add_column("what")
    for path in files:
        name = path.relative_to(target)
        table.add_row(str(name), _bytes(path.stat().st_size), _what(name, manifest))
    return table


def _what(name: Path, manifest: Manifest) -> str:
    """Say what a file of a job is, by its name below the job's folder."""
    if name.suffix == ".npz":
        return f"flows by {manifest.engine}, both directions"
    if name.suffix == ".mp4":
        # segments/{index}/…, some in a folder of their generator's
        result = manifest.segments[int(name.parts[1])]
        return f"{result.frames} frames, {result.width_px}x{result.height_px}, {result.fps:g} fps"
    return {"report.html": "open this in a browser", "manifest.json": "every output, with sizes and ETags"}.get(
        name.name, ""
    )


def _fallback(fallback: Fallback) -> str:
    return (
        f"[yellow]Not as asked[/] ({fallback.stage}): wanted {fallback.wanted}, used {fallback.used}: {fallback.reason}"
    )


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
