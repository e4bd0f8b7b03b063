"""The state machines as text: their graphs, catches, substitutions, and what they carry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structureflow.limits import MAX_SEGMENTS

REPO = Path(__file__).resolve().parents[2]
DEFINITIONS: dict[str, dict[str, Any]] = {
    path.name.removesuffix(".asl.json"): json.loads(path.read_text())
    for path in sorted((REPO / "statemachines").glob("*.asl.json"))
}


def machines() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every graph: each machine itself and each Map's processor."""
    for machine, top in DEFINITIONS.items():
        yield machine, top
        for name, state in top["States"].items():
            if state["Type"] == "Map":
                yield f"{machine}.{name}", state["ItemProcessor"]


def states() -> list[tuple[str, str, dict[str, Any]]]:
    return [(graph, name, state) for graph, machine in machines() for name, state in machine["States"].items()]


def targets(state: dict[str, Any]) -> set[str]:
    found = {state[field] for field in ("Next", "Default") if field in state}
    found |= {choice["Next"] for choice in state.get("Choices", [])}
    return found | {catch["Next"] for catch in state.get("Catch", [])}


def test_there_are_two_machines() -> None:
    assert list(DEFINITIONS) == ["extraction", "segments"]


@pytest.mark.parametrize(("name", "machine"), list(machines()))
def test_every_next_exists_and_every_state_is_reachable(name: str, machine: dict[str, Any]) -> None:
    graph = {state: targets(body) for state, body in machine["States"].items()}
    assert machine["StartAt"] in graph
    for state, nexts in graph.items():
        assert nexts <= set(graph), f"{name}: {state} leads to {nexts - set(graph)}"
    seen, waiting = set(), [machine["StartAt"]]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting.extend(graph[state])
    assert seen == set(graph)


@pytest.mark.parametrize(("graph", "name", "state"), states())
def test_every_state_leads_to_an_end(graph: str, name: str, state: dict[str, Any]) -> None:
    machine = dict(machines())[graph]["States"]
    seen, waiting, ends = set(), [name], False
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        body = machine[here]
        ends = ends or body.get("End", False) or body["Type"] in {"Succeed", "Fail"}
        waiting.extend(targets(body))
    assert ends


@pytest.mark.parametrize(("graph", "name", "state"), [s for s in states() if s[2]["Type"] == "Task"])
def test_tasks_have_a_timeout(graph: str, name: str, state: dict[str, Any]) -> None:
    """What they try again is in `test_retries`."""
    assert state["TimeoutSeconds"] > 0


@pytest.mark.parametrize(
    ("machine", "name"), [(g, n) for g, n, s in states() if g in DEFINITIONS and s["Type"] in {"Task", "Map"}]
)
def test_every_failure_reaches_fail_job(machine: str, name: str) -> None:
    state = DEFINITIONS[machine]["States"][name]
    if name == "FailJob":
        assert "Catch" not in state
        assert state["Next"] == "JobFailed"
        return
    (catch,) = state["Catch"]
    assert catch["ErrorEquals"] == ["States.ALL"]
    if name == "Parts":
        # Such a Map tells neither which child failed nor why: whoever comes next looks, and fails with the reason.
        assert (catch["Next"], state["Next"]) == ("JoinFlows", "JoinFlows")
        assert catch["ResultPath"] != "$.error", "what JoinFlows fails with is what counts"
        return
    assert catch == {"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "FailJob"}


def test_a_distributed_map_tolerates_nothing_and_retries_inside() -> None:
    """`Retry` on the Map itself would do every item again; children end after five minutes unless they are STANDARD."""
    found = [
        state
        for _, _, state in states()
        if state["Type"] == "Map" and state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
    ]
    assert found
    for state in found:
        assert state["ItemProcessor"]["ProcessorConfig"]["ExecutionType"] == "STANDARD"
        assert not {"Retry", "ToleratedFailureCount", "ToleratedFailurePercentage"} & set(state)


def test_the_list_of_parts_fits_a_payload() -> None:
    from structureflow.limits import MAX_VIDEO_FRAMES, PART_FRAMES

    # The list of numbers is the state's payload, of which 256 KiB are allowed.
    assert len(json.dumps(list(range(MAX_VIDEO_FRAMES // PART_FRAMES * 2)))) < 200_000


def test_names_follow_one_stem() -> None:
    for _, name, state in states():
        if state["Type"] == "Task" and "FunctionName" in state["Parameters"]:
            assert state["Parameters"]["FunctionName"] == f"${{{name}FunctionArn}}"
            stem = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            assert (REPO / "functions" / stem / "app.py").is_file()
            assert (REPO / "layers/core/python/structureflow/jobs" / f"{stem}.py").is_file()


def test_payloads_do_not_grow_with_the_video() -> None:
    """Tasks leave their results in the bucket; only the plan travels, and what is to do again: lists of numbers."""
    for _, name, state in states():
        if state["Type"] in {"Task", "Map"} and name not in {"PlanSegments", "JoinFlows"}:
            assert state["ResultPath"] is None


def test_few_segments_share_an_execution_and_many_are_executions_of_their_own() -> None:
    """25,000 events and payloads of 256 KB are allowed (Step Functions quotas); tries are counted in `test_retries`."""
    states = json.loads(json.dumps(DEFINITIONS["segments"]))["States"]
    assert states["AreMany"]["Default"] == "Segments"
    assert [choice["Next"] for choice in states["AreMany"]["Choices"]] == ["ManySegments"]
    few, many = states["Segments"], states["ManySegments"]
    assert few["ItemProcessor"]["ProcessorConfig"] == {"Mode": "INLINE"}
    assert many["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert "ItemsPath" not in many
    assert many["ItemReader"]["ReaderConfig"] == {"InputType": "JSON"}
    for name, state in many["ItemProcessor"]["States"].items():
        # A Map's results are one payload: nothing is left of them.
        assert (state.pop("OutputPath", "all") is None) == (state["Type"] == "Task"), name
    assert many["ItemProcessor"]["States"] == few["ItemProcessor"]["States"], "what is done for a segment is the same"
    assert "Retry" not in many, "it would do every segment again"
    assert not {"ToleratedFailurePercentage", "ToleratedFailureCount"} & set(many)
    assert MAX_SEGMENTS * len("{},") < 256 * 1024
