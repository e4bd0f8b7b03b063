"""Queues and job definitions of AWS Batch in a template."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.cloud.template.specs import ContainerSpec, ExitRule, JobDefinitionSpec, JobQueueSpec
from structureflow_local.cloud.template.values import integer, refuse_unknown

_QUEUE_PASSIVE: Final = frozenset({"ComputeEnvironmentOrder", "JobQueueName", "Priority", "Tags"})
_DEFINITION_ACTIVE: Final = frozenset({"ContainerProperties", "RetryStrategy", "Type"})
_DEFINITION_PASSIVE: Final = frozenset({"JobDefinitionName", "PlatformCapabilities", "PropagateTags", "Tags"})
_CONTAINER_ACTIVE: Final = frozenset({"Command", "Environment", "Image"})
_CONTAINER_PASSIVE: Final = frozenset(
    {
        "EphemeralStorage",
        "ExecutionRoleArn",
        "FargatePlatformConfiguration",
        "JobRoleArn",
        "LogConfiguration",
        "NetworkConfiguration",
        "ReadonlyRootFilesystem",
        "ResourceRequirements",
        "RuntimePlatform",
    }
)


def job_queue(stack: Resources, logical_id: str, resource: dict[str, Any]) -> JobQueueSpec:
    """Read a queue; one that is off takes no jobs, which nobody wants to run here."""
    properties = stack.properties(logical_id, resource, _QUEUE_PASSIVE | {"State"})
    if stack.value(properties, "State", f"Resources.{logical_id}.Properties", "ENABLED") != "ENABLED":
        raise TemplateError(f"Resources.{logical_id}.Properties.State: expected ENABLED")
    return JobQueueSpec(logical_id, stack.own_name(logical_id, resource), stack.arn(logical_id))


def job_definition(stack: Resources, logical_id: str, resource: dict[str, Any]) -> JobDefinitionSpec:
    """Read a job definition of one container."""
    place = f"Resources.{logical_id}.Properties"
    properties = stack.properties(logical_id, resource, _DEFINITION_ACTIVE | _DEFINITION_PASSIVE)
    kind = stack.value(properties, "Type", place)
    if kind != "container":
        raise TemplateError(f"{place}.Type: expected container, got {kind!r}")
    where = f"{place}.ContainerProperties"
    container = properties.get("ContainerProperties") or {}
    refuse_unknown(container, _CONTAINER_ACTIVE | _CONTAINER_PASSIVE, where)
    strategy = stack.value(properties, "RetryStrategy", place, {})
    refuse_unknown(strategy, frozenset({"Attempts", "EvaluateOnExit"}), f"{place}.RetryStrategy")
    return JobDefinitionSpec(
        logical_id=logical_id,
        name=stack.own_name(logical_id, resource),
        arn=stack.arn(logical_id),
        container=ContainerSpec(
            name="default",
            image=str(stack.value(container, "Image", where)),
            command=tuple(map(str, stack.value(container, "Command", where, []))),
            environment=MappingProxyType(
                {str(one["Name"]): str(one["Value"]) for one in stack.value(container, "Environment", where, [])}
            ),
        ),
        attempts=integer(strategy.get("Attempts", 1), f"{place}.RetryStrategy.Attempts", 1, 10),
        exit_rules=tuple(
            _exit_rule(rule, f"{place}.RetryStrategy.EvaluateOnExit") for rule in strategy.get("EvaluateOnExit", ())
        ),
    )


def _exit_rule(rule: dict[str, Any], place: str) -> ExitRule:
    refuse_unknown(rule, frozenset({"Action", "OnExitCode", "OnReason", "OnStatusReason"}), place)
    if rule.get("Action") not in {"EXIT", "RETRY"}:
        raise TemplateError(f"{place}.Action: expected EXIT or RETRY, got {rule.get('Action')!r:.80}")
    return ExitRule(rule["Action"], rule.get("OnExitCode"), rule.get("OnReason"), rule.get("OnStatusReason"))
