"""What the call under way has used so far: time, and requests to S3."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from typing import Any, Final

from structureflow.models.cost import Architecture, StepUsage

_FREE: Final = frozenset({"DeleteObject", "DeleteObjects", "AbortMultipartUpload"})
_WRITES: Final = frozenset(
    {
        "PutObject",
        "CopyObject",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "ListObjects",
        "ListObjectsV2",
    }
)


class Meter:
    """Counts from `restart` on; requests are counted when they are sent, each retry once more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._begin = time.perf_counter()

    def restart(self) -> None:
        """Begin to count anew: a call begins."""
        with self._lock:
            self._requests.clear()
            self._begin = time.perf_counter()

    def watch(self, client: Any) -> None:
        """Count the requests of an S3 client of boto3."""
        client.meta.events.register("before-send.s3", self._count)

    def usage(self, step: str, memory_mb: int) -> StepUsage:
        """Return what has been used until now."""
        with self._lock:
            requests = dict(self._requests)
            duration_s = time.perf_counter() - self._begin
        architecture: Architecture = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
        writes = sum(count for name, count in requests.items() if name in _WRITES)
        free = sum(count for name, count in requests.items() if name in _FREE)
        return StepUsage(
            step=step,
            duration_s=round(duration_s, 3),
            memory_mb=memory_mb,
            architecture=architecture,
            s3_writes=writes,
            s3_reads=sum(requests.values()) - writes - free,
        )

    def _count(self, event_name: str, **_: Any) -> None:
        # before-send.s3.PutObject
        with self._lock:
            self._requests[event_name.rpartition(".")[2]] += 1
