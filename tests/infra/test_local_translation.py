"""The local cloud reads a template as SAM translates it: another author's reading of the same file.

What SAM makes of a template is what CloudFormation deploys, so a function, rule or route that the local cloud sees
otherwise would pass here and fail there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from structureflow_local.batch import batch_part
from structureflow_local.cloud.template import REGION, STACK_NAME, Template, load_template
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.gpu import _PARAMETERS as GPU

REPO = Path(__file__).resolve().parents[2]
TEMPLATES: Mapping[str, tuple[Path, Mapping[str, str]]] = {
    "deployed": (REPO / "template.yaml", {}),
    "deployed with the GPU part": (REPO / "template.yaml", GPU),
    "deployed with the Batch part": (REPO / "template.yaml", batch_part()["parameters"]),
    "of the local cloud's own tests": (REPO / "tests" / "fixtures" / "local" / "template.yaml", {}),
}
#: What neither of them has: defaults, layers of Globals and of a function, a rule that is off.
SPARSE: Mapping[str, Any] = {
    "Transform": "AWS::Serverless-2016-10-31",
    "Globals": {
        "Function": {
            "Runtime": "python3.13",
            "Handler": "app.handler",
            "Layers": [{"Ref": "First"}],
            "Environment": {"Variables": {"A": "globals", "B": "globals"}},
            "EphemeralStorage": {"Size": 1024},
        }
    },
    "Resources": {
        "First": {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "first"}},
        "Second": {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "second"}},
        "Plain": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "CodeUri": "code",
                "Layers": [{"Ref": "Second"}],
                "Environment": {"Variables": {"B": "own", "C": 5}},
                "Events": {
                    "Seen": {"Type": "EventBridgeRule", "Properties": {"Pattern": {"source": ["x"]}}},
                    "Constant": {
                        "Type": "EventBridgeRule",
                        "Properties": {"Pattern": {"source": ["y"]}, "Input": "{}"},
                    },
                    "Off": {
                        "Type": "EventBridgeRule",
                        "Properties": {"Pattern": {"source": ["z"]}, "State": "DISABLED"},
                    },
                },
            },
        },
        "Ignoring": {
            "Type": "AWS::Serverless::Function",
            "IgnoreGlobals": ["Environment", "Layers"],
            "Properties": {"CodeUri": "code", "Timeout": 7, "EventInvokeConfig": {"MaximumRetryAttempts": 0}},
        },
    },
}


def sparse_template(folder: Path) -> Path:
    for name in ("first/python", "second/python", "code"):
        (folder / name).mkdir(parents=True)
    path = folder / "template.yaml"
    path.write_text(json.dumps(SPARSE))
    return path


class Translated:
    """SAM's translation of a template, with its intrinsic functions done; resources whose condition holds."""

    def __init__(self, path: Path, parameters: Mapping[str, str], account_id: str) -> None:
        document = json.loads(json.dumps(yaml_parse(path.read_text()), default=str))
        self._own = set(document["Resources"])
        self._resources = Resources(path, parameters, REGION, account_id, STACK_NAME)
        for name, body in document["Resources"].items():
            properties = body.setdefault("Properties", {})
            if body["Type"] == "AWS::Serverless::StateMachine" and "DefinitionUri" in properties:
                properties["DefinitionUri"] = {"Bucket": "artifacts", "Key": name}
            for field in ("CodeUri", "ContentUri"):
                if field in properties:
                    properties[field] = f"s3://artifacts/{name}"
            if properties.get("PackageType") == "Image":
                properties["ImageUri"] = f"{account_id}.dkr.ecr.{REGION}.amazonaws.com/media:1"
        translated = Translator({}, Parser()).translate(document, {}, feature_toggle=None)
        self._bodies: dict[str, dict[str, Any]] = translated["Resources"]

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        return {
            name: self._resolved(body.get("Properties", {}), name)
            for name, body in self._bodies.items()
            if body["Type"] == kind and self._holds(body.get("Condition"))
        }

    def _holds(self, condition: str | None) -> bool:
        return condition is None or bool(self._resources.resolve({"Fn::If": [condition, "yes", ""]}, "condition"))

    def _resolved(self, value: Any, place: str) -> Any:
        """Resolve what can be; SAM's own resources keep a reference by name."""
        if isinstance(value, dict):
            if set(value) == {"Ref"} and value["Ref"] not in self._own and self._is_ours(value["Ref"]):
                return {"Ref": value["Ref"]}
            if len(value) == 1 and (next(iter(value)) == "Ref" or next(iter(value)).startswith("Fn::")):
                target = value.get("Fn::GetAtt", [""])[0]
                if target and target not in self._own:
                    return value
                return self._resources.resolve(value, place)
            return {name: self._resolved(item, place) for name, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item, place) for item in value]
        return value

    def _is_ours(self, name: str) -> bool:
        return name in self._bodies


