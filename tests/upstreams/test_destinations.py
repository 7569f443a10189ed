"""Which addresses a connection may go to, however they are written, and that it goes to the one that was checked."""

from __future__ import annotations

import asyncio

import pytest

from haltline.upstreams.address import Address
from haltline.upstreams.destinations import ForbiddenDestination, addresses_of, why_forbidden
from haltline.upstreams.http_wire import NoConnection, Pool
from support.http_api import http_api

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    "127.0.0.1", "127.8.8.8", "::1", "10.0.0.1", "172.16.3.4", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1",
    "fd12::9", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1",
]  # fmt: skip
NEVER = [
    "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
    "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0", "::", "224.0.0.1", "239.1.2.3", "ff02::1",
    "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "2001:db8::1",
    "64:ff9b:1::7f00:1", "::7f00:1", "::ffff:0:7f00:1", "fec0::1", "5f00::1", "3fff::1", "100::1", "192.0.0.8", "192.88.99.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address):
    assert why_forbidden(address, allow_private=False) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_only_where_that_is_allowed(address):
    assert why_forbidden(address, allow_private=False) == "private or of this machine"
    assert why_forbidden(address, allow_private=True) is None


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("allow_private", [False, True])
def test_metadata_link_local_multicast_and_reserved_ones_never(address, allow_private):
    assert why_forbidden(address, allow_private=allow_private)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "::1"])
async def test_a_host_is_judged_by_what_it_resolves_to_however_it_is_written(host):
    try:
        await asyncio.get_running_loop().getaddrinfo(host, 80)
    except OSError:
        pytest.skip(f"{host} does not resolve here")
    with pytest.raises(ForbiddenDestination, match="where no connection may go"):
        await addresses_of(allow_private=False)(host, 80)


async def test_a_host_that_is_unknown_or_no_name_cannot_be_connected_to():
    for host in ("no-such-host.invalid", "x" * 300, "a..b"):
        with pytest.raises(NoConnection):
            await addresses_of(allow_private=True)(host, 80)


async def test_the_connection_goes_to_the_address_that_was_looked_up_and_no_other():
    async with http_api() as api:
        asked = []

        async def look_up(host, port):
            asked.append(host)
            return ["127.0.0.1"]

        pool = Pool(Address.of(api.url.replace("127.0.0.1", "no-such-host.invalid")), None, look_up)
        connection = await pool.connection(asyncio.get_running_loop().time() + 5)
        pool.release(connection)
        pool.close()
        assert asked == ["no-such-host.invalid"]


async def test_of_several_addresses_the_first_that_answers_is_taken():
    async with http_api() as api:

        async def look_up(host, port):
            return ["127.0.0.77", "127.0.0.1"]

        pool = Pool(Address.of(api.url), None, look_up)
        pool.release(await pool.connection(asyncio.get_running_loop().time() + 5))
        pool.close()
