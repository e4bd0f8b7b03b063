"""The environment of a function process, read once and typed; nothing else reads it.

A missing, empty or malformed value is a `SettingsError` that names the variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from structureflow.errors import SettingsError
from structureflow.limits import MAX_VIDEO_FRAMES, MAX_WHOLE_NUMBER, MB_PER_VCPU

__all__ = ["addressing_style"]

AddressingStyle = Literal["auto", "path", "virtual"]
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """Where GPU tasks run, and when they are asked for.

    Attributes:
        cluster, task_definition, capacity_provider: of ECS.
        timeout_s: after which a task counts as lost.
        auto_pixel_frames: ``engine: auto`` takes the GPU from this many pixels times frames on.
    """

    cluster: str
    task_definition: str
    capacity_provider: str
    timeout_s: float
    auto_pixel_frames: int


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Where Batch jobs run, and what they take.

    Attributes:
        queue, job_definition: of Batch.
        timeout_s: after which a job counts as lost, waiting for its turn included.
        max_video_bytes: of the largest video.
    """

    queue: str
    job_definition: str
    timeout_s: float
    max_video_bytes: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Typed environment.

    Attributes:
        data_bucket: bucket of jobs, caches and timelines.
        allowed_buckets: further buckets that requests may name.
        allowed_hosts: hosts that requests may name with ``https://``.
        s3_endpoint_url: endpoint of an S3-compatible store; None for AWS.
        s3_addressing_style: ``auto``, ``path`` or ``virtual``; None lets the endpoint decide.
        region: region of the store; None leaves it to the SDK.
        state_machine_arn: machine that renders segments; only the orchestrator has it.
        extraction_machine_arn: machine that extracts long videos in parts; only the orchestrator has it.
        memory_mb: memory of the function; a vCPU is paid for per 1,769 MB (AWS Lambda Developer Guide).
        max_video_frames, max_video_bytes: bounds of inputs.
        work_dir: folder for temporary files.
        max_concurrent_parts: parts of one video extracted at the same time; only the orchestrator has it.
        max_concurrent_segments: segments of one job rendered at the same time; only PlanSegments has it.
        allowed_origins: of pages that may ask the API; only the API has them.
        rebuild_function: that rebuilds timelines; only the API has it.
        queue_url: of the queue that the function works off; None where it works off none.
        max_tries: after so many the queue gives a message away.
        gpu: the GPU part; None where it is not deployed.
        batch: the Batch part; None where it is not deployed.
    """

    data_bucket: str
    allowed_buckets: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    s3_endpoint_url: str | None
    s3_addressing_style: AddressingStyle | None
    region: str | None
    state_machine_arn: str | None
    memory_mb: int
    max_video_frames: int
    max_video_bytes: int
    work_dir: Path
    extraction_machine_arn: str | None = None
    max_concurrent_parts: int | None = None
    max_concurrent_segments: int | None = None
    allowed_origins: tuple[str, ...] = ()
    rebuild_function: str | None = None
    queue_url: str | None = None
    max_tries: int | None = None
    gpu: GpuSettings | None = None
    batch: BatchSettings | None = None

    @property
    def workers(self) -> int:
        """Threads worth using: the vCPUs that this memory buys, one begun included."""
        return -(-self.memory_mb // MB_PER_VCPU)

    @property
    def vcpus(self) -> float:
        """The vCPUs that this memory buys."""
        return self.memory_mb / MB_PER_VCPU

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check all settings.

        Raises:
            SettingsError: a variable is missing, empty or malformed.
        """
        return cls(
            data_bucket=_required(environment, "DATA_BUCKET"),
            allowed_buckets=_list(environment, "ALLOWED_BUCKETS"),
            allowed_hosts=_list(environment, "ALLOWED_HOSTS"),
            s3_endpoint_url=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None,
            s3_addressing_style=addressing_style(environment),
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None,
            state_machine_arn=environment.get("STATE_MACHINE_ARN") or None,
            extraction_machine_arn=environment.get("EXTRACTION_MACHINE_ARN") or None,
            memory_mb=_positive(environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
            max_video_frames=_positive(environment, "MAX_VIDEO_FRAMES", most=MAX_VIDEO_FRAMES),
            max_video_bytes=_positive(environment, "MAX_VIDEO_MEGABYTES") * 1_000_000,
            work_dir=Path(environment.get("TMPDIR") or "/tmp"),  # noqa: S108  the only writable folder of a Lambda
            max_concurrent_parts=_optional_positive(environment, "MAX_CONCURRENT_PARTS"),
            max_concurrent_segments=_optional_positive(environment, "MAX_CONCURRENT_SEGMENTS"),
            allowed_origins=_list(environment, "ALLOWED_ORIGINS"),
            rebuild_function=environment.get("REBUILD_FUNCTION") or None,
            queue_url=environment.get("QUEUE_URL") or None,
            max_tries=_optional_positive(environment, "MAX_TRIES"),
            gpu=_gpu(environment),
            batch=_batch(environment),
        )


def _gpu(environment: Mapping[str, str]) -> GpuSettings | None:
    """Read the settings of the GPU part; without a cluster it is not deployed."""
    if not environment.get("GPU_CLUSTER", "").strip():
        return None
    return GpuSettings(
        cluster=_required(environment, "GPU_CLUSTER"),
        task_definition=_required(environment, "GPU_TASK_DEFINITION"),
        capacity_provider=_required(environment, "GPU_CAPACITY_PROVIDER"),
        timeout_s=60.0 * _positive(environment, "GPU_TIMEOUT_MINUTES"),
        auto_pixel_frames=1_000_000 * _positive(environment, "GPU_AUTO_MEGAPIXEL_FRAMES"),
    )


def _batch(environment: Mapping[str, str]) -> BatchSettings | None:
    """Read the settings of the Batch part; without a queue it is not deployed."""
    if not environment.get("BATCH_QUEUE", "").strip():
        return None
    return BatchSettings(
        queue=_required(environment, "BATCH_QUEUE"),
        job_definition=_required(environment, "BATCH_JOB_DEFINITION"),
        timeout_s=60.0 * _positive(environment, "BATCH_TIMEOUT_MINUTES"),
        max_video_bytes=1_000_000 * _positive(environment, "BATCH_MAX_VIDEO_MEGABYTES"),
    )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name}: expected a value in the environment, got {environment.get(name)!r}")
    return value


