"""Run a whole job in this process, show how far it is, and collect what was made."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from structureflow.models.results import JobStatus
from structureflow_local.client import JobClient, PreparedJob, holds_results
from structureflow_local.one_at_a_time import alone
from structureflow_local.one_process import OneProcess
from structureflow_local.output import Output, size
from structureflow_local.progress import JobProgress


def run_job_here(
    job: PreparedJob,
    target: Path,
    *,
    store: Path | None,
    timeout_s: float,
    output: Output,
    raft_weights: Path | None = None,
) -> tuple[JobStatus, list[Path]]:
    """Run `job` in this process and put the job's folder into `target`, when it is done.

    A job that failed leaves the results of an earlier one in `target` as they are. While another process runs the job
    over the same store, this one waits.

    Args:
        store: folder that keeps the caches from one run to the next; None keeps nothing.
        output: where it is shown how far the job is.
        raft_weights: folder of RAFT's weights, for a job that asks for RAFT.

    Returns:
        How the job ended (`done` or `failed`), and the files now in `target` that are its own.

    Raises:
        NotFinishedError: it did not end within `timeout_s`.
    """

    def waiting() -> None:
        progress.say("wait", f"job {job.task_id} is run by somebody else in {store}, who comes first")

    with (
        JobProgress(output, named=job.in_own_words) as progress,
        nullcontext() if store is None else alone(store, job.task_id, waiting),
        OneProcess(job, store=store, raft_weights=raft_weights) as steps,
    ):
        progress.watch_in(steps.storage)
        read = sum(path.stat().st_size for path in job.uploads.values())
        progress.say("here", f"in this process, {steps.workers} threads; {len(job.uploads)} files, {size(read)}")
        steps.start()
        status = steps.wait(timeout_s=timeout_s, watch=progress.watch)
        files: list[Path] = []
        if status.state == "done" or not holds_results(target):
            progress.say("fetch", str(target))
            files = JobClient(steps.storage).fetch(job.task_id, target, inputs=True)
        progress.say("end", f"job {job.task_id} is {status.state}")
    return status, files
