"""The Batch part of the template: there only when enabled, on Fargate, and nobody may do more than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow.runtime.order_task import AGAIN
from structureflow.runtime.settings import Settings
from structureflow.testing.iam import Request, allows, function_statements
from structureflow_local.batch import JOB_DEFINITION, TASK, batch_part
from structureflow_local.cloud.batch_jobs import _Job, _tries_again
from structureflow_local.cloud.template import load_template

REPO = Path(__file__).resolve().parents[2]
PATH = REPO / "template.yaml"
TEMPLATE: dict[str, Any] = yaml_parse(PATH.read_text())
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
ENABLED: dict[str, str] = batch_part()["parameters"]
#: Resources by the condition that they are there under, and what else is there whenever a condition holds.
PARTS = {
    condition: {name for name, body in RESOURCES.items() if body.get("Condition") == condition}
    for condition in ("HasGpu", "HasBatch", "HasOrders")
}
IMPLIED = {"HasGpu": {"HasGpu", "HasOrders"}, "HasBatch": {"HasBatch", "HasOrders"}, "HasOrders": {"HasOrders"}}


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = RESOURCES[name]["Properties"]
    return found


def named(node: Any, holding: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Every name that a value speaks of, with the conditions that hold there."""
    if isinstance(node, list):
        for item in node:
            yield from named(item, holding)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "Fn::If" and value[0] in IMPLIED:
            yield from named(value[1], holding | IMPLIED[value[0]])
            yield from named(value[2], holding)
        elif key == "Ref":
            yield value, holding
        elif key == "Fn::GetAtt":
            yield (value.split(".")[0] if isinstance(value, str) else value[0]), holding
        elif key == "Fn::Sub":
            text, extra = (value, {}) if isinstance(value, str) else value
            for name in set().union(*PARTS.values()):
                if f"${{{name}}}" in text or f"${{{name}." in text:
                    yield name, holding
            yield from named(extra, holding)
        else:
            yield from named(value, holding)


@pytest.mark.parametrize("name", RESOURCES)
def test_what_is_not_always_there_is_named_only_where_it_is(name: str) -> None:
    holding = frozenset(IMPLIED.get(RESOURCES[name].get("Condition", ""), ()))
    for other, conditions in named(RESOURCES[name].get("Properties", {}), holding):
        needed = RESOURCES.get(other, {}).get("Condition")
        assert needed not in IMPLIED or needed in conditions, f"{other} is there under {needed} only"


def test_all_of_it_is_conditional() -> None:
    assert {name for name, body in RESOURCES.items() if body["Type"].startswith("AWS::Batch::")} <= PARTS["HasBatch"]
    assert {"BatchSecurityGroup", "BatchLogGroup", "BatchJobRole", "BatchExecutionRole"} <= PARTS["HasBatch"]
    assert PARTS["HasOrders"] == {name for name in RESOURCES if name.startswith("SettleGpu")}
    conditions = TEMPLATE["Conditions"]
    assert conditions["HasOrders"] == {"Fn::Or": [{"Condition": "HasGpu"}, {"Condition": "HasBatch"}]}


def test_it_is_off_unless_asked_for_and_then_wants_its_parameters() -> None:
    assert TEMPLATE["Parameters"]["EnableBatch"]["Default"] == "false"
    rule = TEMPLATE["Rules"]["BatchNeedsItsParameters"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "EnableBatch"}, "true"]}
    asked = {name for one in rule["Assertions"] for name, _ in named(one["Assert"], frozenset())}
    assert asked == set(ENABLED) - {"EnableBatch"}
    without = load_template(PATH)
    assert not without.job_definitions
    assert without.functions["OrchestratorFunction"].environment["BATCH_QUEUE"] == ""
    assert "SettleGpuFunction" not in without.functions
    assert "SettleGpuFunction" in load_template(PATH, ENABLED).functions


def test_the_job_is_one_that_fargate_takes() -> None:
    """AWS Batch User Guide, "Job definitions on Fargate": what must be said, and the pairs of vCPU and memory."""
    definition = properties(JOB_DEFINITION)
    container = definition["ContainerProperties"]
    assert (definition["Type"], definition["PlatformCapabilities"]) == ("container", ["FARGATE"])
    assert {"ExecutionRoleArn", "JobRoleArn", "NetworkConfiguration"} <= set(container)
    assert not {"Vcpus", "Memory", "InstanceType", "Ulimits", "Privileged", "LinuxParameters"} & set(container)
    needs = {one["Type"]: one["Value"] for one in container["ResourceRequirements"]}
    assert needs["VCPU"] == {"Ref": "BatchVcpus"}
    memory = TEMPLATE["Mappings"]["BatchMemory"]
    assert list(memory) == TEMPLATE["Parameters"]["BatchVcpus"]["AllowedValues"]
    assert TEMPLATE["Parameters"]["BatchVcpus"]["Default"] in memory
    valid = {
        "2": range(4096, 16384 + 1, 1024),
        "4": range(8192, 30720 + 1, 1024),
        "8": range(16384, 61440 + 1, 4096),
        "16": range(32768, 122880 + 1, 8192),
    }
    for vcpus, row in memory.items():
        assert int(row["Megabytes"]) in valid[vcpus]
    assert container["RuntimePlatform"] == {
        "OperatingSystemFamily": "LINUX",
        "CpuArchitecture": {"Fn::If": ["IsArm", "ARM64", "X86_64"]},
    }
    environment = properties("BatchComputeEnvironment")["ComputeResources"]
    assert environment["Type"] == {"Fn::If": ["UsesSpot", "FARGATE_SPOT", "FARGATE"]}
    assert environment["SecurityGroupIds"] == [{"Ref": "BatchSecurityGroup"}]
    assert "SecurityGroupIngress" not in properties("BatchSecurityGroup")
    logs = container["LogConfiguration"]["Options"]
    assert logs["awslogs-group"] == {"Ref": "BatchLogGroup"}
    assert properties("BatchLogGroup")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize(
    ("code", "again"), [(1, False), (AGAIN, True), (143, True), (137, True), (None, True)], ids=str
)
def test_what_may_pass_is_tried_again_and_what_is_said_is_not(code: int | None, again: bool) -> None:
    template = load_template(PATH, ENABLED)
    job = _Job(
        "id", "arn", "run", template.job_definitions[JOB_DEFINITION], next(iter(template.job_queues.values())), {}, None
    )
    assert _tries_again(job, code, "Essential container in task exited") is again
    rules = properties(JOB_DEFINITION)["RetryStrategy"]
    assert {"Action": "EXIT", "OnReason": "OutOfMemoryError*"} in rules["EvaluateOnExit"]
    assert len(rules["EvaluateOnExit"]) <= 5
    assert 1 < rules["Attempts"] <= 10


