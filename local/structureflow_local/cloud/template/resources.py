"""The resources of a template: which are active, what they are called, and what their properties say.

What every reader of a kind of resource needs: `Resources` merges the Globals, resolves intrinsic functions, and
gives references the names and ARNs that the local cloud uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.intrinsics import NO_VALUE, Resolver, load_yaml
from structureflow_local.cloud.template.kinds import FUNCTION, KINDS, STATE_MACHINE, Kind
from structureflow_local.cloud.template.values import merge, refuse_unknown

_T = TypeVar("_T")
_GLOBALS_KNOWN: Final = frozenset({"Function", "LayerVersion", "StateMachine"})
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


class Resources:
    """One template with its parameters filled in.

    Args:
        path: the template, absolute; relative paths in it start at its folder.
        parameters: values that replace the defaults of its parameters.

    Raises:
        TemplateError: it has parts, resource types or conditions that are not known here.
    """

    def __init__(
        self, path: Path, parameters: Mapping[str, str], region: str, account_id: str, stack_name: str
    ) -> None:
        self.root = path.parent
        self.stack_name = stack_name
        self._region = region
        self._account_id = account_id
        document = load_yaml(path)
        refuse_unknown(document, _TOP_LEVEL, "template")
        self._document = document
        self._globals = document.get("Globals") or {}
        refuse_unknown(self._globals, _GLOBALS_KNOWN, "Globals")
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
            self.reference,
        )
        self._active = self._active_resources()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Values of the template's parameters."""
        return MappingProxyType(self._resolver.parameters)

    def outputs(self) -> Mapping[str, Any]:
        """Return the outputs whose condition holds, resolved."""
        return MappingProxyType(
            {
                name: self.resolve(output["Value"], f"Outputs.{name}.Value")
                for name, output in (self._document.get("Outputs") or {}).items()
                if "Condition" not in output or self._resolver.condition(output["Condition"], f"Outputs.{name}")
            }
        )

    def physical_ids(self) -> Mapping[str, str]:
        """Return what ``Ref`` gives of each active resource."""
        return MappingProxyType(
            {logical_id: self.reference(logical_id, None, logical_id) for logical_id in self._active}
        )

    def each(self, kind: str, read: Callable[[str, dict[str, Any]], _T]) -> Mapping[str, _T]:
        """Read every active resource of a type, by logical id."""
        return MappingProxyType(
            {
                logical_id: read(logical_id, resource)
                for logical_id, resource in self._active.items()
                if resource["Type"] == kind
            }
        )

    def _active_resources(self) -> dict[str, dict[str, Any]]:
        active = {}
        for logical_id, resource in self._declared.items():
            place = f"Resources.{logical_id}"
            if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
                raise TemplateError(f"{place}: expected a resource with a Type, got {resource!r:.80}")
            refuse_unknown(resource, _RESOURCE_KEYS, place)
            if "Condition" in resource and not self._resolver.condition(resource["Condition"], place):
                continue
            if resource["Type"] not in KINDS:
                raise TemplateError(f"{place}: the local cloud does not know the type {resource['Type']}")
            active[logical_id] = resource
        return active

    # --- references ----------------------------------------------------------------------------------

    def reference(self, logical_id: str, attribute: str | None, place: str) -> Any:
        """Return what ``Ref`` (`attribute` None) or ``GetAtt`` gives of a resource, also of those that SAM adds."""
        resource = self._declared.get(logical_id)
        if resource is None:
            return self._implicit_reference(logical_id, attribute, place)
        kind = KINDS.get(str(resource.get("Type")))
        if kind is None:
            raise TemplateError(f"{place}: refers to {logical_id}, whose type {resource.get('Type')} is not known")
        return self._format(kind, self._name(logical_id, resource, kind), attribute, f"{place} -> {logical_id}")

    def _implicit_reference(self, logical_id: str, attribute: str | None, place: str) -> Any:
        owner = self._declared.get(logical_id.removesuffix("Role"))
        if owner is not None and logical_id.endswith("Role") and owner.get("Type") in {FUNCTION, STATE_MACHINE}:
            return self._format(KINDS["AWS::IAM::Role"], f"{self.stack_name}-{logical_id}", attribute, place)
        raise TemplateError(f"{place}: no parameter or resource {logical_id!r}")

    def _format(self, kind: Kind, name: str, attribute: str | None, place: str) -> str:
        values = {"name": name, "region": self._region, "account": self._account_id}
        arn = kind.arn.format(**values)
        if attribute is None:
            return kind.ref.format(**values, arn=arn)
        if attribute == "Arn":
            return arn
        if attribute not in kind.attributes:
            raise TemplateError(f"{place}: the attribute {attribute} is not known")
        return kind.attributes[attribute].format(**values, arn=arn)

    def _name(self, logical_id: str, resource: Mapping[str, Any], kind: Kind) -> str:
        if kind.name_property is not None:
            declared = (resource.get("Properties") or {}).get(kind.name_property)
            if declared is not None:
                place = f"Resources.{logical_id}.Properties.{kind.name_property}"
                name = self._resolver.resolve(declared, place)
                if name is not NO_VALUE:
                    return str(name)
        name = f"{self.stack_name}-{logical_id}"
        return name.lower() if kind.lower_case else name

    def arn(self, logical_id: str) -> str:
        """Return the ARN of a resource."""
        return str(self.reference(logical_id, "Arn", logical_id))

    def own_name(self, logical_id: str, resource: Mapping[str, Any]) -> str:
        """Return the name that a resource declares, else one of stack and logical id."""
        return self._name(logical_id, resource, KINDS[resource["Type"]])

    def properties(
        self, logical_id: str, resource: Mapping[str, Any], known: frozenset[str], section: str | None = None
    ) -> dict[str, Any]:
        """Return the properties with the Globals `section` merged in, unresolved.

        Raises:
            TemplateError: one of them is not in `known`.
        """
        place = f"Resources.{logical_id}.Properties"
        properties = resource.get("Properties") or {}
        if section is not None:
            ignored = resource.get("IgnoreGlobals") or ()
            shared = {
                name: value
                for name, value in (self._globals.get(section) or {}).items()
                if ignored != "*" and name not in ignored
            }
            properties = merge(shared, properties)
        refuse_unknown(properties, known, place)
        return dict(properties)

    def value(self, properties: Mapping[str, Any], name: str, place: str, default: Any = None) -> Any:
        """Return one of the properties, resolved; `default` where it is absent or ``AWS::NoValue``."""
        if name not in properties:
            return default
        value = self._resolver.resolve(properties[name], f"{place}.{name}")
        return default if value is NO_VALUE else value

    def resolve(self, value: Any, place: str) -> Any:
        """Return a value with its intrinsic functions done; `place` names it in messages."""
        return self._resolver.resolve(value, place)

    def folder(self, value: Any, place: str) -> Path:
        """Return the absolute path of a folder that the template names."""
        if not isinstance(value, str):
            raise TemplateError(f"{place}: expected a local folder, got {value!r:.120}")
        folder = (self.root / value).resolve()
        if not folder.is_dir():
            raise TemplateError(f"{place}: no such folder: {folder}")
        return folder
