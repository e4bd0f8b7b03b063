"""The flow cache against plain dictionaries, step by step: overwritten, damaged, deleted, and under faults.

The model of the cache holds, for every key, the flows that were put there. An archive that was opened may be
overwritten, damaged or deleted meanwhile, and requests may fail, lose their reply or carry a flipped bit. Whatever is
read must be the flows that the archive held when it was opened; else it is a typed error, and one with a cause.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import (
    FlowCacheError,
    FlowError,
    ObjectExistsError,
    ObjectNotFoundError,
    StructureFlowError,
    TransientStorageError,
)
from structureflow.flow.archive import FlowArchive, open_flow_archive
from structureflow.flow.fields import Direction
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.faults import Faults, Rates, SeededStorage
from structureflow.testing.flows import archive_bytes, smooth_flows
from structureflow.testing.old_archives import format_1_archive
from tests.conftest import seeds

HEIGHT, WIDTH = 5, 7
KEYS = tuple(keys.flow_cache(f"{number:064x}") for number in range(3))
#: Small, so that archives of some kilobytes need requests of every kind.
SIZES = {
    "source.TAIL_BYTES": 1500,
    "seekable.WINDOW_BYTES": 600,
    "stream.CHUNK_BYTES": 900,
    "stream.MARK_BYTES": 500,
    "stream.PIECE_BYTES": 200,
    "stream.INPUT_BYTES": 128,
    "fortran._BLOCK_BYTES": 300,
}


@dataclass(frozen=True)
class Content:
    """An archive's bytes, and the flows that they stand for."""

    data: bytes
    flows: dict[Direction, NDArray[np.float32]]

    @property
    def total(self) -> int:
        return len(self.flows["forward"])


@cache
def contents() -> tuple[Content, ...]:
    """Archives of every kind, each with flows of its own."""

    def grid(count: int, seed: int) -> NDArray[np.float32]:
        flows = np.rint(smooth_flows(count, HEIGHT, WIDTH, seed=seed) * 16) / np.float32(16) + np.float32(0)
        return flows.astype(np.float32)

    def plain(write: Any, flows: Any, order: Any = "C", **more: Any) -> bytes:
        buffer = io.BytesIO()
        arrays = {name: np.array(value, order=order) for name, value in flows.items()}
        write(buffer, **arrays, **more)
        return buffer.getvalue()

    made = []
    for number, kind in enumerate(("both", "forward", "old", "stored", "packed", "double", "fortran", "empty")):
        forward = grid(3 + number % 4, number)
        flows: dict[Direction, NDArray[np.float32]] = {"forward": forward}
        if kind not in ("forward", "double"):
            flows["backward"] = grid(len(forward), 50 + number)
        members = dict(zip(("flows", "flows_backward"), flows.values(), strict=False))
        if kind in ("both", "forward"):
            data = archive_bytes(forward, flows.get("backward"), scene_cuts=(1,))
        elif kind == "old":
            data = format_1_archive(forward, flows["backward"])
        elif kind == "double":
            data = plain(np.savez_compressed, {name: value.astype(">f8") for name, value in members.items()})
        elif kind == "fortran":
            data = plain(np.savez_compressed, members, "F", original_fps=25.0)
        elif kind == "empty":
            flows = {"forward": np.zeros_like(forward), "backward": np.zeros_like(forward)}
            data = plain(np.savez_compressed, dict(zip(members, flows.values(), strict=True)))
        else:
            write = np.savez if kind == "stored" else np.savez_compressed
            data = plain(write, members, engine="dis", total_flows=len(forward))
        made.append(Content(data, flows))
    return tuple(made)


@dataclass
class Held:
    """An opened archive, and what it was opened on; `doubtful` once a fault may have spoilt what it remembers."""

    key: str
    archive: FlowArchive
    content: Content
    etag: str
    damaged: bool
    doubtful: bool


