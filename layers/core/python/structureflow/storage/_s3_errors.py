"""Errors of the S3 SDK become errors of the storage port here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from structureflow.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
    TransientStorageError,
)
from structureflow.extras import importing

_T = TypeVar("_T")

TRANSIENT_CODES: Final = frozenset(
    {
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServiceUnavailable",
        "InternalError",
        "OperationAborted",
        "ConditionalRequestConflict",
        "BandwidthLimitExceeded",
    }
)


class BrokenBodyError(TransientStorageError):
    """The reply started well and broke off. Inside the adapter only: such a read may be repeated at once."""


def call(uri: str, key: str, request: Callable[[], _T], *, reading_body: bool = False) -> _T:
    """Do a request.

    Raises:
        StorageError: or a descendant, for whatever the SDK raises; `BrokenBodyError` for a broken
            connection with `reading_body`.
    """
    with importing("S3Storage"):
        from botocore import exceptions as sdk
    from urllib3.exceptions import HTTPError

    try:
        return request()
    except sdk.ClientError as error:
        raise refused(uri, key, error) from error
    except (
        sdk.HTTPClientError,
        sdk.ConnectionError,
        sdk.IncompleteReadError,
        sdk.FlexibleChecksumError,
        sdk.ChecksumError,
        HTTPError,
    ) as error:
        if reading_body:
            raise BrokenBodyError(f"{uri}/{key}: the reply broke off: {error}", key=key) from error
        raise TransientStorageError(f"{uri}/{key}: no answer: {error}", key=key) from error
    except sdk.BotoCoreError as error:
        raise StorageError(f"{uri}/{key}: {error}", key=key) from error


def refused(uri: str, key: str, error: Any) -> StorageError:
    """Return the error that stands for a refusal by the store (a `botocore.exceptions.ClientError`)."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    where = f"{uri}/{key}"
    if code == "NoSuchBucket":
        return StorageError(f"{uri}: no such bucket", key=key, code=code)
    if code in ("NoSuchKey", "404", "NotFound") or status == 404:
        return ObjectNotFoundError(f"{where}: no such object", key=key)
    if code in ("PreconditionFailed", "412") or status == 412:
        return ObjectChangedError(f"{where}: a condition of the request does not hold", key=key)
    if code in ("InvalidRange", "416") or status == 416:
        return RangeNotSatisfiableError(f"{where}: the range starts at or past the end", key=key)
    # 501 NotImplemented is what stores answer to a header they refuse: no later try helps.
    if code in TRANSIENT_CODES or status in (409, 429) or (status >= 500 and status != 501):
        return TransientStorageError(f"{where}: {code or status} {message}".rstrip(), key=key, code=code)
    return StorageError(f"{where}: {code or status} {message}".rstrip(), key=key, code=code)
