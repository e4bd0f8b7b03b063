"""State machines of the local cloud: the template's own definition, its Map, Retry and Catch, on real functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structureflow_local.cloud import Execution, LocalCloud

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(FIXTURE / "template.yaml", duplicate_events=True) as running:
        yield running


def run(cloud: LocalCloud, plan: list[dict[str, Any]]) -> Execution:
    """Run the state machine once and return how it went; a task may take a minute, as the machine may be busy."""
    started = cloud.client("stepfunctions").start_execution(
        stateMachineArn=cloud.physical_id("StepsStateMachine"),
        input=json.dumps({"plan": [{"limit_s": 60} | item for item in plan]}),
    )
    cloud.wait_idle(90)
    (found,) = [one for one in cloud.executions("StepsStateMachine") if one.arn == started["executionArn"]]
    return found


def test_a_map_runs_every_item_and_keeps_their_order(cloud: LocalCloud) -> None:
    ran = run(cloud, [{"name": f"m{number}", "sleep_s": 0.2 - 0.1 * number} for number in range(3)])
    assert ran.status == "SUCCEEDED"
    assert ran.output["done"] == [{"name": f"m{number}", "tries": 1} for number in range(3)]


def test_a_retry_goes_by_the_functions_own_error_name(cloud: LocalCloud) -> None:
    ran = run(cloud, [{"name": "flaky", "flaky": 1}])
    assert ran.status == "SUCCEEDED"
    assert ran.output["done"] == [{"name": "flaky", "tries": 2}]


def test_an_error_without_a_retry_is_caught_with_name_and_cause(cloud: LocalCloud) -> None:
    ran = run(cloud, [{"name": "fine"}, {"name": "broken", "broken": True}])
    assert (ran.status, ran.error) == ("FAILED", "BrokenError")
    assert json.loads(str(ran.cause))["errorMessage"] == "never works"
    tries = [call for call in cloud.calls if call.operation == "PutObject" and "tries/broken/" in str(call.key)]
    assert len(tries) == 1, "BrokenError must not be retried"


def test_a_retry_ends(cloud: LocalCloud) -> None:
    ran = run(cloud, [{"name": "hopeless", "flaky": 99}])
    assert (ran.status, ran.error) == ("FAILED", "FlakyError")
    tries = [call for call in cloud.calls if call.operation == "PutObject" and "tries/hopeless/" in str(call.key)]
    assert len(tries) == 3


def test_a_task_that_takes_too_long_ends_as_states_timeout(cloud: LocalCloud) -> None:
    ran = run(cloud, [{"name": "slow", "sleep_s": 4, "limit_s": 1}])
    assert (ran.status, ran.error) == ("FAILED", "States.Timeout")


def test_a_function_that_takes_too_long_ends_as_lambda_says(cloud: LocalCloud) -> None:
    cloud.client("stepfunctions").create_state_machine(
        name="patient",
        roleArn="arn:aws:iam::123456789012:role/any",
        definition=json.dumps(
            {
                "StartAt": "Call",
                "States": {
                    "Call": {"Type": "Task", "Resource": cloud.template.functions["EchoFunction"].arn, "End": True}
                },
            }
        ),
    )
    client = cloud.client("stepfunctions")
    started = client.start_execution(
        stateMachineArn=cloud.template.state_machines["StepsStateMachine"].arn.rpartition(":")[0] + ":patient",
        input=json.dumps({"sleep_s": 60}),
    )
    cloud.wait_idle(90)
    ended = client.describe_execution(executionArn=started["executionArn"])
    assert (ended["status"], ended["error"]) == ("FAILED", "Sandbox.Timedout")


def test_an_event_that_is_delivered_twice_starts_two_executions(cloud: LocalCloud) -> None:
    before = len(cloud.executions("StepsStateMachine"))
    cloud.client("s3").put_object(Bucket=cloud.bucket("DataBucket"), Key="jobs/two/flows_two.npz", Body=b"")
    cloud.wait_idle(20)
    new = cloud.executions("StepsStateMachine")[before:]
    assert len(new) == 2
    assert new[0].input == new[1].input
    assert new[0].name != new[1].name


def test_the_history_can_be_read_while_and_after_it_runs(cloud: LocalCloud) -> None:
    ran = run(cloud, [{"name": "history"}])
    events = cloud.client("stepfunctions").get_execution_history(executionArn=ran.arn)["events"]
    entered = [event["stateEnteredEventDetails"]["name"] for event in events if event["type"].endswith("StateEntered")]
    assert entered == ["HasPlan", "Steps", "Step"]


# --- distributed Maps --------------------------------------------------------------------------------------------


def run_distributed(cloud: LocalCloud, plan: list[dict[str, Any]], **of_map: Any) -> dict[str, Any]:
    """Run a distributed Map over the plan; its children catch nothing, the Map's error ends the execution."""
    client = cloud.client("stepfunctions")
    name = f"distributed-{len(client.list_state_machines()['stateMachines'])}"
    step: dict[str, Any] = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": cloud.template.functions["StepFunction"].arn, "Payload.$": "$.step"},
        "ResultSelector": {"done.$": "$.Payload"},
        "ResultPath": "$.result",
        "TimeoutSeconds": 60,
        "End": True,
    }
    steps = {
        "Type": "Map",
        "ItemsPath": "$.plan",
        "ItemSelector": {
            "step.$": "$$.Map.Item.Value",
            "number.$": "$$.Map.Item.Index",
            "parent.$": "$$.Execution.Id",
            "label.$": "$.label",
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Own",
            "States": {
                "Own": {
                    "Type": "Pass",
                    "Parameters": {"own.$": "$$.Execution.Id"},
                    "ResultPath": "$.id",
                    "Next": "Step",
                },
                "Step": step,
            },
        },
        "End": True,
    } | of_map
    machine = client.create_state_machine(
        name=name,
        roleArn="arn:aws:iam::123456789012:role/any",
        definition=json.dumps(
            {"StartAt": "Steps", "States": {"Steps": steps, "Caught": {"Type": "Pass", "End": True}}}
        ),
    )["stateMachineArn"]
    started = client.start_execution(stateMachineArn=machine, input=json.dumps({"plan": plan, "label": "one"}))
    cloud.wait_idle(120)
    ended: dict[str, Any] = client.describe_execution(executionArn=started["executionArn"])
    return ended


