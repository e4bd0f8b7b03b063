"""Archives that ``numpy.savez`` or ``numpy.savez_compressed`` wrote: one checksum for all flows of a direction."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from structureflow.flow.archive.base import FlowArchive
from structureflow.flow.archive.blocks import unpack
from structureflow.flow.archive.fortran import FortranFields
from structureflow.flow.archive.layout import MEMBERS, METADATA_NAMES
from structureflow.flow.archive.limits import MAX_HEADER_BYTES, FlowLimits
from structureflow.flow.archive.npy import NpyHeader, parse_npy_header
from structureflow.flow.archive.source import ByteSource
from structureflow.flow.archive.stream import MemberStream
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.flow.fields import Direction, Field32

_KNOWN_MEMBERS: Final = {f"{name}.npy" for name in (*MEMBERS.values(), *METADATA_NAMES)}


class _Fields(Protocol):
    """The fields of one direction, in either order."""

    def expect(self, start: int, stop: int) -> None:
        """As `FlowArchive.expect`."""
        ...

    def read(self, start: int, stop: int) -> Field32:
        """As `FlowArchive.read`."""
        ...


class PlainArchive(FlowArchive):
    """An archive without a seek table, of any float type and in either order of axes."""

    seekable = False

    def __init__(self, source: ByteSource, members: dict[str, ZipMember], limits: FlowLimits) -> None:
        super().__init__(source, members, limits)
        if "flows.npy" not in members:
            raise source.broken("it has no member 'flows'")
        self._fields: dict[Direction, _Fields] = {}
        shape = self._open("forward")
        has_backward = "flows_backward.npy" in members
        if has_backward and self._open("backward") != shape:
            raise source.broken("flows_backward has another shape than flows")
        # one wrong bit in a name of the directory must not make an archive of less than there is
        for name in members.keys() - _KNOWN_MEMBERS:
            source.member_data(members[name])
        self.meta = self._values(set(METADATA_NAMES)).meta(shape, has_backward=has_backward)

    def _open(self, direction: Direction) -> tuple[int, int, int]:
        name, limits, source = MEMBERS[direction], self._limits, self._source
        member = self.members[f"{name}.npy"]
        stream = MemberStream(source, member, limits)
        head = stream.head(MAX_HEADER_BYTES)
        header = parse_npy_header(head, source.key)
        stream.trust(head[: header.data_start])
        if header.dtype.kind != "f":
            raise source.broken(f"{name}: expected floating flows, got {header.dtype}")
        shape = self._check_grid(header.shape)
        if header.data_start + header.size_bytes != member.size_bytes:
            raise source.broken(f"{name}: {member.size_bytes} bytes do not hold {header.shape} {header.dtype}")
        if header.fortran:
            self._fields[direction] = FortranFields(stream, header, source.key, limits)
        else:
            self._fields[direction] = _OrderedFields(stream, header, source.key)
        return shape

    def expect(self, start: int, stop: int) -> None:
        super().expect(start, stop)
        for fields in self._fields.values():
            fields.expect(start, stop)

    def _read(self, direction: Direction, start: int, stop: int) -> Field32:
        return self._fields[direction].read(start, stop)


class _OrderedFields:
    """Fields one after another, as ``numpy.save`` writes an array in C order."""

    def __init__(self, stream: MemberStream, header: NpyHeader, key: str) -> None:
        self._stream = stream
        self._header = header
        self._key = key

    def expect(self, start: int, stop: int) -> None:
        """Nothing to do: each read begins at a mark near its first field."""

    def read(self, start: int, stop: int) -> Field32:
        header = self._header
        flows = np.empty((stop - start, *header.shape[1:]), np.float32)
        raw = bytearray(flows[0].size * header.dtype.itemsize)
        first = header.data_start + start * len(raw)
        last = header.data_start + stop * len(raw)
        index, filled = 0, 0
        for position, piece in self._stream.pieces(first, last):
            rest = piece[max(0, first - position) : max(0, last - position)]
            while rest:
                part = rest[: len(raw) - filled]
                raw[filled : filled + len(part)] = part
                filled += len(part)
                rest = rest[len(part) :]
                if filled == len(raw):
                    unpack(np.frombuffer(raw, header.dtype).reshape(header.shape[1:]), flows[index], self._key)
                    index, filled = index + 1, 0
        return flows
