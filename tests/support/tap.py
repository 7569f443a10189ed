"""What is sent over loopback to one port, with the time at which the kernel sent it: a witness beside sender and receiver.

A receiver's own time of arrival is blurred where it is slow to read: what comes after, an end of the connection too, is
merged with it and leaves its own, later time. The tap sees each packet as it leaves. It needs CAP_NET_RAW.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
import threading

from support.stamped import STAMP_ROOM, stamp_of, stamped

__all__ = ["Tap"]

_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_SNAP_BYTES = 4096
_BUFFER_BYTES = 32 * 1024 * 1024
_REFERENCE = re.compile(rb'"reference":\s*"([^"]+)"')


class Tap:
    """Reads the packets in a thread; `first_ns` has, for each `reference` in a packet, when it first left."""

    def __init__(self, port: int) -> None:
        """Raises OSError where taps may not be had."""
        self.first_ns: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        _filter(self._socket, port)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        stamped(self._socket)
        self._socket.bind(("lo", _ETH_P_ALL))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            packet, ancillary, _, _ = self._socket.recvmsg(_SNAP_BYTES, STAMP_ROOM)
            for reference in _REFERENCE.findall(packet):
                self.first_ns.setdefault(reference.decode(), stamp_of(ancillary))


def _filter(tap: socket.socket, port: int) -> None:
    """Only TCP to this port (classic BPF over the IPv4 header), so that nothing else costs anything."""
    program = [
        (0x30, 0, 0, 9),  # the protocol
        (0x15, 0, 5, 6),  # is TCP
        (0xB1, 0, 0, 0),  # X: length of the IP header
        (0x48, 0, 0, 2),  # the destination port
        (0x15, 0, 2, port),  # is ours
        (0x06, 0, 0, _SNAP_BYTES),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0),
    ]
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    kept = ctypes.create_string_buffer(code)
    tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(kept)))
