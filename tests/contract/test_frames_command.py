"""``structureflow frames …`` on a folder, with real videos."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import (
    FrameNotFoundError,
    InputNotFoundError,
    InvalidIdError,
    InvalidKeyError,
    InvalidRequestError,
    StructureFlowError,
    TimelineNotFoundError,
)
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import encode_jpeg
from structureflow.frames.overlays import Overlay, save_overlays
from structureflow.storage.local import LocalStorage
from structureflow.testing.frames import make_frames
from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local import frames_command, frames_tasks
from structureflow_local.cli import build_parser, main
from structureflow_local.output import Output


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    return [
        write_clip(tmp_path / name, pan_frames(4, 64, 96, dx=2, dy=0, seed=seed), 20)
        for seed, name in enumerate(("z first.mp4", "a second.mp4"))
    ]


def frames(storage: LocalStorage, *words: object) -> int:
    parser = argparse.ArgumentParser()
    frames_command.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    output = Output(as_json=args.json)
    code = frames_tasks.run(args, storage, output)
    output.finish()
    return code


def test_cache_list_get_clear(
    storage: LocalStorage, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frames(storage, "cache", "t", *videos) == 0
    assert "t: 8 frames of 2 videos cached" in capsys.readouterr().out
    assert frames(storage, "list", "t", "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[5].split()[:2] == ["5", "0.250"]
    assert lines[5].endswith("a second.mp4")
    assert lines[8] == "8 frames: 0 missing, 0 changed, 0 objects besides them"
    assert frames(storage, "get", "t", "--frames", "1-2,7", "--out", tmp_path / "out") == 0
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["000001.jpg", "000002.jpg", "000007.jpg"]
    assert written[2].read_bytes() == storage.get(keys.timeline_frame("t", 7)).data
    assert frames(storage, "get", "t", "--width", 48, "--out", tmp_path / "small") == 0
    small = cv2.imread(str(tmp_path / "small" / "000000.jpg"))
    assert small is not None
    assert small.shape == (32, 48, 3)
    assert len(list((tmp_path / "small").iterdir())) == 8
    assert frames(storage, "clear", "t") == 0
    assert "9 objects removed" in capsys.readouterr().out
    with pytest.raises(TimelineNotFoundError):
        frames(storage, "list", "t")


def test_kept_chunks_can_be_rebuilt(storage: LocalStorage, videos: list[Path]) -> None:
    assert frames(storage, "cache", "t", *videos, "--keep-chunks", "--quality", 70) == 0
    cache = FrameCache(storage)
    before = cache.manifest("t")
    assert before.quality == 70
    assert [chunk.chunk_id for chunk in before.chunks] == ["0-z_first.mp4", "1-a_second.mp4"]
    storage.delete([keys.timeline_frame("t", 3)])
    assert frames(storage, "list", "--check") == 2
    assert frames(storage, "rebuild", "t", "--quality", 70) == 0
    assert frames(storage, "list", "--check") == 0
    assert cache.manifest("t").frames.crc32 == before.frames.crc32


def test_list_of_timelines(storage: LocalStorage, capsys: pytest.CaptureFixture[str]) -> None:
    cache = FrameCache(storage)
    for name in ("a", "a-b", "a.c", "a0"):
        cache.cache_frames(name, make_frames(3))
    storage.delete([keys.timeline_manifest("a.c")])
    storage.put(keys.timeline_manifest("a0"), b"{}")
    assert frames(storage, "list", "--json", "--check") == 0
    lines = json.loads(capsys.readouterr().out)["timelines"]
    found = {line["timeline"]: line["state"] for line in lines}
    assert found == {"a": "cached", "a-b": "cached", "a.c": "uncommitted", "a0": "unreadable"}
    assert next(line for line in lines if line["timeline"] == "a")["frames"] == 3
    assert frames(storage, "list", "a", "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"][2]["sequence"] == 2


@pytest.mark.parametrize("behind", [False, True])
def test_where_the_frames_are_may_stand_before_the_command_or_behind_it(
    storage: LocalStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str], behind: bool
) -> None:
    FrameCache(storage).cache_frames("t", make_frames(2))
    place = ["--folder", str(tmp_path / "store")]
    words = ["list", "t", *place] if behind else [*place, "list", "t"]
    assert main(["frames", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    bucket = ["--bucket", "b", "--endpoint-url", "http://127.0.0.1:9"]
    args = build_parser().parse_args(["frames", *([] if behind else bucket), "list", *(bucket if behind else [])])
    assert (args.bucket, args.endpoint_url, args.folder) == ("b", "http://127.0.0.1:9", None)


def test_adopt(storage: LocalStorage) -> None:
    for frame in make_frames(11):
        storage.put(f"cache/timelines/old/frames/{frame.sequence}.jpg", encode_jpeg(frame.image))
    assert frames(storage, "adopt", "old", "--fps", 10) == 0
    assert FrameCache(storage).load_cached_frames("old", [10])[0].timestamp == 1.0


def test_overlays(storage: LocalStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.full((5, 6, 3), 77, np.uint8)
    for job, stage in (("job-1", "flow"), ("job-1", "warp"), ("job-2", "flow")):
        save_overlays(storage, "t", job, stage, [Overlay(4, "field", picture)])  # type: ignore[arg-type]
    assert frames(storage, "overlays", "t") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert frames(storage, "overlays", "t", "--job", "job-1", "--out", tmp_path / "out") == 0
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert written == ["job-1/flow/000004_field.png", "job-1/warp/000004_field.png"]
    image = cv2.imread(str(tmp_path / "out" / written[0]))
    assert image is not None
    assert np.array_equal(image, picture)
    with pytest.raises(InvalidKeyError):
        frames(storage, "overlays", "t", "--stage", "flow")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [(None, None), ("5", [5]), ("0-3", [0, 1, 2, 3]), ("7,1-2, 9", [7, 1, 2, 9])],
)
def test_frame_lists(text: str | None, numbers: list[int] | None) -> None:
    assert frames_tasks.parse_frames(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,,2", "1.5", "0-99999999"])
def test_bad_frame_lists(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="--frames"):
        frames_tasks.parse_frames(text)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["cache", "t", "absent.mp4"], InputNotFoundError),
        (["cache", "../t", "absent.mp4"], InvalidIdError),
        (["cache", "t", "x/a.mp4", "y/a.mp4"], InvalidRequestError),
        (["get", "t", "--out", "nowhere"], TimelineNotFoundError),
        (["rebuild", "t"], TimelineNotFoundError),
        (["adopt", "t", "--fps", "25"], TimelineNotFoundError),
        (["clear", "a/b"], InvalidIdError),
        (["get", "there", "--out", "out", "--frames", "3"], FrameNotFoundError),
    ],
)
def test_bad_input_is_a_typed_error(
    storage: LocalStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    error: type[StructureFlowError],
) -> None:
    monkeypatch.chdir(tmp_path)
    FrameCache(storage).cache_frames("there", make_frames(3))
    with pytest.raises(error):
        frames(storage, *words)
    assert not list(storage.list("cache/timelines/t/"))


@pytest.mark.parametrize(
    "words",
    [
        ["cache", "t", "a.mp4", "--quality", "0"],
        ["rebuild", "t", "--quality", "high"],
        ["get", "t", "--out", "out", "--width", "0"],
        ["adopt", "t", "--fps", "nan"],
        ["adopt", "t", "--fps", "0"],
        ["overlays", "t", "--job", "j", "--stage", "other"],
        ["list", "t", "u"],
        [],
    ],
)
def test_bad_arguments_are_usage_errors(storage: LocalStorage, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        frames(storage, *words)
    assert caught.value.code == 2
