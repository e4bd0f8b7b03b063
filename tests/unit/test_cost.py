"""The cost estimate: prices times use, nothing forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from structureflow.models.cost import PRICES, StepUsage, estimate_cost, transitions_of
from structureflow.runtime.meter import Meter


def usage(step: str = "RenderSegment", **changes: Any) -> StepUsage:
    values: dict[str, Any] = {"duration_s": 2.0, "memory_mb": 2048, "architecture": "x86_64"}
    return StepUsage(step=step, **(values | {"s3_writes": 3, "s3_reads": 10} | changes))


def test_a_step_costs_its_gigabyte_seconds_and_its_request() -> None:
    cost = estimate_cost([usage()], transitions=0, stored_bytes=0)
    assert cost["Lambda RenderSegment"] == pytest.approx(4 * 0.0000166667 + 0.0000002)
    assert cost["S3 requests"] == pytest.approx(3 * 0.000005 + 10 * 0.0000004)
    assert cost["EventBridge events"] == pytest.approx(3 * 0.000001)
    assert cost["Step Functions transitions"] == 0


def test_calls_of_one_function_are_one_item() -> None:
    cost = estimate_cost([usage(), usage(), usage("AssembleJob")], transitions=9, stored_bytes=10**9)
    assert cost["Lambda RenderSegment"] == pytest.approx(2 * cost["Lambda AssembleJob"])
    assert cost["Step Functions transitions"] == pytest.approx(9 * 0.000025)
    assert cost["S3 storage for 30 days"] == pytest.approx(0.023)


def test_arm64_costs_a_fifth_less_a_second() -> None:
    x86, arm = (
        estimate_cost([usage(architecture=one)], transitions=0, stored_bytes=0)["Lambda RenderSegment"]
        for one in ("x86_64", "arm64")
    )
    assert (arm - PRICES.lambda_request) / (x86 - PRICES.lambda_request) == pytest.approx(0.8, abs=1e-4)


def test_transitions_grow_by_one_a_segment() -> None:
    assert [transitions_of(count) for count in (1, 3)] == [6, 8]


class Events:
    """Stands in for the event system of a boto3 client."""

    def register(self, name: str, handler: Any) -> None:
        self.name, self.handler = name, handler


def test_the_meter_counts_requests_by_price_and_begins_anew() -> None:
    events = Events()
    meter = Meter()
    meter.watch(SimpleNamespace(meta=SimpleNamespace(events=events)))
    for operation in ("PutObject", "PutObject", "ListObjectsV2", "GetObject", "HeadObject", "DeleteObjects"):
        events.handler(event_name=f"before-send.s3.{operation}", request=None)
    used = meter.usage("Orchestrator", 1769)
    assert (used.s3_writes, used.s3_reads, used.memory_mb) == (3, 2, 1769)
    meter.restart()
    assert (meter.usage("Orchestrator", 1769).s3_writes, meter.usage("x", 1).s3_reads) == (0, 0)
