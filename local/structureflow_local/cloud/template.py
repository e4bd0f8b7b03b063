"""Typed views of a SAM template: what the local cloud runs.

`load_template` reads the same file that is deployed and says what there is: buckets, queues, functions, state
machines, rules, routes, ECS tasks. Every resource type is either run here or stands in the list of those that
do nothing while a job runs (policies, log groups, alarms …); every property of a resource that is run is
either honoured or stands in the list of those without effect here. All else is a `TemplateError` naming the
place: a local run must not pass by ignoring a part of the wiring.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from structureflow_local.cloud.dockerfile import copied_folders
from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.intrinsics import NO_VALUE, Resolver, load_yaml

#: Account that all ARNs of the local cloud carry (moto's own).
ACCOUNT_ID: Final = "123456789012"
REGION: Final = "us-east-1"
STACK_NAME: Final = "structureflow-local"

_T = TypeVar("_T")
_FUNCTION: Final = ("AWS::Serverless::Function",)
_STATE_MACHINE: Final = ("AWS::Serverless::StateMachine",)


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
class RouteSpec:
    """A route of an HTTP API to a function; `path` may hold ``{name}`` and ``{name+}``; `method` may be ``ANY``.

    `signed` tells whether callers must sign (``AWS_IAM``).
    """

    place: str
    method: str
    path: str
    signed: bool = False


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
    rules: tuple[RuleSpec, ...]
    outputs: Mapping[str, Any]
    physical_ids: Mapping[str, str] = field(default_factory=dict)


# --- what is known of each resource type -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """How resources of a type are named: `name_property`, ARN template, what ``Ref`` gives, further attributes.

    `arn` and `attributes` are formats over name, region, account.
    """

    name_property: str | None
    arn: str
    ref: str = "{name}"
    attributes: Mapping[str, str] = field(default_factory=dict)
    runs: bool = False
    lower_case: bool = False


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{{region}}:{{account}}:{rest}"


_STATE_MACHINE_KIND = _Kind("Name", _arn("states", "stateMachine:{name}"), "{arn}", {"Name": "{name}"}, runs=True)
_KINDS: Final[Mapping[str, _Kind]] = {
    # Run here.
    "AWS::Serverless::Function": _Kind("FunctionName", _arn("lambda", "function:{name}"), runs=True),
    "AWS::Serverless::StateMachine": _STATE_MACHINE_KIND,
    "AWS::Serverless::LayerVersion": _Kind("LayerName", _arn("lambda", "layer:{name}:1"), "{arn}", runs=True),
    "AWS::S3::Bucket": _Kind(
        "BucketName",
        "arn:aws:s3:::{name}",
        attributes={
            "DomainName": "{name}.s3.amazonaws.com",
            "RegionalDomainName": "{name}.s3.{region}.amazonaws.com",
        },
        runs=True,
        lower_case=True,
    ),
    "AWS::SQS::Queue": _Kind(
        "QueueName",
        _arn("sqs", "{name}"),
        "https://sqs.{region}.amazonaws.com/{account}/{name}",
        {"QueueName": "{name}", "QueueUrl": "https://sqs.{region}.amazonaws.com/{account}/{name}"},
        runs=True,
    ),
    "AWS::Events::Rule": _Kind("Name", _arn("events", "rule/{name}"), runs=True),
    "AWS::ECS::Cluster": _Kind("ClusterName", _arn("ecs", "cluster/{name}"), runs=True),
    "AWS::ECS::TaskDefinition": _Kind(
        "Family",
        _arn("ecs", "task-definition/{name}:1"),
        "{arn}",
        {"TaskDefinitionArn": _arn("ecs", "task-definition/{name}:1")},
        runs=True,
    ),
    "AWS::Serverless::HttpApi": _Kind(
        None,
        _arn("apigateway", "/apis/{name}"),
        attributes={"ApiEndpoint": "https://{name}.execute-api.{region}.amazonaws.com"},
        runs=True,
        lower_case=True,
    ),
    # Without effect on how a job runs here.
    "AWS::S3::BucketPolicy": _Kind(None, "arn:aws:s3:::{name}"),
    "AWS::SQS::QueuePolicy": _Kind(None, _arn("sqs", "{name}")),
    "AWS::SNS::TopicPolicy": _Kind(None, _arn("sns", "{name}")),
    "AWS::SNS::Topic": _Kind("TopicName", _arn("sns", "{name}"), "{arn}", {"TopicName": "{name}", "TopicArn": "{arn}"}),
    "AWS::SNS::Subscription": _Kind(None, _arn("sns", "{name}")),
    "AWS::Logs::LogGroup": _Kind("LogGroupName", _arn("logs", "log-group:{name}:*")),
    "AWS::Logs::MetricFilter": _Kind(None, _arn("logs", "{name}")),
    "AWS::Logs::ResourcePolicy": _Kind(None, _arn("logs", "{name}")),
    "AWS::Logs::QueryDefinition": _Kind(None, _arn("logs", "{name}")),
    "AWS::CloudWatch::Alarm": _Kind("AlarmName", _arn("cloudwatch", "alarm:{name}")),
    "AWS::CloudWatch::CompositeAlarm": _Kind("AlarmName", _arn("cloudwatch", "alarm:{name}")),
    "AWS::CloudWatch::Dashboard": _Kind("DashboardName", "arn:aws:cloudwatch::{account}:dashboard/{name}"),
    "AWS::IAM::Role": _Kind("RoleName", "arn:aws:iam::{account}:role/{name}"),
    "AWS::IAM::Policy": _Kind("PolicyName", "arn:aws:iam::{account}:policy/{name}"),
    "AWS::IAM::ManagedPolicy": _Kind("ManagedPolicyName", "arn:aws:iam::{account}:policy/{name}", "{arn}"),
    "AWS::IAM::InstanceProfile": _Kind("InstanceProfileName", "arn:aws:iam::{account}:instance-profile/{name}"),
    "AWS::Lambda::Permission": _Kind(None, _arn("lambda", "{name}")),
    "AWS::KMS::Key": _Kind(None, _arn("kms", "key/{name}"), attributes={"KeyId": "{name}"}),
    "AWS::KMS::Alias": _Kind("AliasName", _arn("kms", "{name}")),
    "AWS::ECS::CapacityProvider": _Kind("Name", _arn("ecs", "capacity-provider/{name}")),
    "AWS::ECS::ClusterCapacityProviderAssociations": _Kind(None, _arn("ecs", "{name}")),
    "AWS::AutoScaling::AutoScalingGroup": _Kind("AutoScalingGroupName", _arn("autoscaling", "autoScalingGroup:{name}")),
    "AWS::EC2::LaunchTemplate": _Kind(
        "LaunchTemplateName",
        _arn("ec2", "launch-template/{name}"),
        attributes={"LatestVersionNumber": "1", "DefaultVersionNumber": "1", "LaunchTemplateId": "lt-{name}"},
    ),
    "AWS::EC2::SecurityGroup": _Kind(None, _arn("ec2", "security-group/{name}"), attributes={"GroupId": "{name}"}),
    "AWS::EC2::VPC": _Kind(None, _arn("ec2", "vpc/{name}"), attributes={"VpcId": "{name}", "CidrBlock": "10.0.0.0/16"}),
    "AWS::EC2::Subnet": _Kind(None, _arn("ec2", "subnet/{name}"), attributes={"SubnetId": "{name}"}),
    "AWS::EC2::InternetGateway": _Kind(None, _arn("ec2", "igw/{name}"), attributes={"InternetGatewayId": "{name}"}),
    "AWS::EC2::VPCGatewayAttachment": _Kind(None, _arn("ec2", "{name}")),
    "AWS::EC2::RouteTable": _Kind(None, _arn("ec2", "rtb/{name}"), attributes={"RouteTableId": "{name}"}),
    "AWS::EC2::Route": _Kind(None, _arn("ec2", "{name}")),
    "AWS::EC2::SubnetRouteTableAssociation": _Kind(None, _arn("ec2", "{name}")),
    "AWS::EC2::VPCEndpoint": _Kind(None, _arn("ec2", "vpce/{name}")),
    "AWS::ECR::Repository": _Kind(
        "RepositoryName",
        _arn("ecr", "repository/{name}"),
        attributes={"RepositoryUri": "{account}.dkr.ecr.{region}.amazonaws.com/{name}"},
        lower_case=True,
    ),
}

_FUNCTION_PASSIVE: Final = frozenset(
    {
        "Architectures",
        "AssumeRolePolicyDocument",
        "AutoPublishAlias",
        "CodeSigningConfigArn",
        "Description",
        "FunctionName",
        "KmsKeyArn",
        "LoggingConfig",
        "PermissionsBoundary",
        "Policies",
        "PropagateTags",
        "RecursiveLoop",
        "Role",
        "RuntimeManagementConfig",
        "SnapStart",
        "Tags",
        "Tracing",
    }
)
_FUNCTION_ACTIVE: Final = frozenset(
    {
        "CodeUri",
        "DeadLetterQueue",
        "Environment",
        "EphemeralStorage",
        "EventInvokeConfig",
        "Events",
        "Handler",
        "ImageConfig",
        "Layers",
        "MemorySize",
        "PackageType",
        "ReservedConcurrentExecutions",
        "Runtime",
        "Timeout",
    }
)
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
_RULE_EVENT_ACTIVE: Final = frozenset(
    {"DeadLetterConfig", "Input", "InputPath", "Pattern", "RetryPolicy", "RuleName", "State"}
)
_RULE_EVENT_PASSIVE: Final = frozenset({"Target"})
_RULE_ACTIVE: Final = frozenset({"EventPattern", "Name", "State", "Targets"})
_RULE_PASSIVE: Final = frozenset({"Description", "Tags"})
_TARGET_ACTIVE: Final = frozenset({"Arn", "DeadLetterConfig", "Input", "InputPath", "RetryPolicy"})
_TARGET_PASSIVE: Final = frozenset({"Id", "RoleArn"})
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
_HTTP_API_PASSIVE: Final = frozenset(
    {
        "AccessLogSettings",
        "Auth",
        "CorsConfiguration",
        "DefaultRouteSettings",
        "Description",
        "Name",
        "RouteSettings",
        "StageName",
        "Tags",
    }
)
_GLOBALS_KNOWN: Final = frozenset({"Api", "Function", "HttpApi", "LayerVersion", "StateMachine"})
_RESOURCE_KEYS: Final = frozenset(
    {
        "Condition",
        "Connectors",
        "DeletionPolicy",
        "DependsOn",
        "IgnoreGlobals",
        "Metadata",
        "Properties",
        "Type",
        "UpdateReplacePolicy",
    }
)
_TOP_LEVEL: Final = frozenset(
    {
        "AWSTemplateFormatVersion",
        "Conditions",
        "Description",
        "Globals",
        "Mappings",
        "Metadata",
        "Outputs",
        "Parameters",
        "Resources",
        "Rules",
        "Transform",
    }
)


def load_template(
    path: Path,
    parameters: Mapping[str, str] | None = None,
    *,
    region: str = REGION,
    account_id: str = ACCOUNT_ID,
    stack_name: str = STACK_NAME,
) -> Template:
    """Read a SAM template and the files it names.

    Args:
        path: the template; relative paths in it start at its folder.
        parameters: values that replace the defaults of its parameters.

    Raises:
        TemplateError: anything that the local cloud would have to ignore or guess; the message names the place.
    """
    return _Reader(path.resolve(), parameters or {}, region, account_id, stack_name).read()


@dataclass(frozen=True, slots=True)
class _Code:
    """What a function runs, and where."""

    folder: Path
    handler: str
    runtime: str | None
    python_path: tuple[Path, ...]


class _Reader:
    """Reads one template; see `load_template`."""

    def __init__(
        self, path: Path, parameters: Mapping[str, str], region: str, account_id: str, stack_name: str
    ) -> None:
        self._path = path
        self._root = path.parent
        self._region = region
        self._account_id = account_id
        self._stack_name = stack_name
        document = load_yaml(path)
        _refuse_unknown(document, _TOP_LEVEL, "template")
        self._document = document
        self._globals = document.get("Globals") or {}
        _refuse_unknown(self._globals, _GLOBALS_KNOWN, "Globals")
        resources = document.get("Resources")
        if not isinstance(resources, dict) or not resources:
            raise TemplateError("Resources: expected at least one resource")
        self._declared: dict[str, Any] = resources
        self._resolver = Resolver(
            document,
            parameters,
            {
                "AWS::AccountId": account_id,
                "AWS::NotificationARNs": [],
                "AWS::Partition": "aws",
                "AWS::Region": region,
                "AWS::StackId": f"arn:aws:cloudformation:{region}:{account_id}:stack/{stack_name}/local",
                "AWS::StackName": stack_name,
                "AWS::URLSuffix": "amazonaws.com",
            },
            self._reference,
        )
        self._resources = self._active_resources()
        self._rules: list[RuleSpec] = []

    def read(self) -> Template:
        functions = self._each(_FUNCTION, self._function)
        state_machines = self._each(_STATE_MACHINE, self._state_machine)
        self._each(("AWS::Events::Rule",), self._rule_resource)
        self._each(
            ("AWS::Serverless::HttpApi",),
            lambda logical_id, resource: self._properties(logical_id, resource, _HTTP_API_PASSIVE, "HttpApi"),
        )
        outputs = {
            name: self._resolver.resolve(output["Value"], f"Outputs.{name}.Value")
            for name, output in (self._document.get("Outputs") or {}).items()
            if "Condition" not in output or self._resolver.condition(output["Condition"], f"Outputs.{name}")
        }
        template = Template(
            path=self._path,
            region=self._region,
            account_id=self._account_id,
            stack_name=self._stack_name,
            parameters=MappingProxyType(self._resolver.parameters),
            functions=functions,
            state_machines=state_machines,
            buckets=self._each(("AWS::S3::Bucket",), self._bucket),
            queues=self._each(("AWS::SQS::Queue",), self._queue),
            clusters=self._each(("AWS::ECS::Cluster",), self._cluster),
            task_definitions=self._each(("AWS::ECS::TaskDefinition",), self._task_definition),
            rules=tuple(self._rules),
            outputs=MappingProxyType(outputs),
            physical_ids=MappingProxyType(
                {logical_id: self._reference(logical_id, None, logical_id) for logical_id in self._resources}
            ),
        )
        _check_targets(template)
        return template

    def _each(self, kinds: Sequence[str], read: Callable[[str, dict[str, Any]], _T]) -> Mapping[str, _T]:
        return MappingProxyType(
            {
                logical_id: read(logical_id, resource)
                for logical_id, resource in self._resources.items()
                if resource["Type"] in kinds
            }
        )

    def _active_resources(self) -> dict[str, dict[str, Any]]:
        active = {}
        for logical_id, resource in self._declared.items():
            place = f"Resources.{logical_id}"
            if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
                raise TemplateError(f"{place}: expected a resource with a Type, got {resource!r:.80}")
            _refuse_unknown(resource, _RESOURCE_KEYS, place)
            if "Condition" in resource and not self._resolver.condition(resource["Condition"], place):
                continue
            if resource["Type"] not in _KINDS:
                raise TemplateError(f"{place}: the local cloud does not know the type {resource['Type']}")
            active[logical_id] = resource
        return active

    # --- references ----------------------------------------------------------------------------------

    def _reference(self, logical_id: str, attribute: str | None, place: str) -> Any:
        resource = self._declared.get(logical_id)
        if resource is None:
            return self._implicit_reference(logical_id, attribute, place)
        kind = _KINDS.get(str(resource.get("Type")))
        if kind is None:
            raise TemplateError(f"{place}: refers to {logical_id}, whose type {resource.get('Type')} is not known")
        return self._format(kind, self._name(logical_id, resource, kind), attribute, f"{place} -> {logical_id}")

    def _implicit_reference(self, logical_id: str, attribute: str | None, place: str) -> Any:
        owner = self._declared.get(logical_id.removesuffix("Role"))
        if owner is not None and logical_id.endswith("Role") and owner.get("Type") in (*_FUNCTION, *_STATE_MACHINE):
            return self._format(_KINDS["AWS::IAM::Role"], f"{self._stack_name}-{logical_id}", attribute, place)
        if logical_id == "ServerlessHttpApi":
            name = f"{self._stack_name}-{logical_id}".lower()
            return self._format(_KINDS["AWS::Serverless::HttpApi"], name, attribute, place)
        raise TemplateError(f"{place}: no parameter or resource {logical_id!r}")

    def _format(self, kind: _Kind, name: str, attribute: str | None, place: str) -> str:
        values = {"name": name, "region": self._region, "account": self._account_id}
        arn = kind.arn.format(**values)
        if attribute is None:
            return kind.ref.format(**values, arn=arn)
        if attribute == "Arn":
            return arn
        if attribute not in kind.attributes:
            raise TemplateError(f"{place}: the attribute {attribute} is not known")
        return kind.attributes[attribute].format(**values, arn=arn)

    def _name(self, logical_id: str, resource: Mapping[str, Any], kind: _Kind) -> str:
        if kind.name_property is not None:
            declared = (resource.get("Properties") or {}).get(kind.name_property)
            if declared is not None:
                place = f"Resources.{logical_id}.Properties.{kind.name_property}"
                name = self._resolver.resolve(declared, place)
                if name is not NO_VALUE:
                    return str(name)
        name = f"{self._stack_name}-{logical_id}"
        return name.lower() if kind.lower_case else name

    def _arn(self, logical_id: str) -> str:
        return str(self._reference(logical_id, "Arn", logical_id))

    def _own_name(self, logical_id: str, resource: Mapping[str, Any]) -> str:
        return self._name(logical_id, resource, _KINDS[resource["Type"]])

    def _properties(
        self, logical_id: str, resource: Mapping[str, Any], known: frozenset[str], section: str | None = None
    ) -> dict[str, Any]:
        """Merge the Globals `section` into the properties and resolve those in `known` that are not passive."""
        place = f"Resources.{logical_id}.Properties"
        properties = resource.get("Properties") or {}
        if section is not None:
            ignored = resource.get("IgnoreGlobals") or ()
            shared = {
                name: value
                for name, value in (self._globals.get(section) or {}).items()
                if ignored != "*" and name not in ignored
            }
            properties = _merge(shared, properties)
        _refuse_unknown(properties, known, place)
        return dict(properties)

    def _value(self, properties: Mapping[str, Any], name: str, place: str, default: Any = None) -> Any:
        if name not in properties:
            return default
        value = self._resolver.resolve(properties[name], f"{place}.{name}")
        return default if value is NO_VALUE else value

    # --- functions -----------------------------------------------------------------------------------

    def _function(self, logical_id: str, resource: dict[str, Any]) -> FunctionSpec:
        place = f"Resources.{logical_id}.Properties"
        properties = self._properties(logical_id, resource, _FUNCTION_ACTIVE | _FUNCTION_PASSIVE, "Function")
        code = self._image(resource, properties, place) or self._zip(properties, place)
        arn = self._arn(logical_id)
        routes = []
        for name, event in (properties.get("Events") or {}).items():
            where = f"{place}.Events.{name}"
            if event.get("Type") == "HttpApi":
                routes.append(self._route(event.get("Properties") or {}, f"{where}.Properties"))
            else:
                self._rules.extend(self._event(event, logical_id, name, arn, where))
        asynchronous = self._value(properties, "EventInvokeConfig", place, {})
        _refuse_unknown(
            asynchronous,
            frozenset({"DestinationConfig", "MaximumEventAgeInSeconds", "MaximumRetryAttempts"}),
            f"{place}.EventInvokeConfig",
        )
        destinations = asynchronous.get("DestinationConfig") or {}
        _refuse_unknown(destinations, frozenset({"OnFailure"}), f"{place}.EventInvokeConfig.DestinationConfig")
        dead_letters = self._value(properties, "DeadLetterQueue", place, {})
        memory_mb = _integer(self._value(properties, "MemorySize", place, 128), f"{place}.MemorySize", 128, 10_240)
        reserved = self._value(properties, "ReservedConcurrentExecutions", place)
        ephemeral = self._value(properties, "EphemeralStorage", place, {"Size": 512})
        return FunctionSpec(
            logical_id=logical_id,
            name=self._own_name(logical_id, resource),
            arn=arn,
            code_dir=code.folder,
            handler=code.handler,
            runtime=code.runtime,
            memory_mb=memory_mb,
            timeout_s=_integer(self._value(properties, "Timeout", place, 3), f"{place}.Timeout", 1, 900),
            ephemeral_mb=_integer(ephemeral.get("Size"), f"{place}.EphemeralStorage.Size", 512, 10_240),
            python_path=code.python_path,
            environment=self._environment(properties, place),
            reserved_concurrency=(
                None if reserved is None else _integer(reserved, f"{place}.ReservedConcurrentExecutions", 0, 1_000_000)
            ),
            max_retries=_integer(
                asynchronous.get("MaximumRetryAttempts", 2), f"{place}.EventInvokeConfig.MaximumRetryAttempts", 0, 2
            ),
            on_failure_arn=(destinations.get("OnFailure") or {}).get("Destination"),
            dead_letter_arn=dead_letters.get("TargetArn"),
            routes=tuple(routes),
        )

    def _zip(self, properties: Mapping[str, Any], place: str) -> _Code:
        if "ImageConfig" in properties:
            raise TemplateError(f"{place}.ImageConfig: expected PackageType Image with it")
        runtime = str(self._value(properties, "Runtime", place, ""))
        if not runtime.startswith("python3."):
            raise TemplateError(f"{place}.Runtime: expected python3.x, got {runtime!r}")
        return _Code(
            folder=self._folder(self._value(properties, "CodeUri", place), f"{place}.CodeUri"),
            handler=_handler(self._value(properties, "Handler", place), f"{place}.Handler"),
            runtime=runtime,
            python_path=self._python_path(properties, place),
        )

    def _image(self, resource: Mapping[str, Any], properties: Mapping[str, Any], place: str) -> _Code | None:
        """Return what an image function runs, by its command and by what its Dockerfile copies; None for a zip.

        No container is started: the process runs the same files, with the packages of this environment.
        """
        package_type = self._value(properties, "PackageType", place, "Zip")
        if package_type == "Zip":
            return None
        if package_type != "Image":
            raise TemplateError(f"{place}.PackageType: expected Zip or Image, got {package_type!r}")
        for name in ("CodeUri", "Handler", "Layers", "Runtime"):
            if name in properties:
                raise TemplateError(f"{place}.{name}: an image has none (IgnoreGlobals keeps one of Globals away)")
        config = self._value(properties, "ImageConfig", place, {})
        _refuse_unknown(config, frozenset({"Command"}), f"{place}.ImageConfig")
        command = config.get("Command")
        if not isinstance(command, list) or len(command) != 1:
            raise TemplateError(f"{place}.ImageConfig.Command: expected one handler, got {command!r:.80}")
        metadata = resource.get("Metadata") or {}
        where = f"{place.removesuffix('Properties')}Metadata"
        context = self._folder(metadata.get("DockerContext"), f"{where}.DockerContext")
        if not isinstance(metadata.get("Dockerfile"), str):
            raise TemplateError(f"{where}.Dockerfile: expected a file, got {metadata.get('Dockerfile')!r:.80}")
        handler = _handler(command[0], f"{place}.ImageConfig.Command")
        folders = copied_folders(context / metadata["Dockerfile"], context, f"{where}.Dockerfile")
        module = Path(*handler.split(".")[:-1]).with_suffix(".py")
        found = [folder for folder in folders if (folder / module).is_file()]
        if not found:
            raise TemplateError(f"{place}.ImageConfig.Command: the Dockerfile copies no {module}")
        return _Code(folder=found[0], handler=handler, runtime=None, python_path=tuple(folders))

    def _environment(self, properties: Mapping[str, Any], place: str) -> Mapping[str, str]:
        environment = self._value(properties, "Environment", place, {})
        _refuse_unknown(environment, frozenset({"Variables"}), f"{place}.Environment")
        variables = {}
        for name, value in (environment.get("Variables") or {}).items():
            if not isinstance(value, (str, int, float)):
                raise TemplateError(f"{place}.Environment.Variables.{name}: expected text, got {value!r:.80}")
            variables[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return MappingProxyType(variables)

    def _python_path(self, properties: Mapping[str, Any], place: str) -> tuple[Path, ...]:
        by_arn = {
            self._reference(logical_id, None, place): logical_id
            for logical_id, resource in self._resources.items()
            if resource["Type"] == "AWS::Serverless::LayerVersion"
        }
        folders = []
        for index, layer in enumerate(self._value(properties, "Layers", place, [])):
            where = f"{place}.Layers[{index}]"
            if layer not in by_arn:
                raise TemplateError(f"{where}: expected a layer of this template, got {layer!r:.120}")
            resource = self._resources[by_arn[layer]]
            content = (resource.get("Properties") or {}).get("ContentUri")
            folder = self._folder(self._resolver.resolve(content, where), f"Resources.{by_arn[layer]}.ContentUri")
            if (folder / "python").is_dir():
                folders.append(folder / "python")
            elif "BuildMethod" not in (resource.get("Metadata") or {}):
                raise TemplateError(f"Resources.{by_arn[layer]}: {folder} has no python folder and no BuildMethod")
        return tuple(folders)

    def _folder(self, value: Any, place: str) -> Path:
        if not isinstance(value, str):
            raise TemplateError(f"{place}: expected a local folder, got {value!r:.120}")
        folder = (self._root / value).resolve()
        if not folder.is_dir():
            raise TemplateError(f"{place}: no such folder: {folder}")
        return folder

    def _route(self, properties: Mapping[str, Any], place: str) -> RouteSpec:
        _refuse_unknown(
            properties,
            frozenset({"ApiId", "Auth", "Method", "Path", "PayloadFormatVersion", "TimeoutInMillis"}),
            place,
        )
        if str(properties.get("PayloadFormatVersion", "2.0")) != "2.0":
            raise TemplateError(f"{place}.PayloadFormatVersion: only 2.0 is understood")
        method = str(self._value(properties, "Method", place, "ANY")).upper()
        path = self._value(properties, "Path", place, "$default")
        return RouteSpec(
            place=place,
            method="ANY" if method == "X-AMAZON-APIGATEWAY-ANY-METHOD" else method,
            path=path,
            signed=self._authorizer(properties, place) == "AWS_IAM",
        )

    def _authorizer(self, properties: Mapping[str, Any], place: str) -> str:
        """Return who may call a route: its own authorizer, its API's, or that of the globals."""
        reference = properties.get("ApiId")
        api = self._declared.get(reference.get("Ref", "")) if isinstance(reference, dict) else None
        settings = ((self._document.get("Globals") or {}).get("HttpApi") or {}, (api or {}).get("Properties") or {})
        found = "NONE"
        for owner in settings:
            found = (owner.get("Auth") or {}).get("DefaultAuthorizer", found)
        found = (properties.get("Auth") or {}).get("Authorizer", found)
        if found not in {"NONE", "AWS_IAM"}:
            raise TemplateError(f"{place}: expected the authorizer AWS_IAM or NONE, got {found!r:.80}")
        return str(found)

    # --- state machines ------------------------------------------------------------------------------

    def _state_machine(self, logical_id: str, resource: dict[str, Any]) -> StateMachineSpec:
        place = f"Resources.{logical_id}.Properties"
        properties = self._properties(
            logical_id, resource, _STATE_MACHINE_ACTIVE | _STATE_MACHINE_PASSIVE, "StateMachine"
        )
        arn = self._arn(logical_id)
        for name, event in (properties.get("Events") or {}).items():
            self._rules.extend(self._event(event, logical_id, name, arn, f"{place}.Events.{name}"))
        definition_path = None
        if "DefinitionUri" in properties:
            uri = self._value(properties, "DefinitionUri", place)
            if not isinstance(uri, str):
                raise TemplateError(f"{place}.DefinitionUri: expected a local file, got {uri!r:.120}")
            definition_path = (self._root / uri).resolve()
            definition = self._definition_text(definition_path, f"{place}.DefinitionUri")
        elif "Definition" in properties:
            definition = json.dumps(self._value(properties, "Definition", place))
        else:
            raise TemplateError(f"{place}: expected DefinitionUri or Definition")
        substitutions = self._value(properties, "DefinitionSubstitutions", place, {})
        return StateMachineSpec(
            logical_id=logical_id,
            name=self._own_name(logical_id, resource),
            arn=arn,
            kind=str(self._value(properties, "Type", place, "STANDARD")),
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

    # --- rules ---------------------------------------------------------------------------------------

    def _event(self, event: Any, logical_id: str, name: str, target_arn: str, place: str) -> list[RuleSpec]:
        if isinstance(event, dict) and event.get("Type") == "Schedule":
            # Time does not pass here: who wants to see what a schedule does invokes its function.
            return []
        if not isinstance(event, dict) or event.get("Type") not in {"EventBridgeRule", "CloudWatchEvent"}:
            kind = event.get("Type") if isinstance(event, dict) else event
            raise TemplateError(f"{place}: the local cloud does not know the event type {kind!r}")
        properties = event.get("Properties") or {}
        place = f"{place}.Properties"
        _refuse_unknown(properties, _RULE_EVENT_ACTIVE | _RULE_EVENT_PASSIVE, place)
        if self._value(properties, "State", place, "ENABLED") != "ENABLED":
            return []
        rule_name = self._value(properties, "RuleName", place, f"{self._stack_name}-{logical_id}{name}")
        return [self._rule(properties, rule_name, properties.get("Pattern"), target_arn, f"{place}.Pattern", place)]

    def _rule_resource(self, logical_id: str, resource: dict[str, Any]) -> None:
        place = f"Resources.{logical_id}.Properties"
        properties = self._properties(logical_id, resource, _RULE_ACTIVE | _RULE_PASSIVE)
        if self._value(properties, "State", place, "ENABLED") != "ENABLED":
            return
        for index, target in enumerate(properties.get("Targets") or []):
            where = f"{place}.Targets[{index}]"
            _refuse_unknown(target, _TARGET_ACTIVE | _TARGET_PASSIVE, where)
            self._rules.append(
                self._rule(
                    target,
                    self._own_name(logical_id, resource),
                    properties.get("EventPattern"),
                    str(self._value(target, "Arn", where)),
                    f"{place}.EventPattern",
                    where,
                )
            )

    def _rule(
        self, properties: Mapping[str, Any], name: str, pattern: Any, target_arn: str, pattern_place: str, place: str
    ) -> RuleSpec:
        resolved = self._resolver.resolve(pattern, pattern_place)
        _check_pattern(resolved, pattern_place)
        retry = self._value(properties, "RetryPolicy", place, {})
        input_text = self._value(properties, "Input", place)
        if input_text is not None:
            try:
                json.loads(input_text)
            except (TypeError, ValueError) as error:
                raise TemplateError(f"{place}.Input: expected JSON text, got {input_text!r:.80}") from error
        input_path = self._value(properties, "InputPath", place)
        if input_path is not None and not re.fullmatch(r"\$(\.[A-Za-z0-9_-]+)*", str(input_path)):
            raise TemplateError(f"{place}.InputPath: only plain paths like $.detail are understood")
        return RuleSpec(
            place=place,
            name=name,
            pattern=resolved,
            target_arn=target_arn,
            input_text=input_text,
            input_path=input_path,
            max_attempts=_integer(
                retry.get("MaximumRetryAttempts", 185), f"{place}.RetryPolicy.MaximumRetryAttempts", 0, 185
            ),
            dead_letter_arn=self._value(properties, "DeadLetterConfig", place, {}).get("Arn"),
        )

    # --- storage, queues, tasks ----------------------------------------------------------------------

    def _bucket(self, logical_id: str, resource: dict[str, Any]) -> BucketSpec:
        place = f"Resources.{logical_id}.Properties"
        properties = self._properties(logical_id, resource, _BUCKET_ACTIVE | _BUCKET_PASSIVE)
        notification = self._value(properties, "NotificationConfiguration", place, {})
        where = f"{place}.NotificationConfiguration"
        _refuse_unknown(notification, frozenset({"EventBridgeConfiguration"}), where)
        event_bridge = notification.get("EventBridgeConfiguration")
        versioning = self._value(properties, "VersioningConfiguration", place, {})
        return BucketSpec(
            logical_id=logical_id,
            name=self._own_name(logical_id, resource),
            event_bridge=event_bridge is not None and _is_true(event_bridge.get("EventBridgeEnabled", True)),
            versioned=versioning.get("Status") == "Enabled",
        )

    def _queue(self, logical_id: str, resource: dict[str, Any]) -> QueueSpec:
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
        properties = self._properties(logical_id, resource, known | active)
        return QueueSpec(
            logical_id=logical_id,
            name=self._own_name(logical_id, resource),
            arn=self._arn(logical_id),
            attributes=MappingProxyType(
                {name: str(self._value(properties, name, place)) for name in sorted(active) if name in properties}
            ),
        )

    def _cluster(self, logical_id: str, resource: dict[str, Any]) -> ClusterSpec:
        return ClusterSpec(logical_id, self._own_name(logical_id, resource), self._arn(logical_id))

    def _task_definition(self, logical_id: str, resource: dict[str, Any]) -> TaskDefinitionSpec:
        properties = self._properties(logical_id, resource, _TASK_PASSIVE | {"ContainerDefinitions"})
        place = f"Resources.{logical_id}.Properties.ContainerDefinitions"
        containers = []
        for index, container in enumerate(properties.get("ContainerDefinitions") or []):
            where = f"{place}[{index}]"
            _refuse_unknown(container, _CONTAINER_ACTIVE | _CONTAINER_PASSIVE, where)
            environment = self._value(container, "Environment", where, [])
            containers.append(
                ContainerSpec(
                    name=str(self._value(container, "Name", where)),
                    image=str(self._value(container, "Image", where)),
                    command=tuple(map(str, self._value(container, "Command", where, []))),
                    environment=MappingProxyType({str(item["Name"]): str(item["Value"]) for item in environment}),
                    stop_timeout_s=_integer(self._value(container, "StopTimeout", where, 30), where, 0, 120),
                )
            )
        if len(containers) != 1:
            raise TemplateError(f"{place}: expected one container, got {len(containers)}")
        return TaskDefinitionSpec(
            logical_id=logical_id,
            family=self._own_name(logical_id, resource),
            arn=self._arn(logical_id),
            containers=tuple(containers),
        )


# --- helpers -----------------------------------------------------------------------------------------


def _check_targets(template: Template) -> None:
    arns = {
        *(function.arn for function in template.functions.values()),
        *(machine.arn for machine in template.state_machines.values()),
        *(queue.arn for queue in template.queues.values()),
    }
    for rule in template.rules:
        if rule.target_arn not in arns:
            raise TemplateError(f"{rule.place}: no function, state machine or queue has the ARN {rule.target_arn}")
        if rule.dead_letter_arn is not None and rule.dead_letter_arn not in arns:
            raise TemplateError(f"{rule.place}.DeadLetterConfig: no queue has the ARN {rule.dead_letter_arn}")
    for function in template.functions.values():
        for arn in (function.on_failure_arn, function.dead_letter_arn):
            if arn is not None and arn not in arns:
                raise TemplateError(f"Resources.{function.logical_id}: no failure destination has the ARN {arn}")


def _check_pattern(pattern: Any, place: str) -> None:
    if not isinstance(pattern, dict) or not pattern:
        raise TemplateError(f"{place}: expected an event pattern, got {pattern!r:.80}")
    for name, value in pattern.items():
        if isinstance(value, dict):
            _check_pattern(value, f"{place}.{name}")
        elif not isinstance(value, list) or not value:
            raise TemplateError(f"{place}.{name}: expected a list of values, got {value!r:.80}")


def _substitute(definition: str, substitutions: Mapping[str, Any], place: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name not in substitutions:
            raise TemplateError(f"{place}.DefinitionSubstitutions: nothing for ${{{name}}} of the definition")
        return json.dumps(str(substitutions[name]))[1:-1]

    return re.sub(r"\$\{([A-Za-z0-9_.-]+)\}", replace, definition)


def _merge(inherited: Any, own: Any) -> Any:
    """Merge Globals as SAM does: mappings by key, lists one after the other, anything else overrides."""
    if isinstance(inherited, dict) and isinstance(own, dict):
        merged = dict(inherited)
        for key, value in own.items():
            merged[key] = _merge(inherited[key], value) if key in inherited else value
        return merged
    if isinstance(inherited, list) and isinstance(own, list):
        return [*inherited, *own]
    return own


def _refuse_unknown(mapping: Any, known: frozenset[str], place: str) -> None:
    if not isinstance(mapping, Mapping):
        raise TemplateError(f"{place}: expected a mapping, got {mapping!r:.80}")
    for name in mapping:
        if name not in known:
            raise TemplateError(f"{place}.{name}: the local cloud does not understand this")


def _handler(value: Any, place: str) -> str:
    if not isinstance(value, str) or "." not in value:
        raise TemplateError(f"{place}: expected module.function, got {value!r:.80}")
    return value


def _integer(value: Any, place: str, low: int, high: int) -> int:
    try:
        number = int(str(value))
    except ValueError as error:
        raise TemplateError(f"{place}: expected a whole number, got {value!r:.80}") from error
    if not low <= number <= high:
        raise TemplateError(f"{place}: expected {low} to {high}, got {number}")
    return number


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() == "true"
