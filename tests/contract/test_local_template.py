"""The template reader: typed views of what is there, and an error for everything it would have to ignore."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.intrinsics import load_yaml
from structureflow_local.cloud.template import Template, load_template

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(FIXTURE / "template.yaml")


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Edit], Path]:
    """Return a maker of changed copies of the fixture stack."""

    def make(edit: Edit) -> Path:
        folder = tmp_path / "stack"
        shutil.copytree(FIXTURE, folder)
        document = load_yaml(folder / "template.yaml")
        edit(document)
        (folder / "template.yaml").write_text(yaml.safe_dump(document))
        return folder / "template.yaml"

    return make


def test_a_function_has_the_globals_merged_and_everything_resolved(template: Template) -> None:
    echo = template.functions["EchoFunction"]
    assert (echo.memory_mb, echo.timeout_s, echo.reserved_concurrency) == (300, 1, 2)
    assert (echo.handler, echo.runtime) == ("app.handler", "python3.13")
    assert echo.code_dir == FIXTURE / "functions" / "echo"
    assert echo.python_path == (FIXTURE / "layers" / "core" / "python",)
    assert echo.environment == {
        "DATA_BUCKET": "structureflow-local-databucket",
        "AWS_ENDPOINT_URL_S3": "",
        "GREETING": "hello from structureflow-local",
        "STATE_MACHINE_ARN": template.state_machines["StepsStateMachine"].arn,
    }
    step = template.functions["StepFunction"]
    assert (step.memory_mb, step.timeout_s, step.reserved_concurrency) == (256, 60, None)


def test_the_failure_destinations_of_a_function_are_known(template: Template) -> None:
    entry = template.functions["EntryFunction"]
    assert entry.max_retries == 2
    assert entry.on_failure_arn == template.functions["CleanerFunction"].arn
    assert entry.dead_letter_arn == template.queues["DeadLetterQueue"].arn


def test_a_state_machine_has_its_file_with_the_substitutions_done(template: Template) -> None:
    machine = template.state_machines["StepsStateMachine"]
    definition = json.loads(machine.definition)
    step = definition["States"]["Steps"]["ItemProcessor"]["States"]["Step"]
    assert step["Parameters"]["FunctionName"] == template.functions["StepFunction"].arn
    assert machine.definition_path == FIXTURE / "statemachines" / "steps.asl.json"
    assert machine.kind == "STANDARD"


def test_rules_join_patterns_and_targets(template: Template) -> None:
    by_target = {rule.target_arn: rule for rule in template.rules}
    rule = by_target[template.functions["EntryFunction"].arn]
    assert rule.pattern["detail"]["bucket"] == {"name": ["structureflow-local-databucket"]}
    assert rule.pattern["detail"]["object"] == {"key": [{"wildcard": "jobs/*/request.json"}]}
    assert rule.dead_letter_arn == template.queues["DeadLetterQueue"].arn
    assert template.state_machines["StepsStateMachine"].arn in by_target
    assert len(template.rules) == 2


def test_buckets_queues_outputs_and_references(template: Template) -> None:
    assert template.buckets["DataBucket"].event_bridge
    assert not template.buckets["QuietBucket"].event_bridge
    assert template.queues["DeadLetterQueue"].attributes == {"MessageRetentionPeriod": "1209600"}
    assert template.outputs == {"Bucket": "structureflow-local-databucket"}
    assert template.physical_ids["DataBucket"] == "structureflow-local-databucket"
    assert template.physical_ids["StepsStateMachine"].endswith(":stateMachine:structureflow-local-StepsStateMachine")


def test_parameters_reach_the_environment() -> None:
    template = load_template(FIXTURE / "template.yaml", {"Greeting": "moin"})
    assert template.functions["EchoFunction"].environment["GREETING"] == "moin from structureflow-local"


def test_a_resource_whose_condition_does_not_hold_is_left_out(edited: Callable[[Edit], Path]) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["Parameters"]["More"] = {"Type": "String", "Default": "no"}
        document["Conditions"]["HasMore"] = {"Fn::Equals": [{"Ref": "More"}, "yes"]}
        document["Resources"]["MoreCluster"] = {"Type": "AWS::ECS::Cluster", "Condition": "HasMore"}

    path = edited(edit)
    assert load_template(path).clusters == {}
    assert set(load_template(path, {"More": "yes"}).clusters) == {"MoreCluster"}


def test_a_rule_of_its_own_can_target_a_queue(edited: Callable[[Edit], Path]) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["Resources"]["Stopped"] = {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {"source": ["aws.ecs"], "detail": {"lastStatus": ["STOPPED"]}},
                "Targets": [
                    {"Id": "queue", "Arn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}, "InputPath": "$.detail"}
                ],
            },
        }

    template = load_template(edited(edit))
    rule = template.rules[-1]
    assert rule.target_arn == template.queues["DeadLetterQueue"].arn
    assert (rule.input_path, rule.pattern["source"]) == ("$.detail", ["aws.ecs"])


def test_a_task_definition_has_its_containers(edited: Callable[[Edit], Path]) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["Resources"]["RaftTask"] = {
            "Type": "AWS::ECS::TaskDefinition",
            "Properties": {
                "Family": "raft",
                "ContainerDefinitions": [
                    {
                        "Name": "raft",
                        "Image": "raft:latest",
                        "Environment": [{"Name": "DATA_BUCKET", "Value": {"Ref": "DataBucket"}}],
                    }
                ],
            },
        }

    task = load_template(edited(edit)).task_definitions["RaftTask"]
    assert task.arn.endswith(":task-definition/raft:1")
    assert task.containers[0].environment == {"DATA_BUCKET": "structureflow-local-databucket"}


def _set(*path: str, to: Any) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        at: Any = document
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = to

    return edit


def _function(*path: str, to: Any) -> Edit:
    return _set("Resources", "EchoFunction", "Properties", *path, to=to)


S3_EVENT = {"Type": "S3", "Properties": {"Bucket": {"Ref": "DataBucket"}, "Events": "s3:ObjectCreated:*"}}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("Surprise", to=1), r"template\.Surprise"),
        (_set("Globals", "SimpleTable", to={}), r"Globals\.SimpleTable"),
        (_set("Resources", "Table", to={"Type": "AWS::DynamoDB::Table"}), r"Resources\.Table.*AWS::DynamoDB::Table"),
        (_set("Resources", "DataBucket", "Condition", to="Nope"), "no condition 'Nope'"),
        (_function("VpcConfig", to={}), r"Resources\.EchoFunction\.Properties\.VpcConfig"),
        (_function("FunctionUrlConfig", to={}), r"FunctionUrlConfig"),
        (_function("Events", to={"Put": S3_EVENT}), r"EchoFunction\.Properties\.Events\.Put.*'S3'"),
        (_function("Runtime", to="nodejs22.x"), r"Runtime.*nodejs"),
        (_function("PackageType", to="Jar"), r"PackageType: expected Zip or Image, got 'Jar'"),
        (_function("PackageType", to="Image"), r"EchoFunction\.Properties\.CodeUri: an image has none"),
        (_function("ImageConfig", to={"Command": ["a.b"]}), r"ImageConfig: expected PackageType Image"),
        (_function("CodeUri", to="functions/missing"), r"CodeUri: no such folder"),
        (_function("CodeUri", to="s3://bucket/key"), r"CodeUri: no such folder"),
        (_function("Timeout", to=901), r"Timeout: expected 1 to 900"),
        (_function("MemorySize", to="lots"), r"MemorySize: expected a whole number"),
        (_function("Layers", to=["arn:aws:lambda:us-east-1:1:layer:theirs:3"]), r"Layers\[1\].*layer of this template"),
        (_function("Handler", to="handler"), r"Handler: expected module\.function"),
        (_function("Environment", "Variables", "X", to=["list"]), r"Environment\.Variables\.X"),
        (_function("Environment", "Variables", "X", to={"Ref": "Missing"}), r"Variables\.X \(Ref\): no parameter"),
        (_function("DeadLetterQueue", to={"TargetArn": "arn:aws:sqs:x:1:q"}), r"EchoFunction: no failure destination"),
        (_set("Resources", "QuietBucket", "Properties", to={"ObjectLockEnabled": True}), "ObjectLockEnabled"),
        (
            _set(
                "Resources", "QuietBucket", "Properties", to={"NotificationConfiguration": {"LambdaConfigurations": []}}
            ),
            r"NotificationConfiguration\.LambdaConfigurations",
        ),
        (
            _set("Resources", "StepsStateMachine", "Properties", "DefinitionSubstitutions", to={}),
            r"nothing for \$\{StepFunctionArn\}",
        ),
        (
            _set("Resources", "StepsStateMachine", "Properties", "DefinitionUri", to="missing.json"),
            r"StepsStateMachine\.Properties\.DefinitionUri: cannot read",
        ),
        (
            _set("Resources", "EntryFunction", "Properties", "Events", "Requested", "Properties", "Pattern", to={}),
            "expected an event pattern",
        ),
        (
            _set(
                "Resources",
                "EntryFunction",
                "Properties",
                "Events",
                "Requested",
                "Properties",
                "InputTransformer",
                to={},
            ),
            "InputTransformer",
        ),
    ],
)
def test_what_would_have_to_be_ignored_is_an_error_that_names_the_place(
    edited: Callable[[Edit], Path], edit: Edit, message: str
) -> None:
    with pytest.raises(TemplateError, match=message):
        load_template(edited(edit))


# --- images ------------------------------------------------------------------------------------------

DOCKERFILE = """
ARG BASE=python
FROM ${BASE} AS packages
COPY .aws-sam/media/${ARCHITECTURE}/ /packages/
FROM ${BASE} AS code
# the library, and a function
COPY layers/core/python/ /code/
COPY functions/step/ \\
    /code/step/
