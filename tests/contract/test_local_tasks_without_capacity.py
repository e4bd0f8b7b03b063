"""A task definition that nothing runs here: ECS answers with failures, HTTP 200."""

from __future__ import annotations

from pathlib import Path

from structureflow_local.cloud import LocalCloud

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


def test_without_a_command_there_is_no_capacity() -> None:
    with LocalCloud(FIXTURE / "template.yaml", parameters={"EnableTasks": "true"}) as cloud:
        reply = cloud.client("ecs").run_task(
            cluster=cloud.template.clusters["Cluster"].name, taskDefinition=cloud.physical_id("WorkTask")
        )
        assert reply["tasks"] == []
        assert [failure["reason"] for failure in reply["failures"]] == ["RESOURCE:GPU"]
