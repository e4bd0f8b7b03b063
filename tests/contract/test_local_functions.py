"""Functions of the local cloud: real processes under AWS's emulator, called as boto3 calls Lambda."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from structureflow_local.cloud import LocalCloud, LocalCloudError, UnknownResourceError

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(FIXTURE / "template.yaml", async_retry_delays_s=(0.02, 0.02)) as running:
        yield running


def test_a_function_runs_with_exactly_what_the_template_declares(cloud: LocalCloud) -> None:
    os.environ["LEAKS_FROM_THE_CALLER"] = "1"
    try:
        result = cloud.invoke("EchoFunction", {"n": 1})
    finally:
        del os.environ["LEAKS_FROM_THE_CALLER"]
    seen = result.payload
    assert result.error is None
    assert seen["event"] == {"n": 1}
    assert seen["cwd"] == str(FIXTURE / "functions" / "echo")
    assert seen["memory_mb"] == 300
    assert 0 < seen["remaining_ms"] <= 1000
    assert seen["function_name"] == "structureflow-local-EchoFunction"
    environment = seen["environment"]
    assert environment["DATA_BUCKET"] == cloud.bucket("DataBucket")
    assert environment["GREETING"] == "hello from structureflow-local"
    assert environment["AWS_ENDPOINT_URL"] == cloud.endpoint_url
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "300"
    assert "LEAKS_FROM_THE_CALLER" not in environment
    assert result.invocation.request_id == seen["request_id"]


def test_a_process_is_used_again_and_its_calls_are_recorded(cloud: LocalCloud) -> None:
    first = cloud.invoke("EchoFunction", {})
    second = cloud.invoke("EchoFunction", {"sleep_s": 0.05})
    assert first.payload["pid"] == second.payload["pid"]
    assert not second.invocation.cold
    assert second.invocation.init_ms is None
    assert 50 <= second.invocation.duration_ms <= second.invocation.billed_ms < 1000
    assert second.invocation.memory_mb == 300
    assert second.invocation in cloud.invocations
    assert "echo was called" in second.log_tail
    assert "(rapid)" not in second.log_tail


def test_calls_at_the_same_time_run_in_as_many_processes_as_may_be(cloud: LocalCloud) -> None:
    pids: list[int] = []

    def call() -> None:
        pids.append(cloud.invoke("EchoFunction", {"sleep_s": 0.4}).payload["pid"])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 4
    assert len(set(pids)) == 2, "ReservedConcurrentExecutions is 2"


def test_an_exception_becomes_a_typed_error_and_the_process_lives_on(cloud: LocalCloud) -> None:
    result = cloud.invoke("EchoFunction", {"fail": "it broke"})
    assert result.error == "BrokenError"
    assert result.payload["errorType"] == "BrokenError"
    assert result.payload["errorMessage"] == "it broke"
    assert "raise BrokenError" in "".join(result.payload["stackTrace"])
    assert result.invocation.error == "BrokenError"
    assert not cloud.invoke("EchoFunction", {}).invocation.cold


def test_a_result_that_looks_like_an_error_is_a_result(cloud: LocalCloud) -> None:
    value = {"errorType": "NotAnError", "errorMessage": "just data"}
    result = cloud.invoke("EchoFunction", {"return": value})
    assert (result.error, result.payload) == (None, value)


@pytest.mark.parametrize("value", [None, "text", 1.5, [1, 2], {"a": None}, "ünïcödé ✓"])
def test_any_json_value_can_be_returned(cloud: LocalCloud, value: object) -> None:
    assert cloud.invoke("EchoFunction", {"return": value}).payload == value


def test_a_call_that_takes_too_long_is_stopped_with_everything_it_started(cloud: LocalCloud) -> None:
    result = cloud.invoke("EchoFunction", {"sleep_s": 30})
    assert result.error == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in result.payload["errorMessage"]
    assert 1000 <= result.invocation.billed_ms < 5000
    assert cloud.invoke("EchoFunction", {"n": 2}).payload["event"] == {"n": 2}


def test_a_process_that_exits_is_replaced(cloud: LocalCloud) -> None:
    result = cloud.invoke("EchoFunction", {"exit": 3})
    assert result.error == "Runtime.ExitError"
    assert "exit status 3" in result.payload["errorMessage"]
    assert cloud.invoke("EchoFunction", {"n": 3}).payload["event"] == {"n": 3}


def test_boto3_invokes_a_function_and_reads_its_result_and_log(cloud: LocalCloud) -> None:
    client = cloud.client("lambda")
    name = cloud.physical_id("EchoFunction")
    reply = client.invoke(FunctionName=name, Payload=b'{"return": [1]}', LogType="Tail")
    assert reply["StatusCode"] == 200
    assert json.load(reply["Payload"]) == [1]
    assert "FunctionError" not in reply
    assert b"echo was called" in base64.b64decode(reply["LogResult"])


def test_boto3_sees_a_function_error(cloud: LocalCloud) -> None:
    arn = cloud.template.functions["EchoFunction"].arn
    reply = cloud.client("lambda").invoke(FunctionName=arn, Payload=b'{"fail": "no"}')
    assert reply["FunctionError"] == "Unhandled"
    assert json.load(reply["Payload"])["errorType"] == "BrokenError"


def test_boto3_gets_lambdas_own_errors(cloud: LocalCloud) -> None:
    client = cloud.client("lambda")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.invoke(FunctionName="nobody", Payload=b"{}")
    with pytest.raises(ClientError, match="InvalidRequestContentException"):
        client.invoke(FunctionName=cloud.physical_id("EchoFunction"), Payload=b"{not json")
    with pytest.raises(ClientError, match="RequestTooLargeException"):
        client.invoke(
            FunctionName=cloud.physical_id("EchoFunction"),
            InvocationType="Event",
            Payload=json.dumps("x" * 1_100_000).encode(),
        )


def test_an_asynchronous_call_is_tried_three_times_then_becomes_a_dead_letter(cloud: LocalCloud) -> None:
    before = len(cloud.dead_letters)
    reply = cloud.client("lambda").invoke(
        FunctionName=cloud.physical_id("EchoFunction"), InvocationType="Event", Payload=b'{"fail": "always"}'
    )
    assert reply["StatusCode"] == 202
    cloud.wait_idle(20)
    tries = [call for call in cloud.invocations if call.request_id == reply["ResponseMetadata"]["RequestId"]]
    assert [(call.attempt, call.error, call.asynchronous) for call in tries] == [
        (attempt, "BrokenError", True) for attempt in (1, 2, 3)
    ]
    (letter,) = cloud.dead_letters[before:]
    assert (letter.source, letter.error, letter.message) == ("EchoFunction", "BrokenError", "always")
    assert (letter.attempts, letter.payload, letter.destination_arn) == (3, {"fail": "always"}, None)


def test_output_goes_to_log_files_of_the_function(cloud: LocalCloud) -> None:
    cloud.invoke("EchoFunction", {})
    logs = list((cloud.state_dir / "logs" / "EchoFunction").glob("*.log"))
    assert any("echo was called" in log.read_text() for log in logs)


def test_unknown_names_are_errors_that_say_what_there_is(cloud: LocalCloud) -> None:
    with pytest.raises(UnknownResourceError, match="EchoFunction"):
        cloud.invoke("Nobody", {})
    with pytest.raises(UnknownResourceError, match="DataBucket"):
        cloud.bucket("NoBucket")
    with pytest.raises(UnknownResourceError, match="StepsStateMachine"):
        cloud.executions("NoMachine")
    with pytest.raises(UnknownResourceError, match="Nothing"):
        cloud.physical_id("Nothing")


def test_only_one_cloud_runs_per_process(cloud: LocalCloud) -> None:
    with pytest.raises(LocalCloudError, match="another local cloud"), LocalCloud(FIXTURE / "template.yaml"):
        pass
    assert cloud.invoke("EchoFunction", {"n": 4}).payload["event"] == {"n": 4}
