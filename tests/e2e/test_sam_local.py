"""Every function in Lambda's own container, on its golden event, in the order of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from structureflow_local import sam

REPO = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.xdist_group("sam")]


@pytest.mark.timeout(900)
@pytest.mark.skipif(not sam.engine_answers(), reason="no Docker engine answers on this machine")
def test_every_function_runs_in_its_container() -> None:
    lines: list[str] = []
    invoked = sam.invoke_all(sam.build(REPO / sam.BUILD_DIR, "x86_64"), lines.append)
    stems = {path.parent.name for path in (REPO / "functions").glob("*/app.py")}
    assert {one.function for one in invoked} == {
        "".join(part.title() for part in stem.split("_")) + "Function" for stem in stems
    }
    payloads = {one.function: one.payload for one in invoked}
    assert payloads["OrchestratorFunction"]["state"] == "running"
    assert payloads["PlanSegmentsFunction"]["segments"] == [0]
    assert payloads["RenderSegmentFunction"]["flow_source"] == "cache"
    assert payloads["AssembleJobFunction"]["segments"] == 1
    assert payloads["FailJobFunction"]["error"]["code"] == "NotAnImageError"
    assert any(f"decode to {sam.FRAMES} frames" in line for line in lines)
