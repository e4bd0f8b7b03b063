"""What a job costs on AWS, estimated from what its steps used, by one dated table of list prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from structureflow.limits import MAX_INLINE_SEGMENTS

__all__ = [
    "CREATING",
    "DELETING",
    "PRICES",
    "Architecture",
    "StepUsage",
    "estimate_cost",
    "fargate_usd",
    "fixed_monthly",
    "price_class",
    "transitions_of",
]

Architecture = Literal["x86_64", "arm64"]
PriceClass = Literal["write", "read", "free"]

#: What S3 asks for each of its requests that anything here sends: as for a PUT, as for a GET, nothing.
S3_REQUESTS: Final[dict[str, PriceClass]] = {
    "PutObject": "write",
    "CopyObject": "write",
    "CreateMultipartUpload": "write",
    "UploadPart": "write",
    "UploadPartCopy": "write",
    "CompleteMultipartUpload": "write",
    "ListObjects": "write",
    "ListObjectsV2": "write",
    "GetObject": "read",
    "HeadObject": "read",
    "DeleteObject": "free",
    "DeleteObjects": "free",
    "AbortMultipartUpload": "free",
}
#: Requests of which each creates an object; each object that is deleted is an event too.
CREATING: Final = frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload"})
DELETING: Final = frozenset({"DeleteObject", "DeleteObjects"})


def price_class(operation: str) -> PriceClass:
    """Return how a request to S3 is priced; one that nobody thought of as the dearest."""
    return S3_REQUESTS.get(operation, "write")


_DAYS_STORED: Final = 30


class StepUsage(BaseModel):
    """What one step used, by its own clock and count.

    Attributes:
        step: name of the function.
        duration_s: from the event to the moment of writing this down; Lambda bills in milliseconds.
        memory_mb: memory that the function is given, which is what it is billed for.
        s3_writes: requests at the price of a PUT (PUT, COPY, POST, LIST), retries included.
        s3_reads: requests at the price of a GET.
        cold_start: whether the call was the first of its process.
        s3_events: objects created or deleted, each of which S3 tells EventBridge; the request to delete is free.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    duration_s: float
    memory_mb: int
    architecture: Architecture
    s3_writes: int
    s3_reads: int
    s3_events: int = 0
    cold_start: bool = False


@dataclass(frozen=True, slots=True)
class PriceTable:
    """List prices in US dollars, without free tiers or discounts."""

    region: str
    as_of: str
    lambda_gb_second_x86_64: float
    lambda_gb_second_arm64: float
    lambda_request: float
    s3_write: float
    s3_read: float
    s3_gb_month: float
    state_transition: float
    #: S3 events are opt-in events of EventBridge: each object created or deleted in the bucket is one.
    event: float
    #: A month of each: a metric that an alarm looks at, a dashboard, a metric of our own that had data, a GB in ECR.
    alarm_metric: float
    dashboard: float
    custom_metric: float
    ecr_gb: float
    #: Of Fargate, an hour of each; of the disk, what is above the first 20 GB.
    fargate_vcpu_x86_64: float
    fargate_vcpu_arm64: float
    fargate_gb_x86_64: float
    fargate_gb_arm64: float
    fargate_disk_gb: float

    def gb_second(self, architecture: Architecture) -> float:
        """Price of a GB-second of Lambda."""
        return self.lambda_gb_second_arm64 if architecture == "arm64" else self.lambda_gb_second_x86_64


#: From the price pages of AWS Lambda, Amazon S3, AWS Step Functions, Amazon EventBridge, Amazon CloudWatch, Amazon ECR,
#: AWS Fargate.
PRICES: Final = PriceTable(
    region="us-east-1",
    as_of="2026-01",
    lambda_gb_second_x86_64=0.0000166667,
    lambda_gb_second_arm64=0.0000133334,
    lambda_request=0.20 / 1_000_000,
    s3_write=0.005 / 1_000,
    s3_read=0.0004 / 1_000,
    s3_gb_month=0.023,
    state_transition=0.000025,
    event=1.0 / 1_000_000,
    alarm_metric=0.10,
    dashboard=3.0,
    custom_metric=0.30,
    ecr_gb=0.10,
    fargate_vcpu_x86_64=0.04048,
    fargate_vcpu_arm64=0.03238,
    fargate_gb_x86_64=0.004445,
    fargate_gb_arm64=0.00356,
    fargate_disk_gb=0.000111,
)

