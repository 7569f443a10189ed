"""The desktop that is told by itself: only where there is one, and nobody said otherwise."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from haltline.alerts.here import desktop_here
from haltline.alerts.open import open_channels
from haltline.errors import ConfigError
from haltline.setup.settings import Settings, load_settings
from support.broker_process import broker_process

POLICY = """
version: "1"
currency: USD
tiers: {t: {tools: ["*"], caps: {day: "5.00"}}}
"""


@pytest.fixture
def desktop(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who sits before a desktop; what is told is in `told`."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("notify-send", "osascript"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nfor one in "$@"; do printf "%s\\n" "$one"; done >> {tmp_path / "told"}\n')
        program.chmod(0o700)
    return {"PATH": str(programs), "DISPLAY": ":0", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}


def load(tmp_path: Path, alerts: str, environ: dict[str, str]) -> Settings:
    file = tmp_path / "haltline.yaml"
    file.write_text(f'version: "1"\n{alerts}')
    return load_settings(file, environ=environ)


def names(settings: Settings) -> list[str]:
    return [one.name for one in open_channels(settings.alerts)]


def test_a_desktop_is_one_with_a_display_a_session_and_a_program(desktop: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bus").touch()
    assert desktop_here(desktop, "linux")
    without = {key: value for key, value in desktop.items() if key != "DISPLAY"}
    assert desktop_here({**without, "WAYLAND_DISPLAY": "wayland-0"}, "linux")
    assert desktop_here({"PATH": desktop["PATH"], "DISPLAY": ":0", "XDG_RUNTIME_DIR": str(tmp_path)}, "linux")
    for nobody in (without, {**desktop, "PATH": str(tmp_path)}, {"PATH": desktop["PATH"], "DISPLAY": ":0"}, {}):
        assert not desktop_here(nobody, "linux")
    assert desktop_here({"PATH": desktop["PATH"]}, "darwin")
    assert not desktop_here({"PATH": desktop["PATH"], "SSH_CONNECTION": "x"}, "darwin")


@pytest.mark.parametrize(
    ("alerts", "told"),
    [
        ("", ["stderr", "desktop"]),
        ("alerts: {desktop: false}\n", ["stderr"]),
        ("alerts: {channels: {hook: {kind: webhook, url: 'https://a.example/'}}}\n", ["stderr", "hook"]),
        ("alerts: {webhooks: [{name: hook, url: 'https://a.example/'}]}\n", ["stderr", "hook"]),
        (
            "alerts: {desktop: true, webhooks: [{name: hook, url: 'https://a.example/'}]}\n",
            ["stderr", "hook", "desktop"],
        ),
        ("alerts: {channels: {desktop: {kind: desktop}}}\n", ["stderr", "desktop"]),
    ],
)
def test_the_desktop_is_told_by_itself_where_nothing_else_is_configured(
    desktop: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alerts: str, told: list[str]
) -> None:
    monkeypatch.setenv("PATH", desktop["PATH"])
    assert names(load(tmp_path, alerts, desktop)) == told


def test_where_there_is_no_desktop_nothing_is_said_of_it_unless_it_was_asked_for(tmp_path: Path) -> None:
    assert names(load(tmp_path, "", {"PATH": str(tmp_path)})) == ["stderr"]
    with pytest.raises(ConfigError, match="alerts.desktop: no notifier is installed here"):
        load(tmp_path, "alerts: {desktop: true}\n", {"PATH": str(tmp_path)})


def test_how_long_alerts_are_kept_is_a_length_of_time(tmp_path: Path) -> None:
    assert load(tmp_path, "", {}).alerts.keep_s == 90 * 86_400
    assert load(tmp_path, "alerts: {keep: 7d}\n", {}).alerts.keep_s == 7 * 86_400
    with pytest.raises(ConfigError, match=r"alerts.keep: 'long' is not a length of time"):
        load(tmp_path, "alerts: {keep: long}\n", {})


@pytest.mark.promise("P10")
def test_a_broker_with_nothing_configured_tells_the_desktop_before_it(desktop: dict[str, str], tmp_path: Path) -> None:
    given = [f"{key}={value}" for key, value in desktop.items() if key != "PATH"]
    program = Path(desktop["PATH"]) / "notify-send"
    wrap = ("/usr/bin/env", *given, "/bin/sh", "-c", f'PATH={program.parent}:$PATH exec "$@"', "-")
    with broker_process(tmp_path / "b", upstreams={}, policy=POLICY, wrap=wrap) as broker, broker.control() as control:
        control.add_agent("bot", "t")
        control.halt("bot", reason="looping <b>")
        by = time.monotonic() + 30
        while control.status()["alerts"]["backlog"]:
            assert time.monotonic() < by, "nobody was told"
        deliveries = control.list_alerts()["alerts"][0]["deliveries"]
    assert {one["channel"]: one["state"] for one in deliveries} == {"stderr": "delivered", "desktop": "delivered"}
    lines = (tmp_path / "told").read_text().splitlines()
    assert "Haltline: bot" in lines
    assert any("looping &lt;b&gt;" in line for line in lines)
