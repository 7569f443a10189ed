"""What each channel sends, as its receiver got it over HTTP, against the vendor's documented shape and limits."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from haltline.alerts.apprise import AppriseChannel
from haltline.alerts.desktop import DesktopChannel
from haltline.alerts.here import LINUX, MAC, Program
from haltline.alerts.links import links
from haltline.alerts.model import Alert, Balance, Channel, Delivery, Later, Never
from haltline.alerts.pagerduty import PagerDutyChannel
from haltline.alerts.settings import AppriseSettings, DesktopSettings, PagerDutySettings, SlackSettings, SmsSettings
from haltline.alerts.slack import SlackChannel, escaped
from haltline.alerts.sms import LONGEST, SmsChannel, gsm, short_text
from haltline.errors import ConfigError
from support.post_office import START_US, an_alert
from support.receivers import Answer, Received, receiver

SID = "AC" + "0" * 32
NASTY = 'a"}]\n<!channel> <https://evil|click> *b* ```x``` & \u202e\x1b[31m --help'
CONSOLE = "https://halt.example.org"


def delivery(alert: Alert, attempt: int = 1) -> Delivery:
    return Delivery("alt_1.x", "alt_1", attempt, START_US, START_US, alert)


def whole(**more: Any) -> Alert:
    alert = an_alert(episode="epi_1", tier="staging", owner="anna", rule="velocity", **more).fit(lambda text: text)
    return Alert(
        **{
            **{name: getattr(alert, name) for name in Alert.__dataclass_fields__},
            "links": links(CONSOLE, alert, "epi_1"),
        }
    )


def slack(url: str) -> Channel:
    return SlackChannel(SlackSettings("ops", url))


def pagerduty(url: str) -> Channel:
    return PagerDutyChannel(PagerDutySettings("pager", "R" * 32, url), CONSOLE)


def sms(url: str) -> Channel:
    return SmsChannel(SmsSettings("phone", SID, "tok3n", "+15550001111", "+15552223333", url))


KINDS = {"slack": slack, "pagerduty": pagerduty, "sms": sms}


async def sent(kind: str, *alerts: Alert) -> list[Received]:
    async with receiver() as there:
        channel = KINDS[kind](f"http://127.0.0.1:{there.port}")
        for one in alerts:
            await channel.send(delivery(one))
        await channel.aclose()
    return there.received


# Slack: docs.slack.dev/reference/block-kit/blocks


def held_to_slack(body: dict[str, Any]) -> None:
    """The documented shape and limits of a message with blocks."""
    assert set(body) <= {"text", "blocks", "unfurl_links"}
    assert 0 < len(body["text"]) <= 3000
    assert 1 <= len(body["blocks"]) <= 50
    for block in body["blocks"]:
        match block["type"]:
            case "header":
                assert block["text"]["type"] == "plain_text"
                assert 1 <= len(block["text"]["text"]) <= 150
            case "section":
                texts = block.get("fields") or [block["text"]]
                assert len(texts) <= 10
                for text in texts:
                    assert text["type"] == "mrkdwn"
                    assert 1 <= len(text["text"]) <= (2000 if "fields" in block else 3000)
            case "actions":
                assert 1 <= len(block["elements"]) <= 25
                assert len({one["action_id"] for one in block["elements"]}) == len(block["elements"])
                for one in block["elements"]:
                    assert one["type"] == "button"
                    assert len(one["text"]["text"]) <= 75
                    assert len(one["url"]) <= 3000
            case "context":
                assert 1 <= len(block["elements"]) <= 10
            case other:
                raise AssertionError(other)


async def test_slack_gets_blocks_a_text_and_buttons_that_say_all_that_somebody_needs() -> None:
    (got,) = await sent("slack", whole())
    body = got.json
    held_to_slack(body)
    assert "agent booking-7" in body["text"]
    assert "remaining 0.03 USD" in body["text"]
    shown = json.dumps(body["blocks"])
    for part in ("booking-7", "budget.task_exceeded", "velocity", "0.50 USD", "0.52 USD", "anna", "book the hotel"):
        assert part in shown
    assert sum("payments__charge succeeded" in json.dumps(one) for one in body["blocks"]) == 1
    buttons = next(one["elements"] for one in body["blocks"] if one["type"] == "actions")
    assert [one["url"] for one in buttons] == [
        f"{CONSOLE}/#/alerts/epi_1",
        f"{CONSOLE}/#/sessions/ses_booking-7",
        f"{CONSOLE}/#/agents/booking-7",
    ]


@pytest.mark.parametrize("act", ["acknowledge", "resolve"])
async def test_slack_is_told_in_one_block_what_became_of_it(act: Any) -> None:
    (got,) = await sent("slack", whole(act=act, acted_by="operator:anna"))
    held_to_slack(got.json)
    assert "by operator:anna" in got.json["text"]
    assert len(got.json["blocks"]) == 1


async def test_names_full_of_markup_stay_text_in_slack() -> None:
    alert = whole(agent=NASTY, session=NASTY, task=NASTY, text=NASTY, last_actions=(NASTY,) * 5, commands=(NASTY,))
    (got,) = await sent("slack", alert)
    held_to_slack(got.json)
    assert got.json["text"].count("<") == 0
    for block in got.json["blocks"]:
        text = json.dumps(block)
        if block["type"] == "section":
            assert "<" not in text
            assert "`" not in text.replace("```", "")
            assert text.count("```") in {0, 2}, "a block of code ends where it should"
        assert "\\u202e" not in text.replace("\\\\u202e", "")
    assert "<!channel>" not in json.dumps([one for one in got.json["blocks"] if one["type"] != "header"])


def test_an_escaped_text_is_never_cut_inside_an_entity() -> None:
    for longest in range(2, 40):
        text = escaped("<&>" * 20, longest)
        assert len(text) <= longest
        assert text.endswith("…")
        assert text[:-1].count("&") == text[:-1].count(";")


# PagerDuty: developer.pagerduty.com/docs/send-alert-event


def held_to_pagerduty(body: dict[str, Any]) -> None:
    assert set(body) <= {
        "routing_key",
        "event_action",
        "dedup_key",
        "payload",
        "links",
        "images",
        "client",
        "client_url",
    }
    assert len(body["routing_key"]) == 32
    assert body["event_action"] in {"trigger", "acknowledge", "resolve"}
    assert 0 < len(body["dedup_key"]) <= 255
    if body["event_action"] != "trigger":
        return
    payload = body["payload"]
    fields = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
    assert {"summary", "source", "severity"} <= set(payload) <= fields
    assert 0 < len(payload["summary"]) <= 1024
    assert payload["severity"] in {"critical", "error", "warning", "info"}
    for link in body.get("links", []):
        assert set(link) == {"href", "text"}


async def test_pagerduty_opens_acknowledges_and_resolves_one_incident_per_episode() -> None:
    got = await sent(
        "pagerduty",
        whole(),
        whole(act="acknowledge", acted_by="operator:anna"),
        whole(act="resolve", acted_by="operator:anna"),
    )
    for one in got:
        assert one.target == "/v2/enqueue"
        assert one.headers["content-type"] == "application/json"
        held_to_pagerduty(one.json)
    assert [one.json["event_action"] for one in got] == ["trigger", "acknowledge", "resolve"]
    assert {one.json["dedup_key"] for one in got} == {"epi_1"}
    payload = got[0].json["payload"]
    assert (payload["source"], payload["class"], payload["group"]) == ("booking-7", "budget.task_exceeded", "staging")
    details = payload["custom_details"]
    assert (details["rule"], details["threshold"], details["observed"]) == ("velocity", "0.50 USD", "0.52 USD")
    assert len(details["last_actions"]) == 5
    assert len(details["balances"]) == 2
    assert details["commands"]
    assert got[0].json["links"][0]["href"].startswith(CONSOLE)


@pytest.mark.parametrize(
    ("more", "actions"),
    [({"test": True}, ["trigger", "resolve"]), ({"acted_by": "operator:anna"}, ["trigger", "acknowledge"])],
)
async def test_pagerduty_keeps_nobody_awake_for_a_test_or_for_what_is_in_hand(more: dict, actions: list[str]) -> None:
    got = await sent("pagerduty", whole(**more))
    assert [one.json["event_action"] for one in got] == actions


# SMS: www.twilio.com/docs/messaging/api/message-resource


async def test_twilio_gets_one_message_for_one_number_with_the_account_s_token() -> None:
    (got,) = await sent("sms", whole())
    assert got.target == f"/2010-04-01/Accounts/{SID}/Messages.json"
    assert got.headers["authorization"] == f"Basic {base64.b64encode(f'{SID}:tok3n'.encode()).decode()}"
    assert got.headers["content-type"] == "application/x-www-form-urlencoded"
    form = parse_qs(got.body.decode(), strict_parsing=True)
    assert {key: form[key] for key in ("To", "From")} == {"To": ["+15552223333"], "From": ["+15550001111"]}
    assert set(form) == {"To", "From", "Body"}
    assert "booking-7" in form["Body"][0]


@pytest.mark.parametrize(
    "alert",
    [
        an_alert(),
        an_alert("a" * 63, code="c" * 60, balances=(Balance("task", "9999999.99 USD", "1", "1", "1234567.89 USD"),)),
        an_alert("ü…€[x]", text="día ☃ {~} — naïve " * 9, count=400),
        Alert("everything.halted", "operator.halt", "a reason"),
        an_alert(NASTY, text=NASTY).fit(lambda text: text),
    ],
)
def test_a_text_message_is_160_characters_of_one_septet_each(alert: Alert) -> None:
    text = short_text(alert)
    assert 0 < len(text) <= LONGEST
    assert text == gsm(text)
    assert not set(text) & set("[]{}\\^~|€")


def test_a_text_message_names_agent_cause_and_balance_however_long_they_are() -> None:
    assert short_text(an_alert()).startswith(
        "HALTLINE booking-7 halted budget.task_exceeded; task left 0.03 USD of 0.50 USD; task cap 0.50 USD"
    )
    long = short_text(an_alert("agent-" + "x" * 57, text="y" * 500))
    assert "agent-x" in long
    assert "halted budget.task_exceeded" in long
    assert "task left 0.03 USD of 0.50 USD" in long


# What all have in common


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(404), Never),
        (Answer(400), Never),
        (Answer(302, {"Location": "http://127.0.0.1:1/"}), Never),
        (Answer(429, {"Retry-After": "7"}), Later),
        (Answer(503), Later),
        (Answer(200, endless=True), None),
    ],
)
async def test_what_a_receiver_answers_decides_whether_it_is_tried_again(
    kind: str, answer: Answer, outcome: type[Exception] | None
) -> None:
    async with receiver(answer) as there:
        channel = KINDS[kind](f"http://127.0.0.1:{there.port}")
        if outcome is None:
            await channel.send(delivery(whole()))
        else:
            with pytest.raises(outcome) as caught:
                await channel.send(delivery(whole()))
            assert "tok3n" not in str(caught.value)
            if answer.headers.get("Retry-After"):
                assert caught.value.after_s == 7.0
        await channel.aclose()
        assert len(there.received) == 1, "a redirect is not followed"


async def test_the_desktop_is_told_by_a_program_that_reads_nothing_as_an_option_or_as_markup(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nfor one in "$@"; do printf "%s\\n" "$one"; done > {told}\n')
    program.chmod(0o700)
    await DesktopChannel(DesktopSettings("desk"), Program(LINUX, str(program))).send(
        delivery(whole(text="<b>--urgency</b>"))
    )
    lines = told.read_text().splitlines()
    assert lines[:4] == ["--app-name=Haltline", "--urgency=critical", "--", "Haltline: booking-7"]
    assert "&lt;b&gt;" in lines[4]
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(Later, match="exit code 3"):
        await DesktopChannel(DesktopSettings("desk"), Program(LINUX, str(program))).send(delivery(whole()))
    with pytest.raises(Never, match="cannot be started"):
        await DesktopChannel(DesktopSettings("desk"), Program(LINUX, str(tmp_path / "none"))).send(delivery(whole()))


async def test_a_mac_is_told_by_a_script_to_which_everything_said_is_an_argument(tmp_path: Path) -> None:
    told, program = tmp_path / "told", tmp_path / "osascript"
    program.write_text(f'#!/bin/sh\nfor one in "$@"; do printf "%s\\n" "$one"; done > {told}\n')
    program.chmod(0o700)
    channel = DesktopChannel(DesktopSettings("desk"), Program(MAC, str(program)))
    await channel.send(delivery(whole(text='" & (do shell script "rm") & "')))
    lines = told.read_text().splitlines()
    assert [line for line in lines[:6] if line != "-e"] == [
        "on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run",
    ]  # fmt: skip
    assert lines[6] == "Haltline: booking-7"
    assert "do shell script" in lines[7]


def test_a_desktop_without_the_program_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="notify-send is not installed here"):
        DesktopChannel(DesktopSettings("desk"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own imports
async def test_apprise_sends_to_its_addresses_and_keeps_them_to_itself() -> None:
    pytest.importorskip("apprise")
    async with receiver(Answer(200), Answer(500)) as there:
        channel = AppriseChannel(AppriseSettings("mail", (f"json://user:hunter2@127.0.0.1:{there.port}/x",)))
        await channel.send(delivery(whole()))
        with pytest.raises(Later, match="did not take it"):
            await channel.send(delivery(whole()))
    assert there.received[0].json["title"] == "Haltline: booking-7"
    assert "haltline resume ses_booking-7" in there.received[0].json["message"]
    with pytest.raises(ConfigError, match="address number 2 is none") as caught:
        AppriseChannel(AppriseSettings("mail", ("json://localhost", "hunter2")))
    assert "hunter2" not in str(caught.value)
