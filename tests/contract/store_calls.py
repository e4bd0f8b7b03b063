"""One call that works of every method of the stores and of the frame cache; see `public_calls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import structureflow as sf
from structureflow.frames.cache import Chunk
from structureflow.storage.base import ByteRange
from tests.contract.bad_arguments import PICTURE
from tests.contract.public_calls import Call, method

_FRAME: Final = sf.Frame(0, "a.mp4", 0.0, PICTURE)


def _cache() -> sf.FrameCache:
    """Make a cache of five frames in memory, with an overlay, and source chunks of another timeline."""
    store = sf.MemoryStorage()
    cache = sf.FrameCache(store)
    cache.cache_frames("walk", [sf.Frame(number, "a.mp4", number / 25, PICTURE) for number in range(5)])
    for name in ("0", "1"):
        data = store.get("cache/timelines/walk/frames/000000.jpg").data
        store.put(f"cache/timelines/old/frames/{name}.jpg", data)
    store.put_file("timelines/run/chunks/a.mp4", Path("clip.mp4"))
    return cache


def _store(kind: str) -> sf.Storage:
    if kind == "S3Storage":
        return sf.S3Storage("bucket", client=_NoRequests())  # type: ignore[arg-type]
    store: sf.Storage = sf.MemoryStorage() if kind == "MemoryStorage" else sf.LocalStorage("store")
    store.put("a/b.txt", b"0123456789")
    return store


class _NoRequests:
    """A client of S3 that is not to be asked."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name}: asked of the store before arguments were looked at")


def _calls_of(kind: str) -> dict[str, Call]:
    def call(name: str, kinds: dict[str, str], free: tuple[str, ...] = (), **arguments: Any) -> Call:
        return Call(method(lambda: _store(kind), name, **arguments), kinds, free, works=kind != "S3Storage")

    match, key = {"if_match": "text?"}, {"key": "key"}
    writing = key | match | {"content_type": "text?"}
    upload = method(lambda: _store(kind), "upload_url", key="c", size_bytes=1, content_type="text/plain")
    return {
        # only a bucket signs
        f"{kind}.upload_url": Call(
            upload,
            key | {"size_bytes": "whole from 1", "content_type": "text?", "expires_s": "whole from 1"},
            works=False,
        ),
        f"{kind}.assemble": call(
            "assemble",
            key | {"pieces": "pieces", "content_type": "text?"},
            free=("if_absent",),
            key="c",
            pieces=[b"01", b"2"],
        ),
        f"{kind}.checksums": call("checksums", {"info": "options"}, info=sf.MemoryStorage().put("a", b"1")),
        f"{kind}.copy": call(
            "copy", match | {"source_key": "key", "target_key": "key"}, source_key="a/b.txt", target_key="c"
        ),
        f"{kind}.delete": call("delete", {"keys": "keys"}, keys=["a/b.txt"]),
        f"{kind}.exists": call("exists", key, key="a/b.txt"),
        f"{kind}.folders": call("folders", {"prefix": "prefix", "start_after": "text?"}, prefix="a/"),
        f"{kind}.get": call("get", key | match | {"byte_range": "options?"}, key="a/b.txt", byte_range=ByteRange(0, 2)),
        f"{kind}.get_to_file": call(
            "get_to_file",
            # of a bucket, it is written to when the bytes come
            key | match | {"path": "path" if kind == "S3Storage" else "file to write", "max_bytes": "whole from 0?"},
            key="a/b.txt",
            path=Path("free/b.txt"),
        ),
        f"{kind}.head": call("head", key, key="a/b.txt"),
        f"{kind}.list": call("list", {"prefix": "prefix", "start_after": "text?"}, prefix="a/"),
        f"{kind}.presigned_url": call("presigned_url", key | {"expires_s": "whole from 1"}, key="a/b.txt"),
        f"{kind}.put": call("put", writing | {"data": "data"}, ("if_absent",), key="c", data=b"1"),
        f"{kind}.put_file": call("put_file", writing | {"path": "file"}, ("if_absent",), key="c", path=Path("a.png")),
    }


def cache_calls() -> dict[str, Call]:
    """Return the calls of `FrameCache`."""

    def call(name: str, kinds: dict[str, str], free: tuple[str, ...] = (), **arguments: Any) -> Call:
        return Call(method(_cache, name, **arguments), kinds, free)

    walk: dict[str, Any]
    walk, walks = {"timeline_id": "walk"}, {"timeline_id": "id"}
    which = walks | {"sequences": "sequences there"}
    page = which | {"page": "page?", "limit": "whole from 1"}
    writing = walks | {"quality": "quality", "source_identity": "text"}
    return {
        "FrameCache.adopt_frames": call(
            "adopt_frames", walks | {"fps": "rate", "chunk_id": "text"}, timeline_id="old", fps=25
        ),
        "FrameCache.cache_exists": call("cache_exists", walks | {"source_identity": "text?"}, **walk),
        "FrameCache.cache_frames": call("cache_frames", writing | {"frames": "cached frames"}, frames=[_FRAME], **walk),
        "FrameCache.cache_videos": call(
            "cache_videos",
            writing | {"chunks": "chunks", "opener": "function"},
            chunks=[Chunk("a.mp4", Path("clip.mp4"))],
            **walk,
        ),
        "FrameCache.check_cache": call("check_cache", walks, **walk),
        "FrameCache.clear_cache": call("clear_cache", walks, ("overlays",), **walk),
        "FrameCache.frames_to_b64": call(
            "frames_to_b64",
            {"frames": "cached frames", "quality": "quality", "width_px": "whole from 1?"},
            frames=[_FRAME],
        ),
        "FrameCache.iter_cached_frames": call("iter_cached_frames", which | {"manifest": "options?"}, **walk),
        "FrameCache.iter_cached_grays": Call(
            lambda: (
                (cache := _cache()).iter_cached_grays,
                {"manifest": cache.manifest("walk"), "sequences": [0], "height": 48, "width": 80},
            ),
            {"manifest": "options", "sequences": "sequences there", "height": "whole from 1", "width": "whole from 1"},
        ),
        "FrameCache.iter_cached_jpegs": call("iter_cached_jpegs", which, **walk),
        "FrameCache.list_timelines": call("list_timelines", {}),
        "FrameCache.load_cached_frames": call("load_cached_frames", which, **walk),
        "FrameCache.load_cached_frames_b64": call(
            "load_cached_frames_b64",
            page | {"width_px": "whole from 1?", "quality": "quality", "max_bytes": "whole from 1"},
            width_px=32,
            **walk,
        ),
        "FrameCache.load_frame_urls": call("load_frame_urls", page | {"expires_s": "whole from 1"}, **walk),
        "FrameCache.manifest": call("manifest", walks | {"source_identity": "text?"}, **walk),
        "FrameCache.rebuild": call(
            "rebuild",
            walks
            | {
                "quality": "quality",
                "source_identity": "text?",
                "max_chunk_bytes": "whole from 1?",
                "opener": "function",
            },
            timeline_id="run",
        ),
        "FrameCache.source_identity": call("source_identity", walks, **walk),
        "FrameCache.writer": call("writer", writing, **walk),
    }


def store_calls() -> dict[str, Call]:
    """Return the calls of every store."""
    calls: dict[str, Call] = {}
    for kind in ("LocalStorage", "MemoryStorage", "S3Storage"):
        calls |= _calls_of(kind)
    return calls
