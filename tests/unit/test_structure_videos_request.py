"""Requests of several structure videos, and the later words of the original for them."""

from __future__ import annotations

from typing import Any

import pytest

from structureflow.errors import InvalidRequestError
from structureflow.limits import MAX_STRUCTURE_VIDEOS
from structureflow.models.job import JobRequest
from structureflow.models.sources import StructureVideo


def document(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task_id": "t1",
        "structure_videos": [{"path": "a.mp4", "end_frame": 40}, {"path": "b.mp4", "start_frame": 60}],
        "segments": [{"frames": 81, "guides": [{"at": 0, "image": "a.png"}]}],
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def test_sources_are_put_in_order_and_the_last_one_ends_with_the_timeline() -> None:
    videos = [{"path": "b.mp4", "start_frame": 60}, {"path": "a.mp4", "end_frame": 40}]
    first, second = JobRequest.parse(document(structure_videos=videos)).structure_videos
    assert (first.path, first.start_frame, first.end_frame) == ("a.mp4", 0, 40)
    assert (second.path, second.start_frame, second.end_frame) == ("b.mp4", 60, 81)
    assert JobRequest.parse(JobRequest.parse(document()).to_document()) == JobRequest.parse(document())


@pytest.mark.parametrize(
    ("frames", "overlap", "starts"),
    [
        # five segments of 81 that share ten frames with their neighbours are 365 frames
        ([81] * 5, 10, (0, 71, 142, 213, 284, 365)),
        ([81] * 5, [10] * 4, (0, 71, 142, 213, 284, 365)),
        # the original writes one number for each segment; the last has no border behind it
        ([81] * 5, [10] * 5, (0, 71, 142, 213, 284, 365)),
        ([20, 30, 40], [5, 0], (0, 15, 45, 85)),
        ([20], 10, (0, 20)),
        ([20, 30], 0, (0, 20, 50)),
    ],
)
def test_the_stitched_timeline(frames: list[int], overlap: Any, starts: tuple[int, ...]) -> None:
    segments = [{"frames": count} for count in frames]
    for name in ("segment_overlap", "frame_overlap_expanded"):
        request = JobRequest.parse(document(segments=segments, structure_videos=[{"path": "a"}], **{name: overlap}))
        assert request.segment_starts == starts
        assert request.structure_videos[0].end_frame == starts[-1]


def test_the_shorthands_overlap_is_that_of_the_timeline() -> None:
    short = document(segments=None, images=["a", "b", "c"], structure_videos=[{"path": "v"}])
    assert JobRequest.parse(short).segment_starts == (0, 53, 126)
    assert JobRequest.parse(short | {"segment_overlap": 0}).segment_starts == (0, 73, 146)
    assert JobRequest.parse(short | {"frame_overlap_expanded": [8]}).segment_starts == (0, 65, 138)
    assert JobRequest.parse(document(segments=None, images=["a", "b"])).segment_starts == (0, 73)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"structure_video": "v.mp4"}, "structure_video: expected none beside structure_videos"),
        ({"flow_cache": "v.npz"}, "flow_cache: expected none beside structure_videos"),
        ({"timeline_id": "mine"}, "timeline_id: expected none beside structure_videos"),
        ({"structure_videos": []}, "structure_video: expected the video .* got none"),
        ({"structure_videos": [{"path": "a"}] * (MAX_STRUCTURE_VIDEOS + 1)}, "structure_videos: expected at most 32"),
        ({"structure_videos": [{"start_frame": 0}]}, r"structure_videos\[0\]\.path: expected a value, got none"),
        ({"structure_videos": [{"path": "a", "speed": 2}]}, r"structure_videos\[0\]\.speed: unknown field"),
        ({"structure_videos": [{"path": "a", "start_frame": -1}]}, r"structure_videos\[0\]\.start_frame: .*got -1"),
        ({"structure_videos": [{"path": "a", "start_frame": 5, "end_frame": 5}]}, r"structure_videos\[0\]\.end_frame"),
        (
            {"structure_videos": [{"path": "a", "start_frame": 81}]},
            r"videos\[0\]\.start_frame: expected less than 81, .* got 81",
        ),
        (
            {"structure_videos": [{"path": "a", "end_frame": 41}, {"path": "b", "start_frame": 40}]},
            r"videos\[1\]\.start_frame: expected no overlap, got 40; structure_videos\[0\] drives frames 0 up to 41",
        ),
        ({"structure_videos": [{"path": "a"}, {"path": "b", "start_frame": 40}]}, "up to the end of the timeline"),
        (
            {"structure_videos": [{"path": "a", "source_start_frame": 4, "source_end_frame": 5}]},
            r"videos\[0\]\.source_end_frame: expected at least two frames from source_start_frame 4 on, .*got 5",
        ),
        ({"structure_videos": [{"path": "a", "treatment": "loop"}]}, r"structure_videos\[0\]\.treatment: .*got 'loop'"),
        (
            {"structure_videos": [{"path": "a", "motion_strength": 11}]},
            r"videos\[0\]\.motion_strength: .*got 11",
        ),
        ({"structure_videos": [{"path": "a", "motion_strength": {"0": 1}}]}, r"structure_videos\[0\]\.motion_strength"),
        ({"segment_overlap": -1}, "segment_overlap"),
        ({"segment_overlap": [1, 2, 3]}, "segment_overlap: expected one number, or one for each of 0 borders"),
        (
            {"segments": [{"frames": 9}, {"frames": 5}], "segment_overlap": 5},
            "less than the frames of segments 0 and 1",
        ),
    ],
)
def test_bad_timelines_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        JobRequest.parse(document(**changes))


