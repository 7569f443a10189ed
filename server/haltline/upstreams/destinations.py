"""Where a connection may lead: the addresses that a host's name stands for, looked up once and checked before connecting.

The connection goes to the very address that was checked, so that a name cannot mean one thing when it is looked at and
another when it is used. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from haltline.upstreams.http_wire import NoConnection

__all__ = ["ForbiddenDestination", "addresses_of", "why_forbidden"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SERVICES = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
"""Where clouds tell a machine its own credentials; some of these look public or private."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PRIVATE: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (
    *map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")),
    ipaddress.IPv6Network("fc00::/7"),
)


_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_RESERVED: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (
    *map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")),
    ipaddress.IPv6Network("3fff::/20"),
)
"""Beside those that Python knows as such, which differ between its versions."""


class ForbiddenDestination(NoConnection):
    """The name leads only where no connection may go: nothing was sent."""


def why_forbidden(text: str, *, allow_private: bool) -> str | None:
    """What is wrong with connecting to this address (`10.0.0.1`, `::1`), None if nothing.

    `allow_private` lets private and loopback addresses pass; what is link-local, multicast, unspecified, reserved or a
    cloud's metadata service never does.
    """
    address = _inside(ipaddress.ip_address(text.partition("%")[0]))
    if address in _SERVICES:
        return "a cloud's metadata service"
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return "unspecified, multicast or link-local"
    if address.is_loopback or any(address in network for network in _PRIVATE):
        return None if allow_private else "private or of this machine"
    reserved = not address.is_global or any(address in network for network in _RESERVED)
    if reserved or (address.version == 6 and address not in _GLOBAL_IPV6):
        return "reserved"
    return None


def addresses_of(*, allow_private: bool) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A lookup for a pool of connections. It raises ForbiddenDestination where nothing may be connected to."""

    async def look_up(host: str, port: int) -> Sequence[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NoConnection(f"{host} is not known: {error}") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        whys = {address: why_forbidden(address, allow_private=allow_private) for address in addresses}
        allowed = [address for address in addresses if whys[address] is None]
        if not allowed:
            said = ", ".join(f"{address} ({why})" for address, why in whys.items()) or "nothing"
            raise ForbiddenDestination(f"{host} leads to {said}, where no connection may go")
        return allowed

    return look_up


def _inside(address: Address) -> Address:
    """The IPv4 address that one of IPv6 wraps, where it wraps one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    return wrapped or address
