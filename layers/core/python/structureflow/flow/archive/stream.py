"""A member's plain bytes: inflated from the start once and checked, then from any of the places marked on the way."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from isal import isal_zlib

from structureflow.errors import FlowCacheLimitError
from structureflow.flow.archive import zipdir
from structureflow.flow.archive.limits import (
    CHUNK_BYTES,
    INPUT_BYTES,
    MARK_BYTES,
    MAX_MARKS,
    PIECE_BYTES,
    FlowLimits,
    longest_deflate,
)
from structureflow.flow.archive.source import ByteSource
from structureflow.flow.archive.zipdir import ZipMember

#: An array header is within the plain bytes of so many compressed ones.
_HEAD_INPUT: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place to inflate from: where it is in the plain and in the compressed bytes, and the inflater's state there.

    `crc32` is that of the plain bytes up to the next mark.
    """

    plain: int
    compressed: int
    inflater: Any
    crc32: int


class MemberStream:
    """The plain bytes of a deflated or stored member, in time that is linear in what is read.

    ZIP has one checksum for a whole member, so the first read goes through all of it. It leaves marks, each with
    the state of the inflater and a checksum of its own; later reads begin at a mark.
    """

    def __init__(self, source: ByteSource, member: ZipMember, limits: FlowLimits) -> None:
        """Look at the member's local header.

        Raises:
            FlowCacheError: there is none, or the member is too large, or longer than its data could become.
        """
        if member.size_bytes > limits.max_stream_bytes:
            raise FlowCacheLimitError(
                f"{source.key}: {member.name} declares {member.size_bytes} bytes, at most {limits.max_stream_bytes}"
            )
        if member.compressed_bytes > longest_deflate(member.size_bytes):
            raise source.broken(f"{member.name}: {member.compressed_bytes} bytes for {member.size_bytes} plain ones")
        self._source = source
        self._member = member
        self._start = source.member_data(member)
        self._span = max(MARK_BYTES, member.size_bytes // MAX_MARKS)
        self._marks: tuple[_Mark, ...] = ()
        self._head = b""

    def trust(self, head: bytes) -> None:
        """Say which first bytes, out of `head`, were believed before they were checked; the first pass compares."""
        self._head = head

    def head(self, length: int) -> bytes:
        """Return up to `length` of the first bytes, not yet checked."""
        data = self._source.read(self._start, self._start + min(self._member.compressed_bytes, _HEAD_INPUT))
        inflater = self._new_inflater()
        return bytes(data[:length]) if inflater is None else self._inflate(inflater, data, length)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        """Yield pieces that hold plain bytes `start` to `stop`, each with its position; more come before and behind.

        The bytes are known to be right when the iterator is exhausted, not before: a checksum comes last.

        Raises:
            FlowCacheError: the member is damaged, or inflates beyond what it declares.
        """
        marks = self._marks
        return self._again(marks, start, stop) if marks else self._first_pass()

    def _first_pass(self) -> Iterator[tuple[int, memoryview]]:
        member = self._member
        inflater = self._new_inflater()
        marks: list[_Mark] = []
        mark = _Mark(0, 0, self._copy(inflater), 0)
        position, span_crc, crc = 0, 0, 0
        head = self._head
        for piece, consumed in self._inflated(inflater, 0, member.compressed_bytes, member.size_bytes + 1):
            if position + len(piece) > member.size_bytes:
                raise FlowCacheLimitError(f"{self._source.key}: {member.name} inflates beyond its size")
            if head[: len(piece)] != piece[: len(head)]:
                raise self._source.damaged(f"the header of {member.name} came out otherwise than before")
            head = head[len(piece) :]
            span_crc, crc = isal_zlib.crc32(piece, span_crc), isal_zlib.crc32(piece, crc)
            yield position, memoryview(piece)
            position += len(piece)
            if position - mark.plain >= self._span:
                marks.append(_Mark(mark.plain, mark.compressed, mark.inflater, span_crc))
                mark, span_crc = _Mark(position, consumed, self._copy(inflater), 0), 0
        if position != member.size_bytes or crc != member.crc32:
            raise self._source.damaged(f"{member.name} does not have its CRC-32")
        if position > mark.plain:
            marks.append(_Mark(mark.plain, mark.compressed, mark.inflater, span_crc))
        self._marks = tuple(marks)

    def _again(self, marks: tuple[_Mark, ...], start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        member = self._member
        edges = [*(mark.plain for mark in marks), member.size_bytes]
        index = max(number for number, mark in enumerate(marks) if mark.plain <= start)
        last = next(number for number, edge in enumerate(edges) if edge >= stop)
        first = marks[index]
        compressed_stop = marks[last].compressed if last < len(marks) else member.compressed_bytes
        position, crc = first.plain, 0
        for piece, _ in self._inflated(
            self._copy(first.inflater), first.compressed, compressed_stop, edges[last] - first.plain
        ):
            view = memoryview(piece)
            yield position, view
            while view:
                part = view[: edges[index + 1] - position]
                position += len(part)
                crc = isal_zlib.crc32(part, crc)
                view = view[len(part) :]
                if position == edges[index + 1]:
                    if crc != marks[index].crc32:
                        raise self._source.damaged(f"{member.name} came out otherwise than before")
                    index, crc = index + 1, 0
        if index != last:
            raise self._source.damaged(f"{member.name} ended otherwise than before")

    def _inflated(self, inflater: Any, start: int, stop: int, plain_bytes: int) -> Iterator[tuple[bytes, int]]:
        """Yield up to `plain_bytes` out of the compressed bytes `start` to `stop`, and how many of these were taken."""
        chunk, taken, pending = memoryview(b""), start, b""
        while plain_bytes > 0:
            if not pending and not chunk and taken < stop:
                chunk = self._source.read(self._start + taken, self._start + min(stop, taken + CHUNK_BYTES))
            if not pending:
                pending, chunk = bytes(chunk[:INPUT_BYTES]), chunk[INPUT_BYTES:]
                taken += len(pending)
            if inflater is None:
                piece, pending = pending, b""
            else:
                # zlib may hold plain bytes although its input is used up: it is asked until it gives none
                piece = self._inflate(inflater, pending, min(PIECE_BYTES, plain_bytes))
                pending = inflater.unconsumed_tail
            if piece:
                plain_bytes -= len(piece)
                yield piece, taken - len(pending)
            elif (not chunk and taken >= stop) or inflater.eof:
                return

    def _inflate(self, inflater: Any, data: bytes | memoryview, length: int) -> bytes:
        try:
            return bytes(inflater.decompress(data, length))
        except zlib.error as error:
            raise self._source.damaged(f"{self._member.name}: {error}") from error

    def _new_inflater(self) -> Any:
        # isal's is faster, but cannot be copied
        return zlib.decompressobj(-15) if self._member.method == zipdir.DEFLATED else None

    @staticmethod
    def _copy(inflater: Any) -> Any:
        return None if inflater is None else inflater.copy()
