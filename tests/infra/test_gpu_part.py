"""The GPU part of the template: there only when enabled, from zero, one GPU, and nobody may do more than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow.runtime.settings import Settings
from structureflow.runtime.task_settings import TaskSettings
from structureflow.testing.iam import Request, allows, function_statements
from structureflow_local.cloud.template import load_template

PATH = Path(__file__).resolve().parents[2] / "template.yaml"
TEMPLATE: dict[str, Any] = yaml_parse(PATH.read_text())
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
GPU_PART = {name for name, body in RESOURCES.items() if body.get("Condition") == "HasGpu"}
ENABLED = {"EnableGpu": "true", "GpuImageUri": "raft:1", "GpuVpcId": "vpc-1", "GpuSubnetIds": "subnet-1"}


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = RESOURCES[name]["Properties"]
    return found


def named(node: Any) -> Iterator[str]:
    """Every resource that a value names, outside of `Fn::If` branches that hold only with the GPU part."""
    if isinstance(node, list):
        for item in node:
            yield from named(item)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "Fn::If" and value[0] == "HasGpu":
            yield from named(value[2])
        elif key == "Ref":
            yield value
        elif key == "Fn::GetAtt":
            yield value.split(".")[0] if isinstance(value, str) else value[0]
        elif key == "Fn::Sub":
            text, extra = (value, {}) if isinstance(value, str) else value
            yield from (name for name in GPU_PART if f"${{{name}}}" in text or f"${{{name}." in text)
            yield from named(extra)
        else:
            yield from named(value)


def test_all_of_it_is_conditional() -> None:
    kinds = ("AWS::ECS::", "AWS::EC2::LaunchTemplate", "AWS::AutoScaling::")
    assert {name for name, body in RESOURCES.items() if body["Type"].startswith(kinds)} <= GPU_PART
    assert {"GpuSecurityGroup", "RaftLogGroup", "RaftTaskRole"} <= GPU_PART


@pytest.mark.parametrize("name", sorted(set(RESOURCES) - GPU_PART))
def test_nothing_else_depends_on_it(name: str) -> None:
    assert not set(named(RESOURCES[name])) & GPU_PART


def test_no_output_depends_on_it_unconditionally() -> None:
    for name, output in TEMPLATE["Outputs"].items():
        assert output.get("Condition") == "HasGpu" or not set(named(output)) & GPU_PART, name


def test_it_is_off_unless_asked_for_and_then_wants_its_parameters() -> None:
    assert TEMPLATE["Parameters"]["EnableGpu"]["Default"] == "false"
    rule = TEMPLATE["Rules"]["GpuNeedsItsParameters"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "EnableGpu"}, "true"]}
    assert {ref for one in rule["Assertions"] for ref in named(one["Assert"])} == set(ENABLED) - {"EnableGpu"}


def test_instances_come_from_zero_and_one_at_a_time() -> None:
    """From zero, managed scaling starts two instances for one task unless the group has room for one only."""
    group, provider = properties("GpuAutoScalingGroup"), properties("GpuCapacityProvider")["AutoScalingGroupProvider"]
    assert group["MinSize"] == "0"
    assert "DesiredCapacity" not in group
    assert group["MaxSize"] == {"Ref": "GpuMaxInstances"}
    assert TEMPLATE["Parameters"]["GpuMaxInstances"]["Default"] == 1
    assert provider["ManagedScaling"]["Status"] == "ENABLED"
    assert {"Key": "AmazonECSManaged", "Value": "", "PropagateAtLaunch": True} in group["Tags"]


def test_nothing_holds_instances_back_when_the_part_is_taken_away() -> None:
    """CloudFormation waits for instances to end, and a protected one never does; ECS drains those that have a task."""
    group, provider = properties("GpuAutoScalingGroup"), properties("GpuCapacityProvider")["AutoScalingGroupProvider"]
    assert group["NewInstancesProtectedFromScaleIn"] is False
    assert provider["ManagedTerminationProtection"] == "DISABLED"
    assert provider["ManagedDraining"] == "ENABLED"


def test_the_task_has_one_gpu_and_time_to_clear_up() -> None:
    definition = properties("RaftTaskDefinition")
    (container,) = definition["ContainerDefinitions"]
    assert container["Name"] == "raft"
    assert container["Image"] == {"Ref": "GpuImageUri"}
    assert container["ResourceRequirements"] == [{"Type": "GPU", "Value": "1"}]
    assert definition["RequiresCompatibilities"] == ["EC2"]
    assert not container.get("Privileged")
    assert 0 < container["StopTimeout"] <= 120
    assert properties("RaftLogGroup")["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert container["LogConfiguration"]["Options"]["awslogs-group"] == {"Ref": "RaftLogGroup"}


def test_the_task_gets_every_setting_that_it_reads() -> None:
    """The image adds the weights, RunTask the order; the task itself knows its CPUs."""
    template = load_template(PATH, ENABLED)
    (container,) = template.task_definitions["RaftTaskDefinition"].containers
    environment = dict(container.environment)
    added = {
        "EXTRACTION_KEY": "work/.gpu/0.json",
        "RAFT_WEIGHTS_URI": "/opt/raft/{model}.pth",
        "RAFT_WEIGHTS_SHA256": f"raft_small={'0' * 64}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
    }
    settings = Settings.from_environment(environment | added)
    assert settings.data_bucket == template.buckets["DataBucket"].name
    assert settings.state_machine_arn == template.state_machines["SegmentsStateMachine"].arn
    assert TaskSettings.from_environment(environment | added).order_key == "work/.gpu/0.json"


@pytest.mark.parametrize("name", ["OrchestratorFunction", "SettleGpuFunction"])
def test_functions_that_ask_for_tasks_know_the_gpu_part(name: str) -> None:
    with_gpu, without = (load_template(PATH, parameters) for parameters in (ENABLED, {}))
    complete = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}
    gpu = Settings.from_environment({**with_gpu.functions[name].environment, **complete}).gpu
    assert gpu is not None
    assert gpu.timeout_s == 60.0 * TEMPLATE["Parameters"]["GpuTimeoutMinutes"]["Default"]
    if name in without.functions:
        assert Settings.from_environment({**without.functions[name].environment, **complete}).gpu is None


def test_the_end_of_a_task_is_told_for_this_cluster_only() -> None:
    pattern = properties("SettleGpuFunction")["Events"]["TaskStopped"]["Properties"]["Pattern"]
    assert pattern["source"] == ["aws.ecs"]
    cluster = {"Fn::If": ["HasGpu", {"Fn::GetAtt": ["GpuCluster", "Arn"]}, "none"]}
    assert pattern["detail"] == {"clusterArn": [cluster], "lastStatus": ["STOPPED"]}
    schedule = properties("SettleGpuFunction")["Events"]["LookForOverdue"]
    assert schedule["Type"] == "Schedule"


def test_the_orchestrator_may_run_this_task_on_this_cluster_and_hand_it_its_roles() -> None:
    policy = next(
        one["Fn::If"][1]
        for one in properties("OrchestratorFunction")["Policies"]
        if one.get("Fn::If", [""])[0] == "HasGpu"
    )
    by_sid = {statement["Sid"]: statement for statement in policy["Statement"]}
    run, hand = by_sid["StartGpuTasks"], by_sid["HandTasksTheirRoles"]
    assert (run["Action"], run["Resource"]) == ("ecs:RunTask", {"Ref": "RaftTaskDefinition"})
    assert run["Condition"] == {"ArnEquals": {"ecs:cluster": {"Fn::GetAtt": ["GpuCluster", "Arn"]}}}
    roles = {role["Fn::GetAtt"][0] for role in hand["Resource"]}
    definition = properties("RaftTaskDefinition")
    assert roles == {definition[name]["Fn::GetAtt"][0] for name in ("TaskRoleArn", "ExecutionRoleArn")}
    assert hand["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


@pytest.mark.parametrize("name", ["RaftTaskRole", "SettleGpuFunction"])
def test_who_extracts_reads_inputs_and_writes_no_results(name: str) -> None:
    statements = function_statements(TEMPLATE, name)

    def may(action: str, key: str, bucket: str = "DataBucket") -> bool:
        return allows(statements, Request(action, f"arn:aws:s3:::{bucket}/{key}"))

    assert may("s3:GetObject", "videos/dance.mp4")
    assert may("s3:GetObject", "work/.gpu/0123456789abcdef.json")
    assert may("s3:PutObject", "jobs/t1/structure_flows_t1.npz")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert not may(action, "jobs/t1/request.json")
        assert not may(action, "jobs/t1/segments/000/guide.mp4")
        assert not may(action, "timelines/reel/chunks/000.mp4")
    assert any(statement.sid == "ReadAllowedBuckets" for statement in statements)


def test_the_task_may_not_take_an_order_away() -> None:
    """It says in the order why it failed; only who settles the order removes it."""
    order = "arn:aws:s3:::DataBucket/work/.gpu/0123456789abcdef.json"
    task, settle = (function_statements(TEMPLATE, name) for name in ("RaftTaskRole", "SettleGpuFunction"))
    assert allows(task, Request("s3:PutObject", order))
    assert not allows(task, Request("s3:DeleteObject", order))
    assert allows(settle, Request("s3:DeleteObject", order))
