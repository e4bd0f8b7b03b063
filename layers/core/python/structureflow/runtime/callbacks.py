"""Answers to states that wait for them: what such a state asks for comes by a queue, with a token to answer by.

The answer is what Lambda would have given the state if it had called the function: a result, or an error by its name.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from structureflow.errors import StructureFlowError
from structureflow.runtime.events import parse_event

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

_log = logging.getLogger(__name__)


class _Asked(BaseModel):
    """What the state ``QueueSegment`` sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_token: str
    segment: dict[str, Any]


def is_asked(body: dict[str, Any]) -> bool:
    """Tell whether a message waits for an answer."""
    return "task_token" in body


def answer(
    body: dict[str, Any], work: Callable[[dict[str, Any]], dict[str, Any]], client: SFNClient | None = None
) -> dict[str, Any] | None:
    """Do what a state asks for and send it the result, or the error; None where the work failed.

    Whether an error is tried again is the state's to say. A defect of ours is an error like any other, as Lambda
    treats it: else the message would come four times more.

    Raises:
        InvalidRequestError: the message is none of such a state.
    """
    asked = parse_event(_Asked, body)
    try:
        result = work(asked.segment)
    except StructureFlowError as error:
        _log.warning("the segment failed: %s: %s", error.code, error.message)
        _fail(asked.task_token, error.code, str(error), client)
        return None
    except Exception as error:  # noqa: BLE001 - the boundary of the function: the state reports it
        _log.exception("the segment failed")
        _fail(asked.task_token, type(error).__name__, str(error), client)
        return None
    _send(lambda states: states.send_task_success(taskToken=asked.task_token, output=json.dumps(result)), client)
    return result


def refuse(body: dict[str, Any], error_type: str, message: str, client: SFNClient | None = None) -> None:
    """Send a waiting state an error in the place of whoever died on what it asked for.

    Raises:
        InvalidRequestError: the message is none of such a state.
    """
    _fail(parse_event(_Asked, body).task_token, error_type, message, client)


def _fail(token: str, error_type: str, message: str, client: SFNClient | None) -> None:
    cause = json.dumps({"errorType": error_type, "errorMessage": message})
    # Step Functions takes 32,768 characters; messages of ours are far shorter.
    _send(lambda states: states.send_task_failure(taskToken=token, error=error_type, cause=cause[:32_768]), client)


def _send(send: Callable[[SFNClient], Any], client: SFNClient | None) -> None:
    states = client or _states()
    try:
        send(states)
    except (states.exceptions.TaskDoesNotExist, states.exceptions.TaskTimedOut, states.exceptions.InvalidToken) as gone:
        # The execution ended meanwhile, or an earlier delivery of the message answered.
        _log.info("nobody waits for the answer any more: %s", gone)


@functools.cache
def _states() -> SFNClient:
    import boto3

    return boto3.client("stepfunctions")
