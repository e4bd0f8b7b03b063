"""Queues that functions work off: event source mappings, as Lambda's own pollers do it.

Messages are received with the queue's visibility timeout, handed to the function, and deleted when it succeeds. One
whose call fails stays, and comes again: at the latest when its timeout is over, and here, as a caller of tests would
wait for ever, after the pauses of asynchronous calls. One that came too often goes to the queue's dead-letter queue.
A call that is throttled is tried again while the message is held. At least once, in no promised order.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.errors import FunctionProcessError, ThrottledError
from structureflow_local.cloud.functions import Functions
from structureflow_local.cloud.template import EventSourceSpec, QueueSpec

#: Between two looks into a queue, where others may send messages past `Queues.send`.
_LOOK_S: Final = 0.05
#: Pauses between tries of a throttled call: from, to.
_THROTTLED_S: Final = (0.05, 2.0)


class Queues:
    """The queues of a template, in moto, and whoever works them off.

    Args:
        sources: event source mappings by logical id.
        queues: by logical id.
        backend: gives moto's SQS.
        functions: call what works queues off.
        retry_delays_s: pauses before a message whose call failed comes again.
    """

    def __init__(
        self,
        sources: Mapping[str, EventSourceSpec],
        queues: Mapping[str, QueueSpec],
        *,
        backend: Callable[[], Any],
        functions: Functions,
        activity: Activity,
        region: str,
        retry_delays_s: Sequence[float],
    ) -> None:
        self._backend = backend
        self._functions = functions
        self._activity = activity
        self._region = region
        self._retry_delays_s = tuple(retry_delays_s) or (0.0,)
        self._by_arn = {queue.arn: queue for queue in queues.values()}
        self._sources = list(sources.values())
        self._closing = threading.Event()
        # moto's queues are lists, and a message is looked for before it is taken.
        self._lock = threading.RLock()
        self._tokens: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._poll, args=(source,), name=f"queue-{source.logical_id}", daemon=True)
            for source in self._sources
        ]

    def start(self) -> None:
        """Begin to work queues off."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no further messages."""
        # not while a call's messages are put right
        with self._lock:
            self._closing.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=5)

    def send(self, queue_arn: str, body: str) -> None:
        """Put a message into a queue."""
        with self._lock:
            self._backend().send_message(_name(queue_arn), body)
            self._note_messages()

    # --- polling ---------------------------------------------------------------------------------------

    def _poll(self, source: EventSourceSpec) -> None:
        places = threading.Semaphore(source.max_concurrency)
        while not self._closing.is_set():
            if not places.acquire(timeout=_LOOK_S):
                continue
            messages = self._receive(source)
            if not messages:
                places.release()
                self._closing.wait(_LOOK_S)
                continue
            threading.Thread(
                target=self._work, args=(source, messages, places), name=f"batch-{source.logical_id}", daemon=True
            ).start()

    def _receive(self, source: EventSourceSpec) -> list[Any]:
        with self._lock:
            queue = self._queue(source.queue_arn)
            if not queue.messages:
                self._note_messages()
                return []
            hidden_s = int(queue.visibility_timeout)
            found: list[Any] = self._backend().receive_message(queue.name, source.batch_size, 0, hidden_s)
            self._note_messages()
            return found

    def _work(self, source: EventSourceSpec, messages: list[Any], places: threading.Semaphore) -> None:
        try:
            failed = self._call(source, messages)
            with self._lock:
                if self._closing.is_set():
                    # the queue goes too
                    return
                for message in messages:
                    if message.id in failed:
                        self._come_again(source, message)
                    else:
                        self._delete(source, message)
                self._note_messages()
        finally:
            places.release()

    def _call(self, source: EventSourceSpec, messages: list[Any]) -> set[str]:
        """Call the function on messages; return the ids of those that are not done."""
        everything = {message.id for message in messages}
        payload = json.dumps({"Records": [self._record(source, message) for message in messages]}).encode()
        pause_s = _THROTTLED_S[0]
        while not self._closing.is_set():
            try:
                result = self._functions.invoke(source.function_arn, payload)
            except ThrottledError:
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, _THROTTLED_S[1])
                continue
            except FunctionProcessError:
                return everything
            if result.error is not None:
                return everything
            if not source.reports_failures or not isinstance(result.payload, dict):
                return set()
            return {str(item["itemIdentifier"]) for item in result.payload.get("batchItemFailures") or ()}
        return everything

    def _come_again(self, source: EventSourceSpec, message: Any) -> None:
        pause_s = self._retry_delays_s[min(message.approximate_receive_count, len(self._retry_delays_s)) - 1]
        for stored in self._queue(source.queue_arn)._messages:  # noqa: SLF001 - moto counts in whole seconds
            if stored.id == message.id:
                stored.visible_at = min(stored.visible_at, 1000 * (time.time() + pause_s))

    def _delete(self, source: EventSourceSpec, message: Any) -> None:
        queue = self._queue(source.queue_arn)
        if any(stored.had_receipt_handle(message.receipt_handle) for stored in queue._messages):  # noqa: SLF001
            queue.delete_message(message.receipt_handle)

    def _record(self, source: EventSourceSpec, message: Any) -> dict[str, Any]:
        return {
            "messageId": message.id,
            "receiptHandle": message.receipt_handle,
            "body": message.body,
            "attributes": {
                "ApproximateReceiveCount": str(message.approximate_receive_count),
                "SentTimestamp": str(message.sent_timestamp),
                "SenderId": str(message.sender_id),
                "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
            },
            "messageAttributes": {},
            "md5OfBody": message.body_md5,
            "eventSource": "aws:sqs",
            "eventSourceARN": source.queue_arn,
            "awsRegion": self._region,
        }

    def _note_messages(self) -> None:
        """Keep the cloud busy as long as a queue that somebody works off holds a message."""
        full = {source.queue_arn for source in self._sources if self._queue(source.queue_arn)._messages}  # noqa: SLF001
        # Begun before others end: a message that went to another queue is always in one of them.
        for arn in full - set(self._tokens):
            self._tokens[arn] = self._activity.begin(f"queue {_name(arn)}")
        for arn in set(self._tokens) - full:
            self._activity.end(self._tokens.pop(arn))

    def _queue(self, arn: str) -> Any:
        return self._backend().get_queue(_name(arn))


def _name(queue_arn: str) -> str:
    return queue_arn.rsplit(":", 1)[1]
