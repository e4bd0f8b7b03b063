"""What images take in a process, however many are checked or loaded at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from structureflow.limits import MAX_IMAGE_PIXELS

MEASURE = """
import sys, threading
from structureflow.guide.images import check_guide_image, load_guide_image

def peak_mb():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1e3

data = open(sys.argv[1], "rb").read()
work = {
    "check": lambda: check_guide_image(data, what="guide"),
    "load": lambda: load_guide_image(data, height=720, width=1280, what="guide"),
}[sys.argv[2]]
before = peak_mb()
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[3]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(peak_mb() - before)
"""


@pytest.fixture(scope="module")
def largest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of a few hundred kilobytes with as many transparent pixels as are allowed."""
    path = tmp_path_factory.mktemp("images") / "largest.png"
    Image.new("RGBA", (10_000, MAX_IMAGE_PIXELS // 10_000), (200, 30, 90, 100)).save(path, compress_level=1)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
@pytest.mark.parametrize(("work", "threads", "most_mb"), [("check", 8, 400), ("load", 2, 900)])
def test_the_largest_images_at_once(largest: Path, work: str, threads: int, most_mb: float) -> None:
    """One after the other: 200 MB of decoded pixels each, and 150 MB of the result."""
    command = [sys.executable, "-c", MEASURE, str(largest), work, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < most_mb
