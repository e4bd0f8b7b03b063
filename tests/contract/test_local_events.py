"""Events of the local cloud: what S3 sends, whom it reaches, and what becomes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from structureflow_local.cloud import IdleTimeoutError, LocalCloud

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(FIXTURE / "template.yaml", async_retry_delays_s=(0.02, 0.02)) as running:
        yield running


@pytest.fixture(scope="module")
def s3(cloud: LocalCloud) -> Any:
    return cloud.client("s3")


def seen(cloud: LocalCloud, s3: Any, task_id: str) -> list[dict[str, Any]]:
    """Events that the entry function got for a task."""
    bucket = cloud.bucket("DataBucket")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"seen/{task_id}/").get("Contents", [])
    return [json.load(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"]) for entry in listed]


def test_a_put_reaches_the_function_in_awss_own_shape(cloud: LocalCloud, s3: Any) -> None:
    bucket = cloud.bucket("DataBucket")
    etag = s3.put_object(Bucket=bucket, Key="jobs/shape/request.json", Body=b"{}")["ETag"]
    cloud.wait_idle(20)
    (event,) = seen(cloud, s3, "shape")
    assert {key: event[key] for key in ("version", "source", "detail-type", "account", "region", "resources")} == {
        "version": "0",
        "source": "aws.s3",
        "detail-type": "Object Created",
        "account": "123456789012",
        "region": "us-east-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
    }
    detail = event["detail"]
    assert detail["bucket"] == {"name": bucket}
    assert (detail["version"], detail["reason"]) == ("0", "PutObject")
    assert set(detail) == {"version", "bucket", "object", "request-id", "requester", "source-ip-address", "reason"}
    stored = detail["object"]
    assert (stored["key"], stored["size"], f'"{stored["etag"]}"') == ("jobs/shape/request.json", 2, etag)
    assert int(stored["sequencer"], 16) > 0
    assert set(stored) == {"key", "size", "etag", "sequencer"}


def test_a_copy_made_by_the_function_starts_the_state_machine(cloud: LocalCloud, s3: Any) -> None:
    s3.put_object(Bucket=cloud.bucket("DataBucket"), Key="jobs/chain/request.json", Body=b"{}")
    cloud.wait_idle(20)
    inputs = [run.input for run in cloud.executions("StepsStateMachine")]
    (event,) = [given for given in inputs if given["detail"]["object"]["key"] == "jobs/chain/flows_chain.npz"]
    assert event["detail"]["reason"] == "CopyObject"
    assert all(run.status == "SUCCEEDED" for run in cloud.executions("StepsStateMachine"))


def test_a_multipart_upload_sends_one_event_when_it_is_complete(cloud: LocalCloud, s3: Any) -> None:
    bucket, key = cloud.bucket("DataBucket"), "jobs/parts/request.json"
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"{ }")
    cloud.wait_idle(20)
    assert seen(cloud, s3, "parts") == []
    s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    )
    cloud.wait_idle(20)
    (event,) = seen(cloud, s3, "parts")
    assert event["detail"]["reason"] == "CompleteMultipartUpload"
    assert event["detail"]["object"]["size"] == 3


@pytest.mark.parametrize(
    "key", ["jobs/x/result.json", "other/jobs/x/request.json", "jobs/request.json", "request.json"]
)
def test_other_keys_reach_nobody(cloud: LocalCloud, s3: Any, key: str) -> None:
    before = len(cloud.invocations)
    s3.put_object(Bucket=cloud.bucket("DataBucket"), Key=key, Body=b"{}")
    cloud.wait_idle(20)
    assert len(cloud.invocations) == before


def test_a_bucket_without_eventbridge_sends_nothing(cloud: LocalCloud, s3: Any) -> None:
    before = len(cloud.invocations)
    s3.put_object(Bucket=cloud.bucket("QuietBucket"), Key="jobs/quiet/request.json", Body=b"{}")
    cloud.wait_idle(20)
    assert len(cloud.invocations) == before


def test_keys_are_not_url_encoded(cloud: LocalCloud, s3: Any) -> None:
    s3.put_object(Bucket=cloud.bucket("DataBucket"), Key="jobs/a b+c é/request.json", Body=b"{}")
    cloud.wait_idle(20)
    (event,) = seen(cloud, s3, "a b+c é")
    assert event["detail"]["object"]["key"] == "jobs/a b+c é/request.json"


def test_an_event_that_fails_for_good_is_a_dead_letter_and_reaches_its_destinations(cloud: LocalCloud, s3: Any) -> None:
    bucket = cloud.bucket("DataBucket")
    before = len(cloud.dead_letters)
    s3.put_object(Bucket=bucket, Key="jobs/bad/request.json", Body=b"fail")
    cloud.wait_idle(30)
    letters = cloud.dead_letters[before:]
    entry = cloud.template.functions["EntryFunction"]
    assert [letter.destination_arn for letter in letters] == [entry.on_failure_arn, entry.dead_letter_arn]
    assert {(letter.source, letter.error, letter.attempts) for letter in letters} == {
        ("EntryFunction", "BrokenError", 3)
    }
    record = json.load(s3.get_object(Bucket=bucket, Key="cleaned.json")["Body"])
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["requestPayload"]["detail"]["object"]["key"] == "jobs/bad/request.json"
    assert record["responsePayload"]["errorType"] == "BrokenError"
    queued = cloud.client("sqs").receive_message(QueueUrl=cloud.physical_id("DeadLetterQueue"), MaxNumberOfMessages=10)
    (message,) = queued["Messages"]
    assert json.loads(message["Body"])["detail"]["object"]["key"] == "jobs/bad/request.json"


def test_calls_are_attributed_to_the_function_that_made_them(cloud: LocalCloud, s3: Any) -> None:
    bucket = cloud.bucket("DataBucket")
    before = len(cloud.calls)
    s3.put_object(Bucket=bucket, Key="jobs/who/request.json", Body=b"{}")
    cloud.wait_idle(20)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "seen/one"}, {"Key": "seen/two"}]})
    s3.list_objects_v2(Bucket=bucket, Prefix="seen/who/")
    calls = [(call.function, call.operation, call.key) for call in cloud.calls[before:] if call.service == "s3"]
    (event_key,) = [key for _, operation, key in calls if operation == "PutObject" and str(key).startswith("seen/")]
    assert calls == [
        (None, "PutObject", "jobs/who/request.json"),
        ("EntryFunction", "GetObject", "jobs/who/request.json"),
        ("EntryFunction", "PutObject", event_key),
        ("EntryFunction", "CopyObject", "jobs/who/flows_who.npz"),
        ("EntryFunction", "GetObject", "jobs/who/request.json"),
        (None, "DeleteObjects", "seen/one"),
        (None, "DeleteObjects", "seen/two"),
        (None, "ListObjectsV2", "seen/who/"),
    ]
    assert {call.bucket for call in cloud.calls[before:] if call.service == "s3"} == {bucket}


def test_presigned_requests_are_attributed_too(cloud: LocalCloud, s3: Any) -> None:
    import urllib.request

    bucket = cloud.bucket("DataBucket")
    s3.put_object(Bucket=bucket, Key="plain.txt", Body=b"bytes")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "plain.txt"})
    with urllib.request.urlopen(url) as reply:  # noqa: S310 - the local cloud's own address
        assert reply.read() == b"bytes"
    last = cloud.calls[-1]
    assert (last.service, last.operation, last.key, last.status) == ("s3", "GetObject", "plain.txt", 200)


def test_of_many_conditional_writes_at_once_exactly_one_wins(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.models import S3Backend

    original = S3Backend.put_object

    def slow(self: S3Backend, *args: Any, **named: Any) -> Any:
        time.sleep(0.03)
        return original(self, *args, **named)

    # moto looks whether the key is there, then writes: time for others to come between the two.
    monkeypatch.setattr(S3Backend, "put_object", slow)
    bucket = cloud.bucket("DataBucket")
    clients = [cloud.client("s3") for _ in range(4)]
    start = threading.Barrier(len(clients))
    for attempt in range(2):
        outcomes: list[str] = []

        def write(number: int, attempt: int = attempt, outcomes: list[str] = outcomes) -> None:
            start.wait()
            try:
                clients[number].put_object(Bucket=bucket, Key=f"claim/{attempt}", Body=b"%d" % number, IfNoneMatch="*")
                outcomes.append("won")
            except ClientError as error:
                outcomes.append(error.response["Error"]["Code"])

        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["PreconditionFailed"] * 3 + ["won"]


def test_listing_and_deleting_while_others_write_never_fails(cloud: LocalCloud) -> None:
    bucket = cloud.bucket("DataBucket")
    clients = [cloud.client("s3") for _ in range(4)]
    before = len(cloud.calls)

    def work(number: int) -> None:
        for step in range(25):
            keys = [f"busy/{step}/{name}" for name in range(4)]
            clients[number].put_object(Bucket=bucket, Key=keys[number], Body=b"x")
            clients[number].list_objects_v2(Bucket=bucket, Prefix="busy/")
            clients[number].delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {call.status for call in cloud.calls[before:]} == {200}
    cloud.wait_idle(5)


def test_waiting_says_what_is_still_under_way(cloud: LocalCloud) -> None:
    cloud.client("lambda").invoke(
        FunctionName=cloud.physical_id("EchoFunction"), InvocationType="Event", Payload=b'{"sleep_s": 0.5}'
    )
    with pytest.raises(IdleTimeoutError, match=r"still busy.*EchoFunction"):
        cloud.wait_idle(0.05)
    cloud.wait_idle(20)
