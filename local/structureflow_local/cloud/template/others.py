"""State machines, buckets, queues and ECS tasks of a template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.intrinsics import load_yaml
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.cloud.template.rules import Rules
from structureflow_local.cloud.template.specs import (
    BucketSpec,
    ClusterSpec,
    ContainerSpec,
    EventSourceSpec,
    QueueSpec,
    StateMachineSpec,
    TaskDefinitionSpec,
)
from structureflow_local.cloud.template.values import integer, is_true, refuse_unknown

_STATE_MACHINE_PASSIVE: Final = frozenset(
    {"Logging", "Name", "PermissionsBoundary", "Policies", "PropagateTags", "Role", "RolePath", "Tags", "Tracing"}
)
_STATE_MACHINE_ACTIVE: Final = frozenset({"Definition", "DefinitionSubstitutions", "DefinitionUri", "Events", "Type"})
_BUCKET_PASSIVE: Final = frozenset(
    {
        "AccessControl",
        "BucketEncryption",
        "BucketName",
        "CorsConfiguration",
        "LifecycleConfiguration",
        "LoggingConfiguration",
        "MetricsConfigurations",
        "OwnershipControls",
        "PublicAccessBlockConfiguration",
        "Tags",
    }
)
_BUCKET_ACTIVE: Final = frozenset({"NotificationConfiguration", "VersioningConfiguration"})
_TASK_PASSIVE: Final = frozenset(
    {
        "Cpu",
        "EphemeralStorage",
        "ExecutionRoleArn",
        "Family",
        "Memory",
        "NetworkMode",
        "PlacementConstraints",
        "RequiresCompatibilities",
        "RuntimePlatform",
        "Tags",
        "TaskRoleArn",
        "Volumes",
    }
)
_CONTAINER_ACTIVE: Final = frozenset({"Command", "Environment", "Image", "Name", "StopTimeout"})
_CONTAINER_PASSIVE: Final = frozenset(
    {
        "Cpu",
        "EntryPoint",
        "Essential",
        "LinuxParameters",
        "LogConfiguration",
        "Memory",
        "MemoryReservation",
        "MountPoints",
        "Privileged",
        "ReadonlyRootFilesystem",
        "ResourceRequirements",
        "Ulimits",
        "User",
    }
)


class OtherReader:
    """Reads what is no function; the rules among the events of state machines go to `rules`."""

    def __init__(self, resources: Resources, rules: Rules) -> None:
        self._stack = resources
        self._rules = rules

    def state_machine(self, logical_id: str, resource: dict[str, Any]) -> StateMachineSpec:
        """Read a state machine, its definition with the substitutions done."""
        place = f"Resources.{logical_id}.Properties"
        properties = self._stack.properties(
            logical_id, resource, _STATE_MACHINE_ACTIVE | _STATE_MACHINE_PASSIVE, "StateMachine"
        )
        arn = self._stack.arn(logical_id)
        for name, event in (properties.get("Events") or {}).items():
            self._rules.event(event, logical_id, name, arn, f"{place}.Events.{name}")
        definition_path = None
        if "DefinitionUri" in properties:
            uri = self._stack.value(properties, "DefinitionUri", place)
            if not isinstance(uri, str):
                raise TemplateError(f"{place}.DefinitionUri: expected a local file, got {uri!r:.120}")
            definition_path = (self._stack.root / uri).resolve()
            definition = self._definition_text(definition_path, f"{place}.DefinitionUri")
        elif "Definition" in properties:
            definition = json.dumps(self._stack.value(properties, "Definition", place))
        else:
            raise TemplateError(f"{place}: expected DefinitionUri or Definition")
        substitutions = self._stack.value(properties, "DefinitionSubstitutions", place, {})
        return StateMachineSpec(
            logical_id=logical_id,
            name=self._stack.own_name(logical_id, resource),
            arn=arn,
            kind=str(self._stack.value(properties, "Type", place, "STANDARD")),
            definition=_substitute(definition, substitutions, place),
            definition_path=definition_path,
        )

    @staticmethod
    def _definition_text(path: Path, place: str) -> str:
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix in {".yaml", ".yml"}:
                return json.dumps(load_yaml(path))
            json.loads(text)
        except (OSError, ValueError) as error:
            raise TemplateError(f"{place}: cannot read {path}: {error}") from error
        return text

    def bucket(self, logical_id: str, resource: dict[str, Any]) -> BucketSpec:
        """Read a bucket."""
        place = f"Resources.{logical_id}.Properties"
        properties = self._stack.properties(logical_id, resource, _BUCKET_ACTIVE | _BUCKET_PASSIVE)
        notification = self._stack.value(properties, "NotificationConfiguration", place, {})
        where = f"{place}.NotificationConfiguration"
        refuse_unknown(notification, frozenset({"EventBridgeConfiguration"}), where)
        event_bridge = notification.get("EventBridgeConfiguration")
        versioning = self._stack.value(properties, "VersioningConfiguration", place, {})
        return BucketSpec(
            logical_id=logical_id,
            name=self._stack.own_name(logical_id, resource),
            event_bridge=event_bridge is not None and is_true(event_bridge.get("EventBridgeEnabled", True)),
            versioned=versioning.get("Status") == "Enabled",
        )

    def queue(self, logical_id: str, resource: dict[str, Any]) -> QueueSpec:
        """Read a queue."""
        place = f"Resources.{logical_id}.Properties"
        known = frozenset(
            {"KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "QueueName", "SqsManagedSseEnabled", "Tags"}
        )
        active = {
            "DelaySeconds",
            "MaximumMessageSize",
            "MessageRetentionPeriod",
            "ReceiveMessageWaitTimeSeconds",
            "VisibilityTimeout",
        }
        properties = self._stack.properties(logical_id, resource, known | active | {"RedrivePolicy"})
        attributes = {
            name: str(self._stack.value(properties, name, place)) for name in sorted(active) if name in properties
        }
        redrive = self._stack.value(properties, "RedrivePolicy", place)
        if redrive is not None:
            refuse_unknown(redrive, frozenset({"deadLetterTargetArn", "maxReceiveCount"}), f"{place}.RedrivePolicy")
            count = integer(redrive.get("maxReceiveCount"), f"{place}.RedrivePolicy.maxReceiveCount", 1, 1000)
            policy = {"deadLetterTargetArn": redrive.get("deadLetterTargetArn"), "maxReceiveCount": count}
            attributes["RedrivePolicy"] = json.dumps(policy)
        return QueueSpec(
            logical_id=logical_id,
            name=self._stack.own_name(logical_id, resource),
            arn=self._stack.arn(logical_id),
            attributes=MappingProxyType(attributes),
        )

    def event_source(self, logical_id: str, resource: dict[str, Any]) -> EventSourceSpec:
        """Read a queue that a function works off."""
        place = f"Resources.{logical_id}.Properties"
        properties = self._stack.properties(
            logical_id,
            resource,
            frozenset({"BatchSize", "EventSourceArn", "FunctionName", "FunctionResponseTypes", "ScalingConfig"}),
        )
        scaling = self._stack.value(properties, "ScalingConfig", place, {})
        refuse_unknown(scaling, frozenset({"MaximumConcurrency"}), f"{place}.ScalingConfig")
        return EventSourceSpec(
            logical_id=logical_id,
            queue_arn=str(self._stack.value(properties, "EventSourceArn", place)),
            function_arn=str(self._stack.value(properties, "FunctionName", place)),
            batch_size=integer(self._stack.value(properties, "BatchSize", place, 10), f"{place}.BatchSize", 1, 10),
            max_concurrency=integer(
                scaling.get("MaximumConcurrency", 1000), f"{place}.ScalingConfig.MaximumConcurrency", 2, 1000
            ),
            reports_failures="ReportBatchItemFailures"
            in self._stack.value(properties, "FunctionResponseTypes", place, []),
        )

    def cluster(self, logical_id: str, resource: dict[str, Any]) -> ClusterSpec:
        """Read an ECS cluster."""
        return ClusterSpec(logical_id, self._stack.own_name(logical_id, resource), self._stack.arn(logical_id))

    def task_definition(self, logical_id: str, resource: dict[str, Any]) -> TaskDefinitionSpec:
        """Read an ECS task definition of one container."""
        properties = self._stack.properties(logical_id, resource, _TASK_PASSIVE | {"ContainerDefinitions"})
        place = f"Resources.{logical_id}.Properties.ContainerDefinitions"
        containers = []
        for index, container in enumerate(properties.get("ContainerDefinitions") or []):
            where = f"{place}[{index}]"
            refuse_unknown(container, _CONTAINER_ACTIVE | _CONTAINER_PASSIVE, where)
            environment = self._stack.value(container, "Environment", where, [])
            containers.append(
                ContainerSpec(
                    name=str(self._stack.value(container, "Name", where)),
                    image=str(self._stack.value(container, "Image", where)),
                    command=tuple(map(str, self._stack.value(container, "Command", where, []))),
                    environment=MappingProxyType({str(item["Name"]): str(item["Value"]) for item in environment}),
                    stop_timeout_s=integer(self._stack.value(container, "StopTimeout", where, 30), where, 0, 120),
                )
            )
        if len(containers) != 1:
            raise TemplateError(f"{place}: expected one container, got {len(containers)}")
        return TaskDefinitionSpec(
            logical_id=logical_id,
            family=self._stack.own_name(logical_id, resource),
            arn=self._stack.arn(logical_id),
            containers=tuple(containers),
        )


def _substitute(definition: str, substitutions: Mapping[str, Any], place: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name not in substitutions:
            raise TemplateError(f"{place}.DefinitionSubstitutions: nothing for ${{{name}}} of the definition")
        return json.dumps(str(substitutions[name]))[1:-1]

    return re.sub(r"\$\{([A-Za-z0-9_.-]+)\}", replace, definition)
