"""The job request: shorthand, older names, and every refusal by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from structureflow.errors import InvalidRequestError
from structureflow.models.job import JobRequest


def document(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task_id": "t1",
        "structure_video": "videos/a.mp4",
        "segments": [{"frames": 73, "guides": [{"at": [0, 19], "image": "a.png"}]}],
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def test_defaults() -> None:
    request = JobRequest.parse(document())
    assert (request.treatment, request.motion_strength, request.resolution, request.fps) == ("adjust", 1.0, None, 16)
    assert (request.engine, request.quality, request.flow_span, request.anchors) == (
        "auto",
        "balanced",
        "per_segment",
        "start",
    )


def test_older_names_mean_the_same() -> None:
    older = {
        "orchestrator_task_id": "t1",
        "structure_video_path": "videos/a.mp4",
        "structure_video_treatment": "clip",
        "structure_video_motion_strength": 2.5,
        "parsed_resolution_wh": "1280x720",
        "fps_helpers": 24,
        "segments": document()["segments"],
    }
    newer = document(treatment="clip", motion_strength=2.5, resolution=[1280, 720], fps=24)
    assert JobRequest.parse(older) == JobRequest.parse(newer)


def test_shorthand_is_the_original_schedule() -> None:
    """73 frames, overlap 20, fade 10: frames 20 to 62 stay unguided."""
    request = JobRequest.parse(document(segments=None, images=["a", "b", "c"], frames=73, overlap=20, fade=10))
    assert len(request.segments) == 2
    for segment, (start, end) in zip(request.segments, [("a", "b"), ("b", "c")], strict=True):
        hold, fade = segment.guides
        assert (hold.first, hold.last, hold.image) == (0, 19, start)
        assert (fade.first, fade.last, fade.fade) == (63, 72, (start, end))


def test_canonical_form_round_trips() -> None:
    request = JobRequest.parse(document(outputs=["flow_vis"], resolution="640x360"))
    assert JobRequest.parse(json.loads(json.dumps(request.to_document()))) == request


def test_guides_are_sorted() -> None:
    guides = [{"at": 9, "image": "b"}, {"at": [0, 3], "image": "a"}]
    segment = JobRequest.parse(document(segments=[{"frames": 10, "guides": guides}])).segments[0]
    assert [guide.first for guide in segment.guides] == [0, 9]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": 1}, "colour: unknown field"),
        ({"treatment": "stretch"}, "treatment: .*'adjust', 'clip' or 'retime', got 'stretch'"),
        ({"engine": "farnebach"}, "engine: .*got 'farnebach'"),
        ({"task_id": "../x"}, "task_id: .*'../x'"),
        ({"timeline_id": "a/b"}, "timeline_id"),
        ({"structure_video": ""}, "structure_video"),
        ({"motion_strength": 11}, "motion_strength: .*10.*got 11"),
        ({"motion_strength": "nan"}, "motion_strength"),
        ({"resolution": [641, 360]}, "width: expected an even number .* got 641"),
        ({"resolution": [16, 360]}, "width"),
        ({"resolution": "640:360"}, "WIDTHxHEIGHT"),
        ({"fps": 0}, "fps"),
        ({"segments": []}, "segments"),
        ({"segments": None}, "segments: Field required"),
        ({"images": ["a", "b"]}, "either segments or images"),
        ({"segments": None, "frames": 73}, "only together with images"),
        ({"segments": None, "images": ["a"]}, "images"),
        ({"segments": None, "images": ["a", "b"], "frames": 20, "overlap": 15, "fade": 10}, "exceed frames 20"),
        ({"segments": [{"frames": 1}]}, "frames"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        JobRequest.parse(document(**changes))


@pytest.mark.parametrize(
    ("guides", "said"),
    [
        ([{"at": [0, 5], "image": "a"}, {"at": [5, 6], "image": "b"}], r"\(0, 5\) and \(5, 6\) overlap"),
        ([{"at": [5, 10], "image": "a"}], "outside the segment's 10 frames"),
        ([{"at": -1, "image": "a"}], "0 <= first <= last"),
        ([{"at": [4, 2], "image": "a"}], "0 <= first <= last"),
        ([{"at": 1}], "exactly one of image, video, fade, got none"),
        ([{"at": [1, 2], "image": "a", "video": "b"}], "got image and video"),
        ([{"at": [1, 2], "image": "a", "from": 3}], "only a video guide"),
        ([{"at": 1, "video": "v"}], "needs a range"),
        ([{"at": [1, 2], "fade": ["a"]}], "fade"),
        ([{"at": 1, "image": "a", "blur": 1}], "blur: unknown field"),
    ],
)
def test_bad_guides_are_named(guides: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        JobRequest.parse(document(segments=[{"frames": 10, "guides": guides}]))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"task_id": '])
def test_not_json(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="expected JSON"):
        JobRequest.parse_json(data, expected_task_id="t1")


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"x"'])
def test_not_an_object(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="expected a JSON object"):
        JobRequest.parse_json(data, expected_task_id="t1")


def test_the_task_id_must_be_the_folder() -> None:
    with pytest.raises(InvalidRequestError, match="expected 'other', the folder"):
        JobRequest.parse_json(json.dumps(document()).encode(), expected_task_id="other")


def test_a_bad_segment_is_told_once_and_without_its_followers() -> None:
    """Pydantic adds that the list is too short when an item of it is bad: nobody asked for that."""
    overlapping = [{"at": [0, 4], "image": "a"}, {"at": 4, "image": "b"}]
    with pytest.raises(InvalidRequestError) as caught:
        JobRequest.parse(document(segments=[{"frames": 9, "guides": overlapping}]))
    assert caught.value.message == "segments.0: guides at (0, 4) and 4 overlap"
    with pytest.raises(InvalidRequestError, match=r"^segments: .*at least 1 item"):
        JobRequest.parse(document(segments=[]))


def test_a_field_is_named_once() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        JobRequest.parse(document(task_id="../x"))
    assert caught.value.message.startswith("task_id: expected 1 to 128 characters")
