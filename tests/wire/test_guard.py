"""Host and Origin are compared as parsed values, exactly; nothing that only begins like an allowed one passes."""

from __future__ import annotations

import pytest

from haltline.wire.guard import Guard

GUARD = Guard("127.0.0.1", 7400, hosts=("Broker.example",), origins=("https://console.example",))
HOSTILE_HOSTS = [
    None, "", "127.0.0.1", "127.0.0.1:7401", "127.0.0.1:7400@evil.example", "127.0.0.1:7400.evil.example", "evil.example",
    "evil.example:7400", "127.0.0.1:7400/", "127.0.0.1:7400?x", "127.0.0.1:7400#", "localhost:7400:7400", " 127.0.0.1:7400",
    "127.0.0.1:07400", "0x7f000001:7400", "2130706433:7400", "127.1:7400", "127.0.0.1:7400, 127.0.0.1:7400", "broker.example:7400",
    "broker.example.evil.example", "[::1]:7401", "*",
]  # fmt: skip
HOSTILE_ORIGINS = [
    "", "null", "http://127.0.0.1:7400", "http://localhost:7400", "https://console.example.evil.example", "https://console.example:8443",
    "https://console.example@evil.example", "http://console.example", "https://console.example/", "console.example", "file://",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_a_foreign_host_is_refused(host):
    assert GUARD.refusal(host, None) is not None


@pytest.mark.parametrize("host", ["127.0.0.1:7400", "localhost:7400", "LOCALHOST:7400", "[::1]:7400", "broker.example"])
def test_its_own_and_configured_hosts_are_answered(host):
    assert GUARD.refusal(host, None) is None


@pytest.mark.parametrize("origin", HOSTILE_ORIGINS)
def test_a_foreign_origin_is_refused_whatever_the_host(origin):
    assert GUARD.refusal("127.0.0.1:7400", origin) is not None


def test_a_configured_origin_is_answered():
    assert GUARD.refusal("127.0.0.1:7400", "https://Console.example") is None


def test_off_loopback_only_the_listeners_own_name_counts():
    guard = Guard("10.0.0.5", 7400, hosts=(), origins=())
    assert guard.refusal("10.0.0.5:7400", None) is None
    assert guard.refusal("127.0.0.1:7400", None) is not None


def test_of_several_hosts_or_origins_none_counts():
    own, foreign = (b"host", b"127.0.0.1:7400"), (b"host", b"evil.example")
    console = (b"origin", b"https://console.example")
    assert GUARD.of_request([own]) is None
    assert GUARD.of_request([own, console, (b"accept", b"*/*")]) is None
    for headers in ([own, foreign], [foreign, own], [own, own], [own, console, console], [console]):
        assert GUARD.of_request(headers) is not None