@pytest.fixture(scope="module", params=[*TEMPLATES, "sparse"], ids=lambda name: name.replace(" ", "-"))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Template, Translated]:
    monkey = pytest.MonkeyPatch()
    monkey.setenv("AWS_DEFAULT_REGION", REGION)
    if request.param == "sparse":
        path = sparse_template(tmp_path_factory.mktemp("sparse"))
        parameters: Mapping[str, str] = {}
    else:
        path, parameters = TEMPLATES[request.param]
    try:
        ours = load_template(path, parameters)
        return ours, Translated(path, parameters, ours.account_id)
    finally:
        monkey.undo()


def plain(value: Any) -> Any:
    """CloudFormation takes numbers as text."""
    return {name: str(item) for name, item in value.items()}


def test_the_same_functions_with_the_same_settings(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    theirs = translated.of_type("AWS::Lambda::Function")
    assert set(theirs) == set(ours.functions)
    for name, spec in ours.functions.items():
        body = theirs[name]
        assert spec.memory_mb == int(body.get("MemorySize", 128)), name
        assert spec.timeout_s == int(body.get("Timeout", 3)), name
        assert spec.ephemeral_mb == int(body.get("EphemeralStorage", {"Size": 512})["Size"]), name
        assert spec.runtime == body.get("Runtime"), name
        assert spec.handler == (body["ImageConfig"]["Command"][0] if "ImageConfig" in body else body["Handler"]), name
        environment = plain(body.get("Environment", {}).get("Variables", {}))
        assert dict(spec.environment) == environment, name
        reserved = body.get("ReservedConcurrentExecutions")
        assert spec.reserved_concurrency == (None if reserved in (None, {}) else int(reserved)), name
        assert spec.dead_letter_arn == body.get("DeadLetterConfig", {}).get("TargetArn"), name


def test_the_same_layers_in_the_same_order(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    layers = translated.of_type("AWS::Lambda::LayerVersion")
    for name, body in translated.of_type("AWS::Lambda::Function").items():
        folders = [layers[layer["Ref"]]["Content"]["S3Key"] for layer in body.get("Layers", [])]
        if "ImageConfig" in body:
            assert folders == []
            continue
        # a layer that only a build fills has no folder here
        found = [_layer_of(ours.path, folder) for folder in ours.functions[name].python_path]
        assert found == [layer for layer in folders if layer in found]


def _layer_of(path: Path, folder: Path) -> str:
    """Return the logical id of the layer whose content a folder is."""
    resources = yaml_parse(path.read_text())["Resources"]
    (found,) = (
        name
        for name, body in resources.items()
        if body["Type"] == "AWS::Serverless::LayerVersion"
        and (path.parent / body["Properties"]["ContentUri"]).resolve() == folder.parent
    )
    return str(found)


def test_the_same_retries_and_destinations_of_asynchronous_calls(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    theirs = {}
    for body in translated.of_type("AWS::Lambda::EventInvokeConfig").values():
        destination = body.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        theirs[body["FunctionName"]] = (int(body.get("MaximumRetryAttempts", 2)), destination)
    for spec in ours.functions.values():
        assert (spec.max_retries, spec.on_failure_arn) == theirs.get(spec.name, (2, None)), spec.logical_id


def test_the_same_rules_with_the_same_targets(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    theirs = []
    for name, body in translated.of_type("AWS::Events::Rule").items():
        # time does not pass in the local cloud
        if "ScheduleExpression" in body or body.get("State", "ENABLED") != "ENABLED":
            continue
        theirs += [
            {
                "pattern": body["EventPattern"],
                "target": target["Arn"],
                "dead letters": target.get("DeadLetterConfig", {}).get("Arn"),
                "attempts": int(target.get("RetryPolicy", {}).get("MaximumRetryAttempts", 185)),
                "input": target.get("Input"),
                "input path": target.get("InputPath"),
                "rule": name,
            }
            for target in body["Targets"]
        ]
    mine = [
        {
            "pattern": rule.pattern,
            "target": rule.target_arn,
            "dead letters": rule.dead_letter_arn,
            "attempts": rule.max_attempts,
            "input": rule.input_text,
            "input path": rule.input_path,
            "rule": rule.name.removeprefix(f"{STACK_NAME}-"),
        }
        for rule in ours.rules
    ]
    by_rule: Callable[[dict[str, Any]], str] = lambda rule: json.dumps(rule, sort_keys=True, default=str)  # noqa: E731
    assert sorted(mine, key=by_rule) == sorted(theirs, key=by_rule)


def test_the_same_state_machines_with_the_same_substitutions(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    theirs = translated.of_type("AWS::StepFunctions::StateMachine")
    assert set(theirs) == set(ours.state_machines)
    for name, spec in ours.state_machines.items():
        body = theirs[name]
        assert spec.kind == body.get("StateMachineType", "STANDARD")
        assert spec.definition_path is not None
        text = spec.definition_path.read_text()
        wanted = set(re.findall(r"\$\{(\w+)\}", text))
        assert wanted <= set(body["DefinitionSubstitutions"])
        for variable in wanted:
            text = text.replace(f"${{{variable}}}", str(body["DefinitionSubstitutions"][variable]))
        assert json.loads(spec.definition) == json.loads(text)


def test_the_same_functions_work_off_the_same_queues(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    theirs = translated.of_type("AWS::Lambda::EventSourceMapping")
    assert set(theirs) == set(ours.event_sources)
    for name, source in ours.event_sources.items():
        body = theirs[name]
        assert (source.queue_arn, source.function_arn) == (body["EventSourceArn"], body["FunctionName"])
        assert (source.batch_size, source.max_concurrency) == (
            body["BatchSize"],
            int(body["ScalingConfig"]["MaximumConcurrency"]),
        )


def test_the_same_buckets_queues_and_tasks(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    buckets = translated.of_type("AWS::S3::Bucket")
    assert set(buckets) == set(ours.buckets)
    for name, bucket in ours.buckets.items():
        notified = "EventBridgeConfiguration" in buckets[name].get("NotificationConfiguration", {})
        versioned = buckets[name].get("VersioningConfiguration", {}).get("Status") == "Enabled"
        assert (bucket.event_bridge, bucket.versioned) == (notified, versioned)
    queues = translated.of_type("AWS::SQS::Queue")
    assert set(queues) == set(ours.queues)
    for name, queue in ours.queues.items():
        declared = {key: queues[name][key] for key in queue.attributes}
        assert {**queue.attributes} == {
            key: json.dumps(value) if isinstance(value, dict) else str(value) for key, value in declared.items()
        }
        assert ("RedrivePolicy" in declared) == ("RedrivePolicy" in queues[name])
    tasks = translated.of_type("AWS::ECS::TaskDefinition")
    assert set(tasks) == set(ours.task_definitions)
    for name, task in ours.task_definitions.items():
        (container,) = tasks[name]["ContainerDefinitions"]
        declared = {item["Name"]: str(item["Value"]) for item in container.get("Environment", [])}
        assert dict(task.containers[0].environment) == declared
        assert task.containers[0].image == container["Image"]


def test_the_same_batch_jobs(both: tuple[Template, Translated]) -> None:
    ours, translated = both
    assert set(translated.of_type("AWS::Batch::JobQueue")) == set(ours.job_queues)
    jobs = translated.of_type("AWS::Batch::JobDefinition")
    assert set(jobs) == set(ours.job_definitions)
    for name, job in ours.job_definitions.items():
        container, strategy = jobs[name]["ContainerProperties"], jobs[name]["RetryStrategy"]
        declared = {item["Name"]: str(item["Value"]) for item in container.get("Environment", [])}
        assert dict(job.container.environment) == declared
        assert job.container.image == container["Image"]
        assert job.attempts == strategy["Attempts"]
        assert [(rule.action, rule.exit_code, rule.reason) for rule in job.exit_rules] == [
            (rule["Action"], rule.get("OnExitCode"), rule.get("OnReason")) for rule in strategy["EvaluateOnExit"]
        ]