# --- structure_guidance ---------------------------------------------------------------------------------------


def guided(**guidance: Any) -> dict[str, Any]:
    rest = document(structure_videos=None)
    return rest | {"structure_guidance": {"videos": [{"path": "a.mp4", "end_frame": 40}], **guidance}}


@pytest.mark.parametrize(
    ("guidance", "outputs"),
    [
        ({}, ("vace_flow",)),
        ({"preprocessing": "flow"}, ("vace_flow",)),
        ({"preprocessing": "canny"}, ("canny",)),
        ({"preprocessing": "none"}, ("raw",)),
        ({"target": "uni3c"}, ("raw",)),
        # Uni3C takes plain videos whatever else is said
        ({"target": "uni3c", "preprocessing": "depth"}, ("raw",)),
    ],
)
def test_preprocessing_is_an_output(guidance: dict[str, Any], outputs: tuple[str, ...]) -> None:
    request = JobRequest.parse(guided(**guidance))
    assert request.outputs == outputs
    assert request.structure_videos[0].path == "a.mp4"
    assert (request.treatment, request.mask) == ("adjust", "keyframes")
    assert "structure_guidance" not in request.to_document()


def test_all_that_the_original_writes_is_taken() -> None:
    whole = guided(
        videos=[
            {
                "path": "a.mp4",
                "start_frame": 0,
                "end_frame": None,
                "treatment": "clip",
                "source_start_frame": 2,
                "source_end_frame": None,
            }
        ],
        target="vace",
        preprocessing="canny",
        strength=1.5,
        canny_intensity=0.5,
        depth_contrast=1.0,
        step_window=[0.0, 0.8],
        frame_policy="fit",
        zero_empty_frames=True,
        keep_on_gpu=False,
    )
    request = JobRequest.parse(whole)
    assert request.motion_strength == 1.5
    assert request.canny.intensity == 0.5
    assert request.structure_videos == (
        StructureVideo.model_validate({"path": "a.mp4", "treatment": "clip", "source_start_frame": 2, "end_frame": 81}),
    )


def test_what_the_request_says_itself_goes_before() -> None:
    both = guided(preprocessing="canny", strength=2.0, canny_intensity=0.5)
    both |= {"motion_strength": 0.5, "canny": {"low": 50, "intensity": 0.8}, "outputs": ["flow_vis", "canny"]}
    request = JobRequest.parse(both)
    assert (request.motion_strength, request.canny.low, request.canny.intensity) == (0.5, 50, 0.8)
    assert request.outputs == ("flow_vis", "canny")
    older = guided(strength=2.0) | {"structure_video_motion_strength": 0.7}
    assert JobRequest.parse(older).motion_strength == 0.7
    assert JobRequest.parse(guided(target="uni3c", strength=0.3)).motion_strength == 1.0


@pytest.mark.parametrize("kind", ["flow", "canny", "raw", "uni3c"])
@pytest.mark.parametrize("name", ["structure_type", "type"])
def test_the_type_beside_a_path_is_the_same(kind: str, name: str) -> None:
    videos = [{"path": "a", "end_frame": 9, name: kind}, {"path": "b", "start_frame": 9, name: kind}]
    request = JobRequest.parse(document(structure_videos=videos))
    assert request.outputs == ({"flow": "vace_flow", "uni3c": "raw"}.get(kind, kind),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            guided(preprocessing="depth"),
            "structure_guidance.preprocessing: expected flow, canny or none, got .depth., which is not made here",
        ),
        (guided(preprocessing="pose"), "structure_guidance.preprocessing: .*got 'pose'"),
        (guided(target="sora"), "structure_guidance.target: .*got 'sora'"),
        (guided(strength=-1), "structure_guidance.strength"),
        (guided(step_window=[0.8, 0.2]), r"structure_guidance.*step_window: expected \[begin, end\]"),
        (guided(step_window=[0, 2]), "structure_guidance.step_window.1"),
        (guided(videos=[]), "structure_guidance.videos"),
        (guided(videos=[{"path": "a", "speed": 1}]), r"structure_guidance\.videos\[0\]\.speed: unknown field"),
        (guided(colour=1), "structure_guidance.colour: unknown field"),
        (guided() | {"structure_guidance": "a.mp4"}, "structure_guidance"),
        (guided() | {"structure_video": "a.mp4"}, "structure_video: expected none beside structure_guidance"),
        (guided() | {"structure_videos": []}, "structure_videos: expected none beside structure_guidance"),
        (
            document(structure_videos=[{"path": "a", "structure_type": "depth"}]),
            r"structure_videos\[0\]\.structure_type: expected flow, canny or none, got .depth., which is not made here",
        ),
        (document(structure_videos=[{"path": "a", "structure_type": "pose"}]), "structure_type: expected .*got 'pose'"),
        (
            document(
                structure_videos=[
                    {"path": "a", "end_frame": 9, "structure_type": "flow"},
                    {"path": "b", "start_frame": 9, "structure_type": "raw"},
                ]
            ),
            "one structure_type a job, got flow and raw",
        ),
    ],
)
def test_bad_guidance_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        JobRequest.parse(given)
