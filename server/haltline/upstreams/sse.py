"""Reading a stream of server-sent events as it arrives, in time linear to its length and with each event bounded.

Follows the WHATWG event stream format as far as MCP needs it: the data of `message` events, and where the stream can be
taken up again. Knows no JSON.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["EventReader", "EventTooLarge"]

_BOM = b"\xef\xbb\xbf"
_ID_MAX = 512
_RETRY_DIGITS = 9


class EventTooLarge(ValueError):
    """One event's data is longer than allowed; noticed while it is read."""


class EventReader:
    """`feed` takes chunks cut anywhere and yields the data of each event that they complete."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._partial: list[bytes] = []
        self._size = 0
        self._data: list[bytes] = []
        self._kind = b""
        self._after_cr = False
        self._first = True
        self._id: str | None = None
        self.last_id: str | None = None
        """Of the last event, or of one before it: what comes after that one is still to come."""
        self.retry_ms: int | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises EventTooLarge."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            if self._partial:
                self._partial.append(line)
                complete = b"".join(self._partial)
                self._size -= len(complete) - len(line)
                self._partial.clear()
            else:
                complete = line
            event = self._line(complete)
            if event is not None:
                yield event
        if rest:
            self._partial.append(rest)
            self._grow(len(rest))

    def clear(self) -> None:
        """Forget an event that is not whole."""
        self._partial, self._data, self._size = [], [], 0

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._max:
            raise EventTooLarge

    def _line(self, line: bytes) -> bytes | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._end()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._grow(len(value) + 1)
            self._data.append(value)
        elif name == b"event":
            self._kind = value
        elif name == b"id" and len(value) <= _ID_MAX and value.isascii() and value.decode("ascii").isprintable():
            self._id = value.decode("ascii")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self.retry_ms = int(value)
        return None

    def _end(self) -> bytes | None:
        data, kind = b"\n".join(self._data), self._kind
        self._data, self._kind, self._size = [], b"", 0
        self.last_id = self._id
        return data if data and kind in {b"", b"message"} else None
