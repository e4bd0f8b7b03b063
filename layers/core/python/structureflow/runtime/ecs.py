"""GPU tasks on ECS, started and stopped for runs of jobs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from structureflow.errors import GpuUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

#: Name of the container in the task definition, and of the variable that tells it what to do.
CONTAINER = "raft"
ORDER_VARIABLE = "EXTRACTION_KEY"


class EcsLauncher:
    """Starts one ECS task per run, through a capacity provider that scales from zero.

    Args:
        cluster, task_definition, capacity_provider: names or ARNs.
        timeout_s: after which a task counts as lost, waiting for capacity included.
        auto_pixel_frames: ``engine: auto`` takes the GPU from this many pixels times frames on.
        client: of ECS; built when first needed if not given.
    """

    def __init__(
        self,
        *,
        cluster: str,
        task_definition: str,
        capacity_provider: str,
        timeout_s: float,
        auto_pixel_frames: int,
        client: ECSClient | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.auto_pixel_frames = auto_pixel_frames
        self._cluster = cluster
        self._task_definition = task_definition
        self._capacity_provider = capacity_provider
        self._given = client

    @cached_property
    def _client(self) -> ECSClient:
        if self._given is not None:
            return self._given
        import boto3

        return boto3.client("ecs")

    def start(self, order_key: str, run_id: str) -> str:
        """Start a task for the order at `order_key` and return its ARN.

        The run id is the client token: a second call for the same run finds the same task.

        Raises:
            GpuUnavailableError: the call was refused, or its reply has `failures` (no capacity).
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            reply = self._client.run_task(
                cluster=self._cluster,
                taskDefinition=self._task_definition,
                # A launch type would bypass the managed scaling of the capacity provider.
                capacityProviderStrategy=[{"capacityProvider": self._capacity_provider, "weight": 1}],
                count=1,
                clientToken=run_id,
                startedBy=run_id,
                overrides={
                    "containerOverrides": [
                        {"name": CONTAINER, "environment": [{"name": ORDER_VARIABLE, "value": order_key}]}
                    ]
                },
            )
        except (ClientError, BotoCoreError) as error:
            raise GpuUnavailableError(f"the GPU task was refused: {error}") from error
        failures: list[Any] = list(reply.get("failures", []))
        if failures or not reply.get("tasks"):
            said = "; ".join(f"{f.get('reason', '')} {f.get('detail', '')}".strip() for f in failures)
            raise GpuUnavailableError(f"the GPU task was not started: {said or 'no task in the reply'}")
        return str(reply["tasks"][0]["taskArn"])

    def stop(self, run_id: str, reason: str) -> None:
        """Stop the tasks of a run; none running is no error.

        Raises:
            GpuUnavailableError: the call was refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for arn in self._client.list_tasks(cluster=self._cluster, startedBy=run_id)["taskArns"]:
                self._client.stop_task(cluster=self._cluster, task=arn, reason=reason)
        except (ClientError, BotoCoreError) as error:
            raise GpuUnavailableError(f"the GPU task cannot be stopped: {error}") from error
