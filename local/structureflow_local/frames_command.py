"""``structureflow frames …``: look at, fill, mend and clear the frame caches of timelines."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from structureflow import keys
from structureflow.errors import FrameCacheError, InvalidRequestError, StorageError, TimelineNotFoundError
from structureflow.frames.cache import Chunk, FrameCache
from structureflow.frames.jpeg import MAX_SIDE_PX, decode_jpeg, encode_jpeg, thumbnail
from structureflow.frames.overlays import STAGES, list_overlay_frames
from structureflow.storage.base import Storage

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``frames`` to its parser."""
    commands = parser.add_subparsers(dest="frames_command", required=True, metavar="COMMAND")

    cache = commands.add_parser("cache", help="decode local videos in order into a timeline's frame cache")
    _add_timeline(cache)
    cache.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    cache.add_argument("--quality", type=_quality, default=85, help="of the JPEGs, 1 to 100 (default: 85)")
    cache.add_argument("--keep-chunks", action="store_true", help="store the videos too, so that it can be rebuilt")

    show = commands.add_parser("list", help="list all timelines, or the frames of one")
    show.add_argument("timeline_id", nargs="?", metavar="TIMELINE")
    show.add_argument("--check", action="store_true", help="compare each timeline's objects with its manifest")
    show.add_argument("--json", action="store_true", help="one JSON object per line")

    get = commands.add_parser("get", help="write cached frames to a folder as JPEGs")
    _add_timeline(get)
    get.add_argument("--out", type=Path, required=True, metavar="DIR")
    get.add_argument("--frames", metavar="LIST", help="as in 0-9,20: inclusive ranges (default: all)")
    get.add_argument("--width", type=_width, metavar="PIXELS", help="scale wider frames down to this")

    clear = commands.add_parser("clear", help="remove a timeline's frames and manifest")
    _add_timeline(clear)
    clear.add_argument("--overlays", action="store_true", help="its overlays too")

    rebuild = commands.add_parser("rebuild", help="write the frames anew from the timeline's stored chunks")
    _add_timeline(rebuild)
    rebuild.add_argument("--quality", type=_quality, default=85, help="of the JPEGs, 1 to 100 (default: 85)")

    adopt = commands.add_parser("adopt", help="make a cache of frames that an older program left without manifest")
    _add_timeline(adopt)
    adopt.add_argument("--fps", type=_rate, required=True, help="their rate; their times were not kept")

    overlays = commands.add_parser("overlays", help="list the overlays of a timeline, or write them to a folder")
    _add_timeline(overlays)
    overlays.add_argument("--job", help="only those of this job")
    overlays.add_argument("--stage", choices=STAGES, help="only those of this stage (needs --job)")
    overlays.add_argument("--out", type=Path, metavar="DIR", help="write them as DIR/JOB/STAGE/FRAME_NAME.png")

    for command in (cache, show, get, clear, rebuild, adopt, overlays):
        _add_place(command)


def _add_place(command: argparse.ArgumentParser) -> None:
    """Take behind a command, too, where the frames are; left unset unless given, so that what stood before holds."""
    command.add_argument("--bucket", default=argparse.SUPPRESS, help="data bucket (default: $DATA_BUCKET)")
    command.add_argument(
        "--endpoint-url",
        default=argparse.SUPPRESS,
        help="endpoint of an S3-compatible store (default: $AWS_ENDPOINT_URL_S3)",
    )
    command.add_argument(
        "--folder", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="a local folder instead of a bucket"
    )


def run(args: argparse.Namespace, storage: Storage) -> int:
    """Run a command below ``frames`` on `storage`; print what was done, and return the exit code."""
    cache = FrameCache(storage)
    match args.frames_command:
        case "cache":
            return _cache(cache, args)
        case "list" if args.timeline_id is None:
            return _list_timelines(cache, args)
        case "list":
            return _list_frames(cache, args)
        case "get":
            return _get(cache, args)
        case "clear":
            removed = cache.clear_cache(args.timeline_id, overlays=args.overlays)
            print(f"{args.timeline_id}: {removed} objects removed")
        case "rebuild":
            manifest = cache.rebuild(args.timeline_id, quality=args.quality)
            print(f"{args.timeline_id}: {manifest.total} frames of {len(manifest.chunks)} chunks cached")
        case "adopt":
            manifest = cache.adopt_frames(args.timeline_id, fps=args.fps)
            print(f"{args.timeline_id}: {manifest.total} frames adopted")
        case _:
            return _overlays(cache.storage, args)
    return 0


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


