"""Arguments that no function can use, by the kind of the parameter they are given for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

PICTURE: Final = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
FLOW: Final = np.full((48, 64, 2), 1.5, np.float32)
NAN: Final = np.where(np.arange(2) > 0, np.nan, FLOW).astype(np.float32)


@dataclass(frozen=True)
class Bad:
    """A value, and what the error's message must name of it beside the parameter (one of these words is enough)."""

    name: str
    value: Any
    words: tuple[str, ...] = ()


def _file(*names: str) -> list[Bad]:
    return [Bad(name or "no-name", name, (Path(name).name,) if name else ()) for name in names]


_NO_PATHS: Final = [
    Bad("None", None),
    Bad("number", 5),
    Bad("bytes", b"clip.mp4"),
    Bad("no-name", ""),
    Bad("nul", "a\0b"),
]
_NO_TEXTS: Final = [Bad("None", None), Bad("number", 5), Bad("bytes", b"x")]
_IDS: Final = [Bad(repr(value)[:12], value) for value in ("", "../up", "a/b", "a\\b", "a\0b", "/a", "x" * 300)]
_KEYS: Final = [Bad(repr(value)[:12], value) for value in ("", "../up", "/a", "a\\b", "a\0b", "a//b", "x" * 2000)]
_NO_NUMBERS: Final = [Bad("text", "3"), Bad("list", [1]), Bad("NaN", float("nan")), Bad("infinite", float("inf"))]
_NO_COUNTS: Final = [Bad("None", None), *_NO_NUMBERS, Bad("half", 2.5), Bad("negative", -1)]
#: A folder on a file system that nobody can write to, root neither; nothing is ever made there.
READ_ONLY: Final = "/proc/structureflow"
_NO_TARGETS: Final = [*_NO_PATHS, *_file("a.png/below")] + (
    [Bad("read-only", f"{READ_ONLY}/x", (READ_ONLY,))] if Path("/proc/1").exists() else []
)
_PICTURES: Final = {
    "None": None, "text": "a.png", "list": [[1, 2], [3, 4]], "float": PICTURE / 255, "float-nan": PICTURE * np.nan,
    "grey": PICTURE[..., 0], "four channels": np.dstack([PICTURE, PICTURE[..., :1]]), "empty": PICTURE[:0],
    "int64": PICTURE.astype(np.int64),
}  # fmt: skip
_FIELDS: Final = {
    "None": None, "text": "flow", "NaN": NAN, "infinite": FLOW * np.float32("inf"),
    "whole numbers": FLOW.astype(np.int32),
    "three channels": np.dstack([FLOW, FLOW[..., :1]]), "flat": FLOW[..., 0], "empty": FLOW[:0],
}  # fmt: skip


def _each(values: Mapping[str, Any]) -> list[Bad]:
    return [Bad(name, value) for name, value in values.items()]


def _lists(values: Mapping[str, Any], good: Any) -> list[Bad]:
    # text is a sequence of texts
    inside = [Bad(f"of {name}", [good, value, good]) for name, value in values.items()]
    return [Bad("None", None), Bad("number", 5), Bad("text", "nothing"), *inside]


