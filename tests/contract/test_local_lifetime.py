"""The local cloud leaves no process and no folder behind, however the process that runs it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from structureflow_local.cloud import FunctionProcessError, LocalCloud, LocalCloudError
from structureflow_local.cloud.spawner import descendants

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"

CHILD = """
    import contextlib, json, os, signal, sys, threading, time
    from pathlib import Path
    # A shell that runs the tests in the background has interrupts ignored, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from structureflow_local.cloud import FunctionProcessError, LocalCloud
    from structureflow_local.cloud.spawner import descendants

    end = sys.argv[2]
    with LocalCloud(Path(sys.argv[1])) as cloud:
        grandchild = cloud.invoke("EchoFunction", {"child": True}).payload["child"]
        # One call is under way when the end comes.
        def call():
            with contextlib.suppress(FunctionProcessError):
                cloud.invoke("StepFunction", {"name": "x", "sleep_s": 2.5})
        threading.Thread(target=call, daemon=True).start()
        time.sleep(0.3)
        pids = sorted({grandchild, *descendants(os.getpid())})
        print(json.dumps({"pids": pids, "grandchild": grandchild, "folder": str(cloud.state_dir)}), flush=True)
        if end == "raise":
            raise RuntimeError("the caller fails")
        if end == "wait":
            time.sleep(60)
"""


def running(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command(pid: int) -> str:
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def wait_gone(pids: list[int], folder: Path, timeout_s: float = 30) -> list[int]:
    """Wait until no process and no folder is left; return the processes that are."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        left = [pid for pid in pids if running(pid)]
        if not left and not folder.exists():
            return []
        time.sleep(0.02)
    return [pid for pid in pids if running(pid)]


def start(end: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start a program that runs a cloud; return it and what it said of its processes."""
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(FIXTURE / "template.yaml"), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        raise AssertionError(program.communicate()[1])
    return program, json.loads(line)


@pytest.mark.parametrize(
    ("end", "sent", "code"),
    [
        ("return", None, 0),
        ("raise", None, 1),
        ("wait", signal.SIGINT, -signal.SIGINT),
        ("wait", signal.SIGTERM, -signal.SIGTERM),
        ("wait", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_nothing_is_left_behind(end: str, sent: signal.Signals | None, code: int) -> None:
    program, said = start(end)
    assert len(said["pids"]) >= 8, "spawner, four emulators, two runtimes, and what a function started"
    if sent is not None:
        assert all(running(pid) for pid in said["pids"])
        os.killpg(program.pid, sent)
    _, errors = program.communicate(timeout=20)
    assert program.returncode == code, errors
    assert wait_gone(said["pids"], Path(said["folder"])) == []
    assert not Path(said["folder"]).exists()
    if end == "return":
        assert errors == "", "the console is the caller's"


def invoke_again_and_again(cloud: LocalCloud) -> None:
    """A process that was just being started may answer once more before its end reaches it."""
    for _ in range(100):
        cloud.invoke("CleanerFunction", {})
        time.sleep(0.1)


def test_a_spawner_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    with LocalCloud(FIXTURE / "template.yaml", state_dir=tmp_path) as cloud:
        cloud.invoke("EchoFunction", {})
        below = descendants(os.getpid())
        (spawner,) = [pid for pid in below if parent(pid) == os.getpid() and "spawner.py" in command(pid)]
        # other tests of this process may have a browser open
        below = {spawner, *descendants(spawner)}
        os.kill(spawner, signal.SIGKILL)
        assert wait_gone(sorted(below), tmp_path / "none") == []
        with pytest.raises(FunctionProcessError):
            invoke_again_and_again(cloud)


def test_a_function_that_times_out_takes_along_what_it_started() -> None:
    with LocalCloud(FIXTURE / "template.yaml") as cloud:
        child = cloud.invoke("EchoFunction", {"child": True}).payload["child"]
        assert running(child)
        assert cloud.invoke("EchoFunction", {"sleep_s": 9}).error == "Sandbox.Timedout"
        assert wait_gone([child], cloud.state_dir / "none") == []


def test_a_second_cloud_starts_empty_after_the_first(tmp_path: Path) -> None:
    ports = set()
    for _ in range(2):
        with LocalCloud(FIXTURE / "template.yaml", state_dir=tmp_path) as cloud:
            s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
            assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
            assert cloud.executions("StepsStateMachine") == []
            s3.put_object(Bucket=bucket, Key="jobs/a/request.json", Body=b"{}")
            cloud.wait_idle(20)
            assert len(cloud.executions("StepsStateMachine")) == 1
            ports.add(cloud.endpoint_url)
    assert (tmp_path / "logs" / "EntryFunction" / "1.log").exists(), "a folder that was given is kept"
    assert len(ports) == 2


def test_closing_twice_is_no_error_and_the_port_is_free_again() -> None:
    with LocalCloud(FIXTURE / "template.yaml") as cloud:
        port = int(cloud.endpoint_url.rpartition(":")[2])
    cloud.close()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_it_listens_on_loopback_only_and_where_it_is_told() -> None:
    with LocalCloud(FIXTURE / "template.yaml", extra_hosts=["127.0.0.2"]) as cloud:
        port = int(cloud.endpoint_url.rpartition(":")[2])
        for host in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((host, port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.3", port), timeout=5)


def test_an_address_that_cannot_be_bound_stops_the_start_and_leaves_nothing() -> None:
    before = descendants(os.getpid())
    with (
        pytest.raises(LocalCloudError, match=r"192\.0\.2\.1"),
        LocalCloud(FIXTURE / "template.yaml", extra_hosts=["192.0.2.1"]),
    ):
        pass
    assert descendants(os.getpid()) == before
    with LocalCloud(FIXTURE / "template.yaml") as cloud:
        assert cloud.invoke("EchoFunction", {}).error is None


def test_a_definition_that_is_no_state_machine_stops_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    shutil.copytree(FIXTURE, folder)
    path = folder / "statemachines" / "steps.asl.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "States": {"HasPlan": {"Type": "Nonsense"}}}))
    before = descendants(os.getpid())
    with pytest.raises(LocalCloudError, match=r"steps\.asl\.json"), LocalCloud(folder / "template.yaml"):
        pass
    assert descendants(os.getpid()) == before
