"""Keys: built one way, parsed back, never able to leave their folder."""

from __future__ import annotations

import pytest

from structureflow import keys
from structureflow.errors import InvalidIdError, InvalidKeyError


@pytest.mark.parametrize(
    "value", ["", ".", "..", "a/b", "a..b", "-a", "_a", ".a", "a b", "a\n", "ä", "a" * 129, "a/../b", "a\x00", "a\\b"]
)
def test_ids_that_could_climb_or_confuse_are_refused(value: str) -> None:
    with pytest.raises(InvalidIdError, match="task_id"):
        keys.check_id(value, "task_id")


@pytest.mark.parametrize("value", ["a", "0", "a.b", "A-b_c.9", "a" * 128])
def test_plain_ids_pass(value: str) -> None:
    assert keys.check_id(value) == value


def test_job_keys_follow_the_layout() -> None:
    assert keys.job_request("t1") == "jobs/t1/request.json"
    assert keys.job_flows("t1") == "jobs/t1/structure_flows_t1.npz"
    assert keys.segment_file("t1", 2, "guide.mp4") == "jobs/t1/segments/002/guide.mp4"
    assert keys.run_segment_file("t1", "r1", 12, "x.json") == "jobs/t1/runs/r1/segments/012/x.json"
    assert keys.parse_run_claim(keys.run_claim("t1", "r1")) == "r1"
    assert keys.parse_run_claim(keys.run_record("t1", "r1")) is None
    assert keys.timeline_frame("v", 7) == "cache/timelines/v/frames/000007.jpg"
    assert keys.timeline_overlay("v", "j", "flow", 7, "raw") == "cache/timelines/v/overlays/j/flow/000007_raw.png"
    assert keys.flow_cache("0" * 64) == f"cache/flows/{'0' * 64}.npz"


def test_parsing_is_the_inverse_of_building() -> None:
    assert keys.parse_job_request(keys.job_request("a.b-c")) == "a.b-c"
    assert keys.parse_job_flows(keys.job_flows("a.b-c")) == "a.b-c"
    assert keys.parse_timeline_frame(keys.timeline_frame("v", 1234567)) == 1234567
    assert keys.parse_timeline_overlay(keys.timeline_overlay("v", "j", "warp", 12, "a_b")) == (12, "a_b")


def test_unpadded_frame_keys_are_read() -> None:
    assert keys.parse_timeline_frame("cache/timelines/v/frames/7.jpg") == 7


@pytest.mark.parametrize(
    "key",
    [
        "jobs/a/b/request.json",
        "jobs//request.json",
        "jobs/../request.json",
        "x/jobs/a/request.json",
        "jobs/a/request.json.bak",
    ],
)
def test_other_keys_are_no_requests(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        keys.parse_job_request(key)


@pytest.mark.parametrize(
    "key", ["jobs/a/structure_flows_b.npz", "jobs/a/segments/structure_flows_a.npz", "jobs/a/structure_flows_.npz"]
)
def test_other_keys_are_no_flow_archives(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        keys.parse_job_flows(key)


@pytest.mark.parametrize(
    "build", [keys.job_prefix, keys.timeline_prefix, keys.runs_prefix, keys.timeline_chunks_prefix]
)
def test_no_folder_is_a_prefix_of_another(build) -> None:  # type: ignore[no-untyped-def]
    """A listing of one folder never sees a neighbour whose id merely starts the same."""
    assert not build("video10").startswith(build("video1"))
