"""What a run on the local cloud would cost on AWS: from billed durations, requests and transitions as they were."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import cast

from structureflow.models.cost import (
    CREATING,
    DELETING,
    Architecture,
    StepUsage,
    estimate_cost,
    price_class,
)
from structureflow_local.cloud import LocalCloud


def measured_cost(cloud: LocalCloud, *, stored_bytes: int) -> dict[str, float]:
    """Estimate US dollars by item for everything that a local cloud has done so far.

    Durations are this machine's, not Lambda's; memory is the template's. `stored_bytes` stay in the bucket.
    """
    usage, transitions = measured_usage(cloud)
    return estimate_cost(usage, transitions=transitions, stored_bytes=stored_bytes)


def measured_usage(cloud: LocalCloud) -> tuple[list[StepUsage], int]:
    """Return what each call of a function used, in their order, and the transitions of all executions."""
    architecture = cast(Architecture, cloud.template.parameters.get("Architecture", "x86_64"))
    used: dict[str | None, Counter[str]] = defaultdict(Counter)
    for call in cloud.calls:
        if call.service == "s3":
            own = used[call.function]
            # Of DeleteObjects there is one call for each key, and each is free.
            own[price_class(call.operation)] += 1
            own["event"] += call.operation in CREATING or call.operation in DELETING
    usage = []
    for invocation in cloud.invocations:
        name = invocation.function
        # All requests of a function count with its first call.
        own = used.pop(name, Counter())
        usage.append(
            StepUsage(
                step=name.removesuffix("Function"),
                duration_s=invocation.billed_ms / 1000,
                memory_mb=invocation.memory_mb,
                architecture=architecture,
                s3_writes=own["write"],
                s3_reads=own["read"],
                s3_events=own["event"],
            )
        )
    return usage, _transitions(cloud)


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