def tries(cloud: LocalCloud, name: str) -> int:
    return len([call for call in cloud.calls if call.operation == "PutObject" and f"tries/{name}/" in str(call.key)])


def test_children_of_a_distributed_map_give_their_results_in_order(cloud: LocalCloud) -> None:
    ran = run_distributed(cloud, [{"name": f"d{number}", "sleep_s": 0.2 - 0.1 * number} for number in range(3)])
    assert ran["status"] == "SUCCEEDED"
    results = json.loads(ran["output"])
    assert [result["result"]["done"] for result in results] == [{"name": f"d{n}", "tries": 1} for n in range(3)]
    assert [result["number"] for result in results] == [0, 1, 2]
    assert {result["parent"] for result in results} == {ran["executionArn"]}
    assert {result["label"] for result in results} == {"one"}
    assert len({result["id"]["own"] for result in results} | {ran["executionArn"]}) == 4, "each has an id of its own"


def test_a_failing_child_fails_a_distributed_map_without_saying_why(cloud: LocalCloud) -> None:
    plan: list[dict[str, Any]] = [{"name": "x0", "broken": True}, *({"name": f"x{number}"} for number in range(1, 4))]
    ran = run_distributed(cloud, plan, MaxConcurrency=1)
    assert (ran["status"], ran["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")
    assert "never works" not in ran["cause"]
    assert [tries(cloud, f"x{number}") for number in range(4)] == [1, 0, 0, 0], "those that wait are not started"


def test_tolerated_failures_of_a_distributed_map_are_null_among_its_results(cloud: LocalCloud) -> None:
    plan: list[dict[str, Any]] = [{"name": "t0", "broken": True}, {"name": "t1"}, {"name": "t2"}]
    ran = run_distributed(cloud, plan, ToleratedFailureCount=1)
    assert ran["status"] == "SUCCEEDED"
    assert [result and result["result"]["done"]["name"] for result in json.loads(ran["output"])] == [None, "t1", "t2"]
    assert run_distributed(cloud, plan, ToleratedFailurePercentage=40.5)["status"] == "SUCCEEDED"
    assert run_distributed(cloud, plan, ToleratedFailurePercentage=30.5)["status"] == "FAILED"


def test_the_failure_of_a_distributed_map_can_be_caught(cloud: LocalCloud) -> None:
    caught = {"ErrorEquals": ["States.ExceedToleratedFailureThreshold"], "ResultPath": "$.error", "Next": "Caught"}
    ran = run_distributed(cloud, [{"name": "caught", "broken": True}], Catch=[caught])
    assert ran["status"] == "SUCCEEDED"
    assert json.loads(ran["output"])["error"]["Error"] == "States.ExceedToleratedFailureThreshold"


def test_no_items_make_no_children(cloud: LocalCloud) -> None:
    ran = run_distributed(cloud, [])
    assert (ran["status"], json.loads(ran["output"])) == ("SUCCEEDED", [])
