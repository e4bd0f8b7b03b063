"""Pictures whose rows were taken at two times become pictures of one time."""

from __future__ import annotations

from collections.abc import Iterator

from av.error import BlockingIOError as NeedsMoreFrames
from av.error import EOFError as EndOfFrames
from av.filter import Graph
from av.video.frame import VideoFrame


class Deinterlacer:
    """FFmpeg's bwdif over the frames that are flagged as interlaced; one frame out for each frame in.

    It looks one frame ahead, so that frames come out one later than they go in. Progressive frames pass unchanged.

    Args:
        first: the first frame; size and pixel format of all frames are its.
        threads: for filtering.
    """

    def __init__(self, first: VideoFrame, threads: int) -> None:
        graph = Graph()
        graph.threads = threads
        source = graph.add_buffer(template=first)
        field = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
        graph.link_nodes(source, field, graph.add("buffersink")).configure()
        self._graph = graph
        self._shape = first.width, first.height, first.format.name

    def fits(self, frame: VideoFrame) -> bool:
        """Tell whether the frame has the size and pixel format of the first one."""
        return self._shape == (frame.width, frame.height, frame.format.name)

    def feed(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Take a frame; yield those that are ready."""
        self._graph.vpush(frame)
        yield from self._ready()

    def finish(self) -> Iterator[VideoFrame]:
        """Yield the frames that are still inside."""
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (NeedsMoreFrames, EndOfFrames):
                return
            yield frame
