"""What the commands below ``structureflow frames`` do."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from structureflow import Storage, keys, list_overlay_frames
from structureflow.errors import FrameCacheError, InvalidRequestError, TimelineNotFoundError
from structureflow.frames.cache import Chunk, FrameCache
from structureflow.frames.chunks import DecodedChunkFrame, OpenVideo, open_video
from structureflow.frames.jpeg import decode_jpeg, encode_jpeg, thumbnail
from structureflow.models.problems import counted
from structureflow_local.exits import BAD_INPUT, DONE
from structureflow_local.output import Output
from structureflow_local.progress import counting

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def run(args: argparse.Namespace, storage: Storage, output: Output) -> int:
    """Run a command below ``frames`` on `storage`; say what was done, and return the exit code."""
    cache = FrameCache(storage)
    match args.frames_command:
        case "cache":
            return _cache(cache, args, output)
        case "list" if args.timeline_id is None:
            return _list_timelines(cache, args, output)
        case "list":
            return _list_frames(cache, args, output)
        case "get":
            return _get(cache, args, output)
        case "clear":
            removed = cache.clear_cache(args.timeline_id, overlays=args.overlays)
            output.give(timeline=args.timeline_id, removed=removed)
            output.say(f"{args.timeline_id}: {removed} objects removed")
        case "rebuild":
            with counting(output, "decode", None, "frames") as done:
                manifest = cache.rebuild(args.timeline_id, quality=args.quality, opener=_counted(done))
            output.give(timeline=args.timeline_id, frames=manifest.total, chunks=len(manifest.chunks))
            output.say(
                f"{args.timeline_id}: {counted(manifest.total, 'frame')} of "
                f"{counted(len(manifest.chunks), 'chunk')} cached"
            )
        case "adopt":
            manifest = cache.adopt_frames(args.timeline_id, fps=args.fps)
            output.give(timeline=args.timeline_id, frames=manifest.total)
            output.say(f"{args.timeline_id}: {manifest.total} frames adopted")
        case _:
            return _overlays(cache.storage, args, output)
    return DONE


def parse_frames(text: str | None) -> list[int] | None:
    """Return the sequence numbers of a list such as ``0-9,20`` (inclusive ranges); None for None.

    Raises:
        InvalidRequestError: it has another form, or a range runs backwards.
    """
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= 1_000_000:
            raise InvalidRequestError(f"--frames: expected a list as in 0-9,20, got {text!r:.100}")
        found += range(first, last + 1)
    return found


def _cache(cache: FrameCache, args: argparse.Namespace, output: Output) -> int:
    names = [path.name for path in args.videos]
    if len(set(names)) != len(names):
        raise InvalidRequestError(f"expected videos with different file names, got {', '.join(names)}")
    with counting(output, "decode", None, "frames") as done:
        if args.keep_chunks:
            # Numbered, because chunks are in order of their names.
            width = len(str(len(names)))
            for number, path in enumerate(args.videos):
                key = keys.timeline_chunk(args.timeline_id, f"{number:0{width}d}-{_plain(path.name)}")
                cache.storage.put_file(key, path)
            manifest = cache.rebuild(args.timeline_id, quality=args.quality, opener=_counted(done))
        else:
            chunks = (Chunk(path.name, path) for path in args.videos)
            manifest = cache.cache_videos(args.timeline_id, chunks, quality=args.quality, opener=_counted(done))
    size = sum(manifest.frames.size_bytes)
    output.give(timeline=args.timeline_id, frames=manifest.total, videos=len(manifest.chunks), size_bytes=size)
    output.say(
        f"{args.timeline_id}: {counted(manifest.total, 'frame')} of {counted(len(manifest.chunks), 'video')} cached, "
        f"{size / 1e6:.1f} MB"
    )
    return DONE


def _counted(done: Callable[[int], None]) -> OpenVideo:
    """Open videos as ever, and tell `done` of each frame."""

    @contextmanager
    def opened(path: Path) -> Iterator[Iterable[DecodedChunkFrame]]:
        with open_video(path) as frames:
            yield _told(frames)

    def _told(frames: Iterable[DecodedChunkFrame]) -> Iterator[DecodedChunkFrame]:
        for frame in frames:
            yield frame
            done(1)

    return opened


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "_", name)[-150:]


def _list_timelines(cache: FrameCache, args: argparse.Namespace, output: Output) -> int:
    whole = True
    found = []
    for timeline_id in cache.list_timelines():
        line = _timeline_line(cache, timeline_id, check=args.check)
        whole = whole and line.get("whole") is not False
        found.append(line)
        output.say("  ".join(f"{name}={value}" for name, value in line.items()))
    output.give(timelines=found)
    return DONE if whole else BAD_INPUT


def _timeline_line(cache: FrameCache, timeline_id: str, *, check: bool) -> dict[str, object]:
    try:
        manifest = cache.manifest(timeline_id)
    except TimelineNotFoundError:
        return {"timeline": timeline_id, "state": "uncommitted"}
    except FrameCacheError as error:
        return {"timeline": timeline_id, "state": "unreadable", "error": error.message}
    line: dict[str, object] = {
        "timeline": timeline_id,
        "state": "cached",
        "frames": manifest.total,
        "size_bytes": sum(manifest.frames.size_bytes),
        "created_at": manifest.created_at.isoformat(timespec="seconds"),
    }
    if check:
        found = cache.check_cache(timeline_id)
        line |= {"whole": found.whole, "missing": len(found.missing), "changed": len(found.changed)}
    return line


def _list_frames(cache: FrameCache, args: argparse.Namespace, output: Output) -> int:
    manifest = cache.manifest(args.timeline_id)
    frames = []
    for record in manifest.records():
        frames.append(
            {
                "sequence": record.sequence,
                "timestamp_s": record.timestamp,
                "chunk_id": record.chunk_id,
                "size_bytes": record.size_bytes,
                "perceptual_hash": record.perceptual_hash,
                "key": record.key,
            }
        )
        output.say(
            f"{record.sequence:6d}  {record.timestamp:10.3f} s  {record.size_bytes:8d} B  "
            f"{record.perceptual_hash}  {record.chunk_id}"
        )
    output.give(timeline=args.timeline_id, frames=frames)
    if not args.check:
        return DONE
    found = cache.check_cache(args.timeline_id)
    output.give(whole=found.whole, missing=len(found.missing), changed=len(found.changed), extra=found.extra)
    output.say(
        f"{counted(found.total, 'frame')}: {len(found.missing)} missing, {len(found.changed)} changed, "
        f"{found.extra} objects besides them"
    )
    return DONE if found.whole else BAD_INPUT


def _get(cache: FrameCache, args: argparse.Namespace, output: Output) -> int:
    wanted = parse_frames(args.frames)
    _make_folder(args.out)
    files = []
    total = cache.manifest(args.timeline_id).total if wanted is None else len(wanted)
    with counting(output, "get", total, "frames") as done:
        for record, data in cache.iter_cached_jpegs(args.timeline_id, wanted):
            shown = data if args.width is None else encode_jpeg(thumbnail(decode_jpeg(data), args.width))
            files.append(_write(args.out / f"{record.sequence:06d}.jpg", shown))
            done(1)
    output.give(timeline=args.timeline_id, files=files)
    output.say(f"{args.timeline_id}: {counted(len(files), 'frame')} written to {args.out}")
    return DONE


def _overlays(storage: Storage, args: argparse.Namespace, output: Output) -> int:
    found = []
    for entry in list_overlay_frames(storage, args.timeline_id, args.job, args.stage):
        line = {"job": entry.job_id, "stage": entry.stage, "sequence": entry.sequence, "name": entry.name}
        if args.out is None:
            found.append({**line, "size_bytes": entry.size_bytes})
            output.say(f"{entry.job_id}  {entry.stage:10s}  {entry.sequence:6d}  {entry.name}  {entry.size_bytes} B")
        else:
            folder = args.out / keys.check_id(entry.job_id, "job id") / keys.check_id(entry.stage, "stage")
            _make_folder(folder)
            path = _write(folder / f"{entry.sequence:06d}_{entry.name}.png", storage.get(entry.key).data)
            found.append({**line, "file": path})
    output.give(timeline=args.timeline_id, overlays=found)
    if args.out is not None:
        output.say(f"{args.timeline_id}: {len(found)} overlays written to {args.out}")
    return DONE


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(f"{path}: the folder cannot be made: {error.strerror}") from error


def _write(path: Path, data: bytes) -> Path:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InvalidRequestError(f"{path}: cannot be written: {error.strerror}") from error
    return path
