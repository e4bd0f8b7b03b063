"""A file that is no local one, as media are read from."""

from __future__ import annotations

from typing import Protocol


class OpenedFile(Protocol):
    """A file that is no local one, opened; read by one thread at a time.

    What its methods raise comes through to whoever reads the video.
    """

    name: str
    size_bytes: int

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes, fewer at the end only."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Go to a place, as any file does."""
        ...

    def tell(self) -> int:
        """Return the place."""
        ...
