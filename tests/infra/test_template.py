"""The template as AWS would read it: valid, lint-free after translation, and by our own rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from samtranslator.yaml_helper import yaml_parse

from structureflow.limits import MAX_FUNCTION_S

REPO = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())
TEXT = (REPO / "template.yaml").read_text()


def resources(kind: str) -> dict[str, dict[str, Any]]:
    return {name: body for name, body in TEMPLATE["Resources"].items() if body["Type"] == kind}


FUNCTIONS = resources("AWS::Serverless::Function")


def is_image(body: dict[str, Any]) -> bool:
    return bool(body.get("Properties", {}).get("PackageType") == "Image")


IMAGES = {name: body for name, body in FUNCTIONS.items() if is_image(body)}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0"}
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)


def test_sam_validate_with_lint() -> None:
    done = run(Path(sys.executable).with_name("sam"), "validate", "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_translated_template_has_no_lint_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sam validate` does not see what only the translation brings out, circular references for one."""
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    plain = json.loads(json.dumps(TEMPLATE, default=str))
    for name, body in plain["Resources"].items():
        if body["Type"] == "AWS::Serverless::StateMachine":
            body["Properties"]["DefinitionUri"] = {"Bucket": "artifacts", "Key": name}
        for field in ("CodeUri", "ContentUri"):
            if field in body.get("Properties", {}):
                body["Properties"][field] = f"s3://artifacts/{name}"
        if is_image(body):
            body["Properties"]["ImageUri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/media:1"
    translated = Translator({}, Parser()).translate(plain, {}, feature_toggle=None)
    path = tmp_path / "translated.json"
    path.write_text(json.dumps(translated))
    done = run(Path(sys.executable).with_name("cfn-lint"), "--non-zero-exit-code", "error", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_a_log_group_with_retention(name: str) -> None:
    groups = [
        body["Properties"]
        for body in resources("AWS::Logs::LogGroup").values()
        if body["Properties"]["LogGroupName"] == {"Fn::Sub": f"/aws/lambda/${{{name}}}"}
    ]
    (group,) = groups
    assert group["RetentionInDays"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_memory_and_timeout_are_said_and_justified(name: str) -> None:
    lines = TEXT.splitlines()
    start = lines.index(f"  {name}:")
    for field in ("MemorySize", "Timeout"):
        (found,) = [number for number in range(start, len(lines)) if lines[number].startswith(f"      {field}:")][:1]
        assert lines[found - 1].strip().startswith("#"), f"{name}.{field} has no reason above it"
    assert FUNCTIONS[name]["Properties"]["Timeout"] <= MAX_FUNCTION_S


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_follow_their_stem(name: str) -> None:
    properties = FUNCTIONS[name]["Properties"]
    if name in IMAGES:
        (command,) = properties["ImageConfig"]["Command"]
        stem = command.removesuffix(".app.handler")
    else:
        stem = properties["CodeUri"].removeprefix("functions/")
    assert (REPO / "functions" / stem / "app.py").is_file()
    assert name == "".join(part.title() for part in stem.split("_")) + "Function"
    assert sorted((REPO / "events" / stem).glob("*.json")), f"no golden event for {name}"


def test_one_image_for_every_function_that_touches_pixels() -> None:
    """Built once: SAM makes one image of functions whose build is the same to the letter."""
    assert set(IMAGES) == {
        "ExtractPartFunction",
        "JoinFlowsFunction",
        "OrchestratorFunction",
        "PreviewFunction",
        "RebuildTimelineFunction",
        "RenderSegmentFunction",
        "SettleGpuFunction",
    }
    for name, body in IMAGES.items():
        assert body["IgnoreGlobals"] == ["Runtime", "Handler"], name
        assert body["Metadata"] == {
            "Dockerfile": "functions/Dockerfile",
            "DockerContext": ".",
            "DockerTag": "media",
            "DockerBuildArgs": {"ARCHITECTURE": {"Ref": "Architecture"}},
        }, name
    copied = re.findall(r"^COPY functions/(\w+)/ /code/(\w+)/$", (REPO / "functions" / "Dockerfile").read_text(), re.M)
    commands = [body["Properties"]["ImageConfig"]["Command"] for body in IMAGES.values()]
    assert sorted([f"{target}.app.handler"] for _, target in copied) == sorted(commands)
    assert all(source == target for source, target in copied)


def test_every_other_function_has_the_core_and_the_light_layer_alone() -> None:
    for name in set(FUNCTIONS) - set(IMAGES):
        assert FUNCTIONS[name]["Properties"]["Layers"] == [{"Ref": "CoreLayer"}, {"Ref": "LightLayer"}], name
        assert "IgnoreGlobals" not in FUNCTIONS[name], name


def rules() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name}.{event}", body["Properties"])
        for name, resource in TEMPLATE["Resources"].items()
        for event, body in resource.get("Properties", {}).get("Events", {}).items()
        if body["Type"] == "EventBridgeRule"
    ]


@pytest.mark.parametrize(("name", "rule"), rules(), ids=[name for name, _ in rules()])
def test_rules_have_a_retry_policy_and_a_dead_letter_queue(name: str, rule: dict[str, Any]) -> None:
    assert rule["RetryPolicy"]["MaximumRetryAttempts"] >= 1
    assert rule["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": ["EventsDeadLetterQueue", "Arn"]}


@pytest.mark.parametrize(("name", "rule"), rules(), ids=[name for name, _ in rules()])
def test_object_patterns_are_one_wildcard(name: str, rule: dict[str, Any]) -> None:
    """A list of prefix and suffix would be an OR."""
    if rule["Pattern"]["source"] == ["aws.s3"]:
        (pattern,) = rule["Pattern"]["detail"]["object"]["key"]
        assert set(pattern) == {"wildcard"}


def statements() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, body in TEMPLATE["Resources"].items():
        for policy in body.get("Properties", {}).get("Policies", []):
            chosen = policy["Fn::If"][1] if "Fn::If" in policy else policy
            document = chosen.get("PolicyDocument", chosen)
            found += [(f"{name}.{statement['Sid']}", statement) for statement in document["Statement"]]
    return found


@pytest.mark.parametrize(("name", "statement"), statements(), ids=[name for name, _ in statements()])
def test_no_wildcard_without_a_reason(name: str, statement: dict[str, Any]) -> None:
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    assert not [action for action in actions if "*" in action]
    named = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
    whole_bucket = {"Fn::Sub": "${DataBucket.Arn}/*"} in named or any("Fn::Split" in str(one) for one in named)
    if "*" in named or whole_bucket:
        lines = TEXT.splitlines()
        owner, sid = name.split(".")
        start = lines.index(f"  {owner}:")
        (line,) = [n for n in range(start, len(lines)) if lines[n].strip() == f"- Sid: {sid}"][:1]
        assert lines[line + 1].strip().startswith("#"), f"{name}: a wildcard needs its reason in a comment"


def test_every_output_and_parameter_is_described() -> None:
    for section in ("Outputs", "Parameters"):
        for name, body in TEMPLATE[section].items():
            assert len(body.get("Description", "")) > 20, f"{section}.{name}"


def test_the_bucket_is_private_encrypted_owned_and_tls_only() -> None:
    bucket = TEMPLATE["Resources"]["DataBucket"]
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["Properties"]["BucketEncryption"]
    assert bucket["Properties"]["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    (statement,) = TEMPLATE["Resources"]["DataBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_environment_names_reach_sam_local() -> None:
    """`sam local` passes only what the template declares."""
    assert TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["AWS_ENDPOINT_URL_S3"] == ""


def test_yaml_is_plain() -> None:
    assert "\t" not in TEXT
    yaml.compose(TEXT)
