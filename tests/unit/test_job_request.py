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


ORIGINAL = {
    "orchestrator_task_id": "t1",
    "structure_video_path": "videos/a.mp4",
    "structure_video_treatment": "clip",
    "structure_video_motion_strength": 2.5,
    "parsed_resolution_wh": "1280x720",
    "fps_helpers": 24,
    "structure_flow_cache_url": "flows/a.npz",
}


def test_defaults_are_what_looks_best() -> None:
    request = JobRequest.parse(document())
    assert (request.treatment, request.motion_strength, request.resolution, request.fps) == ("retime", 1.0, None, 16)
    assert (request.engine, request.quality, request.flow_span, request.anchors) == (
        "auto",
        "balanced",
        "timeline",
        "both",
    )
    assert (request.mask, request.holes, request.mask_grid, request.seams) == ("visibility", "grey", 16, "choose")
    assert (request.target, request.match_color) == (None, False)


@pytest.mark.parametrize("name", sorted(ORIGINAL))
def test_one_name_of_the_original_asks_for_its_behaviour(name: str) -> None:
    """Whichever field it is: nobody has to use all of them."""
    newer = {"orchestrator_task_id": "task_id", "structure_video_path": "structure_video"}
    changes = {newer[name]: None} if name in newer else {}
    request = JobRequest.parse({**document(**changes), name: ORIGINAL[name]})
    assert request.treatment == ("clip" if name == "structure_video_treatment" else "adjust")
    assert (request.flow_span, request.anchors) == ("per_segment", "start")
    assert (request.mask, request.holes, request.seams) == ("keyframes", "warp", "average")


@pytest.mark.parametrize("part", ["camera", "subject"])
def test_along_a_part_of_the_motion_two_anchors_do_not_meet(part: str) -> None:
    assert JobRequest.parse(document(motion=part)).anchors == "start"
    assert JobRequest.parse(document(motion=part, anchors="both")).anchors == "both"
    assert JobRequest.parse(document(motion="all")).anchors == "both"


def test_what_a_request_says_is_never_overridden() -> None:
    said = {"treatment": "retime", "flow_span": "timeline", "anchors": "both", "mask": "filled", "seams": "choose"}
    request = JobRequest.parse({**document(task_id=None), "orchestrator_task_id": "t1", **said, "holes": "grey"})
    assert {name: getattr(request, name) for name in said} == said
    assert request.holes == "grey"


def test_an_archive_alone_is_composed_for_there_are_no_frames_to_look_at() -> None:
    assert JobRequest.parse(document(structure_video=None, flow_cache="a.npz")).tracking == "composed"
    assert JobRequest.parse(document(flow_cache="a.npz")).tracking == "anchored"


def test_older_names_mean_the_same() -> None:
    older = {**ORIGINAL, "segments": document()["segments"]}
    newer = document(
        treatment="clip",
        motion_strength=2.5,
        flow_cache="flows/a.npz",
        resolution=[1280, 720],
        fps=24,
        flow_span="per_segment",
        anchors="start",
        mask="keyframes",
        seams="average",
    )
    assert JobRequest.parse(older) == JobRequest.parse(newer)


def test_shorthand_holds_both_images() -> None:
    """73 frames, 20 of them the start image, 10 the end image: frames 20 to 62 stay unguided."""
    request = JobRequest.parse(document(segments=None, images=["a", "b", "c"]))
    assert len(request.segments) == 2
    for segment, (start, end) in zip(request.segments, [("a", "b"), ("b", "c")], strict=True):
        assert segment.frames == 73
        first, last = segment.guides
        assert (first.first, first.last, first.image) == (0, 19, start)
        assert (last.first, last.last, last.image) == (63, 72, end)


@pytest.mark.parametrize("names", [{}, {"fade": 10}])
def test_shorthand_in_the_originals_names_is_the_original_schedule(names: dict[str, Any]) -> None:
    """73 frames, overlap 20, fade 10: frames 20 to 62 stay unguided."""
    older = {**ORIGINAL, "images": ["a", "b", "c"], **names}
    for segment, (start, end) in zip(JobRequest.parse(older).segments, [("a", "b"), ("b", "c")], strict=True):
        hold, fade = segment.guides
        assert segment.frames == 73
        assert (hold.first, hold.last, hold.image) == (0, 19, start)
        assert (fade.first, fade.last, fade.fade) == (63, 72, (start, end))


