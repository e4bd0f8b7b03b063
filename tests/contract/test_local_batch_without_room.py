"""A job definition that nothing runs here: its jobs wait, as in a queue without room, until somebody ends them."""

from __future__ import annotations

from pathlib import Path

from structureflow_local.cloud import LocalCloud

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


def test_without_a_command_a_job_waits_until_it_is_ended() -> None:
    with LocalCloud(FIXTURE / "template.yaml", parameters={"EnableTasks": "true"}) as cloud:
        client = cloud.client("batch")
        identity = client.submit_job(
            jobName="waits", jobQueue=cloud.physical_id("JobQueue"), jobDefinition=cloud.physical_id("WorkJob")
        )["jobId"]
        cloud.wait_idle(10)
        (waiting,) = client.describe_jobs(jobs=[identity])["jobs"]
        assert waiting["status"] == "RUNNABLE"
        client.terminate_job(jobId=identity, reason="enough")
        (ended,) = client.describe_jobs(jobs=[identity])["jobs"]
        assert (ended["status"], ended["statusReason"]) == ("FAILED", "enough")
        assert "exitCode" not in ended["container"]
