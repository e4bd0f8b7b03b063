"""A message of a queue: held while it is worked on, given back when that fails, ended when it came too often."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import InvalidRequestError, JobStateError, StructureFlowError, TransientStorageError
from structureflow.runtime import queued
from structureflow.runtime.queued import GIVEN_BACK_S, HELD_S, QueuedMessage, parse_message, work_off

EVENTS = Path(__file__).resolve().parents[2] / "events"
URL = "https://sqs.us-east-1.amazonaws.com/123456789012/jobs"


class Visibility:
    """Stands in for SQS: notes how long messages were hidden."""

    def __init__(self) -> None:
        self.hidden: list[tuple[str, str, int]] = []

    def change_message_visibility(self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:  # noqa: N803 - boto3's own
        self.hidden.append((QueueUrl, ReceiptHandle, VisibilityTimeout))


def done(sqs: Visibility, work: Any, *, count: int = 1) -> Any:
    message = QueuedMessage(body={"a": 1}, receipt="r", receive_count=count)
    given_up: Any = lambda body, error: ("given up", body, error.code)  # noqa: E731
    return work_off(message, URL, work, max_tries=3, give_up=given_up, client=sqs)  # type: ignore[arg-type]


def test_the_golden_event_is_a_message() -> None:
    message = parse_message(json.loads((EVENTS / "orchestrator" / "request_queued.json").read_text()))
    assert message.body["detail"]["object"]["key"] == "jobs/sample/request.json"
    assert (message.receive_count, message.receipt[:6]) == (1, "AQEBwJ")


@pytest.mark.parametrize(
    "event",
    [
        {"Records": []},
        {"Records": [{"receiptHandle": "r", "body": "{}", "attributes": {"ApproximateReceiveCount": "1"}}] * 2},
        {"Records": [{"receiptHandle": "r", "body": "[]", "attributes": {"ApproximateReceiveCount": "1"}}]},
        {"Records": [{"receiptHandle": "r", "body": "{", "attributes": {"ApproximateReceiveCount": "1"}}]},
        {"Records": [{"receiptHandle": "r", "body": "{}", "attributes": {}}]},
        {"Records": [{"body": "{}"}]},
    ],
)
def test_anything_else_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="expected"):
        parse_message(event)


def test_quick_work_asks_the_queue_for_nothing() -> None:
    sqs = Visibility()
    assert done(sqs, lambda body: body["a"]) == 1
    assert sqs.hidden == []


def test_a_message_is_hidden_anew_as_long_as_the_work_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued, "FIRST_BEAT_S", 0.01)
    monkeypatch.setattr(queued, "BEAT_S", 0.02)
    sqs = Visibility()

    def work(_: dict[str, Any]) -> str:
        end = time.monotonic() + 10
        while len(sqs.hidden) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        return "done"

    assert done(sqs, work) == "done"
    assert len(sqs.hidden) >= 3
    assert set(sqs.hidden) == {(URL, "r", HELD_S)}
    beats = len(sqs.hidden)
    time.sleep(0.1)
    assert len(sqs.hidden) == beats, "it is over with the work"


@pytest.mark.parametrize(("count", "wait_s"), [(1, GIVEN_BACK_S[0]), (2, GIVEN_BACK_S[1]), (9, GIVEN_BACK_S[-1])])
def test_work_that_failed_comes_again_later_each_time(count: int, wait_s: int) -> None:
    sqs = Visibility()

    def work(_: dict[str, Any]) -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        done(sqs, work, count=count)
    assert sqs.hidden == [(URL, "r", wait_s)]


@pytest.mark.parametrize(
    ("error", "count", "ends"),
    [
        (TransientStorageError("busy"), 2, False),
        (TransientStorageError("busy"), 3, True),
        (JobStateError("spoiled"), 3, False),
    ],
)
def test_the_last_try_of_what_is_transient_ends_it(error: StructureFlowError, count: int, ends: bool) -> None:
    sqs = Visibility()

    def work(_: dict[str, Any]) -> None:
        raise error

    if ends:
        assert done(sqs, work, count=count) == ("given up", {"a": 1}, "TransientStorageError")
        assert sqs.hidden == []
    else:
        with pytest.raises(type(error)):
            done(sqs, work, count=count)
        assert len(sqs.hidden) == 1


def test_a_killed_function_gives_its_message_back_soon() -> None:
    """Not after the queue's own timeout, which is that of a poller that waits for a place."""
    assert queued.BEAT_S * 2 < HELD_S < 120
