"""What commands say and how they end, over a folder that stands for the bucket."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from structureflow import keys
from structureflow.errors import (
    FlowCacheFormatError,
    InvalidRequestError,
    JobStateError,
    NotAVideoError,
    ObjectNotFoundError,
    SettingsError,
    StorageError,
    StructureFlowError,
    TransientStorageError,
)
from structureflow.jobs import live_keys
from structureflow.models.results import JobStatus, PartProgress
from structureflow.storage.local import LocalStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.cli import main
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.exits import NotFinishedError, exit_code
from structureflow_local.jobfile import prepare
from structureflow_local.output import Output
from structureflow_local.progress import JobProgress, counting

ODD = "[red]a[/red] [/] \\["


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    runner = JobRunner(LocalStorage(tmp_path / "store"), tmp_path)
    put_pan_clip(runner.storage, "videos/pan.mp4", tmp_path)
    runner.storage.put("images/a.png", png(texture(96, 160, seed=1)))
    return runner


def request(task_id: str, **changes: Any) -> dict[str, Any]:
    guides = [{"at": [0, 1], "image": "images/a.png"}]
    return {
        "task_id": task_id,
        "structure_video": "videos/pan.mp4",
        "segments": [{"frames": 5, "guides": guides}, {"frames": 4, "guides": guides}],
        **changes,
    }


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command on the folder; return its exit code, what it printed, and what it printed as errors."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main([*map(str, words), "--folder", str(tmp_path / "store")])
        out, err = capsys.readouterr()
        return code, out, err

    return run


Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequestError("x"), 2),
        (SettingsError("x"), 2),
        (NotAVideoError("x"), 2),
        (FlowCacheFormatError("x"), 2),
        (JobStateError("x"), 2),
        (ObjectNotFoundError("x"), 2),
        (StorageError("x"), 4),
        (TransientStorageError("x"), 4),
        (NotFinishedError("x"), 5),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: StructureFlowError, code: int) -> None:
    assert exit_code(error) == code


def test_a_job_is_shown_listed_fetched_and_deleted(runner: JobRunner, command: Command, tmp_path: Path) -> None:
    assert runner.run("done", request("done")).state == "done"
    assert runner.run("failed", request("failed", structure_video="images/a.png")).state == "failed"
    runner.put_request("waiting", request("waiting"))
    runner.put_request("running", request("running"))
    runner.orchestrate("running")

    assert command("status", "done")[0] == 0
    code, out, _ = command("status", "failed")
    assert code == 3
    assert "failed: failed" in out
    assert "NotAVideoError" in out
    code, out, _ = command("status", "running")
    assert (code, out.startswith("running: running, stage")) == (0, True)
    code, out, err = command("status", "waiting")
    assert (code, out) == (5, "waiting: requested, not started yet\n")
    assert "five minutes after a stack's first deployment" in " ".join(err.split())
    code, _, err = command("status", "none")
    assert (code, err.startswith("JobStateError: job none: there is none")) == (2, True)

    code, out, _ = command("jobs", "list")
    assert code == 0
    states = dict(line.split()[:2] for line in out.splitlines())
    assert states == {"done": "done", "failed": "failed", "running": "running", "waiting": "requested"}
    assert "NotAVideoError" in out
    assert len(command("jobs", "list", "--limit", 2)[1].splitlines()) == 2

    for task_id, ends in (("failed", 3), ("running", 5), ("waiting", 5), ("none", 2)):
        assert command("fetch", task_id, "--out", tmp_path / "nothing")[0] == ends
        assert not (tmp_path / "nothing").exists()
    code, out, _ = command("fetch", "done", "--out", tmp_path / "out")
    assert code == 0
    assert out.splitlines() == [str(path) for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()]

    code, _, err = command("clean", "done")
    assert code == 2
    assert "--yes: expected it" in err, "nobody is there to be asked"
    assert command("status", "done")[0] == 0
    code, out, _ = command("clean", "done", "--yes")
    assert (code, out.endswith(" objects deleted\n")) == (0, True)
    assert command("status", "done")[0] == 2
    assert command("clean", "done", "--yes")[0] == 2


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y", 0, False), ("yes", 0, False), ("n", 2, True), ("", 2, True)]
)
def test_clean_asks_who_is_there(runner: JobRunner, tmp_path: Path, answer: str, code: int, left: bool) -> None:
    runner.put_request("t", request("t"))
    master, slave = pty.openpty()
    words = ["clean", "t", "--folder", str(tmp_path / "store")]
    process = subprocess.Popen(
        [sys.executable, "-m", "structureflow_local.cli", *words], stdin=slave, stdout=subprocess.PIPE, stderr=slave
    )
    os.close(slave)
    asked = b""
    while b"[y/N]" not in asked:
        asked += os.read(master, 1000)
    assert b"Delete 1 object of job t " in asked
    os.write(master, f"{answer}\n".encode())
    process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == code
    assert runner.storage.exists(keys.job_request("t")) is left


def test_json_is_one_document_whatever_happens(runner: JobRunner, command: Command, tmp_path: Path) -> None:
    assert runner.run("t", request("t")).state == "done"
    for words, code, name in (
        (["status", "t"], 0, "state"),
        (["jobs", "list"], 0, "jobs"),
        (["fetch", "t", "--out", str(tmp_path / "out")], 0, "files"),
        (["frames", "list"], 0, "timelines"),
        (["status", "none"], 2, "error"),
        (["fetch", "t", "--out", "/proc/out"], 2, "error"),
        (["clean", "t", "--yes"], 0, "deleted"),
    ):
        found, out, err = command(*words, "--json")
        assert (found, err) == (code, ""), words
        assert name in json.loads(out), words


def test_nothing_that_comes_from_outside_is_markup(
    runner: JobRunner, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ODD
    assert runner.run("t", request("t")).state == "done"
    code, printed, _ = command("fetch", "t", "--out", out)
    assert code == 0
    assert f"{out}/manifest.json" in printed.splitlines()
    job = tmp_path / f"{ODD}.json"
    job.write_text(json.dumps(request("t", **{ODD: 1})))
    assert main(["validate", str(job)]) == 2
    printed = capsys.readouterr().out
    assert f"{job}: 1 problem" in printed
    assert f"  {ODD}: unknown field" in printed
    assert main(["inspect", str(out / "structure_flows_t.npz"), "--png", str(out / "[i].png"), "-v"]) == 0
    assert f"contact sheet: {out / '[i].png'}" in capsys.readouterr().out
    assert main(["run", str(tmp_path / f"{ODD} gone.json"), "--out", str(out)]) == 2
    assert f"{ODD} gone.json: cannot be read" in capsys.readouterr().err
    failed = runner.run("f", request("f", structure_video="videos/[red]a[/red] [/].mp4"))
    assert failed.state == "failed"
    code, printed, _ = command("status", "f", "-v")
    assert code == 3
    assert "[red]a[/red] [/].mp4" in printed


@pytest.mark.parametrize("out", ["/proc/out", "file", "file/out"])
def test_a_folder_that_cannot_be_written_is_noticed_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    write_clip(tmp_path / "clip.mp4", pan_frames(3, 64, 96, dx=1, dy=0, seed=1), 20)
    (tmp_path / "a.png").write_bytes(png(texture(64, 96, seed=1)))
    (tmp_path / "job.json").write_text(
        json.dumps({"structure_video": "clip.mp4", "images": ["a.png", "a.png"], "task_id": "t"})
    )
    started = threading.active_count()
    assert main(["run", "job.json", "--out", out]) == 2
    assert out in capsys.readouterr().err
    assert threading.active_count() == started, "no local cloud was started"
    assert not (tmp_path / ".structureflow").exists()


def test_a_video_and_a_job_are_too_much(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--video", "a.mp4", "--job", "b.json", "--out", "out"]) == 2
    assert "--video and --job: expected one of them" in capsys.readouterr().err


def test_what_cannot_be_reached_is_said_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["status", "t", "--bucket", "b", "--endpoint-url", "http://127.0.0.1:9"]) == 4
    assert "s3://b/jobs/t/status.json" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_who_has_read_enough_gets_no_complaint(runner: JobRunner, tmp_path: Path, options: list[str]) -> None:
    for number in range(3):
        runner.put_request(f"t{number}", request("t"))
    words = ["jobs", "list", "--folder", str(tmp_path / "store"), *options]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "structureflow_local.cli", *words], stdout=theirs, stderr=subprocess.PIPE, check=False
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, b"")


# --- waiting -----------------------------------------------------------------------------------------


def test_submit_waits_until_the_job_is_done(runner: JobRunner, command: Command, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(request("t")))

    def work() -> None:
        while not runner.storage.exists(keys.job_request("t")):
            time.sleep(0.02)
        runner.run("t", json.loads(runner.storage.get(keys.job_request("t")).data))

    worker = threading.Thread(target=work)
    worker.start()
    code, out, _ = command("submit", tmp_path / "job.json", "--wait", "--timeout", 60)
    worker.join()
    assert code == 0
    assert out.splitlines()[0] == "t"
    assert "t: done" in out.splitlines()[-1]
    code, out, _ = command("submit", tmp_path / "job.json", "--wait", "--timeout", 0.2)
    assert code == 5, "the status of the run before does not count"
    assert command("status", "t", "--watch", "--timeout", 60)[0] == 0


def shown(console: Console, storage: LocalStorage, statuses: list[JobStatus]) -> None:
    with JobProgress(Output(console=console), storage) as progress:
        for status in statuses:
            progress.watch(status)


def test_the_display_has_frames_segments_and_time_on_a_terminal_and_plain_lines_in_a_pipe(runner: JobRunner) -> None:
    assert runner.run("t", request("t")).state == "done"
    status = runner.status("t")
    running = status.model_copy(update={"state": "running", "stage": "segments"})
    live = io.StringIO()
    shown(Console(file=live, force_terminal=True, width=120), runner.storage, [running, status])  # type: ignore[arg-type]
    assert re.search(r"9/9.*frames, 2 of 2 segments.*\d:\d\d:\d\d.*left.*\d:\d\d:\d\d", live.getvalue())
    piped = io.StringIO()
    shown(Console(file=piped, width=120), runner.storage, [running, status])  # type: ignore[arg-type]
    assert "\x1b" not in piped.getvalue()
    lines = [line.split(" s  ", 1)[1] for line in piped.getvalue().splitlines()]
    assert [line.split("  ")[0] for line in lines] == ["flows", "segments", "segment 0", "segment 1"]
    assert "5 frames 160x96: 3 filled by motion, 0 left to the generator" in lines[2]


def test_the_display_moves_within_a_segment_and_within_an_extraction(runner: JobRunner) -> None:
    """By what parts write down of themselves, in the store of the job."""
    runner.put_request("t", request("t"))
    runner.orchestrate("t")
    status = runner.status("t").model_copy(update={"stage": "segments", "segments": 2})
    part = PartProgress(step="segment", index=1, done=3, total=4, updated_at=status.updated_at)
    key = live_keys.run_progress("t", status.run_id, "segment", 1, ended=False)
    runner.storage.put(key, part.to_json())
    live = io.StringIO()
    shown(Console(file=live, force_terminal=True, width=120), runner.storage, [status])  # type: ignore[arg-type]
    assert re.search(r"3/9.*frames, 0 of 2 segments", live.getvalue()), live.getvalue()

    runner.put_request("e", request("e"))
    begun = status.model_copy(update={"task_id": "e", "run_id": "r", "stage": "extract", "segments": None})
    part = PartProgress(step="extract", index=0, done=40, total=132, updated_at=status.updated_at)
    runner.storage.put(live_keys.run_progress("e", "r", "extract", 0, ended=False), part.to_json())
    live = io.StringIO()
    shown(Console(file=live, force_terminal=True, width=120), runner.storage, [begun])  # type: ignore[arg-type]
    assert re.search(r"40/132.*frames, no segments yet", live.getvalue()), live.getvalue()


def test_whatever_takes_long_is_counted_on_a_terminal_and_quiet_in_a_pipe() -> None:
    live, piped = io.StringIO(), io.StringIO()
    for unit, said in (("bytes", "3.0/4.0 MB"), ("frames", "3000000/4000000 frames")):
        with counting(
            Output(console=Console(file=live, force_terminal=True, width=120)), "work", 4_000_000, unit
        ) as done:
            done(1_000_000)
            done(2_000_000)
        assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", live.getvalue()).count(said) >= 1, live.getvalue()
    with counting(Output(console=Console(file=piped)), "work", None, "frames") as done:
        done(1)
    with counting(Output(as_json=True), "work", None, "frames") as done:
        done(1)
    assert piped.getvalue() == ""


# --- a request that was fetched ----------------------------------------------------------------------


def test_a_fetched_request_runs_again_from_anywhere(runner: JobRunner, tmp_path: Path) -> None:
    material = tmp_path / "material"
    material.mkdir()
    write_clip(material / "clip.mp4", pan_frames(6, 96, 160, dx=1, dy=0, seed=1), 20)
    (material / "a.png").write_bytes(png(texture(96, 160, seed=1)))
    guides = [{"at": [0, 1], "image": "a.png"}]
    document = {"task_id": "t", "structure_video": "clip.mp4", "segments": [{"frames": 5, "guides": guides}]}
    client = JobClient(runner.storage)
    job = prepare_job(json.dumps(document), name="t", folder=material)
    client.submit(job)
    assert runner.run("t", json.loads(job.request)).state == "done"
    client.fetch("t", tmp_path / "out", inputs=True)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    for path in material.iterdir():
        path.unlink()

    again = prepare(tmp_path / "elsewhere" / "request.json")
    assert json.loads(again.request) == json.loads(job.request), "the same request, name for name"
    assert {key: path.name for key, path in again.uploads.items()} == {key: Path(key).name for key in job.uploads}
    other = JobRunner(LocalStorage(tmp_path / "other"), tmp_path)
    JobClient(other.storage).submit(again)
    assert other.run("t", json.loads(again.request)).state == "done"
    # it takes the place of what is there
    JobClient(other.storage).fetch("t", tmp_path / "elsewhere", inputs=True)
    assert len(list((tmp_path / "elsewhere" / "inputs").iterdir())) == 2