def test_the_job_gets_every_setting_that_it_reads() -> None:
    template = load_template(PATH, {**ENABLED, "BatchVcpus": "8", "BatchMaxVideoMegabytes": "5000"})
    environment = dict(template.job_definitions[JOB_DEFINITION].container.environment)
    assert environment["TASK_MEMORY_MB"] == "32768"
    settings = Settings.from_environment({**environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "32768"})
    assert settings.data_bucket == template.buckets["DataBucket"].name
    assert settings.state_machine_arn == template.state_machines["SegmentsStateMachine"].arn
    assert settings.max_video_bytes == 5_000_000_000


@pytest.mark.parametrize("name", ["OrchestratorFunction", "SettleGpuFunction"])
def test_functions_that_ask_for_jobs_know_the_batch_part(name: str) -> None:
    template = load_template(PATH, {**ENABLED, "BatchMaxVideoMegabytes": "5000"})
    spec = template.functions[name]
    settings = Settings.from_environment({**spec.environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"})
    assert settings.batch is not None
    assert settings.batch.queue == template.job_queues["BatchJobQueue"].arn
    assert settings.batch.job_definition == template.job_definitions[JOB_DEFINITION].arn
    assert settings.batch.timeout_s == 60.0 * TEMPLATE["Parameters"]["BatchTimeoutMinutes"]["Default"]
    assert settings.batch.max_video_bytes == 5_000_000_000
    assert settings.max_video_bytes == 1_024_000_000, "of functions"


def test_the_end_of_a_job_is_told_for_this_queue_only() -> None:
    events = properties("SettleGpuFunction")["Events"]
    pattern = events["BatchJobEnded"]["Properties"]["Pattern"]
    assert (pattern["source"], pattern["detail-type"]) == (["aws.batch"], ["Batch Job State Change"])
    assert pattern["detail"] == {
        "jobQueue": [{"Fn::If": ["HasBatch", {"Ref": "BatchJobQueue"}, "none"]}],
        "status": ["SUCCEEDED", "FAILED"],
    }
    assert events["LookForOverdue"]["Type"] == "Schedule"


def branch(name: str, condition: str) -> dict[str, dict[str, Any]]:
    (policy,) = (one["Fn::If"][1] for one in properties(name)["Policies"] if one.get("Fn::If", [""])[0] == condition)
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_the_orchestrator_may_submit_this_job_to_this_queue_and_hand_over_no_role() -> None:
    """The roles stand in the job definition; SubmitJob passes none."""
    statements = branch("OrchestratorFunction", "HasBatch")
    submit = statements["SubmitJobs"]
    assert submit["Action"] == "batch:SubmitJob"
    assert submit["Resource"] == [{"Ref": "BatchJobQueue"}, {"Ref": JOB_DEFINITION}]
    assert {one["Action"] for one in statements.values()} == {"batch:SubmitJob", "batch:ListJobs"}
    assert set(branch("OrchestratorFunction", "HasOrders")) == {"LeaveAndTakeBackOrders"}


def test_the_way_back_may_end_jobs_and_submit_none() -> None:
    statements = branch("SettleGpuFunction", "HasBatch")
    assert {one["Action"] for one in statements.values()} == {"batch:TerminateJob", "batch:ListJobs"}


def test_the_job_reads_inputs_and_writes_no_results() -> None:
    statements = function_statements(TEMPLATE, "BatchJobRole")

    def may(action: str, key: str) -> bool:
        return allows(statements, Request(action, f"arn:aws:s3:::DataBucket/{key}"))

    assert may("s3:GetObject", "videos/dance.mp4")
    assert may("s3:GetObject", "work/.gpu/0123456789abcdef.json")
    assert may("s3:PutObject", "jobs/t1/structure_flows_t1.npz")
    assert may("s3:PutObject", "work/.gpu/0123456789abcdef.json")
    assert not may("s3:DeleteObject", "work/.gpu/0123456789abcdef.json")
    assert not may("s3:GetObject", "work/.settling/0123456789abcdef.json")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        for key in ("jobs/t1/request.json", "jobs/t1/segments/000/guide.mp4", "timelines/reel/chunks/000.mp4"):
            assert not may(action, key), key


def test_the_image_is_the_media_image_with_another_entry_point() -> None:
    text = (REPO / "functions" / "batch_task" / "Dockerfile").read_text()
    assert "\nFROM ${MEDIA_IMAGE}\n" in text
    copied = [line.split()[1] for line in text.splitlines() if line.startswith("COPY")]
    assert [REPO / one for one in copied] == [TASK]
    assert '\nENTRYPOINT ["python", "/opt/batch_task/task.py"]\n' in text
    assert "\nUSER 10001:10001\n" in text
