"""Bounds: said once, agreed upon by all who use them, and no message that echoes what came."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from structureflow import limits
from structureflow.errors import InvalidRequestError, MediaError, StructureFlowError, shortened
from structureflow.flow.archive import FlowLimits
from structureflow.jobs.plan_segments import PlanSegmentsInput
from structureflow.models.results import ErrorInfo
from structureflow.runtime.events import check_event, parse_event
from structureflow_local.client import prepare_job

REPO = Path(__file__).resolve().parents[2]
LONG = "x" * 1_000_000


def test_the_template_and_the_archive_agree_on_frames() -> None:
    parameter = (REPO / "template.yaml").read_text().split("  MaxVideoFrames:\n")[1].split("Description")[0]
    assert f"MaxValue: {limits.MAX_VIDEO_FRAMES}\n" in parameter
    assert FlowLimits().max_flows + 1 == limits.MAX_VIDEO_FRAMES


def test_every_bound_is_a_positive_number_with_its_reason() -> None:
    lines = (REPO / "layers/core/python/structureflow/limits.py").read_text().splitlines()
    names = [name for name in vars(limits) if name.isupper()]
    assert names
    for name in names:
        assert getattr(limits, name) > 0
    constants = [number for number, line in enumerate(lines) if ": Final" in line]
    assert len(constants) == len(names)
    for number in constants:
        assert lines[number - 1].startswith(("#:", "MAX_", "MIN_")), lines[number]


@pytest.mark.parametrize("error", [StructureFlowError(LONG), InvalidRequestError(LONG, problems=[LONG] * 1_000)])
def test_an_error_never_echoes_megabytes(error: StructureFlowError) -> None:
    assert len(str(error)) < 2_100
    assert len(str(error.as_dict())) < 60_000
    assert len(str(error.within("somewhere"))) < 2_100
    assert "998000 characters more" in error.message
    assert len(ErrorInfo(code=LONG, message=LONG, stage="x").to_json()) < 5_000


def test_short_errors_stay_as_they_are() -> None:
    error = MediaError("expected a video", key="v.mp4", limit=3)
    assert (str(error), error.detail) == ("expected a video", {"key": "v.mp4", "limit": 3})
    assert shortened("ab", 2) == "ab"
    assert shortened("abc", 2) == "ab … (1 characters more)"
    assert pickle.loads(pickle.dumps(MediaError("m"))).message == "m"  # noqa: S301  of this process


def test_events_are_counted_before_they_are_read() -> None:
    check_event({"detail": {"object": {"key": "k"}}, "list": [1, 2]})
    for event in ({"a": [0] * 10_001}, {"a": [[[0] * 5_000]] * 3}, {str(n): 0 for n in range(10_001)}):
        with pytest.raises(InvalidRequestError, match="at most 10000 values"):
            check_event(event)
    with pytest.raises(InvalidRequestError, match="a JSON object, got list"):
        check_event([])


def test_a_malformed_event_names_its_first_bad_field() -> None:
    with pytest.raises(InvalidRequestError, match=r"PlanSegmentsInput: bucket: expected a value; and 1 more"):
        parse_event(PlanSegmentsInput, {"execution_id": "e"})


def test_the_command_line_refuses_before_it_uploads(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="at most 2097152 bytes"):
        prepare_job("[" * 3_000_000, name="job", folder=tmp_path)
    with pytest.raises(InvalidRequestError, match="at most 16 levels"):
        prepare_job('{"a":' + "[" * 60 + "]" * 60 + "}", name="job", folder=tmp_path)
    with pytest.raises(InvalidRequestError, match="expected JSON"):
        prepare_job("[" * 1_000_000, name="job", folder=tmp_path)
    with pytest.raises(InvalidRequestError, match="b: expected it once, got it twice"):
        prepare_job('{"a": {"b": 1, "b": 1}}', name="job", folder=tmp_path)


def test_a_large_job_file_is_sent_without_its_blanks(tmp_path: Path) -> None:
    guides = ",".join(f'{{"at":{at},"image":"{"i" * 60}"}}' for at in range(1_900))
    segments = ",".join([f'{{"frames":2000,"guides":[{guides}]}}'] * 10)
    text = f'{{"task_id":"t","structure_video":"v","segments":[{segments}]}}'
    assert 0.7 * limits.MAX_REQUEST_BYTES < len(text) < limits.MAX_REQUEST_BYTES
    assert len(prepare_job(text, name="job", folder=tmp_path).request) == len(text)
