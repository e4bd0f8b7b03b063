"""The fuzz targets do their work without a fuzzer too: on their seeds, on some mutations, and on planted faults."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from fuzz.sealing import seal
from fuzz.seeds import archive_seeds, request_seeds, write_seeds
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
    generator = random.Random(4)
    for _ in range(600):
        data = bytearray(generator.choice(seeds))
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(len(data))
            match generator.randrange(4):
                case 0:
                    data[at] ^= 1 << generator.randrange(8)
                case 1:
                    data[at] = generator.choice([0, 1, 0x7F, 0x80, 0xFF])
                case 2:
                    del data[at : at + generator.randrange(8)]
                case _:
                    data[at:at] = data[generator.randrange(len(data)) :][: generator.randrange(1, 16)]
            if not data:
                break
        TARGETS[target](bytes(data))


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


def test_a_target_tells_of_an_error_that_is_not_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structureflow.flow.archive.stream.MemberStream.head", _raise(struct.error("short")))
    with pytest.raises(struct.error):
        [fuzz_archive(seed) for seed in archive_seeds()]
    monkeypatch.setattr("structureflow.models.job.load_request", _raise(RecursionError()))
    with pytest.raises(RecursionError):
        fuzz_request(request_seeds()[0])


def test_a_target_tells_of_flows_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(vectors: Any, out: Any, key: str) -> None:
        np.copyto(out, vectors, casting="same_kind")
        out += 1

    monkeypatch.setattr("structureflow.flow.archive.plain.unpack", shifted)
    with pytest.raises(AssertionError):
        [fuzz_archive(seed) for seed in archive_seeds()]


def test_a_target_tells_of_a_request_that_is_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: JobRequest) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True) | {"fps": self.fps + 1}

    monkeypatch.setattr(JobRequest, "to_document", other)
    with pytest.raises(AssertionError):
        fuzz_request(request_seeds()[0])
