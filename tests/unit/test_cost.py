"""The cost estimate: prices times use, nothing forgotten."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest

import structureflow
from structureflow.models.cost import (
    CREATING,
    DELETING,
    PRICES,
    S3_REQUESTS,
    StepUsage,
    estimate_cost,
    price_class,
    transitions_of,
)

LIBRARY = Path(structureflow.__file__).parent


def usage(step: str = "RenderSegment", **changes: Any) -> StepUsage:
    values: dict[str, Any] = {"duration_s": 2.0, "memory_mb": 2048, "architecture": "x86_64"}
    return StepUsage(step=step, **(values | {"s3_writes": 3, "s3_reads": 10, "s3_events": 5} | changes))


def test_a_step_costs_its_gigabyte_seconds_and_its_request() -> None:
    cost = estimate_cost([usage()], transitions=0, stored_bytes=0)
    assert cost["Lambda RenderSegment"] == pytest.approx(4 * 0.0000166667 + 0.0000002)
    assert cost["S3 requests"] == pytest.approx(3 * 0.000005 + 10 * 0.0000004)
    assert cost["EventBridge events"] == pytest.approx(5 * 0.000001)
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
    assert [transitions_of(count) for count in (1, 3, 40, 41)] == [7, 9, 46, 88]


def test_every_request_that_the_storage_sends_has_its_price() -> None:
    """Found in the adapter's own text: methods of the SDK's client are its operations in another case."""
    names = botocore.session.get_session().get_service_model("s3").operation_names
    operations = {botocore.xform_name(name): name for name in names}
    text = "".join(path.read_text() for path in (LIBRARY / "storage").glob("*s3*.py"))
    sent = {operations[name] for name in re.findall(r"client(?:\(\))?\.(\w+)\(", text) if name in operations}
    assert {"PutObject", "ListObjectsV2", "UploadPartCopy", "DeleteObjects"} <= sent
    assert sent <= set(S3_REQUESTS)
    assert price_class("SomethingNew") == "write"
    assert {name for name, kind in S3_REQUESTS.items() if kind == "free"} >= DELETING
    assert {S3_REQUESTS[name] for name in CREATING} == {"write"}
