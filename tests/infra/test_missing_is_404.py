"""A missing key must answer 404: S3 says 403 to a role that may not list the key, taken for a prefix.

Derived from the template for every role, so that a new pattern of reading brings its pattern of listing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow import keys
from structureflow.testing.iam import Request, allows, function_statements, requests_of

TEMPLATE: dict[str, Any] = yaml_parse((Path(__file__).resolve().parents[2] / "template.yaml").read_text())
BUCKET = "DataBucket"
ROLES = [
    name
    for name, body in TEMPLATE["Resources"].items()
    if body["Type"] in ("AWS::Serverless::Function", "AWS::IAM::Role") and body["Properties"].get("Policies")
]

#: A key of every kind that the layout knows, and inputs where users put them.
SAMPLES = (
    keys.job_request("t"),
    keys.job_record("t"),
    keys.job_status("t"),
    keys.job_flows("t"),
    keys.segment_file("t", 3, "guide.mp4"),
    keys.flow_cache("0" * 32),
    keys.timeline_frame("t", 5),
    keys.timeline_manifest("t"),
    keys.timeline_overlay("t", "job", "flow", 5, "x"),
    keys.gpu_order("run"),
    keys.gpu_claim("run"),
    keys.parts_file("run", "plan.json"),
    keys.parts_file("run", "result.json", 1),
    f"{keys.timeline_chunks_prefix('t')}000.mp4",
    "library/clip.mp4",
    "clip.mp4",
    "Videos/2026/ümläut clip.mov",
)


def samples_of(statements: Any) -> Iterator[str]:
    """Yield the samples, and a key made of every pattern that a role may read."""
    yield from SAMPLES
    for statement in statements:
        for resource in statement.resources:
            pattern = resource.removeprefix(f"arn:aws:s3:::{BUCKET}/")
            if statement.effect == "Allow" and pattern != resource and any("GetObject" in a for a in statement.actions):
                yield pattern.replace("*", "x")
                yield pattern.replace("*", "x/y")


@pytest.mark.parametrize("role", ROLES)
def test_who_may_read_a_key_is_told_when_it_is_missing(role: str) -> None:
    statements = function_statements(TEMPLATE, role)
    for key in samples_of(statements):
        reading, telling = requests_of("GetObject", BUCKET, key, 404)
        if allows(statements, reading):
            assert allows(statements, telling), f"{role} would get 403 for a missing {key}"


@pytest.mark.parametrize("role", ROLES)
def test_nobody_lists_the_whole_bucket(role: str) -> None:
    statements = function_statements(TEMPLATE, role)
    for prefix in ("", None):
        assert not allows(statements, Request("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", prefix))


def test_the_rule_sees_a_missing_statement() -> None:
    """Without its listing of cache/flows/, SettleGpu would take every unknown video for a forbidden one."""
    statements = function_statements(TEMPLATE, "SettleGpuFunction")
    without = tuple(one for one in statements if "ListBucket" not in str(one.actions))
    key = keys.flow_cache("0" * 32)
    reading, telling = requests_of("GetObject", BUCKET, key, 404)
    assert allows(statements, reading)
    assert allows(statements, telling)
    assert not allows(without, telling)
