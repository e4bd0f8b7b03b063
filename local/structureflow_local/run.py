"""Run a whole job on the local cloud, say what happens while it does, and collect what was made."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structureflow import S3Settings, S3Storage, Storage, keys
from structureflow.models.results import JobStatus
from structureflow_local.batch import batch_part, together, wants_batch
from structureflow_local.client import JobClient, PreparedJob, holds_results
from structureflow_local.cloud import LocalCloud
from structureflow_local.costs import measured_cost
from structureflow_local.gpu import gpu_part, wants_gpu, what_is_missing
from structureflow_local.local_cloud import TEMPLATE as TEMPLATE
from structureflow_local.output import Output, size
from structureflow_local.page_server import page_server
from structureflow_local.progress import JobProgress

BUCKET = "DataBucket"


def run_job(
    job: PreparedJob,
    target: Path,
    *,
    store: Path | None,
    timeout_s: float,
    output: Output,
    raft_weights: Path | None = None,
) -> tuple[JobStatus, list[Path], dict[str, float]]:
    """Run `job` on a local cloud of its own and download the job's folder into `target`, when it is done.

    A job that failed leaves the results of an earlier one in `target` as they are.

    Args:
        store: folder that keeps the caches from one run to the next; None keeps nothing.
        output: where it is shown how far the job is.
        raft_weights: folder of RAFT's weights, for a job that asks for RAFT; None takes `DEFAULT_WEIGHTS`.

    Returns:
        How the job ended (`done` or `failed`), the files now in `target` that are its own, and what it would cost on
        AWS, US dollars by item.

    Raises:
        NotFinishedError: it did not end within `timeout_s`.
    """
    gpu = gpu_part(raft_weights) if wants_gpu(job) else {}
    parts = together(gpu, batch_part() if wants_batch(job) else {})
    with JobProgress(output, named=job.in_own_words) as progress, LocalCloud(TEMPLATE, persist=store, **parts) as cloud:
        progress.say("cloud", f"local cloud at {cloud.endpoint_url}, wired by {TEMPLATE.name}")
        storage = bucket_of(cloud)
        progress.watch_in(storage)
        client = JobClient(storage)
        client.submit(job)
        uploaded = sum(path.stat().st_size for path in job.uploads.values())
        progress.say("upload", f"{len(job.uploads)} files, {size(uploaded)}, then {keys.job_request(job.task_id)}")
        missing = what_is_missing(raft_weights) if gpu else None
        if missing is not None:
            progress.say("gpu", f"RAFT cannot run: {missing}")
        status = client.wait(job.task_id, timeout_s=timeout_s, watch=progress.watch)
        progress.watch(status)
        files: list[Path] = []
        if status.state == "done" or not holds_results(target):
            progress.say("fetch", str(target))
            files = client.fetch(job.task_id, target, inputs=True)
        cloud.wait_idle(60)
        cost = measured_cost(cloud, stored_bytes=sum(path.stat().st_size for path in files))
        progress.say("end", f"job {job.task_id} is {status.state}")
    return status, files, cost


def serve_cloud(*, store: Path | None, output: Output, raft_weights: Path | None = None) -> None:
    """Run a local cloud until the process is interrupted; print what other processes need to reach it."""
    with LocalCloud(TEMPLATE, persist=store, **together(gpu_part(raft_weights), batch_part())) as cloud:
        environment = {**cloud.environment(), "DATA_BUCKET": cloud.bucket(BUCKET)}
        with serving_page(cloud) as url:
            output.give(environment=environment, page=url)
            for name, value in environment.items():
                output.say(f"export {name}={shlex.quote(value)}")
            output.say(f"# the page: {url}")
            output.say("# the local cloud runs until Ctrl-C")
            output.finish()
            threading.Event().wait()


@contextmanager
def serving_page(cloud: LocalCloud) -> Iterator[str]:
    """Serve the web page over the data bucket while the block lasts; requests that it puts start jobs by themselves."""
    server = page_server(bucket_of(cloud), 0, sent=lambda _: None)
    thread = threading.Thread(target=server.serve_forever, name="page")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def bucket_of(cloud: LocalCloud) -> Storage:
    """Return the data bucket of a local cloud."""
    return S3Storage(
        cloud.bucket(BUCKET),
        client=cloud.client("s3"),
        settings=S3Settings(endpoint_url=cloud.endpoint_url, region=cloud.region, addressing_style="path"),
    )
