"""The README's commands work as typed, in a fresh shell, in a checkout with a clip and two pictures beside it."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

REPO = Path(__file__).resolve().parents[2]
SECTIONS = ("I make video", "I run it", "Looking at it")
#: They take an hour, or go on until they are interrupted; each is run elsewhere, or below.
NOT_HERE = ("make test", ".venv/bin/structureflow serve", ".venv/bin/structureflow viewer")
#: There is no stack of that name.
CODES = {"doctor --stack": 4}


def lines(section: str) -> Iterator[str]:
    text = (REPO / "README.md").read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        yield from (line for line in block.splitlines() if not line.startswith(NOT_HERE))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout, as far as commands see: what they write goes here, and not into the real one."""
    folder = tmp_path / "structureflow"
    folder.mkdir()
    for path in REPO.iterdir():
        if path.name not in {".git", "out", ".structureflow", ".pytest_cache", ".hypothesis"}:
            (folder / path.name).symlink_to(path)
    write_clip(folder / "clip.mp4", pan_frames(24, 96, 160, dx=2, dy=0, seed=1), 20)
    for seed, name in enumerate("ab"):
        (folder / f"{name}.png").write_bytes(png(texture(96, 160, seed=seed)))
    return folder


def shell(line: str, folder: Path, exports: dict[str, str]) -> subprocess.CompletedProcess[str]:
    fresh = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **exports}
    return subprocess.run(
        ["/bin/bash", "-c", line], cwd=folder, env=fresh, capture_output=True, text=True, check=False, timeout=300
    )


def test_commands_work_as_typed(checkout: Path) -> None:
    python = {"PYTHON": str(checkout / ".venv" / "bin" / "python")}
    ran = 0
    served = subprocess.Popen(
        shlex.split(".venv/bin/structureflow serve"), cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    try:
        assert served.stdout is not None
        exports = {}
        for line in iter(served.stdout.readline, ""):
            if not line.startswith("export "):
                break
            name, _, value = line.removeprefix("export ").strip().partition("=")
            (exports[name],) = shlex.split(value)
        for section in SECTIONS:
            for line in lines(section):
                done = shell(line, checkout, exports if section == "I run it" else python)
                code = next((code for words, code in CODES.items() if words in line), 0)
                assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
                ran += 1
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    assert ran >= 13
    for name in ("out/report.html", "fetched/manifest.json", "flows.png", "job.schema.json"):
        assert (checkout / name).is_file(), name
    assert not (REPO / "job.jsonc").exists()


def test_a_shell_of_its_own_finds_the_command(checkout: Path) -> None:
    done = subprocess.run(
        ["make", "-s", "shell"],
        cwd=checkout,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(checkout), "SHELL": "/bin/sh"},
        input="structureflow --version\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("structureflow ")
