"""Runs requests, events and documents one by one in forks of a small process, and tells how much memory each took.

Started by ``test_budgets.py`` as ``python budget_child.py < cases``: a case per line, ``{"function": …, "kind": …,
"path": …, "max_bytes": …}``; answers a line per case: ``{"error": …, "message": …, "peak_bytes": …}``. Memory is that
of the whole process, its imports included; more than `max_bytes` beyond what it has already fails the case at once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aws_lambda_powertools.event_handler

from structureflow.errors import StructureFlowError
from structureflow.jobs.documents import get_document
from structureflow.models.results import JobRecord, JobStatus
from structureflow.runtime import wiring
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner

#: Imported once, before the forks, with what most handlers import.
SHARED = (aws_lambda_powertools.event_handler, wiring)
REPO = Path(__file__).resolve().parents[2]


def run_request(function: str, path: Path) -> tuple[str, str]:
    """Orchestrate ``jobs/t/request.json`` below `path`."""
    runner = JobRunner(LocalStorage(path), path / "scratch")
    runner.orchestrate("t")
    status: JobStatus = runner.status("t")
    assert status.error is not None
    return status.error.code, status.error.message


def run_event(function: str, path: Path) -> tuple[str, str]:
    """Hand a function's handler an event."""
    spec = importlib.util.spec_from_file_location(f"{function}_app", REPO / "functions" / function / "app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    context = SimpleNamespace(
        function_name=function, memory_limit_in_mb=1, invoked_function_arn="arn", aws_request_id="1"
    )
    with contextlib.redirect_stdout(sys.stderr):
        app.handler(json.loads(path.read_bytes()), context)
    return "", ""


def run_record(function: str, path: Path) -> tuple[str, str]:
    """Read ``jobs/t/job.json`` below `path`, as every step reads its run's record."""
    get_document(LocalStorage(path), "jobs/t/job.json", JobRecord, made_by="the orchestrator")
    return "", ""


KINDS: dict[str, Callable[[str, Path], tuple[str, str]]] = {
    "request": run_request,
    "event": run_event,
    "record": run_record,
}


def answer(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case in this process."""
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = virtual + int(case["max_bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        error, message = KINDS[case["kind"]](case["function"], Path(case["path"]))
    except StructureFlowError as caught:
        error, message = caught.code, str(caught)
    except Exception as caught:  # noqa: BLE001 - an untyped error is what the test looks for
        error, message = f"untyped {type(caught).__name__}", str(caught)
    return {"error": error, "message": message[:10_000]}


def main() -> None:
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            found = answer(json.loads(line))
            with os.fdopen(writer, "w") as file:
                json.dump(found, file)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            text = file.read()
        _, code, usage = os.wait4(child, 0)
        found = json.loads(text) if text else {"error": f"died with {code}", "message": ""}
        print(json.dumps({**found, "peak_bytes": usage.ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
