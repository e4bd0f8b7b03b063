"""EventBridge: what happened in S3, Step Functions and ECS, matched with the template's own rules.

Events are delivered after the request that caused them was answered, on other threads, at least once and in
no promised order.
"""

from __future__ import annotations

import itertools
import json
import queue
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.errors import LocalCloudError
from structureflow_local.cloud.functions import DeadLetter
from structureflow_local.cloud.template import RuleSpec

#: Pause before a failed delivery is tried again, doubled each time up to the second value.
_RETRY_S: Final = (0.2, 2.0)
#: Deliveries that fail this often locally will not succeed; AWS goes on for up to a day.
_MAX_LOCAL_ATTEMPTS: Final = 5

_sequence = itertools.count(time.time_ns() // 1000)


class EventBus:
    """Takes events and delivers each to the target of every rule that matches.

    Args:
        deliver: called with (target ARN, event); raises `LocalCloudError` or `OSError` when it fails.
        dead_letters: gets events that no delivery succeeded for.
        duplicate: deliver each event twice.
    """

    def __init__(
        self,
        rules: Sequence[RuleSpec],
        *,
        activity: Activity,
        region: str,
        account_id: str,
        deliver: Callable[[str, Any], None],
        dead_letters: list[DeadLetter],
        duplicate: bool,
    ) -> None:
        # moto costs a quarter of a second: not before a cloud is started
        from moto.events.models import EventPattern

        self._rules = [(rule, EventPattern(None, dict(rule.pattern))) for rule in rules]
        self._activity = activity
        self._region = region
        self._account_id = account_id
        self._deliver = deliver
        self._dead_letters = dead_letters
        self._duplicate = duplicate
        self._queue: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="event-bus", daemon=True)
        self._thread.start()

    def publish(self, source: str, detail_type: str, resources: Sequence[str], detail: dict[str, Any]) -> None:
        """Put an event on the bus and return at once."""
        self.announce(source, detail_type, resources, detail)()

    def announce(
        self, source: str, detail_type: str, resources: Sequence[str], detail: dict[str, Any]
    ) -> Callable[[], None]:
        """Note that an event is on its way; return what puts it on the bus. It must be called exactly once."""
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": self._account_id,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._region,
            "resources": list(resources),
            "detail": detail,
        }
        token = self._activity.begin(f"event {detail_type}")
        return lambda: self._queue.put((token, event))

    def close(self) -> None:
        """Deliver nothing more."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            token, event = item
            try:
                for rule, pattern in self._rules:
                    if not self._closing.is_set() and pattern.matches_event(event):  # type: ignore[arg-type]
                        for _ in range(2 if self._duplicate else 1):
                            self._start_delivery(rule, event)
            finally:
                self._activity.end(token)

    def _start_delivery(self, rule: RuleSpec, event: dict[str, Any]) -> None:
        token = self._activity.begin(f"delivery by {rule.name}")
        threading.Thread(
            target=self._run_delivery, args=(rule, event, token), name=f"rule-{rule.name}", daemon=True
        ).start()

    def _run_delivery(self, rule: RuleSpec, event: dict[str, Any], token: int) -> None:
        try:
            delay = _RETRY_S[0]
            attempts = min(rule.max_attempts + 1, _MAX_LOCAL_ATTEMPTS)
            for attempt in range(1, attempts + 1):
                try:
                    self._deliver(rule.target_arn, _target_input(rule, event))
                except (LocalCloudError, OSError) as error:
                    if attempt == attempts:
                        self._give_up(rule, event, error, attempt)
                    if self._closing.wait(delay):
                        return
                    delay = min(2 * delay, _RETRY_S[1])
                else:
                    return
        finally:
            self._activity.end(token)

    def _give_up(self, rule: RuleSpec, event: dict[str, Any], error: Exception, attempts: int) -> None:
        self._dead_letters.append(
            DeadLetter(rule.place, event, type(error).__name__, str(error), attempts, rule.dead_letter_arn)
        )
        if rule.dead_letter_arn is not None:
            self._deliver(rule.dead_letter_arn, event)


def s3_detail(
    bucket: str, key: str, *, size_bytes: int | None, etag: str | None, version_id: str | None, reason: str
) -> dict[str, Any]:
    """Return the ``detail`` of an S3 event as EventBridge gets it (S3 User Guide, "Event message structure").

    The key is not URL-encoded here, other than in S3's own notifications.
    """
    described: dict[str, Any] = {"key": key}
    if size_bytes is not None:
        described["size"] = size_bytes
    if etag is not None:
        described["etag"] = etag.strip('"')
    if version_id is not None and version_id != "null":
        described["version-id"] = version_id
    described["sequencer"] = f"{next(_sequence):018X}"
    return {
        "version": "0",
        "bucket": {"name": bucket},
        "object": described,
        "request-id": secrets.token_hex(8).upper(),
        "requester": "123456789012",
        "source-ip-address": "127.0.0.1",
        "reason": reason,
    }


def _target_input(rule: RuleSpec, event: dict[str, Any]) -> Any:
    if rule.input_text is not None:
        return json.loads(rule.input_text)
    if rule.input_path is not None:
        part: Any = event
        for step in rule.input_path.split(".")[1:]:
            part = part.get(step) if isinstance(part, dict) else None
        return part
    return event
