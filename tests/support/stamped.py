"""Sockets that know when the kernel received what is read from them.

The time is the wall clock, the one clock that every process of a machine shares and that the kernel stamps packets with
(SO_TIMESTAMPNS). So it can be said of two processes, both busy, which of two bytes came first, however late each is read.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Any
from weakref import WeakValueDictionary

__all__ = ["STAMP_ROOM", "StampedListener", "StampedSocket", "stamp_of", "stamped"]

_SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
_TIMESPEC = struct.Struct("@qq")
STAMP_ROOM = socket.CMSG_SPACE(_TIMESPEC.size)


class StampedSocket(socket.socket):
    """For loops that read with `recv`, as asyncio's own do. Where the kernel stamps nothing, the time of reading counts."""

    first_ns = 0
    """When the first byte since `take` arrived, or what was merged with it before it was read; 0 if none did."""
    last_ns = 0
    """When the last byte did."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data, ancillary, _, _ = self.recvmsg(size, STAMP_ROOM, flags)
        if data:
            self.last_ns = stamp_of(ancillary) or time.time_ns()
            self.first_ns = self.first_ns or self.last_ns
        return data

    def take(self) -> int:
        """When the first byte since the last time arrived."""
        first, self.first_ns = self.first_ns, 0
        return first


class StampedListener(StampedSocket):
    """Its connections are stamped; `accepted` has the open ones by the port of the other side."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.accepted: WeakValueDictionary[int, StampedSocket] = WeakValueDictionary()

    def accept(self) -> tuple[StampedSocket, Any]:
        handle, address = self._accept()  # type: ignore[attr-defined]  # what socket.accept itself uses
        connection = StampedSocket(self.family, self.type, self.proto, fileno=handle)
        stamped(connection)
        self.accepted[address[1]] = connection
        return connection, address


def stamped(one: socket.socket) -> None:
    """From now on what is read from it comes with its time."""
    if _SO_TIMESTAMPNS is not None:
        one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def stamp_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0