def _quality(text: str) -> int:
    if text.isdigit() and 1 <= int(text) <= 100:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected 1 to 100, got {text!r}")


def _width(text: str) -> int:
    if text.isdigit() and 1 <= int(text) <= MAX_SIDE_PX:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected 1 to {MAX_SIDE_PX}, got {text!r}")


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value <= 1000:
        return value
    raise argparse.ArgumentTypeError(f"expected more than 0 and up to 1000, got {text!r}")


def _add_timeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("timeline_id", metavar="TIMELINE")


def _cache(cache: FrameCache, args: argparse.Namespace) -> int:
    names = [path.name for path in args.videos]
    if len(set(names)) != len(names):
        raise InvalidRequestError(f"expected videos with different file names, got {', '.join(names)}")
    if args.keep_chunks:
        # Numbered, because chunks are in order of their names.
        width = len(str(len(names)))
        for number, path in enumerate(args.videos):
            key = keys.timeline_chunk(args.timeline_id, f"{number:0{width}d}-{_plain(path.name)}")
            cache.storage.put_file(key, path)
        manifest = cache.rebuild(args.timeline_id, quality=args.quality)
    else:
        chunks = (Chunk(path.name, path) for path in args.videos)
        manifest = cache.cache_videos(args.timeline_id, chunks, quality=args.quality)
    size = sum(manifest.frames.size_bytes)
    print(f"{args.timeline_id}: {manifest.total} frames of {len(manifest.chunks)} videos cached, {size / 1e6:.1f} MB")
    return 0


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "_", name)[-150:]


def _list_timelines(cache: FrameCache, args: argparse.Namespace) -> int:
    whole = True
    for timeline_id in cache.list_timelines():
        line = _timeline_line(cache, timeline_id, check=args.check)
        whole = whole and line.get("whole") is not False
        print(json.dumps(line) if args.json else "  ".join(f"{name}={value}" for name, value in line.items()))
    return 0 if whole else 2


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


def _list_frames(cache: FrameCache, args: argparse.Namespace) -> int:
    manifest = cache.manifest(args.timeline_id)
    for record in manifest.records():
        if args.json:
            line = {
                "sequence": record.sequence,
                "timestamp_s": record.timestamp,
                "chunk_id": record.chunk_id,
                "size_bytes": record.size_bytes,
                "perceptual_hash": record.perceptual_hash,
                "key": record.key,
            }
            print(json.dumps(line))
        else:
            print(
                f"{record.sequence:6d}  {record.timestamp:10.3f} s  {record.size_bytes:8d} B  "
                f"{record.perceptual_hash}  {record.chunk_id}"
            )
    if not args.check:
        return 0
    found = cache.check_cache(args.timeline_id)
    if not args.json:
        print(
            f"{found.total} frames: {len(found.missing)} missing, {len(found.changed)} changed, "
            f"{found.extra} objects besides them"
        )
    return 0 if found.whole else 2


def _get(cache: FrameCache, args: argparse.Namespace) -> int:
    wanted = parse_frames(args.frames)
    _make_folder(args.out)
    count = 0
    for record, data in cache.iter_cached_jpegs(args.timeline_id, wanted):
        shown = data if args.width is None else encode_jpeg(thumbnail(decode_jpeg(data), args.width))
        _write(args.out / f"{record.sequence:06d}.jpg", shown)
        count += 1
    print(f"{args.timeline_id}: {count} frames written to {args.out}")
    return 0


def _overlays(storage: Storage, args: argparse.Namespace) -> int:
    count = 0
    for entry in list_overlay_frames(storage, args.timeline_id, args.job, args.stage):
        if args.out is None:
            print(f"{entry.job_id}  {entry.stage:10s}  {entry.sequence:6d}  {entry.name}  {entry.size_bytes} B")
        else:
            folder = args.out / keys.check_id(entry.job_id, "job id") / keys.check_id(entry.stage, "stage")
            _make_folder(folder)
            _write(folder / f"{entry.sequence:06d}_{entry.name}.png", storage.get(entry.key).data)
        count += 1
    if args.out is not None:
        print(f"{args.timeline_id}: {count} overlays written to {args.out}")
    return 0


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path}: {error}") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
