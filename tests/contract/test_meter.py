"""The meter on a client of the SDK, which repeats and batches as it likes."""

from __future__ import annotations

from structureflow.runtime.meter import Meter
from structureflow.testing.storage_servers import make_bucket, moto_server


def test_the_meter_counts_requests_by_price_and_begins_anew() -> None:
    """By a client of the SDK as it is: what it sends, not what was asked of it."""
    meter = Meter()
    with moto_server() as url:
        storage = make_bucket(url, "metered")
        meter.watch(storage.client)
        meter.restart()
        storage.put("a", b"x")
        storage.copy("a", "b")
        list(storage.list(""))
        storage.get("a")
        storage.delete(["a", "b", "c"])
    used = meter.usage("Orchestrator", 1769)
    # put, copy, list; get, and the look at the copy; two created, three asked to be deleted
    assert (used.s3_writes, used.s3_reads, used.s3_events, used.memory_mb) == (3, 2, 5, 1769)
    meter.restart()
    used = meter.usage("Orchestrator", 1769)
    assert (used.s3_writes, used.s3_reads, used.s3_events) == (0, 0, 0)
