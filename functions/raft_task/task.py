"""The GPU task: carries out one order with RAFT, and ends.

Exit codes: 0 the order is carried out; 1 a typed error, one JSON line on stderr, which also goes into the order, so
that the record of the job can say why RAFT was not to be had; 143 or 130 stopped by SIGTERM (a
spot interruption, StopTask) or SIGINT, and then nothing half-made is left: the archive that commits the run is
written last and in one piece, and temporary files are removed on the way out.
"""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType
from typing import NoReturn

from structureflow.errors import StructureFlowError
from structureflow.jobs.extraction_order import note_failure
from structureflow.jobs.raft_task import Progress, carry_out_order
from structureflow.runtime.task_settings import order_key, task_services, task_settings
from structureflow.runtime.wiring import logger, metrics

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was told to stop; no error of the work, so nothing that handles errors may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main() -> int:
    """Carry out the order that the environment names, and return the exit code."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        settings = task_settings()
        logger().append_keys(order_key=settings.order_key)
        record = carry_out_order(settings.order_key, settings.raft, task_services(), report=_log_progress)
    except Stopped as stop:
        logger().warning("task stopped", extra={"signal": str(stop)})
        return stop.exit_code
    except StructureFlowError as error:
        print(json.dumps({"error": error.as_dict()}, default=str), file=sys.stderr, flush=True)
        _tell_order(error)
        return 1
    finally:
        if metrics().metric_set:
            metrics().flush_metrics()
    logger().info(
        "order carried out",
        extra={
            "task_id": record.task_id,
            "run_id": record.run_id,
            "engine": record.engine,
            "timings": record.timings_s,
        },
    )
    return 0


def _tell_order(error: StructureFlowError) -> None:
    try:
        note_failure(task_services().storage, order_key(), error)
    except StructureFlowError as problem:
        logger().warning("the order cannot be told why", extra={"problem": problem.as_dict()})


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the clearing up that the first one began.
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


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
