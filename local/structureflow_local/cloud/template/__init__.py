"""Typed views of a SAM template: what the local cloud runs.

`load_template` reads the same file that is deployed and says what there is: buckets, queues, functions, state
machines, rules, routes, ECS tasks, Batch jobs. Every resource type is either run here or stands in the list of
those that do nothing while a job runs (policies, log groups, alarms …); every property of a resource that is run
is either honoured or stands in the list of those without effect here. All else is a `TemplateError` naming the
place: a local run must not pass by ignoring a part of the wiring.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.template.batch import job_definition, job_queue
from structureflow_local.cloud.template.functions import FunctionReader
from structureflow_local.cloud.template.http_api import HttpApiReader
from structureflow_local.cloud.template.kinds import FUNCTION, STATE_MACHINE
from structureflow_local.cloud.template.others import OtherReader
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.cloud.template.rules import Rules
from structureflow_local.cloud.template.specs import (
    BucketSpec,
    ClusterSpec,
    ContainerSpec,
    CorsSpec,
    EventSourceSpec,
    FunctionSpec,
    JobDefinitionSpec,
    JobQueueSpec,
    QueueSpec,
    RouteSpec,
    RuleSpec,
    StateMachineSpec,
    TaskDefinitionSpec,
    Template,
    TokensSpec,
)

__all__ = [
    "ACCOUNT_ID",
    "REGION",
    "STACK_NAME",
    "BucketSpec",
    "ClusterSpec",
    "ContainerSpec",
    "CorsSpec",
    "EventSourceSpec",
    "FunctionSpec",
    "JobDefinitionSpec",
    "JobQueueSpec",
    "QueueSpec",
    "RouteSpec",
    "RuleSpec",
    "StateMachineSpec",
    "TaskDefinitionSpec",
    "Template",
    "TokensSpec",
    "load_template",
]

#: Account that all ARNs of the local cloud carry (moto's own).
ACCOUNT_ID: Final = "123456789012"
REGION: Final = "us-east-1"
STACK_NAME: Final = "structureflow-local"


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
    path = path.resolve()
    resources = Resources(path, parameters or {}, region, account_id, stack_name)
    rules = Rules(resources)
    functions, others = FunctionReader(resources, rules), OtherReader(resources, rules)

    # rules keep the order of functions, state machines, rules of their own
    read_functions, cors = HttpApiReader(resources).read(resources.each(FUNCTION, functions.read))
    state_machines = resources.each(STATE_MACHINE, others.state_machine)
    resources.each("AWS::Events::Rule", rules.resource)
    template = Template(
        path=path,
        region=region,
        account_id=account_id,
        stack_name=stack_name,
        parameters=resources.parameters,
        functions=read_functions,
        state_machines=state_machines,
        buckets=resources.each("AWS::S3::Bucket", others.bucket),
        queues=resources.each("AWS::SQS::Queue", others.queue),
        clusters=resources.each("AWS::ECS::Cluster", others.cluster),
        task_definitions=resources.each("AWS::ECS::TaskDefinition", others.task_definition),
        job_queues=resources.each("AWS::Batch::JobQueue", functools.partial(job_queue, resources)),
        job_definitions=resources.each("AWS::Batch::JobDefinition", functools.partial(job_definition, resources)),
        rules=tuple(rules.found),
        event_sources=resources.each("AWS::Lambda::EventSourceMapping", others.event_source),
        outputs=resources.outputs(),
        cors=cors,
        physical_ids=resources.physical_ids(),
    )
    _check_targets(template)
    return template


def _check_targets(template: Template) -> None:
    arns = {
        *(function.arn for function in template.functions.values()),
        *(machine.arn for machine in template.state_machines.values()),
        *(queue.arn for queue in template.queues.values()),
    }
    functions = {name for function in template.functions.values() for name in (function.arn, function.name)}
    queues = {queue.arn for queue in template.queues.values()}
    for source in template.event_sources.values():
        if source.queue_arn not in queues:
            raise TemplateError(f"Resources.{source.logical_id}: no queue has the ARN {source.queue_arn}")
        if source.function_arn not in functions:
            raise TemplateError(f"Resources.{source.logical_id}: no function is called {source.function_arn}")
    for queue in template.queues.values():
        policy = json.loads(queue.attributes.get("RedrivePolicy", "{}"))
        if policy and policy["deadLetterTargetArn"] not in queues:
            raise TemplateError(f"Resources.{queue.logical_id}.RedrivePolicy: no queue has that ARN")
    for rule in template.rules:
        if rule.target_arn not in arns:
            raise TemplateError(f"{rule.place}: no function, state machine or queue has the ARN {rule.target_arn}")
        if rule.dead_letter_arn is not None and rule.dead_letter_arn not in arns:
            raise TemplateError(f"{rule.place}.DeadLetterConfig: no queue has the ARN {rule.dead_letter_arn}")
    for function in template.functions.values():
        for arn in (function.on_failure_arn, function.dead_letter_arn):
            if arn is not None and arn not in arns:
                raise TemplateError(f"Resources.{function.logical_id}: no failure destination has the ARN {arn}")
