"""A function that works off a queue, one message a call: the message is held while it works, given back if it fails.

A message that somebody took is hidden for as long as the queue says: six times the function's timeout, for Lambda's
own pollers hold messages too while they wait for a place. A killed function would leave its message hidden as long. So
a function hides it anew, for a short time each, as long as it lives.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from structureflow.errors import InvalidRequestError, StructureFlowError
from structureflow.models.bounds import first_problem

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

#: Before the first time that a message is hidden anew: most calls are over by then.
FIRST_BEAT_S: Final = 1.0
#: Between one time and the next.
BEAT_S: Final = 30.0
#: For so long it is hidden each time: a killed function's message comes back after this.
HELD_S: Final = 90
#: Before a message that was given back comes again, by how often it came; the last is that of all later ones.
GIVEN_BACK_S: Final = (20, 60, 180, 300)


class _Attributes(BaseModel):
    receive_count: int = Field(alias="ApproximateReceiveCount", ge=1)


class _Record(BaseModel):
    receipt: str = Field(alias="receiptHandle")
    text: str = Field(alias="body")
    attributes: _Attributes


class _Batch(BaseModel):
    records: tuple[_Record] = Field(alias="Records")


class QueuedMessage(BaseModel):
    """What a call was given of a queue: what was sent, the receipt to change it by, and how often it came."""

    model_config = ConfigDict(frozen=True)

    body: dict[str, Any]
    receipt: str
    receive_count: int


def is_queued(event: dict[str, Any]) -> bool:
    """Tell whether an event is a message of a queue."""
    return "Records" in event


def parse_message(event: dict[str, Any]) -> QueuedMessage:
    """Parse what Lambda hands over of a queue with a batch size of one.

    Raises:
        InvalidRequestError: it is something else, or what was sent is no JSON object.
    """
    try:
        (record,) = _Batch.model_validate(event).records
        body = json.loads(record.text)
    except ValidationError as error:
        raise InvalidRequestError(f"expected one message of a queue: {first_problem(error)}") from error
    except ValueError as error:
        raise InvalidRequestError(f"expected a message of JSON, got {record.text!r:.200}") from error
    if not isinstance(body, dict):
        raise InvalidRequestError(f"expected a message that is a JSON object, got {type(body).__name__}")
    return QueuedMessage(body=body, receipt=record.receipt, receive_count=record.attributes.receive_count)


def work_off(
    message: QueuedMessage,
    queue_url: str,
    work: Callable[[dict[str, Any]], _Result],
    *,
    max_tries: int,
    give_up: Callable[[dict[str, Any], StructureFlowError], _Result] | None = None,
    client: SQSClient | None = None,
) -> _Result:
    """Do what a message asks for, and hold it meanwhile; an error gives it back, to come again in a while.

    Args:
        max_tries: after so many the queue gives a message away.
        give_up: ends what cannot be done, with the transient error of the last try, which is lost otherwise.
        client: of SQS; made when first needed if not given.

    Raises:
        Whatever `work` raises, so that the message is not taken for done.
    """
    hold = _Hold(message.receipt, queue_url, client)
    try:
        with hold.beating():
            return work(message.body)
    except StructureFlowError as error:
        if give_up is not None and error.transient and message.receive_count >= max_tries:
            return give_up(message.body, error)
        hold.give_back(message.receive_count)
        raise
    except Exception:
        hold.give_back(message.receive_count)
        raise


class _Hold:
    """Keeps a message hidden."""

    def __init__(self, receipt: str, queue_url: str, client: SQSClient | None) -> None:
        self._receipt = receipt
        self._queue_url = queue_url
        self._given = client

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Hide the message anew, again and again, inside the block."""
        over = threading.Event()

        def beat() -> None:
            wait_s = FIRST_BEAT_S
            while not over.wait(wait_s):
                self._hide(HELD_S)
                wait_s = BEAT_S

        thread = threading.Thread(target=beat, name="hold-message", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def give_back(self, receive_count: int) -> None:
        """Let the message come again, later each time."""
        self._hide(GIVEN_BACK_S[min(receive_count, len(GIVEN_BACK_S)) - 1])

    def _hide(self, seconds: int) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._given or _queues()
        try:
            client.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=self._receipt, VisibilityTimeout=seconds
            )
        except (BotoCoreError, ClientError) as error:
            # It comes back by the queue's own timeout then, or early: work that is done twice does no harm.
            _log.warning("a message cannot be hidden: %s", error)


@functools.cache
def _queues() -> SQSClient:
    from boto3.session import Session

    # A session of its own: they make clients one at a time, and this is another thread.
    return Session().client("sqs")
