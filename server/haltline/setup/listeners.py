"""One address that the broker listens on, and what must be said before it may be reachable from another machine.

Parses and checks; opens no socket. The reach of a listener decides: off loopback it needs the host names it answers to
(against DNS rebinding) and TLS, or a stated proxy in front.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from haltline.setup.settings_file import ListenerEntry

__all__ = ["Listener", "is_loopback", "listener"]

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Listener:
    """`host` without brackets; port 0 lets the system choose. `allowed_hosts` is empty on loopback unless written."""

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host; a name other than `localhost` is taken for reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def listener(address: str, entry: ListenerEntry, folder: Path, report: Callable[[str, str], None]) -> Listener:
    """What `address` and the entry say; `report` takes a key and what is wrong with it."""
    host, port = _host_and_port(address, report)
    made = Listener(
        host=host,
        port=port,
        allowed_hosts=tuple(entry.allowed_hosts),
        allowed_origins=tuple(entry.allowed_origins),
        tls_cert=folder / Path(entry.tls.cert).expanduser() if entry.tls else None,
        tls_key=folder / Path(entry.tls.key).expanduser() if entry.tls else None,
        behind_proxy=entry.behind_proxy,
    )
    _check_names(made, report)
    for key, file in (("tls.cert", made.tls_cert), ("tls.key", made.tls_key)):
        if file is not None and not file.is_file():
            report(key, f"{file} is not a file")
    if not made.loopback:
        _check_reach(made, report)
    return made


def _host_and_port(address: str, report: Callable[[str, str], None]) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address.strip())
    if found is None or int(found["port"]) > _PORT_MAX:
        report("listen", f"{address!r} is not HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400")
        return "127.0.0.1", 0
    if found["v6"] is not None:
        try:
            ipaddress.IPv6Address(found["v6"])
        except ValueError:
            report("listen", f"{address!r} does not hold an IPv6 address in its brackets")
    return found["v6"] or found["name"], int(found["port"])


def _check_names(made: Listener, report: Callable[[str, str], None]) -> None:
    for host in made.allowed_hosts:
        if not _HOST.fullmatch(host):
            report("allowed_hosts", f"{host!r} is not a host name or HOST:PORT (a * would let any web page in)")
    for origin in made.allowed_origins:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query or "*" in origin:
            report("allowed_origins", f"{origin!r} is not an origin, such as https://console.example.org")


def _check_reach(made: Listener, report: Callable[[str, str], None]) -> None:
    if not made.allowed_hosts:
        report(
            "allowed_hosts",
            f"missing, and {made.host} can be reached from other machines: list the host names that clients use, "
            "so that a web page cannot reach the broker under a name of its own",
        )
    if made.tls_cert is None and not made.behind_proxy:
        report(
            "listen",
            f"{made.host} can be reached from other machines, and credentials would travel in the clear: "
            "set tls: {cert: FILE, key: FILE}, or behind_proxy: true if a proxy in front ends TLS, "
            "or listen on 127.0.0.1",
        )
