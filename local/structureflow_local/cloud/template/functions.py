"""Functions of a template: what they run and with what, as zip files or as images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from structureflow_local.cloud.dockerfile import copied_folders
from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.cloud.template.rules import Rules
from structureflow_local.cloud.template.specs import FunctionSpec
from structureflow_local.cloud.template.values import integer, refuse_unknown

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


@dataclass(frozen=True, slots=True)
class _Code:
    """What a function runs, and where."""

    folder: Path
    handler: str
    runtime: str | None
    python_path: tuple[Path, ...]


class FunctionReader:
    """Reads functions; the rules among their events go to `rules`."""

    def __init__(self, resources: Resources, rules: Rules) -> None:
        self._stack = resources
        self._rules = rules

    def read(self, logical_id: str, resource: dict[str, Any]) -> FunctionSpec:
        """Read one function."""
        place = f"Resources.{logical_id}.Properties"
        properties = self._stack.properties(logical_id, resource, _FUNCTION_ACTIVE | _FUNCTION_PASSIVE, "Function")
        code = self._image(resource, properties, place) or self._zip(properties, place)
        arn = self._stack.arn(logical_id)
        for name, event in (properties.get("Events") or {}).items():
            self._rules.event(event, logical_id, name, arn, f"{place}.Events.{name}")
        asynchronous = self._stack.value(properties, "EventInvokeConfig", place, {})
        refuse_unknown(
            asynchronous,
            frozenset({"DestinationConfig", "MaximumEventAgeInSeconds", "MaximumRetryAttempts"}),
            f"{place}.EventInvokeConfig",
        )
        destinations = asynchronous.get("DestinationConfig") or {}
        refuse_unknown(destinations, frozenset({"OnFailure"}), f"{place}.EventInvokeConfig.DestinationConfig")
        dead_letters = self._stack.value(properties, "DeadLetterQueue", place, {})
        memory_mb = integer(self._stack.value(properties, "MemorySize", place, 128), f"{place}.MemorySize", 128, 10_240)
        reserved = self._stack.value(properties, "ReservedConcurrentExecutions", place)
        ephemeral = self._stack.value(properties, "EphemeralStorage", place, {"Size": 512})
        return FunctionSpec(
            logical_id=logical_id,
            name=self._stack.own_name(logical_id, resource),
            arn=arn,
            code_dir=code.folder,
            handler=code.handler,
            runtime=code.runtime,
            memory_mb=memory_mb,
            timeout_s=integer(self._stack.value(properties, "Timeout", place, 3), f"{place}.Timeout", 1, 900),
            ephemeral_mb=integer(ephemeral.get("Size"), f"{place}.EphemeralStorage.Size", 512, 10_240),
            python_path=code.python_path,
            environment=self._environment(properties, place),
            reserved_concurrency=(
                None if reserved is None else integer(reserved, f"{place}.ReservedConcurrentExecutions", 0, 1_000_000)
            ),
            max_retries=integer(
                asynchronous.get("MaximumRetryAttempts", 2), f"{place}.EventInvokeConfig.MaximumRetryAttempts", 0, 2
            ),
            on_failure_arn=(destinations.get("OnFailure") or {}).get("Destination"),
            dead_letter_arn=dead_letters.get("TargetArn"),
        )

    def _zip(self, properties: Mapping[str, Any], place: str) -> _Code:
        if "ImageConfig" in properties:
            raise TemplateError(f"{place}.ImageConfig: expected PackageType Image with it")
        runtime = str(self._stack.value(properties, "Runtime", place, ""))
        if not runtime.startswith("python3."):
            raise TemplateError(f"{place}.Runtime: expected python3.x, got {runtime!r}")
        return _Code(
            folder=self._stack.folder(self._stack.value(properties, "CodeUri", place), f"{place}.CodeUri"),
            handler=_handler(self._stack.value(properties, "Handler", place), f"{place}.Handler"),
            runtime=runtime,
            python_path=self._python_path(properties, place),
        )

    def _image(self, resource: Mapping[str, Any], properties: Mapping[str, Any], place: str) -> _Code | None:
        """Return what an image function runs, by its command and by what its Dockerfile copies; None for a zip.

        No container is started: the process runs the same files, with the packages of this environment.
        """
        package_type = self._stack.value(properties, "PackageType", place, "Zip")
        if package_type == "Zip":
            return None
        if package_type != "Image":
            raise TemplateError(f"{place}.PackageType: expected Zip or Image, got {package_type!r}")
        for name in ("CodeUri", "Handler", "Layers", "Runtime"):
            if name in properties:
                raise TemplateError(f"{place}.{name}: an image has none (IgnoreGlobals keeps one of Globals away)")
        config = self._stack.value(properties, "ImageConfig", place, {})
        refuse_unknown(config, frozenset({"Command"}), f"{place}.ImageConfig")
        command = config.get("Command")
        if not isinstance(command, list) or len(command) != 1:
            raise TemplateError(f"{place}.ImageConfig.Command: expected one handler, got {command!r:.80}")
        metadata = resource.get("Metadata") or {}
        where = f"{place.removesuffix('Properties')}Metadata"
        context = self._stack.folder(metadata.get("DockerContext"), f"{where}.DockerContext")
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
        environment = self._stack.value(properties, "Environment", place, {})
        refuse_unknown(environment, frozenset({"Variables"}), f"{place}.Environment")
        variables = {}
        for name, value in (environment.get("Variables") or {}).items():
            if not isinstance(value, (str, int, float)):
                raise TemplateError(f"{place}.Environment.Variables.{name}: expected text, got {value!r:.80}")
            variables[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return MappingProxyType(variables)

    def _python_path(self, properties: Mapping[str, Any], place: str) -> tuple[Path, ...]:
        layers = self._stack.each("AWS::Serverless::LayerVersion", lambda _, resource: resource)
        by_arn = {self._stack.reference(logical_id, None, place): logical_id for logical_id in layers}
        folders = []
        for index, layer in enumerate(self._stack.value(properties, "Layers", place, [])):
            where = f"{place}.Layers[{index}]"
            if layer not in by_arn:
                raise TemplateError(f"{where}: expected a layer of this template, got {layer!r:.120}")
            resource = layers[by_arn[layer]]
            content = (resource.get("Properties") or {}).get("ContentUri")
            folder = self._stack.folder(self._stack.resolve(content, where), f"Resources.{by_arn[layer]}.ContentUri")
            if (folder / "python").is_dir():
                folders.append(folder / "python")
            elif "BuildMethod" not in (resource.get("Metadata") or {}):
                raise TemplateError(f"Resources.{by_arn[layer]}: {folder} has no python folder and no BuildMethod")
        return tuple(folders)


def _handler(value: Any, place: str) -> str:
    if not isinstance(value, str) or "." not in value:
        raise TemplateError(f"{place}: expected module.function, got {value!r:.80}")
    return value
