"""Makers of videos as cameras, editors, recorders and accidents leave them: each of one kind, with known truth."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from structureflow.testing.videos import Image

#: ITU-T H.273 numbers of BT.709: (matrix, transfer, primaries).
BT709: Final = (1, 1, 1)
UNTAGGED: Final = (2, 2, 2)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _in_thread_of_its_own(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Keep what an encoder does to the thread that calls it from the caller.

    SVT-AV1 gives it real-time priority 99 where the user is root, for good, and whatever it starts inherits that: a
    test's processes then starve the whole machine.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with ThreadPoolExecutor(1, thread_name_prefix="encode") as pool:
            return pool.submit(function, *args, **kwargs).result()

    return run


@_in_thread_of_its_own
def write_video(
    path: Path,
    frames: Iterable[Any],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    source_format: str = "rgb24",
    matrix: int = 1,
    tags: tuple[int, int, int] = BT709,
    full_range: bool = False,
    sar: Fraction | None = None,
    field: str = "",
    options: Mapping[str, str] | None = None,
    container: Mapping[str, str] | None = None,
    sound_s: float = 0.0,
    starts_at_s: float = 0.0,
) -> Path:
    """Encode frames with any codec and container that FFmpeg writes; return `path`.

    Args:
        path: the file; its suffix names the container.
        frames: arrays of `source_format`, all of one size.
        codec, pix_fmt, fps, options: of the encoder.
        source_format: pixel format of the arrays.
        matrix: ITU-T H.273 number by which RGB becomes YCbCr.
        tags: (matrix, transfer, primaries) that the file names, rightly or not.
        full_range: whether YCbCr uses all code values.
        sar: width of a stored pixel by its height.
        field: ``tff`` or ``bff``: flag every frame as interlaced.
        container: options of the muxer.
        sound_s: seconds of a tone beside the picture, from time 0.
        starts_at_s: when the first picture is shown.
    """
    arrays = iter(frames)
    first = next(arrays)
    height, width = first.shape[:2]
    with av.open(str(path), "w", options=dict(container or {})) as out:
        stream: Any = out.add_stream(codec, rate=fps, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = tags
        context.color_range = 2 if full_range else 1
        if sar is not None:
            context.sample_aspect_ratio = sar
        if field:
            context.flags |= int(av.codec.context.Flags.interlaced_dct) | int(av.codec.context.Flags.interlaced_me)
        sound = out.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=48000) if sound_s else None
        flagged = _field_flagger(width, height, pix_fmt, field) if field else None
        for index, array in enumerate((first, *arrays)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=source_format)
            if frame.format.name != pix_fmt:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=matrix, dst_color_range=2 if full_range else 1, threads=1
                )
            frame.colorspace, frame.color_trc, frame.color_primaries = tags
            frame.pts = index + round(starts_at_s * fps)
            frame.time_base = Fraction(1, fps)
            if flagged is not None:
                flagged.vpush(frame)
                frame = flagged.vpull()
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _write_tone(out, sound, sound_s)
    return path


def _field_flagger(width: int, height: int, pix_fmt: str, field: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=pix_fmt, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", mode=field), graph.add("buffersink")).configure()
    return graph


def _write_tone(out: Any, stream: Any, seconds: float) -> None:
    size = 960
    for start in range(0, int(seconds * 48000), size):
        times = np.arange(start, start + size) / 48000
        wave = (np.sin(times * 440 * 2 * np.pi) * 0.1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def woven_fields(moments: Sequence[Image], *, top_first: bool = True) -> list[Image]:
    """Return true interlaced pictures: of two moments each, one in the even rows, the later one in the others.

    Args:
        moments: an even number of pictures, at the rate of fields.
        top_first: whether the even rows, which begin at the top, are the earlier ones.
    """
    pictures = []
    for early, late in zip(moments[::2], moments[1::2], strict=True):
        picture = early.copy()
        rows = slice(1, None, 2) if top_first else slice(0, None, 2)
        picture[rows] = late[rows]
        pictures.append(picture)
    return pictures


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Overwrite the matrix of the first track header (ISO/IEC 14496-12, 8.3.2); each of -1, 0, 1."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") - 4
    if data[at + 8] != 0:
        raise ValueError("expected a track header of version 0")
    one = 1 << 16
    data[at + 48 : at + 84] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def copy_from(source: Path, target: Path, first_frame: int, fps: int = 25) -> Path:
    """Cut a video without re-encoding: its first packets stay, hidden by an edit list."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        copied = out.add_stream_from_template(stream)
        shift = round(Fraction(first_frame, fps) / Fraction(stream.time_base.numerator, stream.time_base.denominator))
        for packet in given.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copied
            out.mux(packet)
    return target


def beside(path: Path, streams: Sequence[tuple[str, Sequence[Image], int]], *, fps: int = 25) -> Path:
    """Write several video streams into one file.

    Args:
        path: the file.
        streams: of each its codec, its frames and its disposition (a number of `av.stream.Disposition`).
        fps: of all.
    """
    with av.open(str(path), "w") as out:
        made: list[Any] = []
        for codec, frames, disposition in streams:
            stream: Any = out.add_stream(codec, rate=fps)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            made.append(stream)
        for stream, (_, frames, _) in zip(made, streams, strict=True):
            for index, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, fps)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def with_hole(images: Iterable[Image]) -> Iterator[NDArray[np.uint8]]:
    """Add alpha: transparent in the middle, where the picture goes on underneath; ``(H, W, 4) uint8 RGBA``."""
    for image in images:
        height, width = image.shape[:2]
        alpha = np.full((height, width, 1), 255, np.uint8)
        alpha[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 0
        yield np.concatenate([image, alpha], -1)


def damage(path: Path, share: float, length: int = 400) -> Path:
    """Overwrite `length` bytes with noise at `share` (0 to 1) of the file."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * share)
    data[at : at + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(data)
    return path


def pq_signal(nits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the PQ signal (0 to 1) of light in cd/m2, by SMPTE ST 2084."""
    root = np.power(np.asarray(nits, np.float64) / 10_000, 2610 / 16384)
    signal: NDArray[np.float64] = ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)
    return signal


def hlg_signal(scene: NDArray[Any]) -> NDArray[np.float64]:
    """Return the HLG signal (0 to 1) of scene light (0 to 1), by ITU-R BT.2100-2, table 5."""
    light = np.asarray(scene, np.float64)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = a * np.log(np.maximum(12 * light - b, 1e-9)) + c
    return np.where(light <= 1 / 12, np.sqrt(3 * light), high)
