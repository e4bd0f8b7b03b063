"""Who settles an order: one at a time, since the end of a task and the schedule may both find it."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from structureflow import keys
from structureflow.errors import ObjectChangedError, ObjectExistsError, ObjectNotFoundError, StorageError
from structureflow.jobs.services import Services
from structureflow.limits import MAX_CLAIM_BYTES
from structureflow.storage.bounded import read_bounded

#: Longer than a function lives: an older claim is that of a process that was killed.
CLAIM_LASTS: Final = timedelta(minutes=16)
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)

_log = logging.getLogger(__name__)


@contextmanager
def settling(run_id: str, services: Services) -> Iterator[bool]:
    """Hold the claim on a run's order while the block lasts; gives False where somebody else holds it.

    The claim is an object of its own: a task that is being stopped may still write its order. It goes with the block,
    however that ends, so that a retry finds none.
    """
    storage, key = services.storage, keys.gpu_claim(run_id)
    claim = json.dumps({"token": secrets.token_hex(8), "until": (services.clock() + CLAIM_LASTS).isoformat()}).encode()
    if not _take(key, claim, services):
        yield False
        return
    try:
        yield True
    finally:
        try:
            storage.delete([key])
        except StorageError as error:
            _log.warning("%s remains until it is too old to count: %s", key, error.message)


def _take(key: str, claim: bytes, services: Services) -> bool:
    storage = services.storage
    try:
        storage.put(key, claim, content_type="application/json", if_absent=True)
    except ObjectExistsError:
        try:
            held = read_bounded(storage, key, MAX_CLAIM_BYTES)
            if _until(held.data) > services.clock():
                return False
            storage.put(key, claim, content_type="application/json", if_match=held.info.etag)
        except (ObjectNotFoundError, ObjectChangedError):
            # Given back, or taken over, at this very moment; the next look at the order tells.
            return False
    return True


def _until(data: bytes) -> datetime:
    """Return until when a claim counts; of one that cannot be read, long ago."""
    try:
        found = datetime.fromisoformat(json.loads(data)["until"])
    except (ValueError, KeyError, TypeError):
        return _LONG_AGO
    return found if found.tzinfo else _LONG_AGO