def _parsed(environment: Mapping[str, str], name: str, parse: Callable[[str], _Value], expected: str) -> _Value:
    value = _required(environment, name)
    try:
        return parse(value)
    except ValueError as error:
        raise SettingsError(f"{name}: expected {expected}, got {value!r}") from error


def _positive(environment: Mapping[str, str], name: str, *, most: int | None = None) -> int:
    def parse(value: str) -> int:
        number = int(value)
        if not 1 <= number <= (most or MAX_WHOLE_NUMBER):
            raise ValueError(value)
        return number

    return _parsed(environment, name, parse, "a whole number above 0" + (f", at most {most}" if most else ""))


def _optional_positive(environment: Mapping[str, str], name: str) -> int | None:
    return _positive(environment, name) if environment.get(name, "").strip() else None


def _list(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in environment.get(name, "").split(",") if part.strip())


def addressing_style(environment: Mapping[str, str]) -> AddressingStyle | None:
    """Return ``S3_ADDRESSING_STYLE``, or None where it is not set (`SettingsError` if it is none)."""
    value = environment.get("S3_ADDRESSING_STYLE") or None
    if value is not None and value not in get_args(AddressingStyle):
        raise SettingsError(
            f"S3_ADDRESSING_STYLE: expected one of {', '.join(get_args(AddressingStyle))}, got {value!r}"
        )
    return cast("AddressingStyle | None", value)