#: By kind of parameter: what it cannot be. Every file named is one that `places` makes, or is not there.
KINDS: Final[dict[str, list[Bad]]] = {
    "video": [*_NO_PATHS, *_file("nowhere.mp4", "folder", "empty.mp4", "text.mp4", "a.png", "flows.npz")],
    "archive": [*_NO_PATHS, *_file("nowhere.npz", "folder", "empty.npz", "text.npz", "clip.mp4", "cut.npz")],
    "flows in or archive": [*_NO_PATHS, *_file("nowhere.npz", "folder", "text.npz", "clip.mp4", "many")],
    "flo": [*_NO_PATHS, *_file("nowhere.flo", "folder", "empty.flo", "text.flo", "cut.flo")],
    "kitti": [*_NO_PATHS, *_file("nowhere.png", "folder", "empty.png", "text.png", "a.png")],
    "file to write": [*_NO_TARGETS, *_file("folder")],
    "folder to write": [*_NO_TARGETS, *_file("a.png")],
    "empty folder to write": [*_NO_TARGETS, *_file("a.png", "folder")],
    "file": [*_NO_PATHS, *_file("nowhere.txt", "folder")],
    "text": _NO_TEXTS,
    "id": [*_NO_TEXTS, *_IDS],
    "key": [*_NO_TEXTS, *_KEYS],
    "stage": [*_NO_TEXTS, *_IDS, Bad("unknown", "nonsense")],
    "whole from 0": _NO_COUNTS,
    "whole from 1": [*_NO_COUNTS, Bad("zero", 0)],
    "frame count": [*_NO_COUNTS, Bad("zero", 0)],
    "whole": [Bad("None", None), *_NO_NUMBERS, Bad("half", 2.5)],
    "rate": [Bad("None", None), *_NO_NUMBERS, Bad("zero", 0), Bad("negative", -16)],
    "number from 0": [Bad("None", None), *_NO_NUMBERS, Bad("negative", -1)],
    "percentile": [Bad("None", None), *_NO_NUMBERS, Bad("negative", -1), Bad("too much", 101)],
    "quality": [*_NO_COUNTS, Bad("zero", 0), Bad("too much", 101)],
    "strength": [Bad("None", None), *_NO_NUMBERS, Bad("negative", -1), Bad("too much", 11)],
    "choice": [Bad("None", None), Bad("number", 5), Bad("unknown", "nonsense"), Bad("list", ["flo"])],
    "size": [
        Bad("number", 5),
        Bad("text", "ab"),
        Bad("one", (64,)),
        Bad("three", (64, 64, 3)),
        Bad("zero", (0, 64)),
        Bad("negative", (64, -1)),
        Bad("half", (64.5, 64)),
        Bad("texts", ("64", "64")),
        Bad("NaN", (float("nan"), 64)),
        Bad("giant", (10**6, 10**6)),
    ],
    "picture": _each(_PICTURES),
    "pictures": [*_lists(_PICTURES, PICTURE), Bad("none", []), Bad("of two sizes", [PICTURE, PICTURE[:64]])],
    "structure": [
        Bad("number", 5),
        *_file("nowhere.mp4", "folder", "empty.mp4", "text.mp4", "a.png"),
        Bad("no-name", ""),
        *[Bad(f"of {name}", [value] * 12) for name, value in _PICTURES.items()],
        Bad("none", []),
        Bad("too few", [PICTURE] * 3),
    ],
    "field": _each(_FIELDS),
    "fields": [*_lists(_FIELDS, FLOW), Bad("of two sizes", [FLOW, FLOW[:32]])],
    "source": [Bad("None", None), Bad("number", 5), Bad("text", "flows.npz"), Bad("array", FLOW)],
    "source or archive": [
        Bad("number", 5),
        Bad("array", FLOW),
        Bad("no-name", ""),
        Bad("nul", "a\0b"),
        *_file("nowhere.npz", "folder", "empty.npz", "text.npz", "clip.mp4"),
    ],
    "keyframes": [
        Bad("None", None),
        Bad("number", 5),
        Bad("list", [PICTURE]),
        Bad("text", "a.png"),
        Bad("at text", {"0": PICTURE}),
        Bad("at None", {None: PICTURE}),
        Bad("at half", {0.5: PICTURE}),
        Bad("at one", {(0,): PICTURE}),
        Bad("at three", {(0, 1, 2): PICTURE}),
        Bad("negative", {-1: PICTURE}, ("key frame",)),
        Bad("behind", {99: PICTURE}, ("key frame",)),
        Bad("turned", {(3, 1): PICTURE}, ("key frame",)),
        Bad("overlap", {(0, 3): PICTURE, 2: PICTURE}, ("key frame",)),
        *[Bad(f"of {name}", {0: value}) for name, value in _PICTURES.items() if name != "text"],
        *[
            Bad(f"of {name}", {0: name}, (name,))
            for name in ("nowhere.png", "folder", "empty.png", "text.png", "clip.mp4")
        ],
    ],
    "points": [
        Bad("number", 5),
        Bad("text", "ab"),
        Bad("none", []),
        Bad("three", [(1, 2, 3)]),
        Bad("texts", [("a", "b")]),
        Bad("NaN", [(float("nan"), 1)]),
        Bad("outside", [(500, 1)]),
        Bad("None inside", [None]),
    ],
    "places": [Bad("number", 5), Bad("text", "ab"), Bad("None", None)],
    "known": [
        Bad("number", 5),
        Bad("text", "ab"),
        Bad("other size", np.ones((3, 3), np.bool_)),
        Bad("float", FLOW[..., 0]),
    ],
    "times": [Bad("number", 5), Bad("text", "ab"), Bad("texts", ["a", "b"])],
    "function": [Bad("number", 5), Bad("text", "print")],
    "function or none": [Bad("number", 5), Bad("text", "print")],
    "options": [Bad("None", None), Bad("number", 5), Bad("mapping", {"anchors": "start"})],
    "store": [Bad("None", None), Bad("number", 5), Bad("text", "store")],
    "sequences": [
        Bad("number", 5),
        Bad("of texts", ["a"]),
        Bad("of None", [None]),
        Bad("text", "ab"),
        Bad("halves", [0.5]),
    ],
    "sequences there": [
        Bad("number", 5),
        Bad("of texts", ["a"]),
        Bad("of None", [None]),
        Bad("text", "ab"),
        Bad("halves", [0.5]),
        Bad("negative", [-1]),
        Bad("behind", [99], ("frame 99",)),
    ],
    "path": _NO_PATHS,
    "folder there": [*_NO_PATHS, *_file("nowhere", "a.png", "a.png/below")],
    "texts": [
        Bad("None", None),
        Bad("number", 5),
        Bad("list", ["AAAA"]),
        Bad("of None", {"a": None}),
        Bad("of no base64", {"a": "é"}, ("overlay",)),
        Bad("of bytes", {"a": b"AAAA"}),
        Bad("climbing", {"../up": "AAAA"}, ("overlay",)),
    ],
    "frame number": [*_NO_COUNTS, Bad("behind", 5)],
    "number": [Bad("None", None), *_NO_NUMBERS],
    "prefix": [*_NO_TEXTS, *[Bad(repr(value), value) for value in ("../up", "/a", "a\\b", "a\0b", "a//b")]],
    "pieces": [
        Bad("number", 5),
        Bad("None", None),
        Bad("text", "a/b.txt"),
        Bad("of None", [None]),
        Bad("of texts", ["a"]),
    ],
    "keys": [
        Bad("number", 5),
        Bad("text", "a/b.txt"),
        Bad("of None", [None], ("key",)),
        Bad("climbing", ["../up"], ("key",)),
    ],
    "page": [Bad("number", 5), Bad("text", "second"), Bad("negative", "-1"), Bad("behind", "99")],
    "mapping": [Bad("None", None), Bad("number", 5), Bad("list", [1])],
    "json": [
        Bad("None", None),
        Bad("number", 5),
        Bad("list", [1]),
        Bad("of objects", {"a": object()}),
        Bad("of NaN", {"a": float("nan")}),
        Bad("of bytes", {"a": b"x"}),
        Bad("by pairs", {("a", 1): 1}),
    ],
    "truth": [Bad("None", None), Bad("number", 1), Bad("text", "no")],
    "url": [
        *_NO_TEXTS,
        *[Bad(repr(value)[:24], value) for value in ("", "127.0.0.1:8400", "/jobs", "ftp://a", "file:///etc/hosts")],
        *[
            Bad(repr(value)[:24], value)
            for value in ("http://", "http://[a", "http://a:b", "http://a b", "http://a/\n")
        ],
        Bad("not encoded", "http://a/ü"),
    ],
    "url of a reply": [
        *_NO_TEXTS,
        *[Bad(repr(value)[:24], value) for value in ("file:///etc/hosts", "ftp://a/b", "http://[a", "a b", "ü")],
    ],
    "header": [*_NO_TEXTS, *[Bad(repr(value)[:12], value) for value in ("", "a\nb: c", "ü")]],
    "range": [Bad("number", 5), Bad("text", "ab"), Bad("one", (1,)), Bad("three", (1, 2, 3)), Bad("halves", (0.5, 2))],
    "cuts": [Bad("None", None), Bad("number", 5), Bad("of texts", ("a",)), Bad("halves", (0.5,)), Bad("behind", (7,))],
    "picture or grey": [bad for bad in _each(_PICTURES) if bad.name != "grey"],
    "arrays": [
        Bad("None", None),
        Bad("number", 5),
        Bad("list", [1, 2]),
        Bad("flat", FLOW[0, 0]),
        Bad("float64", FLOW.astype(np.float64)),
    ],
    "motion": [bad for bad in _lists(_FIELDS, FLOW) if bad.value is not None],
    "frames to encode": [*_lists(_PICTURES, PICTURE), Bad("none", []), Bad("of two sizes", [PICTURE, PICTURE[:64]])],
    "guided frames": [
        *[
            Bad(bad.name, bad.value if not isinstance(bad.value, list) else [*bad.value, None, None])
            for bad in _lists(_PICTURES, PICTURE)
        ],
        Bad("none", []),
        Bad("too few", [PICTURE] * 4),
    ],
    "cached frames": [
        Bad("None", None),
        Bad("number", 5),
        Bad("of None", [None]),
        Bad("of pictures", [PICTURE]),
        Bad("text", "ab"),
    ],
    "overlays": [Bad("None", None), Bad("number", 5), Bad("of None", [None]), Bad("of pictures", [PICTURE])],
    "chunks": [Bad("None", None), Bad("number", 5), Bad("of texts", ["clip.mp4"]), Bad("of None", [None])],
    "data": [Bad("None", None), Bad("number", 5), Bad("text", "text"), Bad("list", [1, 2])],
}


def bad_values(kind: str) -> list[Bad]:
    """Return what a parameter of a kind cannot be; of one that may be left out, ``kind?``, None is not among it."""
    if kind.endswith("?"):
        return [bad for bad in KINDS[kind[:-1]] if bad.value is not None]
    return KINDS[kind]
