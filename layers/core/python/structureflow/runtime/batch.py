"""Batch jobs, submitted and ended for runs of jobs.

SubmitJob has no token by which a second call would find the job of the first one. So a job has the name of its run,
and who submits looks for that name first; two that do so at the very same moment have the same work done twice, of
which one commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from structureflow.errors import BatchJobError, TransientError
from structureflow.runtime.ecs import ORDER_VARIABLE

#: Of jobs that can still be ended; the others are SUCCEEDED and FAILED.
_OPEN: Final = frozenset({"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"})
#: A later try may succeed; everything else that Batch answers is a refusal.
_TRANSIENT: Final = frozenset({"ThrottlingException", "TooManyRequestsException", "Throttling", "ServerException"})
_MIN_TIMEOUT_S: Final = 60


class BatchQueue:
    """Submits one Batch job per run.

    Args:
        queue, job_definition: names or ARNs.
        timeout_s: after which a job counts as lost, waiting for its turn included.
        max_video_bytes: of the largest video that a job takes.
        client: of Batch; built when first needed if not given.
    """

    def __init__(
        self,
        *,
        queue: str,
        job_definition: str,
        timeout_s: float,
        max_video_bytes: int,
        client: Any = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.max_video_bytes = max_video_bytes
        self._queue = queue
        self._job_definition = job_definition
        self._given = client

    @cached_property
    def _client(self) -> Any:
        if self._given is not None:
            return self._given
        import boto3

        return boto3.client("batch")

    def start(self, order_key: str, run_id: str) -> str:
        """Submit a job for the order at `order_key`, unless the run has one, and return its id.

        Raises:
            BatchJobError: the call was refused.
            TransientError: Batch did not answer, or was asked too often.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for job in self._jobs(run_id):
                return str(job["jobId"])
            reply = self._client.submit_job(
                jobName=run_id,
                jobQueue=self._queue,
                jobDefinition=self._job_definition,
                # Of one attempt; the deadline of the order bounds all of them, and the wait.
                timeout={"attemptDurationSeconds": max(_MIN_TIMEOUT_S, int(self.timeout_s))},
                containerOverrides={"environment": [{"name": ORDER_VARIABLE, "value": order_key}]},
            )
        except ClientError as error:
            if _is_transient(error):
                raise TransientError(f"the Batch job was not submitted: {error}") from error
            raise BatchJobError(f"the Batch job was refused: {error}") from error
        except BotoCoreError as error:
            raise TransientError(f"the Batch job was not submitted: {error}") from error
        return str(reply["jobId"])

    def stop(self, run_id: str, reason: str) -> None:
        """End the jobs of a run, those that wait too; none there is no error.

        Raises:
            BatchJobError: the call was refused, or not answered.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for job in self._jobs(run_id):
                if job["status"] in _OPEN:
                    self._client.terminate_job(jobId=job["jobId"], reason=reason)
        except (ClientError, BotoCoreError) as error:
            raise BatchJobError(f"the Batch job cannot be ended: {error}") from error

    def _jobs(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Yield the jobs of a run, whatever became of them; Batch keeps them for a week after their end."""
        pages = self._client.get_paginator("list_jobs").paginate(
            jobQueue=self._queue, filters=[{"name": "JOB_NAME", "values": [run_id]}]
        )
        for page in pages:
            yield from page["jobSummaryList"]


def _is_transient(error: Any) -> bool:
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    return code in _TRANSIENT or status >= 500
