"""The GPU task: carries out one order with RAFT, and ends. Its exit codes: `structureflow.runtime.order_task`."""

from __future__ import annotations

import sys

from structureflow.jobs.raft_task import Progress, carry_out_order
from structureflow.models.results import JobRecord
from structureflow.runtime.order_task import run_order_task
from structureflow.runtime.task_settings import task_services, task_settings
from structureflow.runtime.wiring import logger


def main() -> int:
    """Carry out the order that the environment names, and return the exit code."""
    # ECS does not look at the code, and nobody tries again: DIS does it at once.
    return run_order_task(_carry_out, again=1)


def _carry_out() -> JobRecord:
    settings = task_settings()
    return carry_out_order(settings.order_key, settings.raft, task_services(), report=_log_progress)


def _log_progress(progress: Progress) -> None:
    logger().info(
        "extracting",
        extra={
            "frames_done": progress.frames_done,
            "frames_total": progress.frames_total,
            "pairs_per_s": progress.pairs_per_s,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
