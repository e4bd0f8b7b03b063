"""What a job says of its masks and its target, and what requests in the original's names get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.models.results import JobRecord, Manifest, SegmentResult
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import decode_rgb

GUIDES = [{"at": [0, 2], "image": "images/a.png"}]


def document(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": "t1",
        "structure_video": "videos/pan.mp4",
        "segments": [{"frames": 12, "guides": GUIDES}],
        **changes,
    }


def outcome(runner: JobRunner, asked: dict[str, Any]) -> tuple[SegmentResult, Manifest, str]:
    status = runner.run("t1", asked)
    assert status.state == "done", status.error
    result = SegmentResult.model_validate_json(runner.storage.get(keys.segment_file("t1", 0, "result.json")).data)
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    return result, manifest, runner.storage.get("jobs/t1/report.html").data.decode()


def test_without_a_target_result_manifest_and_report_say_so(runner: JobRunner) -> None:
    result, manifest, report = outcome(runner, document())
    assert len(result.notices) == len(manifest.notices) == 1
    assert result.notices[0] == manifest.notices[0]
    assert manifest.notices[0].startswith("no target was named")
    assert "4n+1 frames for vace, got 12; nearest: 9 or 13" in manifest.notices[0]
    assert "Note: no target was named" in report


def test_sizes_and_counts_that_fit_are_named_without_a_target(runner: JobRunner) -> None:
    _, manifest, _ = outcome(runner, document(resolution=[160, 96], segments=[{"frames": 13, "guides": GUIDES}]))
    assert manifest.notices == (
        "no target was named, so nothing was checked against a model; sizes, counts and rate fit vace or ttm",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask": "filled"}, 'black: they ask the generator for nothing (that is what "mask": "filled" means)'),
        ({"mask": "keyframes", "segments": [{"frames": 13, "guides": []}]}, "white: nothing of the guides is kept"),
    ],
)
def test_masks_that_ask_for_nothing_or_keep_nothing_are_named(
    runner: JobRunner, changes: dict[str, Any], said: str
) -> None:
    segments = [{"frames": 13, "guides": GUIDES}]
    result, manifest, report = outcome(
        runner, document(**{"target": "vace", "resolution": [160, 96], "segments": segments, **changes})
    )
    assert any(said in notice for notice in manifest.notices), manifest.notices
    assert result.kept in (0, 1)
    assert any("mask is" in notice for notice in result.notices)
    assert "masks of all segments are" in report


def test_the_share_that_is_kept_is_that_of_the_mask(runner: JobRunner, tmp_path: Path) -> None:
    result, manifest, report = outcome(
        runner, document(target="vace", resolution=[160, 96], segments=[{"frames": 13, "guides": GUIDES}])
    )
    path = tmp_path / "mask.mp4"
    runner.storage.get_to_file(keys.segment_file("t1", 0, "mask.mp4"), path)
    masks = np.stack(list(decode_rgb(path)))
    assert set(np.unique(masks)) == {0, 255}
    assert result.kept is not None
    assert result.kept == pytest.approx(float((masks == 0).mean()))
    assert manifest.segments[0].kept == result.kept
    assert f"keeps {100 * result.kept:.1f} % of all pixels" in report


def test_what_is_legal_but_not_the_models_own_is_a_notice(runner: JobRunner) -> None:
    result, manifest, _ = outcome(
        runner, document(target="vace", resolution=[160, 96], segments=[{"frames": 13, "guides": GUIDES}])
    )
    assert [notice.split(" ")[0] for notice in result.notices] == ["VACE", "VACE"]
    assert "not for 160x96" in result.notices[0]
    assert "share such a group at frame 3" in result.notices[1]
    assert manifest.notices == ()


def test_a_target_refuses_before_any_work(runner: JobRunner) -> None:
    status = runner.run("t1", document(target="vace", resolution=[834, 482]))
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"
    assert "nearest: 832x480" in status.error.message
    assert "nearest: 9 or 13" in status.error.message
    assert runner.keys("cache/") == []


def test_a_request_in_the_originals_names_gets_its_masks_and_motion(runner: JobRunner, tmp_path: Path) -> None:
    asked = document(structure_video_treatment="adjust")
    result, _, _ = outcome(runner, asked)
    assert (result.treatment, result.anchors, result.mask, result.holes) == ("adjust", "start", "keyframes", "warp")
    path = tmp_path / "mask.mp4"
    runner.storage.get_to_file(keys.segment_file("t1", 0, "mask.mp4"), path)
    assert [int(mask.min()) for mask in decode_rgb(path)] == [0] * 3 + [255] * 9
    assert result.kept == 0.25
    record = JobRecord.model_validate_json(runner.storage.get(keys.job_record("t1")).data)
    assert record.request.seams == "average"
