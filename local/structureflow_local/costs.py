"""What a run on the local cloud would cost on AWS: from billed durations, requests and transitions as they were."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, cast

from structureflow.models.cost import Architecture, StepUsage, estimate_cost
from structureflow_local.cloud import LocalCloud

_FREE: Final = frozenset({"DeleteObject", "DeleteObjects", "AbortMultipartUpload"})
_READS: Final = frozenset({"GetObject", "HeadObject"})


def measured_cost(cloud: LocalCloud, *, stored_bytes: int) -> dict[str, float]:
    """Estimate US dollars by item for everything that a local cloud has done so far.

    Durations are this machine's, not Lambda's; memory is the template's. `stored_bytes` stay in the bucket.
    """
    architecture = cast(Architecture, cloud.template.parameters.get("Architecture", "x86_64"))
    reads: dict[str | None, int] = defaultdict(int)
    writes: dict[str | None, int] = defaultdict(int)
    for call in cloud.calls:
        if call.service == "s3" and call.operation not in _FREE:
            (reads if call.operation in _READS else writes)[call.function] += 1
    usage = []
    for invocation in cloud.invocations:
        name = invocation.function
        usage.append(
            StepUsage(
                step=name.removesuffix("Function"),
                duration_s=invocation.billed_ms / 1000,
                memory_mb=invocation.memory_mb,
                architecture=architecture,
                # All requests of a function count with its first call.
                s3_writes=writes.pop(name, 0),
                s3_reads=reads.pop(name, 0),
            )
        )
    return estimate_cost(usage, transitions=_transitions(cloud), stored_bytes=stored_bytes)


def _transitions(cloud: LocalCloud) -> int:
    """Count the states entered, retries of executions included, and the start of each execution."""
    client = cloud.client("stepfunctions")
    count = 0
    for logical_id in cloud.template.state_machines:
        for execution in cloud.executions(logical_id):
            count += 1
            for page in client.get_paginator("get_execution_history").paginate(executionArn=execution.arn):
                count += sum(event["type"].endswith("StateEntered") for event in page["events"])
    return count
