"""What the command line makes of `--engine`, and of a job that asks for RAFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from structureflow.models.job import EngineName
from structureflow_local import gpu
from structureflow_local.cli import build_parser
from structureflow_local.client import PreparedJob, prepare_job
from structureflow_local.gpu import DEFAULT_WEIGHTS, TASK_DEFINITION, gpu_part, wants_gpu
from structureflow_local.run import TEMPLATE
from structureflow_local.run_command import ENGINES


def test_the_engines_are_those_of_requests() -> None:
    assert get_args(EngineName) == ENGINES


@pytest.mark.parametrize("command", [["run", "job.json"], ["demo"]])
def test_another_engine_is_an_option(command: list[str], tmp_path: Path) -> None:
    args = build_parser().parse_args([*command, "--out", str(tmp_path), "--engine", "raft"])
    assert args.engine == "raft"
    with pytest.raises(SystemExit):
        build_parser().parse_args([*command, "--out", str(tmp_path), "--engine", "magic"])


def test_another_engine_changes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    text = '{"task_id": "t1", "engine": "dis", "structure_video": "a.mp4"}'
    plain = prepare_job(text, name="t", folder=tmp_path)
    changed = prepare_job(text, name="t", folder=tmp_path, changes={"engine": "raft"})
    assert json.loads(changed.request) == json.loads(plain.request) | {"engine": "raft"}
    assert (changed.task_id, changed.uploads) == (plain.task_id, plain.uploads)


@pytest.mark.parametrize("request_bytes", [b"{oops", b"[]", b'"raft"', b"\xff"])
def test_what_is_no_request_wants_nothing(request_bytes: bytes) -> None:
    """The orchestrator refuses it, with a typed error."""
    assert not wants_gpu(PreparedJob("t1", request_bytes, {}))


@pytest.mark.parametrize(("engine", "wanted"), [("raft", True), ("auto", False), ("dis", False), (["raft"], False)])
def test_only_raft_by_name_wants_the_gpu_part(engine: object, wanted: bool) -> None:
    assert wants_gpu(PreparedJob("t1", json.dumps({"engine": engine}).encode(), {})) is wanted


def test_the_gpu_part_fits_the_template(tmp_path: Path) -> None:
    from structureflow_local.cloud.template import load_template

    part = gpu_part(tmp_path)
    template = load_template(TEMPLATE, part["parameters"])
    assert set(part["task_commands"]) == {TASK_DEFINITION} == set(template.task_definitions)
    environment = template.functions["OrchestratorFunction"].environment
    assert environment["GPU_CLUSTER"] in {cluster.name for cluster in template.clusters.values()}
    assert environment["GPU_TASK_DEFINITION"] == template.task_definitions[TASK_DEFINITION].arn
    assert int(environment["GPU_AUTO_MEGAPIXEL_FRAMES"]) >= 10**6, "auto stays with DIS"
    assert part["task_commands"][TASK_DEFINITION][-1] == str(tmp_path)


def test_without_the_gpu_part_nothing_of_it_is_there() -> None:
    from structureflow_local.cloud.template import load_template

    template = load_template(TEMPLATE)
    assert not template.task_definitions
    assert not template.clusters
    assert template.functions["OrchestratorFunction"].environment["GPU_CLUSTER"] == ""
    assert "SettleGpuFunction" not in template.functions


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_PYTHON", tmp_path / "python")
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    assert "make setup-raft" in str(gpu.what_is_missing(tmp_path))
    (tmp_path / "python").touch()
    assert f"no raft_large.pth or raft_small.pth in {tmp_path}" in str(gpu.what_is_missing(tmp_path))
    (tmp_path / "raft_small.pth").touch()
    assert gpu.what_is_missing(tmp_path) is None


def test_weights_lie_where_the_image_takes_them_from() -> None:
    assert gpu_part(None)["task_commands"][TASK_DEFINITION][-1] == str(DEFAULT_WEIGHTS)