RUN python -m compileall /code
FROM ${BASE}
COPY --from=packages /packages/ ${LAMBDA_TASK_ROOT}/
COPY --from=code /code/ ${LAMBDA_TASK_ROOT}/
COPY functions/echo/ /var/task/echo/
CMD ["step.app.handler"]
"""


def _as_image(document: dict[str, Any]) -> dict[str, Any]:
    """Make StepFunction an image; return its resource."""
    resource: dict[str, Any] = document["Resources"]["StepFunction"]
    resource["IgnoreGlobals"] = ["Handler", "Runtime"]
    resource["Metadata"] = {"Dockerfile": "functions/Dockerfile", "DockerContext": "."}
    for name in ("CodeUri", "Layers"):
        resource["Properties"].pop(name, None)
        document["Globals"]["Function"].pop(name, None)
    resource["Properties"] |= {"PackageType": "Image", "ImageConfig": {"Command": ["step.app.handler"]}}
    return resource


def _stack(edited: Callable[[Edit], Path], edit: Edit, dockerfile: str = DOCKERFILE) -> Template:
    path = edited(edit)
    (path.parent / "functions" / "Dockerfile").write_text(dockerfile)
    return load_template(path)


def test_an_image_function_runs_what_its_dockerfile_copies(edited: Callable[[Edit], Path]) -> None:
    template = _stack(edited, _as_image)
    step = template.functions["StepFunction"]
    root = template.path.parent
    assert (step.handler, step.runtime, step.code_dir) == ("step.app.handler", None, root / "functions")
    assert step.python_path == (root / "layers" / "core" / "python", root / "functions")
    assert step.memory_mb == 256


def test_an_image_function_may_ignore_all_globals(edited: Callable[[Edit], Path]) -> None:
    def edit(document: dict[str, Any]) -> None:
        _as_image(document)["IgnoreGlobals"] = "*"

    assert _stack(edited, edit).functions["StepFunction"].environment == {}


def _image(*path: str, to: Any) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        _as_image(document)
        _set("Resources", "StepFunction", *path, to=to)(document)

    return edit


@pytest.mark.parametrize(
    ("edit", "dockerfile", "message"),
    [
        (_image("IgnoreGlobals", to=["Handler"]), DOCKERFILE, r"StepFunction\.Properties\.Runtime: an image has none"),
        (
            _image("Properties", "ImageConfig", to={}),
            DOCKERFILE,
            r"ImageConfig\.Command: expected one handler, got None",
        ),
        (_image("Properties", "ImageConfig", "Command", to=["handler"]), DOCKERFILE, "expected module"),
        (_image("Properties", "ImageConfig", "EntryPoint", to=["sh"]), DOCKERFILE, r"ImageConfig\.EntryPoint"),
        (
            _image("Properties", "ImageConfig", "Command", to=["other.app.handler"]),
            DOCKERFILE,
            r"copies no other.app\.py",
        ),
        (_image("Metadata", to={}), DOCKERFILE, r"StepFunction\.Metadata\.DockerContext: expected a local folder"),
        (_image("Metadata", "Dockerfile", to="none"), DOCKERFILE, r"Metadata\.Dockerfile: cannot read"),
        (_as_image, DOCKERFILE.replace("functions/echo/", "nothing/echo/"), "COPY nothing/echo: no such folder"),
        (_as_image, DOCKERFILE.replace("/code/step/", "/code/other/"), "to /var/task/other: another name than here"),
        (_as_image, DOCKERFILE.replace("/var/task/echo/", "/opt/echo/"), "expected a target in the task root"),
        (_as_image, DOCKERFILE.replace("--from=code", "--from=nothing"), "--from=nothing: expected a stage"),
        (_as_image, DOCKERFILE + "ADD more.tar /\n", "only COPY is followed"),
        (_as_image, DOCKERFILE.replace("COPY functions/echo/", "COPY --chown=1 functions/echo/"), "expected COPY"),
        (_as_image, "# nothing\n", "has no FROM"),
    ],
)
def test_an_image_that_cannot_be_followed_is_an_error(
    edited: Callable[[Edit], Path], edit: Edit, dockerfile: str, message: str
) -> None:
    with pytest.raises(TemplateError, match=message):
        _stack(edited, edit, dockerfile)


def test_a_missing_template_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"nothing\.yaml"):
        load_template(tmp_path / "nothing.yaml")


def test_a_layer_that_is_built_needs_no_python_folder_but_any_other_does(edited: Callable[[Edit], Path]) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["Resources"]["CoreLayer"]["Properties"]["ContentUri"] = "statemachines"

    path = edited(edit)
    with pytest.raises(TemplateError, match="no python folder"):
        load_template(path)
    document = yaml.safe_load(path.read_text())
    document["Resources"]["CoreLayer"]["Metadata"] = {"BuildMethod": "makefile"}
    path.write_text(yaml.safe_dump(document))
    assert load_template(path).functions["EchoFunction"].python_path == ()


def test_the_real_template_is_understood(repo: Path) -> None:
    template = load_template(repo / "template.yaml")
    orchestrator, plan = (template.functions[name] for name in ("OrchestratorFunction", "PlanSegmentsFunction"))
    assert (orchestrator.code_dir, orchestrator.handler) == (repo / "functions", "orchestrator.app.handler")
    assert (plan.code_dir, plan.handler) == (repo / "functions" / "plan_segments", "app.handler")
    assert template.buckets["DataBucket"].event_bridge
    machine = template.state_machines["SegmentsStateMachine"]
    assert machine.definition_path == repo / "statemachines" / "segments.asl.json"
    jobs = template.queues["JobsQueue"]
    assert {rule.target_arn for rule in template.rules} >= {jobs.arn, machine.arn}
    worked_off = template.event_sources["JobsWorkedOff"]
    assert (worked_off.queue_arn, worked_off.function_arn) == (jobs.arn, orchestrator.name)
    assert (worked_off.batch_size, worked_off.max_concurrency) == (1, 5)
