"""Builds what a function process works with, once, when its first event arrives."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from structureflow.errors import SettingsError, StructureFlowError
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.services import BatchLauncher, GpuLauncher, Services, clear_leftovers
from structureflow.limits import MAX_CONCURRENT_PARTS, MAX_CONCURRENT_SEGMENTS
from structureflow.runtime.events import check_event, event_subject
from structureflow.runtime.meter import Meter
from structureflow.runtime.queued import parse_message, work_off
from structureflow.runtime.settings import Settings
from structureflow.storage.base import Storage
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings

Handler = Callable[[dict[str, Any], Any], Any]
_Handler = TypeVar("_Handler", bound=Handler)
_Result = TypeVar("_Result")


@functools.cache
def logger() -> Logger:
    """Return the process's structured logger; what the library logs goes through it, with the same context."""
    found = Logger()
    library = logging.getLogger("structureflow")
    library.handlers = found.handlers
    library.setLevel(found.log_level)
    library.propagate = False
    return found


@functools.cache
def metrics() -> Metrics:
    """Return the process's metrics, written as embedded metric format to the log."""
    return Metrics()


@functools.cache
def meter() -> Meter:
    """Return what counts the time and the requests of the call under way."""
    return Meter()


@functools.cache
def deadline() -> Deadline:
    """Return what tells how long the call under way may take."""
    return Deadline()


@functools.cache
def settings() -> Settings:
    """Return the process's settings."""
    return Settings.from_environment(os.environ)


@functools.cache
def services() -> Services:
    """Build the adapters of this process from its settings."""
    found = settings()
    if removed := clear_leftovers(found.work_dir):
        logger().warning("a process before this one was killed", extra={"leftover_folders": removed})
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
        vcpus=found.vcpus,
        work_dir=found.work_dir,
        start_segments=functools.partial(_start, "STATE_MACHINE_ARN", found.state_machine_arn),
        start_extraction=None
        if found.extraction_machine_arn is None
        else functools.partial(_start, "EXTRACTION_MACHINE_ARN", found.extraction_machine_arn),
        count=_count,
        gpu=_gpu(found),
        batch=_batch(found),
        max_concurrent_parts=found.max_concurrent_parts or MAX_CONCURRENT_PARTS,
        max_concurrent_segments=found.max_concurrent_segments or MAX_CONCURRENT_SEGMENTS,
        allowed_origins=found.allowed_origins,
        memory_mb=found.memory_mb,
        deadline=deadline(),
        # the arrival of its request is what starts a job
        sent=lambda _: None,
        rebuild=_start_rebuild if found.rebuild_function else None,
        usage=lambda step: (meter().usage(step, found.memory_mb),),
    )


def instrumented(handler: _Handler) -> _Handler:
    """Wrap a handler with log context and metrics; typed errors are logged once, then raised.

    An event of more values than `structureflow.limits.MAX_EVENT_VALUES` is refused before the handler sees it.

    Every line that the handler's code logs carries the job, run, segment and timeline that the event names.
    """

    @functools.wraps(handler)
    def wrapped(event: dict[str, Any], context: Any) -> Any:
        meter().restart()
        remaining_ms = getattr(context, "get_remaining_time_in_millis", None)
        deadline().restart(None if remaining_ms is None else lambda: remaining_ms() / 1000)
        check_event(event)
        subject = event_subject(event)
        logger().append_keys(**subject)
        try:
            return handler(event, context)
        except StructureFlowError as error:
            logger().exception("step failed", extra={"error": error.as_dict()})
            raise
        finally:
            # Powertools' own decorator warns of every call that counted nothing.
            if metrics().metric_set:
                metrics().flush_metrics()

    return cast(_Handler, logger().inject_lambda_context(wrapped, clear_state=True))


def queued(
    event: dict[str, Any],
    work: Callable[[dict[str, Any]], _Result],
    give_up: Callable[[dict[str, Any], StructureFlowError], _Result] | None = None,
) -> _Result:
    """Work off a message of the function's own queue; see `structureflow.runtime.queued.work_off`."""
    found = settings()
    if found.queue_url is None or found.max_tries is None:
        raise SettingsError("QUEUE_URL, MAX_TRIES: expected both in the environment of a function with a queue")
    return work_off(parse_message(event), found.queue_url, work, max_tries=found.max_tries, give_up=give_up)


@functools.cache
def _bucket(name: str) -> Storage:
    found = settings()
    storage = S3Storage(
        name,
        settings=S3Settings(
            endpoint_url=found.s3_endpoint_url,
            region=found.region,
            addressing_style=found.s3_addressing_style,
        ),
    )
    meter().watch(storage.client)
    return storage


def _web(found: Settings) -> Any:
    if not found.allowed_hosts:
        return None
    from structureflow.storage.http import HttpsSource

    return HttpsSource(found.allowed_hosts, max_bytes=found.max_video_bytes)


def _gpu(found: Settings) -> GpuLauncher | None:
    if found.gpu is None:
        return None
    from structureflow.runtime.ecs import EcsLauncher

    return EcsLauncher(
        cluster=found.gpu.cluster,
        task_definition=found.gpu.task_definition,
        capacity_provider=found.gpu.capacity_provider,
        timeout_s=found.gpu.timeout_s,
        auto_pixel_frames=found.gpu.auto_pixel_frames,
    )


def _batch(found: Settings) -> BatchLauncher | None:
    if found.batch is None:
        return None
    from structureflow.runtime.batch import BatchQueue

    return BatchQueue(
        queue=found.batch.queue,
        job_definition=found.batch.job_definition,
        timeout_s=found.batch.timeout_s,
        max_video_bytes=found.batch.max_video_bytes,
    )


def _start(variable: str, arn: str | None, name: str, payload: Mapping[str, Any]) -> None:
    import boto3

    if arn is None:
        raise SettingsError(f"{variable}: expected a value in the environment, got None")
    client = boto3.client("stepfunctions")
    try:
        client.start_execution(stateMachineArn=arn, name=name, input=json.dumps(payload))
    except client.exceptions.ExecutionAlreadyExists:
        logger().info("execution already started", extra={"execution": name})


def _start_rebuild(timeline_id: str, quality: int | None) -> None:
    import boto3

    event = {"timeline_id": timeline_id} | ({} if quality is None else {"quality": quality})
    function = settings().rebuild_function
    if function is None:
        raise SettingsError("REBUILD_FUNCTION: expected a value in the environment, got None")
    boto3.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode())


def _count(name: str, value: int) -> None:
    metrics().add_metric(name=name, unit=MetricUnit.Count, value=value)
