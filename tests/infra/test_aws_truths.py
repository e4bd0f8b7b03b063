"""What AWS refuses, or does in another way than the template's text suggests, and no local run shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow.jobs import forecast
from structureflow.jobs.services import METRICS
from structureflow.limits import (
    MAX_CONCURRENT_PARTS,
    MAX_CONCURRENT_SEGMENTS,
    MAX_JOB_FRAMES,
    MAX_MAP_CHILDREN,
    MAX_PREVIEW_BYTES,
    MAX_SEGMENTS,
    NEW_ACCOUNT_MEMORY_MB,
)
from structureflow.models import cost
from structureflow.models.job import OverlayStage
from structureflow.runtime.settings import Settings
from structureflow_local import sam_build
from structureflow_local.cloud.template import load_template

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "template.yaml").read_text()
TEMPLATE: dict[str, Any] = yaml_parse(TEXT)
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
NUMBERS = {name: body for name, body in PARAMETERS.items() if body["Type"] == "Number"}
GPU = {"EnableGpu": "true", "GpuImageUri": "raft:1", "GpuVpcId": "vpc-1", "GpuSubnetIds": "subnet-1"}
BATCH = {"EnableBatch": "true", "BatchImageUri": "batch:1", "BatchVpcId": "vpc-1", "BatchSubnetIds": "subnet-1"}


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


# --- new accounts ------------------------------------------------------------------------------------


def test_a_new_account_takes_every_functions_memory() -> None:
    for spec in load_template(REPO / "template.yaml", {**GPU, **BATCH}).functions.values():
        assert spec.memory_mb <= NEW_ACCOUNT_MEMORY_MB, spec.logical_id


def test_a_failed_first_deploy_leaves_nothing_and_a_later_deletion_keeps_the_data() -> None:
    kept = {name: body["DeletionPolicy"] for name, body in RESOURCES.items() if "DeletionPolicy" in body}
    assert kept == {"DataBucket": "RetainExceptOnCreate"}


@pytest.mark.parametrize("architecture", sam_build.ARCHITECTURES)
def test_a_stack_cannot_keep_another_architecture_than_was_built(architecture: str) -> None:
    """On an update SAM sends the value that a parameter had before; what is no parameter has none."""
    built = yaml_parse(sam_build.settled(TEXT, architecture))
    assert "Architecture" not in built["Parameters"]
    assert not [node for node in nodes(built) if node == {"Ref": "Architecture"} or "${Architecture" in str(node)]
    assert built["Globals"]["Function"]["Architectures"] == [architecture]
    assert built["Resources"]["LightLayer"]["Properties"]["CompatibleArchitectures"] == [architecture]
    assert set(built["Parameters"]) == set(PARAMETERS) - {"Architecture"}


# --- partitions and names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [REPO / "template.yaml", *sorted((REPO / "statemachines").glob("*.json"))], ids=lambda path: path.name
)
def test_no_arn_names_a_partition(path: Path) -> None:
    """``arn:aws:…`` deploys in China and GovCloud, and fails there when it is used."""
    found = re.findall(r"arn:[^:\"'\s]*:", path.read_text())
    assert found
    assert set(found) <= {"arn:${AWS", "arn:${Partition}:", "arn:*:", "arn:${AWS::Partition}:", "arn:${AWS:"}


def test_no_condition_rests_on_a_generated_name() -> None:
    """CloudFormation shortens generated names; a pattern on one stops to match, and nobody is told."""
    for name, body in RESOURCES.items():
        for node in nodes(body):
            if isinstance(node, dict) and isinstance(node.get("Condition"), dict):
                assert "AWS::StackName" not in json.dumps(node["Condition"]), name


@pytest.mark.parametrize(
    "name", [name for name, body in RESOURCES.items() if body["Type"].endswith(("::QueuePolicy", "::TopicPolicy"))]
)
def test_services_are_let_in_by_account_or_for_one_rule(name: str) -> None:
    for statement in RESOURCES[name]["Properties"]["PolicyDocument"]["Statement"]:
        assert "Service" in statement["Principal"]
        condition = statement["Condition"]
        if "ArnEquals" in condition:
            rule, attribute = condition["ArnEquals"]["aws:SourceArn"]["Fn::GetAtt"]
            assert (RESOURCES[rule]["Type"], attribute) == ("AWS::Events::Rule", "Arn")
            continue
        assert condition["StringEquals"]["aws:SourceAccount"] == {"Ref": "AWS::AccountId"}


# --- parameters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_both_bounds_or_are_chosen(name: str) -> None:
    body = NUMBERS[name]
    if "AllowedValues" in body:
        assert body["Default"] in body["AllowedValues"]
        return
    assert body["MinValue"] <= body["Default"] <= body["MaxValue"]


@pytest.mark.parametrize("bound", ["MinValue", "MaxValue"])
@pytest.mark.parametrize("name", [name for name, body in NUMBERS.items() if "MinValue" in body])
def test_the_code_keeps_both_bounds(name: str, bound: str) -> None:
    template = load_template(REPO / "template.yaml", {**GPU, **BATCH, name: str(NUMBERS[name].get(bound))})
    for spec in template.functions.values():
        Settings.from_environment({**spec.environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb)})


def test_two_of_the_largest_videos_fit_on_the_disk_of_who_downloads_them() -> None:
    largest = PARAMETERS["MaxVideoMegabytes"]["MaxValue"]
    for name, body in RESOURCES.items():
        if body.get("Properties", {}).get("PackageType") == "Image":
            # a preview fetches less, of which a structure video and all guides are two
            most = MAX_PREVIEW_BYTES / 1e6 if name == "PreviewFunction" else largest
            assert 2 * most < body["Properties"]["EphemeralStorage"]["Size"], name
    disk = RESOURCES["BatchJobDefinition"]["Properties"]["ContainerProperties"]["EphemeralStorage"]["SizeInGiB"]
    assert 2 * PARAMETERS["BatchMaxVideoMegabytes"]["MaxValue"] * 1e6 < disk * 1024**3
    assert 21 <= disk <= 200, "what Fargate takes"


def test_an_order_outlives_its_task() -> None:
    """The bucket's rule takes orders away; SettleGpu must have given up before, an hour after the deadline."""
    (days,) = [
        rule["ExpirationInDays"]
        for rule in RESOURCES["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == "work/"
    ]
    assert PARAMETERS["GpuTimeoutMinutes"]["MaxValue"] + 60 < days * 24 * 60
    assert PARAMETERS["BatchTimeoutMinutes"]["MaxValue"] + 60 < days * 24 * 60


@pytest.mark.parametrize(
    "name", [name for name, body in RESOURCES.items() if "ReadAllowedBuckets" in json.dumps(body, default=str)]
)
def test_who_reads_input_buckets_may_decrypt_them(name: str) -> None:
    policies = RESOURCES[name]["Properties"]["Policies"]
    guarded = [policy["Fn::If"] for policy in policies if policy.get("Fn::If", [""])[0] == "HasInputKeys"]
    ((_, policy, _),) = guarded
    (statement,) = policy.get("PolicyDocument", policy)["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", {"Ref": "AllowedInputKeyArns"})
    assert statement["Condition"] == {"StringLike": {"kms:ViaService": {"Fn::Sub": "s3.*.${AWS::URLSuffix}"}}}


# --- cost --------------------------------------------------------------------------------------------


def test_what_a_stack_costs_by_itself_is_what_the_template_has() -> None:
    always = {name: body for name, body in RESOURCES.items() if "Condition" not in body}

    def without_gpu(metrics: list[Any]) -> list[Any]:
        return [one for one in metrics if not (isinstance(one, dict) and "Fn::If" in one)]

    looked_at = 0
    for body in always.values():
        if body["Type"] == "AWS::CloudWatch::Alarm":
            metrics = without_gpu(body["Properties"].get("Metrics", []))
            looked_at += sum("MetricStat" in metric for metric in metrics) or 1
    assert looked_at == cost.ALARM_METRICS
    assert sum(body["Type"] == "AWS::CloudWatch::Dashboard" for body in always.values()) == cost.DASHBOARDS
    assert len(METRICS) == cost.CUSTOM_METRICS


def test_estimates_before_a_run_are_of_the_templates_defaults() -> None:
    assert PARAMETERS["OrchestratorMemoryMegabytes"]["Default"] == NEW_ACCOUNT_MEMORY_MB
    assert PARAMETERS["SegmentMemoryMegabytes"]["Default"] == NEW_ACCOUNT_MEMORY_MB
    concurrency = PARAMETERS["MaxConcurrentSegments"]
    assert (concurrency["Default"], concurrency["MaxValue"]) == (MAX_CONCURRENT_SEGMENTS, MAX_MAP_CHILDREN)
    concurrency = PARAMETERS["MaxConcurrentParts"]
    assert (concurrency["Default"], concurrency["MaxValue"]) == (MAX_CONCURRENT_PARTS, MAX_MAP_CHILDREN)
    functions = load_template(REPO / "template.yaml").functions
    assert functions["PlanSegmentsFunction"].memory_mb == forecast.PLAN_MB
    assert functions["AssembleJobFunction"].memory_mb == forecast.ASSEMBLE_MB


# --- browsers ----------------------------------------------------------------------------------------


ROUTES = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::ApiGatewayV2::Route"}


def test_browsers_are_answered_before_they_sign() -> None:
    """API Gateway answers OPTIONS by itself where CORS is configured and no route takes it, as ANY would."""
    condition, cors, none = RESOURCES["HttpApi"]["Properties"]["CorsConfiguration"]["Fn::If"]
    assert (condition, none) == ("HasApiOrigins", {"Ref": "AWS::NoValue"})
    methods = {route["RouteKey"].split(" ")[0] for route in ROUTES.values()}
    assert methods == {*cors["AllowMethods"]}
    assert not {"ANY", "OPTIONS", "$default"} & methods
    assert "AllowCredentials" not in cors
    assert cors["AllowOrigins"] == {"Ref": "ApiAllowedOrigins"}
    assert {"authorization", "x-amz-date", "content-type"} <= set(cors["AllowHeaders"])


@pytest.mark.parametrize("name", ROUTES)
def test_no_route_is_public(name: str) -> None:
    """Of whoever signs, or, with an issuer, of whoever carries one of its tokens."""
    assert ROUTES[name]["AuthorizationType"] == {"Fn::If": ["HasApiTokens", "JWT", "AWS_IAM"]}
    assert ROUTES[name]["AuthorizerId"] == {
        "Fn::If": ["HasApiTokens", {"Ref": "HttpApiTokens"}, {"Ref": "AWS::NoValue"}]
    }
    assert RESOURCES["HttpApiTokens"]["Condition"] == "HasApiTokens"


# --- time --------------------------------------------------------------------------------------------


def machine(name: str = "segments") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPO / "statemachines" / f"{name}.asl.json").read_text())
    return found


