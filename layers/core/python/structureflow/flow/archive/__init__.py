"""The flow archive: an ordinary ``.npz`` that is written as a stream and read by byte ranges.

``numpy.load`` opens it like any other. Beyond that, each of its flow members is one deflate stream that is
flushed in full after the array header and after every flow field, so that fields i to j can be inflated on
their own, and a seek table (``*_offsets``, ``*_crc32``) lies uncompressed beside the central directory, so
that the last bytes of the object tell everything but the flows. `layout` lists the members.

A range read bypasses ZIP's own checksum; the CRC-32 of every block is therefore checked on each read.
Archives that ``numpy.savez`` or ``numpy.savez_compressed`` wrote are read too: they have one checksum for all
flows, so the first read goes through all of them.
"""

from __future__ import annotations

from pathlib import Path

from structureflow.errors import FlowCacheError
from structureflow.flow.archive.base import FlowArchive
from structureflow.flow.archive.blocks import FlowBlock, compress_flow, quantise
from structureflow.flow.archive.layout import FORMAT_VERSION
from structureflow.flow.archive.limits import MAX_VECTOR_PX, TAIL_BYTES, WINDOW_BYTES, FlowLimits
from structureflow.flow.archive.plain import PlainArchive
from structureflow.flow.archive.seekable import SeekableArchive
from structureflow.flow.archive.source import ByteSource, FileReader, RangeReader
from structureflow.flow.archive.writer import FlowArchiveWriter

__all__ = [
    "FORMAT_VERSION",
    "MAX_VECTOR_PX",
    "TAIL_BYTES",
    "WINDOW_BYTES",
    "FileReader",
    "FlowArchive",
    "FlowArchiveWriter",
    "FlowBlock",
    "FlowLimits",
    "RangeReader",
    "compress_flow",
    "open_flow_archive",
    "open_flow_file",
    "quantise",
]


def open_flow_archive(
    storage: RangeReader, key: str, *, limits: FlowLimits | None = None, workers: int = 2
) -> FlowArchive:
    """Open an archive with one request for its last bytes (plain archives may need a few more).

    Args:
        storage, key: where it is.
        limits: bounds of what it may declare.
        workers: threads that inflate blocks in `FlowArchive.read`.

    Raises:
        ObjectNotFoundError, StorageError: the store does not give the object; nothing is known of it.
        FlowCacheError: it is no flow archive, is damaged, of another version or beyond the limits.
    """
    bounds = limits or FlowLimits()
    source = ByteSource(storage, key)
    directory = source.read_directory(bounds)
    if "format_version.npy" in directory:
        return SeekableArchive(source, directory, bounds, workers)
    return PlainArchive(source, directory, bounds)


def open_flow_file(path: Path, *, limits: FlowLimits | None = None, workers: int = 2) -> FlowArchive:
    """Open an archive that is a local file; as `open_flow_archive`.

    Raises:
        InputNotFoundError: no such file.
        FlowCacheError: as `open_flow_archive`; the message names the file.
    """
    try:
        return open_flow_archive(FileReader(), str(path), limits=limits, workers=workers)
    except FlowCacheError as error:
        raise error.within(str(path), instead_of=str(path)) from error
