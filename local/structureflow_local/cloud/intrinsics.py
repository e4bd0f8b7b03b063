"""CloudFormation's YAML and its intrinsic functions.

`load_yaml` reads a template with its short tags; `Resolver` gives values their meaning: parameters, pseudo
parameters, conditions, mappings and the references between resources. Values are resolved on demand, so a
resource that nothing here runs may use functions that are unknown here. A value that is asked for and not
understood is a `TemplateError` that names the place, as in ``Resources.DataBucket.BucketName``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from structureflow_local.cloud.errors import TemplateError

#: What ``AWS::NoValue`` resolves to; a mapping entry or list item with this value is left out.
NO_VALUE: Final = object()

_SUB = re.compile(r"\$\{(!?)([^{}]*)\}")
_DYNAMIC = "{{resolve:"
_SHORT_TAGS: Final = {"Ref": "Ref", "Condition": "Condition"}
_MAX_DEPTH: Final = 60


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as CloudFormation reads it: dates stay text, keys are unique, tags are functions."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise TemplateError(f"line {key_node.start_mark.line + 1}: CloudFormation does not know YAML's '<<'")
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise TemplateError(f"line {key_node.start_mark.line + 1}: expected a plain key, got {key!r:.80}")
        if key in mapping:
            raise TemplateError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice in one mapping")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


def _construct_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = _construct_mapping(loader, node)
    else:
        raise TemplateError(f"line {node.start_mark.line + 1}: !{suffix} on an unknown kind of node")
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {_SHORT_TAGS.get(suffix, f"Fn::{suffix}"): value}


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_multi_constructor("!", _construct_tag)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a template; short tags become their long form, ``!Ref X`` is ``{"Ref": "X"}``.

    Raises:
        TemplateError: no such file, no YAML, a key that stands twice, or not a mapping at the top.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path}: cannot read the template: {error}") from error
    except TemplateError as error:
        raise TemplateError(f"{path}: {error.message}") from error


def parse_yaml(text: str) -> dict[str, Any]:
    """Read a template from its text; otherwise as `load_yaml`."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise TemplateError(f"not YAML: {error}") from error
    if not isinstance(document, dict):
        raise TemplateError(f"expected a mapping, got {type(document).__name__}")
    return document