def task_states(name: str = "segments") -> dict[str, dict[str, Any]]:
    states = dict(machine(name)["States"])
    for state in machine(name)["States"].values():
        states |= state.get("ItemProcessor", {}).get("States", {})
    return {task: state for task, state in states.items() if state["Type"] == "Task"}


@pytest.mark.parametrize(
    ("name", "task"),
    [
        (name, task)
        for name in ("segments", "extraction")
        for task in sorted(task_states(name).keys() - {"QueueSegment"})
    ],
)
def test_a_state_waits_until_its_function_has_said_how_it_ended(name: str, task: str) -> None:
    """Else the function's own error never arrives, and it goes on running: Step Functions does not stop it."""
    timeout_s = load_template(REPO / "template.yaml").functions[f"{task}Function"].timeout_s
    assert task_states(name)[task]["TimeoutSeconds"] >= timeout_s + 30


def test_a_distributed_map_may_start_watch_and_stop_its_children() -> None:
    """The role of a machine with one must name the machine itself, which cannot stand in the role (a circle)."""
    policy = RESOURCES["ExtractionMapPolicy"]["Properties"]
    assert policy["Roles"] == [{"Ref": "ExtractionRole"}]
    assert RESOURCES["ExtractionStateMachine"]["Properties"]["Role"] == {"Fn::GetAtt": ["ExtractionRole", "Arn"]}
    start, watch = policy["PolicyDocument"]["Statement"]
    assert (start["Action"], start["Resource"]) == ("states:StartExecution", {"Ref": "ExtractionStateMachine"})
    assert watch["Action"] == ["states:DescribeExecution", "states:StopExecution"]
    assert watch["Resource"]["Fn::Sub"].endswith(":execution:${ExtractionStateMachine.Name}/*")


