"""The library on Windows and macOS, as far as a process on Linux can be made one of theirs (`other_system`)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contract.library_media import make_media

REPO = Path(__file__).resolve().parents[2]
PAGE = "\n".join(re.findall(r"```python\n(.*?)```", (REPO / "docs" / "python.md").read_text(), flags=re.DOTALL))
SYSTEMS = pytest.mark.parametrize("system", ["win32", "darwin"])


def run_on(system: str, script: str, folder: Path) -> str:
    """Run a script in a child that looks like one on `system`; return what it printed."""
    begin = f"import sys; sys.path.insert(0, {str(REPO)!r})\nfrom tests.contract import other_system\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}other_system.become({system!r})\n{script}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@SYSTEMS
def test_every_module_can_be_imported(system: str, tmp_path: Path) -> None:
    said = run_on(system, "print(len(other_system.load_everything()), sys.platform)", tmp_path)
    count, platform = said.split()
    assert int(count) > 100
    assert platform == system


@SYSTEMS
def test_the_page_of_the_library_runs(system: str, tmp_path: Path) -> None:
    make_media(tmp_path)
    assert "(17, 96, 160, 3) (17, 96, 160)" in run_on(system, PAGE, tmp_path)
    assert (tmp_path / "guide" / "guide.mp4").stat().st_size > 0


JOB = """
import json, logging, sys
from pathlib import Path
from structureflow_local.cli import main
job = {"task_id": "walk", "structure_video": "clip.mp4", "images": ["a.png", "b.png", "a.png"], "frames": 17}
job |= {"overlap": 3, "outputs": ["flow_vis", "tracks"], "overlays": ["flow"]}
Path("job.json").write_text(json.dumps(job))
print(main(["validate", "job.json"]), main(["run", "job.json", "--out", "out"]))
print(main(["run", "out/request.json", "--out", "again"]))
"""


@SYSTEMS
def test_a_job_runs(system: str, tmp_path: Path) -> None:
    make_media(tmp_path)
    lines = run_on(system, JOB, tmp_path).splitlines()
    assert "0 0" in lines
    assert lines[-1] == "0"
    assert any("found in the cache" in line for line in lines)
    assert (tmp_path / "again" / "segments" / "001" / "flow_vis.mp4").stat().st_size > 0


STORE = """
import structureflow as sf
from structureflow.errors import InvalidKeyError, ObjectChangedError, ObjectExistsError, ObjectNotFoundError
store = sf.LocalStorage("store")
first = store.put("a/b.txt", b"one", if_absent=True)
for write in (lambda: store.put("a/b.txt", b"two", if_absent=True), lambda: store.put("a/b.txt", b"3", if_match="x")):
    try:
        write()
    except (ObjectExistsError, ObjectChangedError) as error:
        print(error.code)
second = store.put("a/b.txt", b"two", if_match=first.etag)
print(store.get("a/b.txt").data, [info.key for info in store.list("a/")])
print(store.delete(["a/b.txt"]), store.exists("a/b.txt"))
try:
    store.put("a:b", b"")
    print("written")
except InvalidKeyError as error:
    print(error.code)
"""


@SYSTEMS
def test_a_folder_is_a_store(system: str, tmp_path: Path) -> None:
    lines = run_on(system, STORE, tmp_path).splitlines()
    assert lines[:3] == ["ObjectExistsError", "ObjectChangedError", "b'two' ['a/b.txt']"]
    assert lines[3] == "1 False"
    # a name of a stream of another file, on Windows
    assert lines[4] == ("InvalidKeyError" if system == "win32" else "written")


#: Each writes its number too: an object that has the very bytes counts as written.
COUNT = """
import os, time
from pathlib import Path
import structureflow as sf
store = sf.LocalStorage("store")
Path(f"ready-{os.getpid()}").touch()
while not Path("go").exists():
    time.sleep(0.001)
for _ in range(200):
    while True:
        found = store.get("count")
        try:
            count = int(found.data.split()[0]) + 1
            store.put("count", f"{count} {os.getpid()}".encode(), if_match=found.info.etag)
            break
        except sf.StructureFlowError as error:
            assert error.code == "ObjectChangedError", error
"""


@SYSTEMS
def test_processes_lock_each_other_out(system: str, tmp_path: Path) -> None:
    import structureflow as sf

    begin = f"import sys; sys.path.insert(0, {str(REPO)!r})\nfrom tests.contract import other_system\n"
    sf.LocalStorage(tmp_path / "store").put("count", b"0 0")
    script = f"{begin}other_system.become({system!r})\n{COUNT}"
    children = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    while len(list(tmp_path.glob("ready-*"))) < 2 and all(child.poll() is None for child in children):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert sf.LocalStorage(tmp_path / "store").get("count").data.split()[0] == b"400"
