"""Videos and images by mutation, in a child of bounded memory, time and address space: a crash there is found here."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from fuzz.mutations import mutated
from fuzz.seeds import image_seeds, video_seeds
from structureflow.errors import MediaError
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.still import open_image

REPO: Final = Path(__file__).resolve().parents[1]
ADDRESS_SPACE_BYTES: Final = 4 * 1024**3
#: Of the child over all its inputs: a mutated size may stand for the largest picture that is allowed.
RESIDENT_BYTES: Final = 1536 * 1024**2
#: Of one input. The slowest are large pictures, on a machine that does other things too.
INPUT_TIMEOUT_S: Final = 60.0
_SMALL: Final = DecodeLimits(max_frames=60, min_frames=1, max_side_px=2048)
_MOST_IMAGE_PIXELS: Final = 4_000_000


def check_video(data: bytes, path: Path) -> bool:
    """Decode a video; True if it has frames, all of one size and within the limits. Typed errors only."""
    path.write_bytes(data)
    count = 0
    try:
        with VideoReader(path, _SMALL, threads=1) as reader:
            expected = (reader.info.height_px, reader.info.width_px, 3)
            last = -1.0
            for frame in reader:
                assert frame.image.shape == expected
                assert frame.image.dtype == np.uint8
                assert frame.timestamp_s > last
                last = frame.timestamp_s
                count += 1
                assert count <= _SMALL.max_frames
    except MediaError:
        return False
    return count > 0


def check_image(data: bytes, path: Path) -> bool:  # noqa: ARG001 - as check_video
    """Decode an image; True if it has pixels. Typed errors only."""
    try:
        with open_image(data, what="a", max_pixels=_MOST_IMAGE_PIXELS) as image:
            pixels = image.pixels()
            assert pixels.shape == (*image.size, 3)
            assert pixels.dtype == np.uint8
            assert pixels.shape[0] * pixels.shape[1] <= _MOST_IMAGE_PIXELS
    except MediaError:
        return False
    return True


CHECKS: Final[dict[str, tuple[Callable[[bytes, Path], bool], Callable[[], list[bytes]]]]] = {
    "video": (check_video, video_seeds),
    "image": (check_image, image_seeds),
}


def mutate(target: str, *, runs: int, seed: int, found: Path) -> dict[str, Any]:
    """Run `runs` mutations of a target's seeds; those at which the child crashes or hangs are kept in `found`."""
    started = time.monotonic()
    seeds = CHECKS[target][1]()
    kept: list[str] = []
    readable, peak, number = 0, 0, 0
    while number < runs:
        told, reason = _child(target, number, runs, seed)
        readable += told.get("readable", 0)
        peak = max(peak, told.get("peak_bytes", 0))
        number = told["number"] + 1
        if reason:
            found.mkdir(exist_ok=True)
            path = found / f"{target}-{seed}-{told['number']}"
            path.write_bytes(mutated(seeds, told["number"], seed))
            kept.append(str(path))
            print(f"{path}: {reason}", file=sys.stderr)
    return {
        "target": target,
        "date": time.strftime("%Y-%m-%d"),
        "seed": seed,
        "runs": runs,
        "seconds": round(time.monotonic() - started),
        "peak_rss_mb": peak >> 20,
        "readable": readable,
        "clean": not kept and peak <= RESIDENT_BYTES,
        "found": kept,
    }


def child_command(target: str, first: int, stop: int, seed: int) -> list[str]:
    """Return the command of the child, which says what it does as JSON, a line for each input."""
    return [sys.executable, "-m", "fuzz.native", target, str(first), str(stop), str(seed)]


def _child(target: str, first: int, stop: int, seed: int) -> tuple[dict[str, Any], str]:
    """Run inputs `first` to `stop` in a child until it ends; return what it told last, and why it ended early."""
    command = child_command(target, first, stop, seed)
    told: dict[str, Any] = {"number": first}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=errors)
        assert child.stdout is not None
        with child:
            rest = b""
            while True:
                ready, _, _ = select.select([child.stdout], [], [], INPUT_TIMEOUT_S)
                if not ready:
                    child.kill()
                    return told, f"no end after {INPUT_TIMEOUT_S:.0f} s"
                # not by lines: what a buffer holds of them, select does not see
                chunk = os.read(child.stdout.fileno(), 65_536)
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                told = json.loads(lines[-1]) if lines else told
        if child.returncode == 0:
            return told, ""
        errors.seek(0)
        return told, f"exit code {child.returncode}: {errors.read()[-2000:].decode(errors='replace')}"


def _run(target: str, first: int, stop: int, seed: int) -> None:
    """The child's work: say each number before its input is read, so that the parent knows where it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    check, make_seeds = CHECKS[target]
    seeds = make_seeds()
    told = {"number": first, "readable": 0, "peak_bytes": 0}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number in range(first, stop):
            told["number"] = number
            print(json.dumps(told), flush=True)
            told["readable"] += check(mutated(seeds, number, seed), Path(folder) / "input")
            told["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
