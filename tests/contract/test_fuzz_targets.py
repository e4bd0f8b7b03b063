"""The fuzz targets do their work without a fuzzer too: on their seeds, on some mutations, and on planted faults."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz import native
from fuzz.mutations import mutated, seal_png
from fuzz.sealing import seal
from fuzz.seeds import archive_seeds, image_seeds, request_seeds, write_seeds
from fuzz.targets import TARGETS, fuzz_archive, fuzz_request
from structureflow.errors import FlowCacheCorruptError
from structureflow.flow.archive import open_flow_archive
from structureflow.models.job import JobRequest
from structureflow.testing.flows import BytesReader, archive_bytes, smooth_flows


def test_every_seed_is_sound_and_passes() -> None:
    for seed in archive_seeds():
        archive = open_flow_archive(BytesReader({"a": seed[1:]}), "a")
        archive.read("forward", 0, archive.meta.total_flows)
        fuzz_archive(seed)
    for seed in request_seeds():
        JobRequest.parse_json(seed, expected_task_id="t1")
        fuzz_request(seed)


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_raise_nothing(target: str) -> None:
    """Some hundred, always the same: a coverage-guided run is `make fuzz`."""
    seeds = archive_seeds() if target == "archive" else request_seeds()
    for number in range(600):
        TARGETS[target](mutated(seeds, number, 4))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_words_are_written(target: str, tmp_path: Any) -> None:
    words = write_seeds(target, tmp_path).read_text().splitlines()
    assert len(words) > 20
    assert all(word.startswith('"\\x') for word in words)
    assert len(list((tmp_path / "seeds").iterdir())) > 5


def test_sealing_lets_a_mutation_pass_the_checksums() -> None:
    flows = smooth_flows(2, 3, 4)
    stored = bytearray(archive_bytes(flows, -flows))
    sound = open_flow_archive(BytesReader({"a": bytes(stored)}), "a").read("backward", 0, 2)
    start, stop = (int(edge) for edge in np.load(BytesIO(stored))["flows_backward_offsets"][1:3])
    # a flow of zeros, and empty blocks up to the length of the one that was there
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = packer.compress(bytes(3 * 4 * 8)) + packer.flush(zlib.Z_FULL_FLUSH)
    missing = stop - start - len(zeros)
    stored[start:stop] = zeros + b"\x00\x00\x00\xff\xff" * (missing // 5) + bytes(missing % 5)
    with pytest.raises(FlowCacheCorruptError, match="CRC-32"):
        open_flow_archive(BytesReader({"a": bytes(stored)}), "a").read("backward", 0, 2)
    read = open_flow_archive(BytesReader({"a": seal(bytes(stored))}), "a").read("backward", 0, 2)
    assert not read[1].any()
    assert read[0].tobytes() == sound[0].tobytes()


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


def _fuzz_archives() -> None:
    for seed in archive_seeds():
        fuzz_archive(seed)


def test_a_target_tells_of_an_error_that_is_not_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structureflow.flow.archive.stream.MemberStream.head", _raise(struct.error("short")))
    with pytest.raises(struct.error):
        _fuzz_archives()
    monkeypatch.setattr("structureflow.models.job.load_request", _raise(RecursionError()))
    with pytest.raises(RecursionError):
        fuzz_request(request_seeds()[0])


def test_a_target_tells_of_flows_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(vectors: Any, out: Any, key: str) -> None:
        np.copyto(out, vectors, casting="same_kind")
        out += 1

    monkeypatch.setattr("structureflow.flow.archive.plain.unpack", shifted)
    with pytest.raises(AssertionError):
        _fuzz_archives()


def test_a_target_tells_of_a_request_that_is_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: JobRequest) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True) | {"fps": self.fps + 1}

    monkeypatch.setattr(JobRequest, "to_document", other)
    with pytest.raises(AssertionError):
        fuzz_request(request_seeds()[0])


# --- native code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", native.CHECKS)
def test_every_seed_of_native_code_is_readable(target: str, tmp_path: Path) -> None:
    check, seeds = native.CHECKS[target]
    assert all(check(seed, tmp_path / "input") for seed in seeds())


@pytest.mark.parametrize("target", native.CHECKS)
def test_mutated_media_end_typed_in_a_bounded_child(target: str, tmp_path: Path) -> None:
    """Always the same ones; some of them are still readable, most are not."""
    result = native.mutate(target, runs=200, seed=7, found=tmp_path / "found")
    assert result["clean"], result
    assert 20 < result["readable"] < 150
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("act", "reason"),
    [("os.abort()", "exit code -6"), ("raise MemoryError", "MemoryError"), ("time.sleep(60)", "no end after")],
)
def test_a_crash_and_a_hang_of_native_code_are_found(
    act: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"""
import json, os, sys, time
for number in range(int(sys.argv[1]), 6):
    print(json.dumps({{"number": number, "readable": 1, "peak_bytes": 1}}), flush=True)
    if number == 3:
        {act}
"""

    def command(target: str, first: int, stop: int, seed: int) -> list[str]:
        return [sys.executable, "-c", script, str(first)]

    monkeypatch.setattr(native, "child_command", command)
    monkeypatch.setattr(native, "INPUT_TIMEOUT_S", 15.0)
    result = native.mutate("image", runs=6, seed=1, found=tmp_path)
    assert not result["clean"]
    assert [path.name for path in tmp_path.iterdir()] == ["image-1-3"]
    assert (tmp_path / "image-1-3").read_bytes() == mutated(image_seeds(), 3, 1)
    assert reason in capsys.readouterr().err


def test_too_much_memory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "RESIDENT_BYTES", 1024)
    assert not native.mutate("image", runs=1, seed=1, found=tmp_path)["clean"]


def test_a_mutation_is_the_same_for_its_number_and_seed() -> None:
    seeds = image_seeds()
    assert mutated(seeds, 5, 2) == mutated(seeds, 5, 2)
    assert len({mutated(seeds, number, 2) for number in range(50)}) > 45
    assert seal_png(seeds[0]) == seeds[0]
    broken = bytearray(seeds[0])
    broken[40] ^= 1
    assert seal_png(bytes(broken)) != bytes(broken)
