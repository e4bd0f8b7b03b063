"""Every example that a command's ``--help`` shows is run, as it stands there, in a folder with the files it names."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from structureflow.frames.jpeg import encode_jpeg
from structureflow.storage.local import LocalStorage
from structureflow.testing.frames import make_frames
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.cli import build_parser

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(600)]

SIZE = 96, 160
#: What they are run in the order of: some need what others left. The rest follows.
FIRST = ("demo --out", "run job.json", "submit job.json --wait", "frames cache")
LAST = ("frames clear", "clean")
#: Examples that are meant to fail here, and how: there is no CloudFormation to ask.
CODES = {"doctor --stack": 4}
#: These go on until they are interrupted, and have tests of their own below.
ENDLESS = ("serve", "viewer")


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every parser of a command, those below others too."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def examples() -> list[str]:
    found: list[str] = []
    for parser in parsers(build_parser()):
        lines = re.findall(r"^  (structureflow .*)$", parser.format_help(), re.MULTILINE)
        assert lines, f"{parser.prog} --help has no example"
        found += [line for line in lines if line not in found]
    return found


def in_order(lines: list[str]) -> list[str]:
    def place(line: str) -> int:
        words = line.removeprefix("structureflow ")
        first = [at for at, start in enumerate(FIRST) if words.startswith(start)]
        return first[0] - len(FIRST) if first else int(words.startswith(LAST))

    return sorted((line for line in lines if line.split()[1] not in ENDLESS), key=place)


def put_workspace(folder: Path) -> None:
    """Put the files that examples name."""
    height, width = SIZE
    write_clip(folder / "clip.mp4", pan_frames(24, height, width, dx=2, dy=0, seed=1), 20)
    for seed, name in enumerate("abc"):
        (folder / f"{name}.png").write_bytes(png(texture(height, width, seed=seed)))
    job = {
        "task_id": "walk-1",
        "structure_video": "clip.mp4",
        "images": ["a.png", "b.png"],
        "frames": 9,
        "overlap": 3,
        "hold": 2,
        "resolution": [width, height],
    }
    (folder / "job.json").write_text(json.dumps(job))
    storage = LocalStorage(folder / "store")
    storage.put_file("timelines/kept/chunks/000.mp4", folder / "clip.mp4")
    for frame in make_frames(3):
        storage.put(f"cache/timelines/old/frames/{frame.sequence}.jpg", encode_jpeg(frame.image))


def command(line: str, bucket: str) -> list[str]:
    words = [{"BUCKET": bucket}.get(word, word) for word in shlex.split(line)]
    return [sys.executable, "-m", "structureflow_local.cli", *words[1:]]


def endless(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    # the viewer's server takes the interruption for its ordinary end
    assert process.returncode in {0, 130}, errors
    return errors.strip()


def test_every_example_of_the_help_runs(tmp_path: Path) -> None:
    put_workspace(tmp_path)
    served = endless(command("structureflow serve", ""), tmp_path, dict(os.environ))
    try:
        environment = dict(os.environ)
        assert served.stdout is not None
        for line in iter(served.stdout.readline, ""):
            if not line.startswith("export "):
                break
            name, _, value = line.removeprefix("export ").strip().partition("=")
            (environment[name],) = shlex.split(value)
        bucket = environment.pop("DATA_BUCKET")
        lines = examples()
        assert len(lines) >= 25
        for line in in_order(lines):
            words = command(line, bucket)
            done = subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200
            )
            code = next((code for start, code in CODES.items() if f"structureflow {start}" in line), 0)
            assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        viewer = next(line for line in lines if line.startswith("structureflow viewer"))
        shown = endless([*command(viewer, bucket), "--port", "0"], tmp_path, environment)
        try:
            assert shown.stdout is not None
            url = shown.stdout.readline().split()[0]
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(url, timeout=30) as page:  # noqa: S310  loopback
                assert b"structureflow" in page.read()
        finally:
            assert end(shown) == ""
    finally:
        assert end(served) == "interrupted"
    assert (tmp_path / "again" / "segments" / "000" / "guide.mp4").is_file()
    assert (tmp_path / "walk-1" / "manifest.json").is_file()
    assert (tmp_path / "pictures").is_dir()
