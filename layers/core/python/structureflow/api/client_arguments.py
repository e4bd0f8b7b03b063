"""What the API's client takes: looked at before anything is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from structureflow import arguments, keys
from structureflow.errors import InvalidArgumentError, InvalidRequestError
from structureflow.storage.base import check_key

__all__ = ["CHECKS", "check_header", "check_url"]


def check_url(value: Any, name: str) -> None:
    """Expect a URL as it is sent: what an HTTP client would only find out half-way."""
    arguments.text(value, name)
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or not value.isascii() or not value.isprintable() or " " in value:
        words = "one that begins with http:// or https:// and a host, percent-encoded"
        raise InvalidRequestError(f"{name}: expected {words}, got {value!r:.80}")


def check_header(value: Any, name: str) -> None:
    """Expect what a header can hold; what else it is, which may be a secret, is not shown."""
    arguments.text(value, name)
    if not value or not value.isascii() or not value.isprintable():
        arguments.refuse(type(value), name, "printable ASCII characters")


def _check_json(value: Any, name: str) -> None:
    arguments.mapping(value, name)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{name}: expected what JSON can say, got a value that it cannot: {error}"
        ) from error


def _check_range(value: Any, name: str) -> None:
    arguments.whole_numbers(0)(value, name)
    if len(tuple(value)) != 2:
        arguments.refuse(value, name, "a first and a last frame")


CHECKS: Final[Mapping[str, arguments.Check]] = {
    "again": arguments.instance(bool, "True or False"),
    "flow": arguments.whole(0),
    "frames": arguments.whole(1),
    "gap": arguments.optional(_check_range),
    "index": arguments.whole(0),
    "job_id": arguments.optional(keys.check_id),
    "key": check_key,
    "leave_out_damaged": arguments.instance(bool, "True or False"),
    "overlays": arguments.instance(bool, "True or False"),
    "path": arguments.path,
    "poll_s": arguments.number(least=0),
    "quality": arguments.optional(arguments.whole(1, 100)),
    "request": _check_json,
    "segment": arguments.whole(0),
    "sequence": arguments.whole(0),
    "sequences": arguments.whole_numbers(0),
    "sign": arguments.optional(arguments.function),
    "stage": arguments.optional(keys.check_id),
    "task_id": keys.check_id,
    "timeline_id": keys.check_id,
    "timeout_s": arguments.number(least=0),
    "token": arguments.optional(check_header),
    "url": arguments.text,
    "watch": arguments.function,
    "width_px": arguments.optional(arguments.whole(1)),
}
