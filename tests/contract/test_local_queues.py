"""Queues of the local cloud that functions work off: as Lambda's pollers do, on moto's SQS."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structureflow_local.cloud import LocalCloud, TemplateError
from structureflow_local.cloud.function_pool import Invocation
from structureflow_local.cloud.template import load_template

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(FIXTURE / "template.yaml", state_dir=tmp_path, async_retry_delays_s=(0.05, 0.05)) as running:
        yield running


def send(cloud: LocalCloud, *bodies: dict[str, Any]) -> None:
    url = cloud.physical_id("WorkQueue")
    sqs = cloud.client("sqs")
    for body in bodies:
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))


def received(cloud: LocalCloud) -> Counter[tuple[str, int]]:
    """Which message came to the function, and at its which time, as the function printed it."""
    text = "".join(path.read_text() for path in (cloud.state_dir / "logs" / "WorkFunction").glob("*.log"))
    return Counter(
        (json.loads(body)["id"], int(time)) for body, time in re.findall(r"message (\{.*\}) time (\d+)", text)
    )


def left(cloud: LocalCloud, queue: str) -> list[dict[str, Any]]:
    reply = cloud.client("sqs").receive_message(QueueUrl=cloud.physical_id(queue), MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in reply.get("Messages", [])]


def settle(cloud: LocalCloud) -> None:
    """Wait until the queue is empty: what is sent past the events is noticed within a look."""
    for _ in range(3):
        cloud.client("sqs").get_queue_attributes(QueueUrl=cloud.physical_id("WorkQueue"), AttributeNames=["All"])
        cloud._activity.wait_idle(30)
        with cloud._queues._lock:
            cloud._queues._note_messages()
    cloud.wait_idle(30)


def work(cloud: LocalCloud) -> list[Invocation]:
    return [one for one in cloud.invocations if one.function == "WorkFunction"]


def test_messages_are_worked_off_and_gone(cloud: LocalCloud) -> None:
    send(cloud, *({"id": f"m{number}"} for number in range(7)))
    settle(cloud)
    assert set(received(cloud)) == {(f"m{number}", 1) for number in range(7)}
    assert left(cloud, "WorkQueue") == []


def test_no_more_calls_at_a_time_than_the_mapping_says(cloud: LocalCloud) -> None:
    send(cloud, *({"id": f"m{number}", "sleep": 0.2} for number in range(8)))
    settle(cloud)
    calls = work(cloud)
    edges = sorted(
        [(one.started_at, 1) for one in calls] + [(one.started_at + one.duration_ms / 1000, -1) for one in calls]
    )
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    assert most <= 2
    assert {message for message, _ in received(cloud)} == {f"m{number}" for number in range(8)}


def test_a_call_that_fails_gives_its_messages_back(cloud: LocalCloud) -> None:
    send(cloud, {"id": "dies", "dies": 1})
    settle(cloud)
    assert received(cloud) == {("dies", 1): 1, ("dies", 2): 1}
    assert [one.error for one in work(cloud)] == ["RuntimeError", None]


def test_only_the_messages_that_are_reported_come_again(cloud: LocalCloud) -> None:
    send(cloud, {"id": "fine"}, {"id": "fails", "fails": 1})
    settle(cloud)
    assert received(cloud) == {("fine", 1): 1, ("fails", 1): 1, ("fails", 2): 1}


def test_what_fails_too_often_is_given_up(cloud: LocalCloud) -> None:
    send(cloud, {"id": "hopeless", "dies": 9})
    settle(cloud)
    assert received(cloud) == {("hopeless", count): 1 for count in (1, 2, 3)}
    assert left(cloud, "WorkQueue") == []
    assert left(cloud, "GivenUpQueue") == [{"id": "hopeless", "dies": 9}]


def test_a_cloud_that_is_closed_during_a_call_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts a job sees no traceback of a queue that is gone."""
    said: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    with LocalCloud(FIXTURE / "template.yaml", state_dir=tmp_path) as cloud:
        send(cloud, {"id": "long", "sleep": 30})
        deadline = time.monotonic() + 20
        while not received(cloud):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for thread in threading.enumerate():
        if thread.name.startswith("batch-"):
            thread.join(20)
    assert said == []
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("batch-")]


def test_throttled_calls_wait_and_count_as_no_try(tmp_path: Path) -> None:
    with LocalCloud(FIXTURE / "template.yaml", state_dir=tmp_path, concurrency=1) as cloud:
        send(cloud, *({"id": f"m{number}", "sleep": 0.3} for number in range(6)))
        settle(cloud)
        assert received(cloud) == {(f"m{number}", 1): 1 for number in range(6)}
        assert cloud.throttles > 0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("EventSourceArn: !GetAtt WorkQueue.Arn", "EventSourceArn: arn:aws:sqs:x:1:q", "no queue has the ARN"),
        ("FunctionName: !Ref WorkFunction", "FunctionName: other", "no function is called other"),
        ("      BatchSize: 2", "      BatchSize: 2\n      FilterCriteria: {}", "FilterCriteria"),
        ("        MaximumConcurrency: 2", "        MaximumConcurrency: 1", "MaximumConcurrency"),
        ("deadLetterTargetArn: !GetAtt GivenUpQueue.Arn", "deadLetterTargetArn: arn:x", "no queue has that ARN"),
    ],
)
def test_what_cannot_be_run_here_is_refused(old: str, new: str, problem: str, tmp_path: Path) -> None:
    text = (FIXTURE / "template.yaml").read_text()
    assert old in text
    for name in ("functions", "layers", "statemachines"):
        (tmp_path / name).symlink_to(FIXTURE / name)
    (tmp_path / "template.yaml").write_text(text.replace(old, new))
    with pytest.raises(TemplateError, match=problem):
        load_template(tmp_path / "template.yaml")