class FlowCacheMachine(RuleBasedStateMachine):
    """No faults: every error must be one that the model expects."""

    rates = Rates()
    archives = Bundle("archives")

    def __init__(self) -> None:
        super().__init__()
        self.inner = MemoryStorage()
        #: What each key holds, and whether its bytes were damaged since.
        self.model: dict[str, tuple[Content, bool]] = {}
        self.faults = Faults(0, self.rates)
        self.store = SeededStorage(self.inner, self.faults)
        self.patch = pytest.MonkeyPatch()
        for name, value in SIZES.items():
            self.patch.setattr(f"structureflow.flow.archive.{name}", value)

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.faults = Faults(seed, self.rates)
        self.store = SeededStorage(self.inner, self.faults)

    # --- writing --------------------------------------------------------------------------------------

    def put(self, key: str, content: Content, *, if_absent: bool) -> None:
        """Put an archive; under faults the store says what came of it: the old object or the new one, whole."""
        before = self.model.get(key)
        try:
            self.store.put(key, content.data, if_absent=if_absent)
        except ObjectExistsError:
            assert if_absent
            assert before is not None
            assert before[1] or before[0].data != content.data
            return
        except TransientStorageError:
            assert self.faults.struck
            there = self.inner.get(key).data if self.inner.exists(key) else None
            if there == content.data:
                self.model[key] = content, False
            else:
                assert before is not None or there is None
            return
        assert not if_absent or before is None or (before[0].data == content.data and not before[1])
        self.model[key] = content, False

    @rule(key=st.sampled_from(KEYS), number=st.integers(0, 7), if_absent=st.booleans())
    def write(self, key: str, number: int, if_absent: bool) -> None:
        self.put(key, contents()[number], if_absent=if_absent)

    @rule(key=st.sampled_from(KEYS), numbers=st.lists(st.integers(0, 7), min_size=2, max_size=3, unique=True))
    def create_at_once(self, key: str, numbers: list[int]) -> None:
        """Several writers find no archive and make their own: one stays, whole, and the others learn of it."""
        wanted = [contents()[number] for number in numbers]

        def create(content: Content) -> bool:
            try:
                self.inner.put(key, content.data, if_absent=True)
            except ObjectExistsError:
                return False
            return True

        with ThreadPoolExecutor(len(wanted)) as pool:
            won = list(pool.map(create, wanted))
        there = self.inner.get(key).data
        if key in self.model:
            content, damaged = self.model[key]
            assert damaged or there == content.data
            return
        assert sum(won) == 1
        assert there == wanted[won.index(True)].data
        # which of them won must not decide on what Hypothesis draws next
        self.inner.put(key, wanted[0].data)
        self.model[key] = wanted[0], False

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        self.inner.delete([key])
        self.model.pop(key, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """Flip a bit, or cut the end off: the store gives other bytes under another ETag."""
        key = data.draw(st.sampled_from(sorted(self.model)))
        content, _ = self.model[key]
        there = bytearray(self.inner.get(key).data)
        if not there:
            return
        if data.draw(st.booleans()):
            bit = data.draw(st.integers(0, len(there) * 8 - 1))
            there[bit // 8] ^= 1 << bit % 8
        else:
            del there[data.draw(st.integers(0, len(there) - 1)) :]
        self.inner.put(key, bytes(there))
        self.model[key] = content, bytes(there) != content.data
        for direction, flows in content.flows.items():
            for index in range(content.total):
                try:
                    archive = open_flow_archive(self.inner, key)
                    self._check_meta(archive, content)
                    read = archive.read(direction, index, index + 1)
                except FlowCacheError:
                    continue
                assert read.tobytes() == flows[index : index + 1].tobytes()

    # --- reading --------------------------------------------------------------------------------------

    @rule(target=archives, key=st.sampled_from(KEYS), workers=st.integers(1, 2))
    def open(self, key: str, workers: int) -> Held | None:
        before = len(self.faults.struck)
        entry = self.model.get(key)
        try:
            archive = open_flow_archive(self.store, key, workers=workers)
        except ObjectNotFoundError:
            assert entry is None
            return None
        except StructureFlowError as error:
            self._check_cause(error, before, allowed=entry is not None and entry[1])
            return None
        assert entry is not None
        content, damaged = entry
        self._check_meta(archive, content)
        struck = len(self.faults.struck) > before
        return Held(key, archive, content, self.inner.head(key).etag, damaged, struck)

    @rule(held=archives, data=st.data())
    def read(self, held: Held | None, data: st.DataObject) -> None:
        if held is None:
            return
        total = held.content.total
        direction: Direction = data.draw(st.sampled_from(["forward", "backward"]))
        start = data.draw(st.integers(0, total - 1))
        stop = data.draw(st.integers(start + 1, total))
        if data.draw(st.booleans()):
            held.archive.expect(data.draw(st.integers(0, start)), data.draw(st.integers(stop, total)))
        if direction not in held.content.flows:
            with pytest.raises(FlowError, match="only forward"):
                held.archive.read(direction, start, stop)
            return
        before = len(self.faults.struck)
        try:
            read = held.archive.read(direction, start, stop)
        except StructureFlowError as error:
            gone = held.key not in self.model or self.inner.head(held.key).etag != held.etag
            self._check_cause(error, before, allowed=gone or held.damaged or held.doubtful)
            held.doubtful |= len(self.faults.struck) > before
            return
        held.doubtful |= len(self.faults.struck) > before
        note(f"read {held.key[-3:]} {direction} {start} {stop}")
        assert read.dtype == np.float32
        assert read.tobytes() == held.content.flows[direction][start:stop].tobytes()

    @rule(key=st.sampled_from(KEYS), number=st.integers(0, 7))
    def heal(self, key: str, number: int) -> None:
        """What a job does: use what is there, and make anew what is not usable; then it is usable."""
        self.faults.active = False
        try:
            archive = open_flow_archive(self.store, key)
            for direction in ("forward", "backward") if archive.meta.has_backward else ("forward",):
                archive.read(direction, 0, archive.meta.total_flows)
        except ObjectNotFoundError:
            self.put(key, contents()[number], if_absent=True)
        except FlowCacheError:
            assert self.model[key][1]
            self.store.delete([key])
            self.model.pop(key)
            self.put(key, contents()[number], if_absent=True)
        self.check_all_that_is_sound()
        assert key in self.model
        self.faults.active = True

    # --- what must hold -------------------------------------------------------------------------------

    def _check_cause(self, error: StructureFlowError, before: int, *, allowed: bool) -> None:
        struck = len(self.faults.struck) > before
        if isinstance(error, TransientStorageError):
            assert struck, f"{error.code} without a fault: {error}"
        else:
            assert isinstance(error, FlowCacheError | ObjectNotFoundError), f"{error.code}: {error}"
            assert struck or allowed, f"{error.code} without a cause: {error}"

    @staticmethod
    def _check_meta(archive: FlowArchive, content: Content) -> None:
        meta = archive.meta
        assert (meta.total_flows, meta.height, meta.width) == (content.total, HEIGHT, WIDTH)
        assert meta.has_backward is ("backward" in content.flows)

    @invariant()
    def nothing_is_there_that_was_not_put(self) -> None:
        assert {info.key for info in self.inner.list("")} == set(self.model)

    def check_all_that_is_sound(self) -> None:
        for key, (content, damaged) in self.model.items():
            assert damaged or self.inner.get(key).data == content.data
            if damaged:
                continue
            archive = open_flow_archive(self.inner, key)
            self._check_meta(archive, content)
            for direction, flows in content.flows.items():
                assert archive.read(direction, 0, content.total).tobytes() == flows.tobytes()


class FaultyFlowCacheMachine(FlowCacheMachine):
    """Requests fail in bursts, lose their replies and flip bits; what is read is right all the same."""

    rates = Rates(error=0.08, lost=0.1, flip=0.15, truncate=0.05, delay=0.1)


PEACE = FlowCacheMachine.TestCase
PEACE.settings = settings(max_examples=seeds(300), stateful_step_count=14)
FAULTS = FaultyFlowCacheMachine.TestCase
FAULTS.settings = settings(max_examples=seeds(700), stateful_step_count=14)
