"""CloudFormation's functions as the local cloud understands them."""

from __future__ import annotations

from typing import Any

import pytest

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.intrinsics import NO_VALUE, Resolver, parse_yaml

PSEUDO = {"AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012", "AWS::StackName": "stack"}


def reference(logical_id: str, attribute: str | None, place: str) -> str:
    """Resources of the imaginary stack: only Thing exists."""
    if logical_id != "Thing":
        raise TemplateError(f"{place}: no resource {logical_id}")
    return "thing-name" if attribute is None else f"thing-{attribute}"


def resolve(value_yaml: str, template_yaml: str = "", **parameters: str) -> Any:
    """Resolve one value in a template."""
    document = parse_yaml(f"Value: {value_yaml}\n{template_yaml}")
    return Resolver(document, parameters, PSEUDO, reference).resolve(document["Value"], "Value")


PARAMETERS = """
Parameters:
  Name: {Type: String, Default: frames}
  Count: {Type: Number, Default: 3, MinValue: 1, MaxValue: 9}
  Buckets: {Type: CommaDelimitedList, Default: "a, b,c"}
  Nobody: {Type: CommaDelimitedList, Default: ""}
Conditions:
  IsFrames: !Equals [!Ref Name, frames]
  IsThree: !Equals [!Ref Count, 3]
  Both: !And [!Condition IsFrames, !Condition IsThree]
  Neither: !Not [!Or [!Condition IsFrames, !Condition IsThree]]
Mappings:
  Sizes:
    small: {memory: 512}
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("!Ref Name", "frames"),
        ("!Ref Count", "3"),
        ("!Ref Buckets", ["a", "b", "c"]),
        ("!Ref Nobody", []),
        ("!Ref AWS::Region", "eu-central-1"),
        ("!Ref Thing", "thing-name"),
        ("{Ref: Thing}", "thing-name"),
        ("!GetAtt Thing.Arn", "thing-Arn"),
        ("!GetAtt [Thing, Arn]", "thing-Arn"),
        ("!GetAtt Thing.Outputs.Url", "thing-Outputs.Url"),
        ('!Sub "${Name}/${Thing}/${Thing.Arn}/${AWS::StackName}"', "frames/thing-name/thing-Arn/stack"),
        ('!Sub "${!Name}"', "${Name}"),
        ('!Sub ["${Name}-${Extra}", {Extra: !Ref Count}]', "frames-3"),
        ('!Join ["-", [a, !Ref Count, c]]', "a-3-c"),
        ('!Join [",", !Ref Buckets]', "a,b,c"),
        ('!Join [",", !Ref Nobody]', ""),
        ('!Split [".", "a.b"]', ["a", "b"]),
        ("!Select [1, !Ref Buckets]", "b"),
        ('!Select ["0", [x, y]]', "x"),
        ("!FindInMap [Sizes, small, memory]", 512),
        ("!If [IsFrames, yes-it-is, !Ref Missing]", "yes-it-is"),
        ("!If [Neither, 1, 2]", 2),
        ("!Base64 frames", "ZnJhbWVz"),
        ('!GetAZs ""', ["eu-central-1a", "eu-central-1b", "eu-central-1c"]),
        ("[1, !Ref AWS::NoValue, 2]", [1, 2]),
        ("{a: 1, b: !If [Both, !Ref AWS::NoValue, 2]}", {"a": 1}),
        ("2012-10-17", "2012-10-17"),
        ("{deep: [{er: !Ref Name}]}", {"deep": [{"er": "frames"}]}),
    ],
)
def test_a_function_means_what_cloudformation_says(value: str, expected: Any) -> None:
    assert resolve(value, PARAMETERS) == expected


def test_no_value_alone_is_told_apart_from_every_value() -> None:
    assert resolve("!Ref AWS::NoValue") is NO_VALUE


def test_an_override_replaces_the_default_everywhere() -> None:
    assert resolve('!Sub "${Name} ${Count}"', PARAMETERS, Name="flows", Count="7") == "flows 7"
    assert resolve("!If [IsFrames, 1, 2]", PARAMETERS, Name="flows") == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("!Ref Missing", r"Value \(Ref\): no resource Missing"),
        ("{a: [0, !Ref Missing]}", r"Value\.a\[1\]"),
        ('!Sub "${Missing}"', "no resource Missing"),
        ("!ImportValue x", "Fn::ImportValue is not understood"),
        ("!Transform {Name: 'AWS::Include'}", "Fn::Transform is not understood"),
        ("!If [Unknown, 1, 2]", "no condition 'Unknown'"),
        ("!Select [3, [a]]", "index into a list"),
        ("!FindInMap [Sizes, large, memory]", "Sizes.large.memory"),
        ("!Join [',', text]", "list to join"),
        ("!Join [',', [[1]]]", "expected text"),
        ("!Join [',']", "expected a list of 2"),
        ('"{{resolve:ssm:name}}"', "dynamic references"),
    ],
)
def test_what_is_not_understood_is_an_error_at_its_place(value: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        resolve(value, PARAMETERS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Nmae": "x"}, "Parameters.Nmae: no such parameter"),
        ({"Count": "ten"}, "expected a number"),
        ({"Count": "10"}, "MaxValue 9"),
        ({"Count": "0"}, "MinValue 1"),
    ],
)
def test_an_override_must_fit_its_declaration(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        resolve("1", PARAMETERS, **parameters)


def test_allowed_values_and_patterns_hold_for_defaults_and_overrides() -> None:
    declared = "Parameters: {Level: {Type: String, AllowedValues: [INFO, DEBUG], AllowedPattern: '[A-Z]+'}}"
    assert resolve("!Ref Level", declared, Level="DEBUG") == "DEBUG"
    with pytest.raises(TemplateError, match="one of"):
        resolve("!Ref Level", declared, Level="LOUD")
    with pytest.raises(TemplateError, match="no default"):
        resolve("!Ref Level", declared)


def test_conditions_in_a_circle_are_an_error() -> None:
    circle = "Conditions: {A: !Not [!Condition B], B: !Not [!Condition A]}"
    with pytest.raises(TemplateError, match="depends on itself"):
        resolve("!If [A, 1, 2]", circle)


def test_a_key_that_stands_twice_is_an_error_with_its_line() -> None:
    with pytest.raises(TemplateError, match="line 3: the key 'Timeout' stands twice"):
        parse_yaml("Handler: app.handler\nTimeout: 3\nTimeout: 30\n")


def test_yaml_merge_keys_are_refused_as_cloudformation_does() -> None:
    with pytest.raises(TemplateError, match="line 2: CloudFormation does not know"):
        parse_yaml("base: &base {a: 1, b: 2}\nmore: {<<: *base, c: 3}\n")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "a: [", ""])
def test_anything_but_a_mapping_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_yaml(text)