class Resolver:
    """Gives the values of one template their meaning.

    Args:
        document: what `load_yaml` returned.
        parameters: overrides by parameter name; numbers and lists as text.
        pseudo: values of the ``AWS::…`` parameters.
        reference: called with (logical id, attribute or None for ``Ref``, place) for names that are no
            parameter; returns the value or raises `TemplateError`.

    Raises:
        TemplateError: an override for a parameter that does not exist, a parameter without any value, or a
            value that its declaration does not allow.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        parameters: Mapping[str, str],
        pseudo: Mapping[str, Any],
        reference: Callable[[str, str | None, str], Any],
    ) -> None:
        self._pseudo = dict(pseudo)
        self._reference = reference
        self._conditions: Mapping[str, Any] = _section(document, "Conditions")
        self._mappings: Mapping[str, Any] = _section(document, "Mappings")
        self._condition_values: dict[str, bool | None] = {}
        self._depth = 0
        declared = _section(document, "Parameters")
        for name in parameters:
            if name not in declared:
                raise TemplateError(
                    f"Parameters.{name}: no such parameter; the template has {', '.join(declared) or 'none'}"
                )
        self.parameters: dict[str, Any] = {
            name: _parameter_value(name, declaration, parameters.get(name)) for name, declaration in declared.items()
        }

    def condition(self, name: str, place: str) -> bool:
        """Tell whether the condition `name` holds.

        Raises:
            TemplateError: no such condition, a circle of conditions, or one that is not understood.
        """
        if name not in self._conditions:
            raise TemplateError(f"{place}: no condition {name!r}")
        if name not in self._condition_values:
            self._condition_values[name] = None
            self._condition_values[name] = self._test(self._conditions[name], f"Conditions.{name}")
        value = self._condition_values[name]
        if value is None:
            raise TemplateError(f"{place}: condition {name!r} depends on itself")
        return value

    def resolve(self, value: Any, place: str) -> Any:
        """Return `value` with all functions in it replaced by what they mean; `NO_VALUE` when it is none.

        Raises:
            TemplateError: with the place of the first thing that is not understood.
        """
        if self._depth > _MAX_DEPTH:
            raise TemplateError(f"{place}: nested too deeply, or a resource refers to itself")
        self._depth += 1
        try:
            return self._resolve(value, place)
        finally:
            self._depth -= 1

    def _resolve(self, value: Any, place: str) -> Any:
        if isinstance(value, list):
            items = [self.resolve(item, f"{place}[{index}]") for index, item in enumerate(value)]
            return [item for item in items if item is not NO_VALUE]
        if isinstance(value, dict):
            function = _function_name(value)
            if function is not None:
                return self._call(function, value[function], place)
            entries = {key: self.resolve(item, f"{place}.{key}") for key, item in value.items()}
            return {key: item for key, item in entries.items() if item is not NO_VALUE}
        if isinstance(value, str) and _DYNAMIC in value:
            raise TemplateError(f"{place}: dynamic references are not understood: {value!r:.120}")
        return value

    def _call(self, function: str, argument: Any, place: str) -> Any:
        where = f"{place} ({function})"
        if function == "Ref":
            return self._ref(argument, where)
        if function == "Condition":
            return self.condition(_text(argument, where), where)
        if function in {"Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals"}:
            return self._test({function: argument}, where)
        method = _FUNCTIONS.get(function)
        if method is None:
            raise TemplateError(f"{place}: the function {function} is not understood")
        return method(self, argument, where)

    def _ref(self, argument: Any, where: str) -> Any:
        name = _text(argument, where)
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        return self._reference(name, None, where)

    def _test(self, value: Any, where: str) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, dict) and len(value) == 1:
            function, argument = next(iter(value.items()))
            if function == "Condition":
                return self.condition(_text(argument, where), where)
            if function == "Fn::Equals":
                left, right = self._arguments(argument, 2, where)
                return bool(_comparable(left) == _comparable(right))
            if function in {"Fn::And", "Fn::Or", "Fn::Not"} and isinstance(argument, list) and argument:
                results = [self._test(item, f"{where}[{index}]") for index, item in enumerate(argument)]
                if function == "Fn::Not" and len(results) == 1:
                    return not results[0]
                if function == "Fn::And":
                    return all(results)
                if function == "Fn::Or":
                    return any(results)
        raise TemplateError(f"{where}: expected a condition, got {value!r:.120}")

    def _arguments(self, argument: Any, count: int, where: str) -> list[Any]:
        if not isinstance(argument, list) or len(argument) != count:
            raise TemplateError(f"{where}: expected a list of {count}, got {argument!r:.120}")
        return [self.resolve(item, f"{where}[{index}]") for index, item in enumerate(argument)]

    def _get_att(self, argument: Any, where: str) -> Any:
        if isinstance(argument, str):
            argument = argument.split(".", 1)
        name, attribute = self._arguments(argument, 2, where)
        return self._reference(_text(name, where), _text(attribute, where), where)

    def _sub(self, argument: Any, where: str) -> str:
        local: dict[str, Any] = {}
        if isinstance(argument, list):
            if len(argument) != 2 or not isinstance(argument[1], dict):
                raise TemplateError(f"{where}: expected [text, mapping], got {argument!r:.120}")
            local = {name: self.resolve(item, f"{where}.{name}") for name, item in argument[1].items()}
            argument = argument[0]
        template = _text(argument, where)

        def replace(match: re.Match[str]) -> str:
            literal, name = match[1], match[2].strip()
            if literal:
                return "${" + name + "}"
            if name in local:
                value = local[name]
            elif "." in name:
                logical_id, attribute = name.split(".", 1)
                value = self._reference(logical_id, attribute, where)
            else:
                value = self._ref(name, where)
            return _text(value, f"{where} ${{{name}}}")

        return _SUB.sub(replace, template)

    def _if(self, argument: Any, where: str) -> Any:
        if not isinstance(argument, list) or len(argument) != 3:
            raise TemplateError(f"{where}: expected [condition, then, else], got {argument!r:.120}")
        return self.resolve(argument[1 if self.condition(_text(argument[0], where), where) else 2], where)

    def _join(self, argument: Any, where: str) -> str:
        delimiter, items = self._arguments(argument, 2, where)
        if not isinstance(items, list):
            raise TemplateError(f"{where}: expected a list to join, got {items!r:.120}")
        return _text(delimiter, where).join(_text(item, where) for item in items)

    def _split(self, argument: Any, where: str) -> list[str]:
        delimiter, text = self._arguments(argument, 2, where)
        return _text(text, where).split(_text(delimiter, where))

    def _select(self, argument: Any, where: str) -> Any:
        index, items = self._arguments(argument, 2, where)
        if not isinstance(items, list) or not str(index).isdigit() or int(index) >= len(items):
            raise TemplateError(f"{where}: expected an index into a list, got {index!r} and {items!r:.120}")
        return items[int(index)]

    def _find_in_map(self, argument: Any, where: str) -> Any:
        path = self._arguments(argument, 3, where)
        value: Any = self._mappings
        for step in path:
            if not isinstance(value, Mapping) or step not in value:
                raise TemplateError(f"{where}: no entry {'.'.join(map(str, path))} in Mappings")
            value = value[step]
        return value

    def _base64(self, argument: Any, where: str) -> str:
        return base64.b64encode(_text(self.resolve(argument, where), where).encode()).decode()

    def _get_azs(self, argument: Any, where: str) -> list[str]:
        region = _text(self.resolve(argument, where), where) or _text(self._pseudo["AWS::Region"], where)
        return [f"{region}{letter}" for letter in "abc"]


_FUNCTIONS: Final[dict[str, Callable[[Resolver, Any, str], Any]]] = {
    "Fn::GetAtt": Resolver._get_att,  # noqa: SLF001 - the table of the class's own methods
    "Fn::Sub": Resolver._sub,  # noqa: SLF001
    "Fn::If": Resolver._if,  # noqa: SLF001
    "Fn::Join": Resolver._join,  # noqa: SLF001
    "Fn::Split": Resolver._split,  # noqa: SLF001
    "Fn::Select": Resolver._select,  # noqa: SLF001
    "Fn::FindInMap": Resolver._find_in_map,  # noqa: SLF001
    "Fn::Base64": Resolver._base64,  # noqa: SLF001
    "Fn::GetAZs": Resolver._get_azs,  # noqa: SLF001
}


def _function_name(value: Mapping[Any, Any]) -> str | None:
    if len(value) != 1:
        return None
    key = next(iter(value))
    if key == "Ref" or (isinstance(key, str) and key.startswith("Fn::")):
        return str(key)
    if key == "Condition" and isinstance(value[key], str):
        return "Condition"
    return None


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = document.get(name) or {}
    if not isinstance(section, Mapping):
        raise TemplateError(f"{name}: expected a mapping, got {section!r:.80}")
    return section


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TemplateError(f"{where}: expected text, got {value!r:.120}")


def _comparable(value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return _text(value, "Fn::Equals")
    return value


def _parameter_value(name: str, declaration: Any, override: str | None) -> Any:
    place = f"Parameters.{name}"
    if not isinstance(declaration, Mapping):
        raise TemplateError(f"{place}: expected a mapping, got {declaration!r:.80}")
    kind = str(declaration.get("Type", "String"))
    if override is None and kind.startswith("AWS::SSM::"):
        raise TemplateError(f"{place}: its value lies in the Parameter Store; give one to the local cloud")
    value = declaration.get("Default") if override is None else override
    if value is None:
        raise TemplateError(f"{place}: no default and no value given")
    text = _text(value, place)
    items = [item.strip() for item in text.split(",")] if _is_list(kind) else [text]
    allowed = declaration.get("AllowedValues")
    for item in items:
        if allowed is not None and item not in [_text(choice, place) for choice in allowed]:
            raise TemplateError(f"{place}: expected one of {allowed}, got {item!r}")
        pattern = declaration.get("AllowedPattern")
        if pattern is not None and not re.fullmatch(str(pattern), item):
            raise TemplateError(f"{place}: expected text like {pattern}, got {item!r:.80}")
        if kind in {"Number", "List<Number>"}:
            _check_number(place, item, declaration)
    if _is_list(kind):
        return [item for item in items if item]
    return text


def _is_list(kind: str) -> bool:
    return kind == "CommaDelimitedList" or kind.startswith("List<")


def _check_number(place: str, text: str, declaration: Mapping[str, Any]) -> None:
    try:
        number = float(text)
    except ValueError as error:
        raise TemplateError(f"{place}: expected a number, got {text!r:.80}") from error
    for bound, fits in (("MinValue", float.__ge__), ("MaxValue", float.__le__)):
        if bound in declaration and not fits(number, float(declaration[bound])):
            raise TemplateError(f"{place}: expected {bound} {declaration[bound]}, got {text}")
