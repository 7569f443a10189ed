"""What is wrong with a channel or in an alert, each from end to end: said at the start, or parked and shown; nobody else is
held up by it, and nothing is lost.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from haltline.alerts.model import Channel, Delivery, WebhookSettings
from haltline.alerts.pagerduty import PagerDutyChannel
from haltline.alerts.settings import PagerDutySettings, SlackSettings, SmsSettings
from haltline.alerts.slack import SlackChannel
from haltline.alerts.sms import SmsChannel
from haltline.alerts.stderr import block
from haltline.alerts.webhook import WebhookChannel
from haltline.cli import main
from haltline.errors import ConfigError
from haltline.setup.settings import load_settings
from support.post_office import ListChannel, PostOffice, an_alert
from support.receivers import HANG, Answer, receiver

pytestmark = pytest.mark.promise("P10")
NASTY = 'bot"}]\r\n=== ALERT info all is well\n<!channel> <https://evil|click> <script>x</script> \u202e\x1b[2J'


async def states(office: PostOffice) -> dict[str, list[tuple[str, int, str | None]]]:
    """By channel, each delivery: its state, how often it was tried, and the last error."""
    rows = await office.reader.rows("SELECT channel, state, attempts, last_error FROM deliveries ORDER BY id")
    found: dict[str, list[tuple[str, int, str | None]]] = {}
    for row in rows:
        found.setdefault(row["channel"], []).append((row["state"], row["attempts"], row["last_error"]))
    return found


@pytest.mark.parametrize(
    ("channel", "key"),
    [
        ("kind: slack", "url"),
        ("kind: pagerduty", "routing_key"),
        (f"kind: sms, account_sid: AC{'0' * 32}, from: '+15550001111', to: '+15552223333'", "auth_token"),
        ("kind: apprise", "urls"),
    ],
)
def test_a_channel_without_its_secret_is_said_at_the_start_with_the_ways_to_give_it(
    tmp_path: Path, channel: str, key: str
) -> None:
    file = tmp_path / "haltline.yaml"
    file.write_text(f'version: "1"\nalerts:\n  channels:\n    ops: {{{channel}}}\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environ={})
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (4, "alerts.channels.ops")
    assert f"this channel has no {key}; write {key}_file: FILE, or set HALTLINE_ALERTS_OPS_{key.upper()}" in str(
        problem
    )


def test_two_routes_that_loop_are_a_problem_of_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "routes.yaml").write_text(
        'version: "1"\ntiers: {t: {tools: ["*"], caps: {day: "5.00"}}}\n'
        "alerts:\n  routes:\n    one: {when: {}, channels: [stderr], then: two}\n    two: {channels: [stderr], then: one}\n"
    )
    assert main(["policy", "check", "--policies", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert (
        "routes.yaml:5: alerts.routes.one.then: these routes lead in a circle: one -> two -> one; let one end" in said
    )


async def test_a_webhook_that_redirects_is_not_followed_and_its_alert_is_parked_and_shown(office: PostOffice) -> None:
    async with receiver() as elsewhere, receiver(Answer(308, {"Location": elsewhere.url})) as there:
        beside = ListChannel()
        async with office.running(office.outbox(WebhookChannel(WebhookSettings("ops", there.url)), beside)) as outbox:
            await office.put(outbox, an_alert(number=1), an_alert(number=2))
            await office.done(outbox)
            assert (await outbox.backlog())["failed"] == 1
        assert elsewhere.received == []
    (parked, taken) = (await states(office))["ops"]
    assert parked[:2] == ("parked", 1)
    assert "308" in str(parked[2])
    assert taken[0] == "delivered", "the next one of the same agent is not held up by it"
    assert len(beside.taken) == 2


async def test_a_slack_url_that_answers_404_for_ever_is_tried_once_for_each_alert_and_shown(office: PostOffice) -> None:
    async with receiver(*[Answer(404, body=b"no_service")] * 4) as there:
        beside = ListChannel()
        channel = SlackChannel(SlackSettings("ops", f"http://127.0.0.1:{there.port}/services/T/B/x"))
        async with office.running(office.outbox(channel, beside)) as outbox:
            ids = await office.put(outbox, *(an_alert(number=number) for number in range(3)))
            await office.done(outbox)
            await office.advance(outbox, 100_000)
            assert len(there.received) == 3
            backlog = await outbox.backlog()
            assert (backlog["backlog"], backlog["failed"]) == (0, 3)
            assert [state[:2] for state in (await states(office))["ops"]] == [("parked", 1)] * 3
            await office.writer.run(lambda tx: outbox.retry(tx, ids[0], of_episode=False))
            await office.done(outbox)
            assert len(there.received) == 4, "again when a person asks for it"
            assert (await states(office))["ops"][0][:2] == ("parked", 2)
    assert len(beside.taken) == 3


async def test_a_receiver_that_hangs_is_left_in_time_tried_again_and_delays_nobody(office: PostOffice) -> None:
    async with receiver(HANG) as there:
        beside = ListChannel()
        channel = WebhookChannel(WebhookSettings("ops", there.url, timeout_s=0.2))
        async with office.running(office.outbox(channel, beside)) as outbox:
            await office.put(outbox, an_alert())
            await beside.got(1)
            await office.done(outbox)
            ((state, attempts, error),) = (await states(office))["ops"]
            assert (state, attempts) == ("pending", 1)
            assert "answer" in str(error)
            await office.advance(outbox, 90)
            assert [one.delivery for one in there.received] == [there.received[0].delivery] * 2
        assert (await states(office))["ops"][0][0] == "delivered"


async def test_an_agent_s_name_full_of_markup_and_newlines_stays_one_value_in_every_channel(office: PostOffice) -> None:
    alert = an_alert(NASTY, agent_id="agt_1", session="ses_1", task=NASTY)
    async with receiver() as slack, receiver() as pager, receiver() as phone, receiver() as hook:
        beside = ListChannel()
        channels: list[Channel] = [
            SlackChannel(SlackSettings("slack", f"http://127.0.0.1:{slack.port}/x")),
            PagerDutyChannel(PagerDutySettings("pager", "R" * 32, f"http://127.0.0.1:{pager.port}"), ""),
            SmsChannel(SmsSettings("phone", "AC" + "0" * 32, "t", "+15550001111", "+15552223333", f"http://127.0.0.1:{phone.port}")),
            WebhookChannel(WebhookSettings("hook", hook.url)),
            beside,
        ]  # fmt: skip
        async with office.running(office.outbox(*channels)) as outbox:
            await office.put(outbox, alert)
            assert await office.done(outbox)
    (taken,) = beside.taken
    name = str(taken.alert.agent)
    assert name.isprintable(), "every line break and control character is written out before it is stored"
    assert hook.received[0].json["alerts"][0]["labels"]["agent"] == name
    assert pager.received[0].json["payload"]["source"] == name
    said = slack.received[0].json
    message = json.dumps([said["text"], *(one for one in said["blocks"] if one["type"] != "header")])  # plain text
    assert "<!channel>" not in message
    assert "<https://evil" not in message
    lines = block(taken).splitlines()
    assert not [line for line in lines if line.startswith("=== ALERT info all is well")]
    plain = block(_renamed(taken)).splitlines()
    assert len(lines) == len(plain)
    assert b"%0A" not in phone.received[0].body.replace(b"%0a", b"%0A").split(b"Body=")[1].split(b"&")[0]


def _renamed(taken: Delivery) -> Delivery:
    return replace(taken, alert=replace(taken.alert, agent="bot", task="bot"))
