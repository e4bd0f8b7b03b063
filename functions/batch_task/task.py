"""The Batch job: carries out one order with DIS or Farneback, and ends.

Its exit codes: `structureflow.runtime.order_task`.
"""

from __future__ import annotations

import sys

from structureflow.jobs.batch_task import carry_out_on_batch
from structureflow.models.results import JobRecord
from structureflow.runtime.order_task import run_order_task
from structureflow.runtime.task_settings import order_key, task_services


def main() -> int:
    """Carry out the order that the environment names, and return the exit code."""
    return run_order_task(_carry_out)


def _carry_out() -> JobRecord:
    return carry_out_on_batch(order_key(), task_services())


if __name__ == "__main__":
    sys.exit(main())
