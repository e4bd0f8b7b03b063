"""What the call under way has used so far: time, and requests to S3."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from structureflow.models.cost import CREATING, Architecture, StepUsage, price_class


class Meter:
    """Counts from `restart` on; requests are counted when they are sent, each retry once more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._deleted = 0
        self._begin = time.perf_counter()
        self._calls = 0

    def restart(self) -> None:
        """Begin to count anew: a call begins."""
        with self._lock:
            self._calls += 1
            self._requests.clear()
            self._deleted = 0
            self._begin = time.perf_counter()

    def watch(self, client: Any) -> None:
        """Count the requests of an S3 client of boto3."""
        client.meta.events.register("before-send.s3", self._count)
        client.meta.events.register("before-parameter-build.s3", self._count_deleted)

    def usage(self, step: str, memory_mb: int) -> StepUsage:
        """Return what has been used until now."""
        with self._lock:
            requests, deleted = dict(self._requests), self._deleted
            duration_s = time.perf_counter() - self._begin
            calls = self._calls
        architecture: Architecture = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
        classes: Counter[str] = Counter()
        for name, count in requests.items():
            classes[price_class(name)] += count
        return StepUsage(
            step=step,
            duration_s=round(duration_s, 3),
            memory_mb=memory_mb,
            architecture=architecture,
            s3_writes=classes["write"],
            s3_reads=classes["read"],
            cold_start=calls <= 1,
            s3_events=sum(requests.get(name, 0) for name in CREATING) + deleted,
        )

    def _count(self, event_name: str, **_: Any) -> None:
        # before-send.s3.PutObject
        with self._lock:
            self._requests[event_name.rpartition(".")[2]] += 1

    def _count_deleted(self, params: Mapping[str, Any], model: Any, **_: Any) -> None:
        with self._lock:
            if model.name == "DeleteObject":
                self._deleted += 1
            elif model.name == "DeleteObjects":
                self._deleted += len(params["Delete"]["Objects"])
