"""Builds what a function process works with, once, when its first event arrives."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from structureflow.errors import SettingsError, StructureFlowError
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.services import Services
from structureflow.runtime.settings import Settings
from structureflow.storage.base import Storage
from structureflow.storage.s3 import S3Settings, S3Storage

Handler = Callable[[dict[str, Any], Any], Any]
_Handler = TypeVar("_Handler", bound=Handler)


@functools.cache
def logger() -> Logger:
    """Return the process's structured logger."""
    return Logger()


@functools.cache
def metrics() -> Metrics:
    """Return the process's metrics, written as embedded metric format to the log."""
    return Metrics()


@functools.cache
def settings() -> Settings:
    """Return the process's settings."""
    return Settings.from_environment(os.environ)


@functools.cache
def services() -> Services:
    """Build the adapters of this process from its settings."""
    found = settings()
    return Services(
        storage=_bucket(found.data_bucket),
        inputs=Inputs(
            _bucket(found.data_bucket),
            found.data_bucket,
            buckets=dict.fromkeys(found.allowed_buckets, _bucket),
            web=_web(found),
            max_bytes=found.max_video_bytes,
        ),
        max_video_frames=found.max_video_frames,
        max_input_bytes=found.max_video_bytes,
        workers=found.workers,
        work_dir=found.work_dir,
        start_segments=_start_segments,
        count=_count,
    )


def instrumented(handler: _Handler) -> _Handler:
    """Wrap a handler with the request's log context and metrics; typed errors are logged once, then raised."""

    @functools.wraps(handler)
    def wrapped(event: dict[str, Any], context: Any) -> Any:
        try:
            return handler(event, context)
        except StructureFlowError as error:
            logger().exception("step failed", extra={"error": error.as_dict()})
            raise

    with_metrics = metrics().log_metrics(wrapped, capture_cold_start_metric=True)
    return cast(_Handler, logger().inject_lambda_context(with_metrics, clear_state=True))


@functools.cache
def _bucket(name: str) -> Storage:
    found = settings()
    return S3Storage(
        name,
        settings=S3Settings(
            endpoint_url=found.s3_endpoint_url,
            region=found.region,
            addressing_style=found.s3_addressing_style,
        ),
    )


def _web(found: Settings) -> Any:
    if not found.allowed_hosts:
        return None
    from structureflow.storage.http import HttpsSource

    return HttpsSource(found.allowed_hosts, max_bytes=found.max_video_bytes)


def _start_segments(name: str, payload: Mapping[str, Any]) -> None:
    import boto3

    arn = settings().state_machine_arn
    if arn is None:
        raise SettingsError("STATE_MACHINE_ARN: expected a value in the environment, got None")
    client = boto3.client("stepfunctions")
    try:
        client.start_execution(stateMachineArn=arn, name=name, input=json.dumps(payload))
    except client.exceptions.ExecutionAlreadyExists:
        logger().info("execution already started", extra={"execution": name})


def _count(name: str, value: int) -> None:
    metrics().add_metric(name=name, unit=MetricUnit.Count, value=value)
