"""The environment of the GPU task."""

from __future__ import annotations

from pathlib import Path

import pytest

from structureflow.errors import SettingsError
from structureflow.runtime.task_settings import TaskSettings
from structureflow_local.raft_task import weights_environment

LARGE, SMALL = "ab" * 32, "01" * 32
LEAST = {
    "EXTRACTION_KEY": "work/gpu/run.json",
    "RAFT_WEIGHTS_URI": "/opt/raft/{model}.pth",
    "RAFT_WEIGHTS_SHA256": f"raft_large={LARGE}",
}


def test_the_least_environment_leaves_the_rest_to_the_machine() -> None:
    settings = TaskSettings.from_environment(LEAST)
    assert settings.order_key == "work/gpu/run.json"
    assert settings.raft.weights == "/opt/raft/{model}.pth"
    assert settings.raft.weights_sha256 == {"raft_large": LARGE}
    assert (settings.raft.device, settings.raft.precision, settings.raft.memory_bytes) == ("auto", "auto", None)


def test_every_variable_is_read() -> None:
    settings = TaskSettings.from_environment(
        LEAST
        | {
            "RAFT_WEIGHTS_SHA256": f"raft_large={LARGE}, raft_small={SMALL.upper()}",
            "RAFT_BATCH_PAIRS": "3",
            "RAFT_MEMORY_MB": "4000",
            "RAFT_DEVICE": "cuda",
            "RAFT_PRECISION": "bfloat16",
        }
    )
    assert settings.raft.weights_sha256 == {"raft_large": LARGE, "raft_small": SMALL}
    assert (settings.raft.batch_pairs, settings.raft.memory_bytes) == (3, 4_000_000_000)
    assert (settings.raft.device, settings.raft.precision) == ("cuda", "bfloat16")


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("value", [None, "", "  "], ids=["missing", "empty", "blank"])
def test_what_must_be_there_is_named_when_it_is_not(name: str, value: str | None) -> None:
    environment = {key: text for key, text in (LEAST | {name: value}).items() if text is not None}
    with pytest.raises(SettingsError, match=name):
        TaskSettings.from_environment(environment)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAFT_WEIGHTS_SHA256", LARGE),
        ("RAFT_WEIGHTS_SHA256", "raft_large=abc"),
        ("RAFT_WEIGHTS_SHA256", f"raft_huge={LARGE}"),
        ("RAFT_WEIGHTS_SHA256", f"raft_large={LARGE},"),
        ("RAFT_BATCH_PAIRS", "0"),
        ("RAFT_BATCH_PAIRS", "many"),
        ("RAFT_MEMORY_MB", "-1"),
        ("RAFT_DEVICE", "tpu"),
        ("RAFT_PRECISION", "int8"),
    ],
)
def test_a_malformed_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        TaskSettings.from_environment(LEAST | {name: value})


def test_weights_in_a_folder_become_the_tasks_variables(tmp_path: Path) -> None:
    assert weights_environment(tmp_path) == {}
    (tmp_path / "raft_small.pth").write_bytes(b"weights")
    settings = TaskSettings.from_environment(LEAST | weights_environment(tmp_path))
    assert settings.raft.weights == str(tmp_path / "{model}.pth")
    # printf weights | sha256sum
    digest = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert settings.raft.weights_sha256 == {"raft_small": digest}
