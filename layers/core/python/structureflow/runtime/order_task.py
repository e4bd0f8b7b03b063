"""What the containers beside the functions have in common: they carry out one order, and end.

Exit codes: 0 the order is carried out; 1 a typed error, one JSON line on stderr, which also goes into the order, so
that the job can say why; `AGAIN` one that a later try may not have; 143 or 130 stopped by SIGTERM (a spot
interruption, StopTask, TerminateJob) or SIGINT, and then nothing half-made is left: the archive that commits the run is
written last and in one piece, and temporary files are removed on the way out.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from structureflow.errors import StructureFlowError
from structureflow.jobs.extraction_order import note_failure
from structureflow.models.results import JobRecord
from structureflow.runtime.task_settings import order_key, task_services
from structureflow.runtime.wiring import logger, metrics

#: As sysexits.h has it (EX_TEMPFAIL); the Batch part's job definition tries again then.
AGAIN: Final = 75
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was told to stop; no error of the work, so nothing that handles errors may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run_order_task(carry_out: Callable[[], JobRecord], *, again: int = AGAIN) -> int:
    """Carry out the order that the environment names, and return the exit code.

    Args:
        carry_out: does it; it reads the settings too, so that their errors are told like all others.
        again: exit code of an error that a later try may not have.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        logger().append_keys(order_key=order_key())
        record = carry_out()
    except Stopped as stop:
        logger().warning("task stopped", extra={"signal": str(stop)})
        return stop.exit_code
    except StructureFlowError as error:
        print(json.dumps({"error": error.as_dict()}, default=str), file=sys.stderr, flush=True)
        _tell_order(error)
        return again if error.transient else 1
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