def test_a_fade_is_faded_and_what_follows_is_held() -> None:
    given = {"segments": None, "images": ["a", "b"], "frames": 40, "overlap": 5}
    (only,) = JobRequest.parse(document(**given, fade=10)).segments
    assert [(guide.first, guide.last, guide.fade) for guide in only.guides[1:]] == [(30, 39, ("a", "b"))]
    (both,) = JobRequest.parse(document(**given, fade=10, hold=4)).segments
    assert [(guide.first, guide.last, guide.image) for guide in both.guides[1:]] == [(26, 35, None), (36, 39, "b")]
    (bare,) = JobRequest.parse(document(**given, hold=0)).segments
    assert len(bare.guides) == 1


@pytest.mark.parametrize(
    ("target", "frames", "overlap", "hold", "fps", "grid"),
    [
        ("vace", 81, 21, 8, 16, 16),
        ("wan5b", 121, 21, 8, 24, 32),
        ("ltx", 121, 17, 8, 24, 32),
        ("cogvideox", 49, 21, 8, 8, 16),
        ("hunyuan", 129, 21, 8, 24, 16),
        ("ttm", 81, 21, 8, 16, 16),
    ],
)
def test_a_target_sets_what_is_not_said(
    target: str, frames: int, overlap: int, hold: int, fps: float, grid: int
) -> None:
    request = JobRequest.parse(document(segments=None, images=["a", "b"], target=target))
    (segment,) = request.segments
    assert segment.frames == frames
    assert [(guide.first, guide.last) for guide in segment.guides] == [(0, overlap - 1), (frames - hold, frames - 1)]
    assert (request.fps, request.mask_grid, request.resolution) == (fps, grid, None)
    assert request.holes == ("warp" if target == "ttm" else "grey")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "vase"}, "target: .*'vase'"),
        (
            {"target": "vace", "resolution": [834, 482]},
            "resolution: .* 16 for vace, got 834x482; nearest: 832x480",
        ),
        ({"target": "vace", "resolution": [1000, 560]}, "got 1000x560; nearest: 992x560 or 832x480"),
        ({"target": "vace", "fps": 24}, "fps: expected 16 for vace, got 24"),
        ({"target": "vace", "frames": 80}, r"^frames: expected 4n\+1 frames for vace, got 80; nearest: 77 or 81"),
        ({"target": "ltx", "frames": 81, "fps": 24, "resolution": [832, 480]}, None),
        ({"target": "ltx", "frames": 85}, r"expected 8n\+1 frames for ltx, got 85; nearest: 81 or 89"),
        ({"target": "ltx", "resolution": [848, 480]}, "multiples of 32 for ltx, got 848x480; nearest: 832x480"),
        ({"target": "wan5b", "resolution": [1280, 720]}, "multiples of 32 for wan5b, got 1280x720; nearest: 1280x704"),
        ({"target": "cogvideox", "frames": 81}, "expected 49 frames for cogvideox, got 81; nearest: 49"),
        (
            {"target": "cogvideox", "resolution": [832, 480]},
            "720x480 only for cogvideox, got 832x480",
        ),
        ({"target": "hunyuan", "frames": 2, "overlap": 1, "hold": 0}, "got 2; nearest: 5"),
    ],
)
def test_a_target_refuses_what_it_cannot_take_and_names_the_nearest(changes: dict[str, Any], said: str | None) -> None:
    asked = document(segments=None, images=["a", "b"], **changes)
    if said is None:
        JobRequest.parse(asked)
        return
    with pytest.raises(InvalidRequestError, match=said):
        JobRequest.parse(asked)


def test_all_that_a_target_refuses_is_named_at_once() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        JobRequest.parse(document(target="vace", resolution=[834, 482], fps=25, segments=[{"frames": 80}] * 3))
    assert [problem.split(":")[0] for problem in caught.value.detail["problems"]] == [
        "resolution", "fps", "segments[0].frames", "segments[1].frames", "segments[2].frames",
    ]  # fmt: skip


