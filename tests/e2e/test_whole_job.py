"""The whole job on the local cloud: the real template, state machine, function processes and a real clip."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.guide.images import fit
from structureflow.models.results import JobRecord, JobStatus, Manifest
from structureflow.testing.videos import count_frames, decode_rgb, write_damaged_clip
from structureflow_local.client import JobClient, PreparedJob, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
MEDIA = REPO.parent / "shared" / "media" / "bigbuckbunny.mp4"
SAMPLE = REPO / "local" / "sample" / "structure.mp4"
CLIP = MEDIA if MEDIA.exists() else SAMPLE
COMMAND = Path(sys.executable).with_name("structureflow")

FILES = ("guide.mp4", "mask.mp4", "result.json", "wan2gp.json")

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def structureflow(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(
        [COMMAND, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo's job on the real clip, and what the command said."""
    folder = tmp_path_factory.mktemp("demo")
    done = structureflow(
        "demo", "--cloud", "--video", CLIP, "--out", folder / "out", "--store", folder / "store", cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done


def test_the_folder_holds_what_the_design_lists(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = demo
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    inputs = {name for name in names if name.startswith("inputs/")}
    assert len(inputs) == 5, "the video and four pictures, so that the request runs again"
    assert names - inputs == {
        "request.json",
        "job.json",
        "manifest.json",
        "report.html",
        "status.json",
        "structure_flows_demo.npz",
        *(
            f"segments/{i:03d}/{name}"
            for i in range(3)
            for name in ("guide.mp4", "mask.mp4", "result.json", "wan2gp.json")
        ),
    }


def test_flows_open_with_plain_numpy(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = demo
    frames = count_frames(CLIP)
    with np.load(out / "structure_flows_demo.npz", allow_pickle=False) as archive:
        assert archive["flows"].shape == archive["flows_backward"].shape
        assert archive["flows"].shape[0] == archive["total_flows"] == frames - 1
        assert np.isfinite(archive["flows"]).all()
        assert np.abs(archive["flows"]).max() > 1


def test_videos_have_the_frames_asked_for(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    import av

    out, _ = demo
    manifest = Manifest.model_validate_json((out / "manifest.json").read_bytes())
    assert len(manifest.segments) == 3
    for result in manifest.segments:
        for name in ("guide", "mask"):
            path = out / f"segments/{result.index:03d}/{name}.mp4"
            assert count_frames(path) == 81
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                assert stream.codec_context.name == "h264"
                assert stream.pix_fmt == "yuv420p"
                assert float(stream.average_rate or 0) == 16
                assert (stream.width, stream.height) == (result.width_px, result.height_px) == (832, 480)


def test_masks_keep_what_is_guided_and_what_an_anchor_shows(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = demo
    manifest = Manifest.model_validate_json((out / "manifest.json").read_bytes())
    for result in manifest.segments:
        unguided = {i for first, last in result.unguided for i in range(first, last + 1)}
        left = {i for first, last in result.left_unguided for i in range(first, last + 1)}
        kept = []
        for index, mask in enumerate(decode_rgb(out / f"segments/{result.index:03d}/mask.mp4")):
            assert set(np.unique(mask)) <= {0, 255}, (result.index, index)
            kept.append(float((mask == 0).mean()))
            assert index in unguided or kept[-1] == 1, (result.index, index)
            assert index not in left or kept[-1] == 0, (result.index, index)
        assert result.kept is not None
        assert result.kept == pytest.approx(np.mean(kept))
        assert 0.5 < result.kept < 1, "a mask that asks for something, and keeps most"
    assert manifest.notices == ()


def test_guides_move_like_the_clip(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Each segment plays the part of the clip between its images: in its gap it must look like the clip there,
    more than the still first image does. A reversed warp looks less like it."""
    out, _ = demo
    clip = [fit(frame, 480, 832) for frame in decode_rgb(CLIP)]
    last = len(clip) - 1
    for index in range(3):
        guide = list(decode_rgb(out / f"segments/{index:03d}/guide.mp4"))
        masks = list(decode_rgb(out / f"segments/{index:03d}/mask.mp4"))
        start, stop = round(index * last / 3), round((index + 1) * last / 3)
        errors = {"moved": 0.0, "still": 0.0}
        for k in range(4, 50, 4):
            real = clip[round(start + (stop - start) * k / 53)].astype(np.float32)
            kept = masks[20 + k] == 0
            errors["moved"] += float(np.square(guide[20 + k].astype(np.float32) - real)[kept].mean())
            errors["still"] += float(np.square(clip[start].astype(np.float32) - real)[kept].mean())
        assert errors["moved"] < 0.6 * errors["still"], (index, errors)


def test_the_console_names_every_stage(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = demo
    for stage in ("cloud", "upload", "extract", "flows", "segment 0", "segment 1", "segment 2", "fetch", "report.html"):
        assert stage in done.stdout, stage
    assert done.stderr == ""


def test_a_second_run_finds_the_flows(demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Also into the folder of an earlier job, whose files make way."""
    out, _ = demo
    store = out.parent / "store"
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    (tmp_path / "out" / "segments" / "009").mkdir()
    (tmp_path / "out" / "segments" / "009" / "guide.mp4").write_bytes(b"of an earlier job")
    done = structureflow("demo", "--cloud", "--video", CLIP, "--out", tmp_path / "out", "--store", store, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "found in the cache" in done.stdout
    record = JobRecord.model_validate_json((tmp_path / "out" / "job.json").read_bytes())
    assert record.flow_cache_hit
    assert "extract" not in record.timings_s
    assert {path.name for path in (tmp_path / "out" / "segments").iterdir()} == {"000", "001", "002"}
    assert (tmp_path / "out" / "notes.txt").read_text() == "of the user"


# --- bad input, through the whole cloud ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{not json", "line 1, column 2: expected JSON"),
        ('{"structure_video": "missing.mp4", "images": ["a.png", "b.png"]}', "missing.mp4, which is not there"),
        ('{"structure_video": "text.mp4", "images": ["image.png", "image.png"]}', "text.mp4: expected a video, got"),
        ('{"task_id": "../x", "structure_video": "text.mp4", "images": ["a", "b"]}', "task_id: expected 1 to 128"),
    ],
)
@pytest.mark.parametrize("where", [[], ["--cloud"]], ids=["here", "cloud"])
def test_bad_input_is_noticed_before_anything_starts(tmp_path: Path, text: str, said: str, where: list[str]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "image.png")
    (tmp_path / "job.json").write_text(text)
    before = set(tmp_path.rglob("*"))
    done = structureflow("run", "job.json", "--out", "out", *where, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", [[], ["--cloud"]], ids=["here", "cloud"])
def test_what_shows_on_the_way_ends_with_exit_code_3_and_a_typed_error(tmp_path: Path, where: list[str]) -> None:
    write_damaged_clip(tmp_path / "clip.mp4")
    (tmp_path / "job.json").write_text(json.dumps({"structure_video": "clip.mp4", "segments": [{"frames": 9}]}))
    done = structureflow("run", "job.json", "--out", "out", *where, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "CorruptMediaError" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    status = JobStatus.model_validate_json((tmp_path / "out" / "status.json").read_bytes())
    assert status.error is not None
    assert status.error.code == "CorruptMediaError"
    # its inputs come with the request, which runs again
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"inputs", "status.json", "request.json"}


# --- the wiring is the template's ----------------------------------------------------------------------


@pytest.fixture
def sample_job(tmp_path: Path) -> PreparedJob:
    """A small job on the sample clip."""
    from structureflow_local.demo import write_demo_job

    path = write_demo_job(SAMPLE, tmp_path)
    document = json.loads(path.read_text()) | {"resolution": [160, 96], "target": None}
    start, end, *_ = document.pop("images")
    guides = [{"image": start, "at": [0, 2]}, {"image": end, "at": [10, 11]}]
    document["segments"] = [{"frames": 12, "guides": guides}, {"frames": 12, "guides": guides}]
    return prepare_job(json.dumps(document), name="demo", folder=tmp_path)


def project_with(target: Path, definition: dict[str, Any]) -> Path:
    """Return the template of a project that is ours but for the state machine's definition."""
    target.mkdir()
    shutil.copy(REPO / "template.yaml", target)
    for name in ("functions", "layers"):
        (target / name).symlink_to(REPO / name)
    (target / "statemachines").mkdir()
    shutil.copy(REPO / "statemachines" / "extraction.asl.json", target / "statemachines")
    (target / "statemachines" / "segments.asl.json").write_text(json.dumps(definition))
    return target / "template.yaml"


def test_a_machine_without_assemble_job_never_finishes_the_job(tmp_path: Path, sample_job: PreparedJob) -> None:
    """What runs is the file that the template deploys: take a state out of it, and the job stays open."""
    definition = json.loads((REPO / "statemachines" / "segments.asl.json").read_text())
    del definition["States"]["AssembleJob"]
    definition["States"]["Segments"]["Next"] = "DuplicateEvent"
    with LocalCloud(project_with(tmp_path / "project", definition)) as cloud:
        client = JobClient(bucket_of(cloud))
        client.submit(sample_job)
        cloud.wait_idle(120)
        status = client.status("demo")
        assert status is not None
        assert (status.state, status.stage) == ("running", "segments")
        assert [execution.status for execution in cloud.executions("SegmentsStateMachine")] == ["SUCCEEDED"]


def test_every_event_delivered_twice_makes_one_job(sample_job: PreparedJob) -> None:
    with LocalCloud(REPO / "template.yaml", duplicate_events=True) as cloud:
        storage = bucket_of(cloud)
        client = JobClient(storage)
        client.submit(sample_job)
        status = client.wait("demo", timeout_s=120)
        cloud.wait_idle(120)
        assert status.state == "done"
        assert client.status("demo") == status
        executions = cloud.executions("SegmentsStateMachine")
        assert len(executions) >= 2
        assert {execution.status for execution in executions} == {"SUCCEEDED"}
        assert len({info.key.split("/")[3] for info in storage.list(keys.runs_prefix("demo"))}) == 1


def children_of(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            yield int(path.parent.name)
            yield from children_of(int(path.parent.name))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [COMMAND, "demo", "--cloud", "--out", tmp_path / "out", "--no-store"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "extract" in line:
            break
    started = set(children_of(process.pid))
    assert started
    process.send_signal(how)
    process.stdout.read()
    process.stdout.close()
    process.wait(30)
    deadline = time.monotonic() + 15
    while (left := {pid for pid in started if Path(f"/proc/{pid}").exists()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
