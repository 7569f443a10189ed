"""Lines from a stream that is cut anywhere: in time linear to its length, and with each line bounded while it is read."""

from __future__ import annotations

__all__ = ["LineReader", "LineTooLong"]


class LineTooLong(ValueError):
    """A line is longer than allowed; noticed while it is read."""


class LineReader:
    """`feed` takes chunks and returns the lines that they complete, without their ends."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._partial: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises LineTooLong."""
        *whole, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        for line in whole:
            self._add(line)
            lines.append(b"".join(self._partial).rstrip(b"\r"))
            self._partial, self._size = [], 0
        if rest:
            self._add(rest)
        return lines

    def clear(self) -> None:
        """Forget a line that is not whole."""
        self._partial, self._size = [], 0

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            raise LineTooLong
        self._partial.append(piece)