def test_what_parts_leave_expires() -> None:
    """An extraction that ends without a word leaves its parts; the rule takes them when no execution runs any more."""
    from structureflow import keys

    (rule,) = [
        rule
        for rule in RESOURCES["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") and keys.parts_prefix("run").startswith(rule["Prefix"])
    ]
    assert machine("extraction")["TimeoutSeconds"] < rule["ExpirationInDays"] * 24 * 3600


def test_the_machines_time_is_enough_for_the_longest_plan() -> None:
    """Most segments, one at a time, each with all the time that its function has."""
    states = task_states()
    one_at_a_time = PARAMETERS["MaxConcurrentSegments"]["MinValue"]
    segments_s = -(-MAX_SEGMENTS // one_at_a_time) * states["RenderSegment"]["TimeoutSeconds"]
    around_s = sum(state["TimeoutSeconds"] for name, state in states.items() if name != "RenderSegment")
    assert machine()["TimeoutSeconds"] >= segments_s + around_s


def test_the_overlays_of_an_earlier_run_can_be_cleared() -> None:
    """S3 deletes 3,500 objects a second under a prefix; a call that is ended in between is tried once more."""
    most = MAX_JOB_FRAMES * len(get_args(OverlayStage))
    timeout_s = load_template(REPO / "template.yaml").functions["PlanSegmentsFunction"].timeout_s
    assert most / 3_500 < 2 * timeout_s


# --- documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((REPO / "docs").glob("*.md")), ids=lambda path: path.name)
def test_every_image_is_built_for_a_platform(path: Path) -> None:
    """On an arm64 laptop ``docker build`` makes arm64 images, which no x86-64 instance runs."""
    for line in path.read_text().splitlines():
        if re.match(r"\s*docker build(x build)? ", line):
            assert "--platform" in line, line
