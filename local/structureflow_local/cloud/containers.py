"""What runs in containers on AWS, and as processes here: tasks of ECS, and jobs of Batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.batch_jobs import SERVICE, BatchJobs
from structureflow_local.cloud.container_process import ContainerProcesses
from structureflow_local.cloud.errors import UnknownResourceError
from structureflow_local.cloud.gateway import Gateway
from structureflow_local.cloud.processes import Spawner
from structureflow_local.cloud.signature import Keyring
from structureflow_local.cloud.tasks import TARGET, Publish, Tasks
from structureflow_local.cloud.template import Template


class _Common(TypedDict):
    commands: Mapping[str, Sequence[str]]
    processes: ContainerProcesses
    activity: Activity
    region: str
    account_id: str
    publish: Publish


def check_commands(commands: Mapping[str, Sequence[str]], template: Template) -> None:
    """Make sure that commands are for definitions that there are.

    Raises:
        UnknownResourceError: one is not.
    """
    for logical_id in commands:
        if logical_id not in {*template.task_definitions, *template.job_definitions}:
            raise UnknownResourceError(f"task_commands: no task or job definition {logical_id!r}")


def serve_containers(
    gateway: Gateway,
    template: Template,
    *,
    commands: Mapping[str, Sequence[str]],
    spawner: Spawner,
    keyring: Keyring,
    activity: Activity,
    environment: Mapping[str, str],
    state_dir: Path,
    publish: Publish,
) -> None:
    """Let the gateway answer requests to ECS and to Batch."""
    processes = ContainerProcesses(spawner=spawner, keyring=keyring, environment=environment, state_dir=state_dir)
    common: _Common = {
        "commands": commands,
        "processes": processes,
        "activity": activity,
        "region": template.region,
        "account_id": template.account_id,
        "publish": publish,
    }
    tasks = Tasks(template.task_definitions, template.clusters, **common)
    gateway.add_service(TARGET, tasks.handle, processes.owner_of)
    jobs = BatchJobs(template.job_definitions, template.job_queues, **common)
    gateway.add_rest_service(SERVICE, jobs.handle, processes.owner_of)