#: What the template deploys, whatever runs: metrics of all alarms, dashboards, metrics of our own, and the media image
#: in gigabytes, once for each function that it is pushed for.
ALARM_METRICS: Final = 26
DASHBOARDS: Final = 1
CUSTOM_METRICS: Final = 12
IMAGES_GB: Final = 7 * 0.33
#: Of a Batch job, as the template has it; a disk of 20 GB costs nothing.
BATCH_GB_PER_VCPU: Final = 4
BATCH_DISK_GB: Final = 200
_FREE_DISK_GB: Final = 20


def transitions_of(segments: int) -> int:
    """Return the state transitions of a run without retries.

    The start, PlanSegments, IsClaimed, AreMany, the Map, AssembleJob; and in each segment RenderSegment. More segments
    than an inline Map takes are executions of their own, each with a start.
    """
    return 6 + segments * (1 if segments <= MAX_INLINE_SEGMENTS else 2)


def estimate_cost(
    usage: Iterable[StepUsage], *, transitions: int, stored_bytes: int, prices: PriceTable = PRICES
) -> dict[str, float]:
    """Estimate US dollars by item: each function, then requests, transitions, events, and a month of storage.

    Args:
        usage: of every call of a function.
        transitions: of the state machine.
        stored_bytes: that stay in the bucket.
        prices: the table.
    """
    used = tuple(usage)
    items: dict[str, float] = {}
    for one in used:
        seconds = one.duration_s * one.memory_mb / 1024 * prices.gb_second(one.architecture)
        name = f"Lambda {one.step}"
        items[name] = items.get(name, 0.0) + seconds + prices.lambda_request
    writes = sum(one.s3_writes for one in used)
    items["S3 requests"] = writes * prices.s3_write + sum(one.s3_reads for one in used) * prices.s3_read
    items["Step Functions transitions"] = transitions * prices.state_transition
    items["EventBridge events"] = sum(one.s3_events for one in used) * prices.event
    items[f"S3 storage for {_DAYS_STORED} days"] = stored_bytes / 1e9 * prices.s3_gb_month
    return items


def spent_usd(usage: Iterable[StepUsage], *, transitions: int = 0) -> float | None:
    """Return US dollars that calls of functions have taken, without what is stored; None where nobody measured."""
    used = tuple(usage)
    return sum(estimate_cost(used, transitions=transitions, stored_bytes=0).values()) if used else None


def fargate_usd(
    seconds: float, *, vcpus: int, architecture: Architecture = "x86_64", prices: PriceTable = PRICES
) -> float:
    """Estimate US dollars of a Batch job on Fargate, with the memory and the disk that the template gives it.

    Args:
        seconds: that it runs; Fargate bills a minute at least, from the pull of the image on.
        vcpus: of the job.
        architecture: of the job.
        prices: the table.
    """
    arm = architecture == "arm64"
    vcpu, gb = (
        (prices.fargate_vcpu_arm64, prices.fargate_gb_arm64)
        if arm
        else (prices.fargate_vcpu_x86_64, prices.fargate_gb_x86_64)
    )
    hourly = vcpus * (vcpu + BATCH_GB_PER_VCPU * gb) + (BATCH_DISK_GB - _FREE_DISK_GB) * prices.fargate_disk_gb
    return max(60.0, seconds) / 3600 * hourly


def fixed_monthly(prices: PriceTable = PRICES) -> dict[str, float]:
    """Return US dollars by item that a stack without the GPU part costs a month, without free tiers."""
    return {
        "alarms": ALARM_METRICS * prices.alarm_metric,
        "dashboard": DASHBOARDS * prices.dashboard,
        "metrics, in months with jobs": CUSTOM_METRICS * prices.custom_metric,
        "image in ECR": IMAGES_GB * prices.ecr_gb,
    }
