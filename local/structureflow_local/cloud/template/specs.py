"""What a template says that the local cloud runs: one frozen view per kind of resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """An EventBridge rule with one target.

    Attributes:
        place: where it stands in the template, for messages.
        name: of the rule.
        pattern: the event pattern, resolved.
        target_arn: a function, state machine or queue.
        input_text: constant JSON text sent instead of the event; None sends the event.
        input_path: JSONPath of the part of the event that is sent; None sends all.
        max_attempts: deliveries after the first that failed.
        dead_letter_arn: queue for events that could not be delivered.
    """

    place: str
    name: str
    pattern: Mapping[str, Any]
    target_arn: str
    input_text: str | None = None
    input_path: str | None = None
    max_attempts: int = 185
    dead_letter_arn: str | None = None


@dataclass(frozen=True, slots=True)
class TokensSpec:
    """Whose tokens (JWT) a route takes: those of an issuer that are for one of some audiences."""

    issuer: str
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CorsSpec:
    """Which pages of browsers may ask an HTTP API: by origins, methods, and headers both ways."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    max_age_s: int


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """A route of an HTTP API to a function; `path` may hold ``{name}`` and ``{name+}``; `method` may be ``ANY``.

    `signed` tells whether callers must sign (``AWS_IAM``), `tokens` whose tokens they must carry (``JWT``).
    """

    place: str
    method: str
    path: str
    signed: bool = False
    tokens: TokensSpec | None = None


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A Lambda function as the template declares it.

    Attributes:
        code_dir: absolute folder that is the function's working directory.
        handler: ``module.function``; of an image, its command.
        runtime: None for an image, which says itself what runs it.
        python_path: absolute folders of its layers, in order, or those that its image copies; packages that only a
            build installs come from the environment that runs the local cloud.
        environment: declared variables, resolved.
        reserved_concurrency: None when not declared.
        max_retries: of asynchronous invocations.
        on_failure_arn: destination of asynchronous invocations that failed for good.
        dead_letter_arn: the function's own dead-letter queue.
    """

    logical_id: str
    name: str
    arn: str
    code_dir: Path
    handler: str
    runtime: str | None
    memory_mb: int
    timeout_s: int
    ephemeral_mb: int
    python_path: tuple[Path, ...]
    environment: Mapping[str, str]
    reserved_concurrency: int | None = None
    max_retries: int = 2
    on_failure_arn: str | None = None
    dead_letter_arn: str | None = None
    routes: tuple[RouteSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class StateMachineSpec:
    """A state machine; `definition` is the text of its file with the substitutions done."""

    logical_id: str
    name: str
    arn: str
    kind: str
    definition: str
    definition_path: Path | None


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """A bucket; `event_bridge` tells whether its events go to EventBridge."""

    logical_id: str
    name: str
    event_bridge: bool
    versioned: bool


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """An SQS queue; `attributes` as `CreateQueue` takes them."""

    logical_id: str
    name: str
    arn: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventSourceSpec:
    """A queue that a function works off.

    Attributes:
        batch_size: messages a call.
        max_concurrency: calls at a time.
        reports_failures: whether the function says which messages of a batch failed.
    """

    logical_id: str
    queue_arn: str
    function_arn: str
    batch_size: int = 10
    max_concurrency: int = 1000
    reports_failures: bool = False


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """An ECS cluster."""

    logical_id: str
    name: str
    arn: str


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container of a task definition."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_timeout_s: int = 30


@dataclass(frozen=True, slots=True)
class TaskDefinitionSpec:
    """An ECS task definition; `arn` ends in its only revision, 1."""

    logical_id: str
    family: str
    arn: str
    containers: tuple[ContainerSpec, ...]


@dataclass(frozen=True, slots=True)
class JobQueueSpec:
    """A queue of Batch."""

    logical_id: str
    name: str
    arn: str


@dataclass(frozen=True, slots=True)
class ExitRule:
    """What becomes of an attempt that ended without success, as ``EvaluateOnExit`` says it; None fits everything."""

    action: str
    exit_code: str | None = None
    reason: str | None = None
    status_reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobDefinitionSpec:
    """A Batch job definition of one container; `arn` ends in its only revision, 1.

    Attributes:
        attempts: how often a job is begun at most.
        exit_rules: the first that fits decides; where none does, the job is tried again.
    """

    logical_id: str
    name: str
    arn: str
    container: ContainerSpec
    attempts: int = 1
    exit_rules: tuple[ExitRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """Everything of a template that the local cloud runs, by logical id where there is one."""

    path: Path
    region: str
    account_id: str
    stack_name: str
    parameters: Mapping[str, Any]
    functions: Mapping[str, FunctionSpec]
    state_machines: Mapping[str, StateMachineSpec]
    buckets: Mapping[str, BucketSpec]
    queues: Mapping[str, QueueSpec]
    clusters: Mapping[str, ClusterSpec]
    task_definitions: Mapping[str, TaskDefinitionSpec]
    job_queues: Mapping[str, JobQueueSpec]
    job_definitions: Mapping[str, JobDefinitionSpec]
    rules: tuple[RuleSpec, ...]
    event_sources: Mapping[str, EventSourceSpec]
    outputs: Mapping[str, Any]
    cors: CorsSpec | None = None
    physical_ids: Mapping[str, str] = field(default_factory=dict)