def test_a_schedule_of_motion_strength() -> None:
    request = JobRequest.parse(document(motion_strength={"40": 1.2, "0": 0.5}))
    assert request.motion_strength == {0: 0.5, 40: 1.2}
    assert JobRequest.parse(json.loads(json.dumps(request.to_document()))) == request


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
        ({"treatment": "stretch"}, "treatment: expected one of adjust, clip, retime, got 'stretch'"),
        ({"engine": "farnebach"}, "engine: .*got 'farnebach'"),
        ({"task_id": "../x"}, "task_id: .*'../x'"),
        ({"timeline_id": "a/b"}, "timeline_id"),
        ({"structure_video": ""}, "structure_video"),
        ({"structure_video": None}, "structure_video: expected the video .* or flow_cache, got none"),
        ({"flow_cache": ""}, "flow_cache"),
        (
            {"flow_cache": "a.npz", "engine": "raft"},
            "engine: expected auto, for the flows .*, got raft",
        ),
        (
            {"structure_video": None, "flow_cache": "a", "outputs": ["raw"]},
            r"outputs\[0\]: .* which raw shows, got none",
        ),
        (
            {"structure_video": None, "flow_cache": "a", "tracking": "anchored"},
            "tracking: expected composed, for",
        ),
        ({"motion_strength": 11}, "motion_strength: .*10.*got 11"),
        ({"motion_strength": "nan"}, "motion_strength"),
        ({"motion_strength": True}, "motion_strength: .*got true"),
        ({"motion_strength": {}}, "motion_strength: .*at least one frame"),
        ({"motion_strength": {"0": 11}}, r"motion_strength\.0: .*10, got 11"),
        ({"motion_strength": {"x": 1}}, "motion_strength: .*frame numbers .*got 'x'"),
        ({"motion_strength": {"-1": 1}}, "motion_strength: .*got '-1'"),
        ({"motion_strength": {"1": 1, "01": 1}}, "motion_strength: .*each once"),
        ({"motion_strength": {"2000": 1}}, "motion_strength: .*1999"),
        ({"mask": "soft"}, "mask: .*got 'soft'"),
        ({"holes": "black"}, "holes: .*got 'black'"),
        ({"mask_grid": 0}, "mask_grid: .*got 0"),
        ({"mask_grid": 129}, "mask_grid: .*128.*got 129"),
        ({"resolution": [641, 360]}, "width: expected an even number .* got 641"),
        ({"resolution": [16, 360]}, "width"),
        ({"resolution": "640:360"}, "WIDTHxHEIGHT"),
        ({"fps": 0}, "fps"),
        ({"segments": []}, "segments"),
        ({"segments": None}, "segments: expected a value, got none"),
        ({"images": ["a", "b"]}, "images: expected none beside segments, got one"),
        ({"segments": None, "frames": 73}, "frames: expected none without images, got one"),
        ({"segments": None, "images": ["a"]}, "images"),
        (
            {"segments": None, "images": ["a", "b"], "frames": 20, "overlap": 15, "fade": 10},
            r"overlap 15 \+ fade 10, 25, got 20",
        ),
        (
            {"segments": None, "images": ["a", "b"], "frames": 20},
            r"frames: expected at least .*hold 10, 30, got 20",
        ),
        ({"segments": [{"frames": 1}]}, "frames"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        JobRequest.parse(document(**changes))


@pytest.mark.parametrize(
    ("guides", "said"),
    [
        (
            [{"at": [0, 5], "image": "a"}, {"at": [5, 6], "image": "b"}],
            r"\[1\]\.at: .*got \[5, 6\]; guides\[0\] has \[0, 5\]",
        ),
        ([{"at": [5, 10], "image": "a"}], r"guides\[0\]\.at: expected frames 0 to 9 of the segment, got \[5, 10\]"),
        ([{"at": -1, "image": "a"}], "0 <= first <= last"),
        ([{"at": [4, 2], "image": "a"}], "0 <= first <= last"),
        ([{"at": 1}], "exactly one of image, video, fade, got none"),
        ([{"at": [1, 2], "image": "a", "video": "b"}], "got image and video"),
        (
            [{"at": [1, 2], "image": "a", "from": 3}],
            r"guides\[0\]\.from: expected none, .*, got 3",
        ),
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
    assert caught.value.message == (
        "segments[0].guides[1].at: expected frames that no other guide has, got 4; guides[0] has [0, 4]"
    )
    with pytest.raises(InvalidRequestError, match=r"^segments: .*at least 1 item"):
        JobRequest.parse(document(segments=[]))


def test_a_field_is_named_once() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        JobRequest.parse(document(task_id="../x"))
    assert caught.value.message.startswith("task_id: expected 1 to 128 characters")
