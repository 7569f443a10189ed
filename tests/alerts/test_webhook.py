"""Webhooks against a real HTTP receiver: what is sent, how it is signed, and what each answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from haltline.alerts.model import Alert, Delivery, Later, Never, WebhookSettings
from haltline.alerts.webhook import WebhookChannel, signature
from haltline.clock import iso
from support.post_office import START_US, ListChannel, PostOffice, an_alert
from support.receivers import CLOSE, HANG, Answer, Receiver, receiver

SECRET = "a-secret-shared-with-the-receiver"


def a_delivery(alert: Alert | None = None, attempt: int = 1) -> Delivery:
    return Delivery("alt_1.ops", "alt_1", attempt, START_US, START_US + attempt * 1_000_000, alert or an_alert())


@asynccontextmanager
async def webhook(
    url: str, secret: str | None = None, timeout_s: float = 5.0, name: str = "ops"
) -> AsyncIterator[WebhookChannel]:
    channel = WebhookChannel(WebhookSettings(name, url, secret, timeout_s), "http://127.0.0.1:7401/")
    try:
        yield channel
    finally:
        await channel.aclose()


async def outcome(hook: Receiver, **settings: object) -> Exception | None:
    async with webhook(hook.url, **settings) as channel:  # type: ignore[arg-type]
        try:
            await channel.send(a_delivery())
        except (Later, Never) as error:
            return error
    return None


async def test_the_body_is_the_alertmanagers_version_4() -> None:
    async with receiver() as hook, webhook(hook.url) as channel:
        await channel.send(a_delivery())
        (got,) = hook.received
    alert = an_alert()
    message = got.json
    assert {key: message[key] for key in ("version", "status", "receiver", "truncatedAlerts", "externalURL")} == {
        "version": "4", "status": "firing", "receiver": "ops", "truncatedAlerts": 0, "externalURL": "http://127.0.0.1:7401/",
    }  # fmt: skip
    (one,) = message["alerts"]
    assert one["labels"] == {
        "alertname": "session.halted", "agent": "booking-7", "session": "ses_booking-7", "kind": "session.halted",
        "code": "budget.task_exceeded", "severity": "critical",
    }  # fmt: skip
    assert message["groupLabels"].items() <= one["labels"].items()
    assert (message["commonLabels"], message["commonAnnotations"]) == (one["labels"], one["annotations"])
    assert (one["startsAt"], one["endsAt"], one["status"]) == (iso(START_US), "0001-01-01T00:00:00Z", "firing")
    assert len(bytes.fromhex(one["fingerprint"])) == 8
    assert one["annotations"]["summary"] == alert.summary
    assert one["annotations"]["description"] == f"[{alert.code}] {alert.text}"
    assert one["annotations"]["last_actions"].split("\n") == list(alert.last_actions)
    assert one["annotations"]["commands"].split("\n") == list(alert.commands)
    assert "task: spent 0.47 USD, held 0.00 USD, remaining 0.03 USD of 0.50 USD" in one["annotations"]["balances"]
    assert all(isinstance(value, str) for value in [*one["labels"].values(), *one["annotations"].values()])
    assert got.headers["content-type"] == "application/json"
    assert "x-haltline-signature" not in got.headers


async def test_two_alerts_of_one_cause_have_one_fingerprint_and_other_agents_another() -> None:
    async with receiver() as hook, webhook(hook.url) as channel:
        for alert in (an_alert(number=1), an_alert(number=2), an_alert("other")):
            await channel.send(a_delivery(alert))
    first, second, other = (one.json["alerts"][0]["fingerprint"] for one in hook.received)
    assert first == second != other
    assert len({one.json["groupKey"] for one in hook.received}) == 2


async def test_the_signature_covers_time_and_body_and_verifies() -> None:
    async with receiver() as hook, webhook(hook.url, SECRET) as channel:
        await channel.send(a_delivery(attempt=1))
        await channel.send(a_delivery(attempt=2))
    first, second = hook.received
    for got, attempt in ((first, 1), (second, 2)):
        parts = dict(part.split("=", 1) for part in got.headers["x-haltline-signature"].split(","))
        expected = hmac.new(SECRET.encode(), f"{parts['t']}.".encode() + got.body, hashlib.sha256).hexdigest()
        assert parts == {"t": str(START_US // 1_000_000 + attempt), "v1": expected}
        assert signature(SECRET, int(parts["t"]), got.body + b" ") != got.headers["x-haltline-signature"]
    assert first.body == second.body
    assert first.delivery == second.delivery == "alt_1.ops"


async def test_one_connection_is_kept() -> None:
    async with (
        receiver(Answer(200, body=b"ok"), Answer(204), Answer(503, body=b"busy")) as hook,
        webhook(hook.url) as channel,
    ):
        await channel.send(a_delivery())
        await channel.send(a_delivery())
        with pytest.raises(Later):
            await channel.send(a_delivery())
        await channel.send(a_delivery())
    assert (len(hook.received), hook.connections) == (4, 1)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_success_is_taken(status: int) -> None:
    async with receiver(Answer(status)) as hook:
        assert await outcome(hook) is None


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_succeed_later_is_tried_later(status: int) -> None:
    async with receiver(Answer(status)) as hook:
        error = await outcome(hook)
    assert isinstance(error, Later)
    assert (error.why, error.after_s) == (f"HTTP {status}", None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422])
async def test_what_the_receiver_will_never_take_is_never_tried_again(status: int) -> None:
    async with receiver(Answer(status, body=SECRET.encode())) as hook:
        error = await outcome(hook)
    assert isinstance(error, Never)
    assert error.why == f"HTTP {status}: it will not take this, however often it is sent"


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with receiver() as other, receiver(Answer(status, {"Location": other.url})) as hook:
        error = await outcome(hook)
        assert other.received == []
    assert isinstance(error, Never)
    assert "redirects" in error.why
    assert other.url not in error.why


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("99999999999999999999999", 9_999_999_999.0),
        ("Fri, 15 Jan 2027 08:01:01 GMT", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_retry_after_is_read_in_both_forms(value: str, after_s: float | None) -> None:
    assert iso(START_US) == "2027-01-15T08:00:00.000000Z"
    async with receiver(Answer(429, {"Retry-After": value})) as hook:
        error = await outcome(hook)
    assert isinstance(error, Later)
    assert error.after_s == after_s


async def test_a_receiver_that_hangs_is_left_in_time() -> None:
    async with receiver(HANG) as hook:
        error = await outcome(hook, timeout_s=0.1)
    assert isinstance(error, Later)
    assert error.why == "it does not answer in time"


async def test_a_connection_closed_without_an_answer_is_tried_later() -> None:
    async with receiver(CLOSE) as hook:
        error = await outcome(hook)
    assert isinstance(error, Later)
    assert error.why == "it ended the connection or does not speak HTTP"


async def test_a_receiver_that_is_down_is_tried_later_and_the_reason_is_the_systems() -> None:
    async with receiver() as hook:
        pass
    error = await outcome(hook)
    assert isinstance(error, Later)
    assert error.why == "it cannot be reached: Connection refused"


async def test_an_endless_answer_is_not_read_further_than_needed() -> None:
    async with receiver(Answer(200, endless=True), Answer(404, endless=True)) as hook:
        with anyio.fail_after(30):
            assert await outcome(hook) is None
            assert isinstance(await outcome(hook), Never)


@pytest.mark.promise("P9")
async def test_address_and_secret_stay_out_of_errors_rows_logs_and_reprs(
    office: PostOffice, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    hidden = ("hunter2", "T0KENPATH", "QUERYKEY", SECRET)
    async with receiver(Answer(503), CLOSE, HANG, Answer(302, {"Location": "/elsewhere"})) as hook:
        url = f"http://user:hunter2@127.0.0.1:{hook.port}/T0KENPATH?key=QUERYKEY"
        settings = WebhookSettings("ops", url, SECRET, 1.0)
        channel = WebhookChannel(settings)
        async with office.running(office.outbox(channel)) as outbox:
            await office.put(outbox, an_alert())
            errors = []
            for waited_s in (0, 90, 180, 360):
                await office.advance(outbox, waited_s)
                errors += [one["deliveries"][0]["last_error"] for one in await outbox.overview.newest(1)]
        got = hook.received
    assert [one.target for one in got] == ["/T0KENPATH?key=QUERYKEY"] * 4
    assert got[0].headers["authorization"] == f"Basic {base64.b64encode(b'user:hunter2').decode()}"
    assert len(errors) == 4
    assert "redirects" in errors[-1]
    seen = "\n".join([*errors, caplog.text, *capfd.readouterr(), repr(settings), repr(channel._post._client)])
    assert "HTTP Request: POST" in caplog.text, "the client's own log was looked at"
    assert [secret for secret in hidden if secret in seen] == []


@pytest.mark.promise("P10")
async def test_a_hanging_receiver_delays_no_other_channel(office: PostOffice) -> None:
    async with receiver(*[HANG] * 8) as stuck, receiver() as healthy:
        channels = [
            WebhookChannel(WebhookSettings("stuck", stuck.url, timeout_s=30)),
            WebhookChannel(WebhookSettings("healthy", healthy.url)),
        ]
        async with office.running(office.outbox(*channels, ListChannel())) as outbox:
            await office.put(outbox, *(an_alert(f"agent-{n}") for n in range(10)))
            got = await healthy.got(10)
            assert len(await stuck.got(8)) == 8
    assert sorted(one.labels["agent"] for one in got) == [f"agent-{n}" for n in range(10)]


@pytest.mark.promise("P10")
async def test_down_then_up_every_alert_arrives_in_order_under_one_id(office: PostOffice) -> None:
    async with receiver(Answer(503), CLOSE, Answer(500)) as hook:
        channel = WebhookChannel(WebhookSettings("ops", hook.url))
        async with office.running(office.outbox(channel)) as outbox:
            ids = await office.put(outbox, *(an_alert(number=n) for n in range(5)))
            for waited_s in (0, 90, 180, 360):
                await office.advance(outbox, waited_s)
            assert (await outbox.backlog())["backlog"] == 0
    assert [one.delivery for one in hook.received] == [f"{ids[0]}.ops"] * 3 + [f"{one}.ops" for one in ids]


async def test_names_full_of_markup_and_line_breaks_stay_one_value_each(office: PostOffice) -> None:
    nasty = 'a"}]\n=== ALERT\r\n<script>alert(1)</script>\u202e<!channel>\x1b[31m\ud800\u0000'
    async with receiver() as hook:
        channel = WebhookChannel(WebhookSettings("ops", hook.url))
        async with office.running(office.outbox(channel)) as outbox:
            await office.put(
                outbox,
                an_alert(
                    nasty, agent_id="agt_1", session=nasty, task=nasty, last_actions=(nasty,) * 7, commands=(nasty,)
                ),
            )
            await office.done(outbox)
    one = hook.received[0].json["alerts"][0]
    shown = r'a"}]\n=== ALERT\r\n<script>alert(1)</script>\u202e<!channel>\u001b[31m\ud800\u0000'
    assert one["labels"]["agent"] == shown
    assert one["labels"]["session"] == one["annotations"]["task"] == shown
    assert one["annotations"]["last_actions"].split("\n") == [shown] * 5
