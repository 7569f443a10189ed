"""What is stored of an alert: redacted, bounded, one line to a value, and readable again."""

from __future__ import annotations

import orjson
import pytest

from haltline.alerts.backoff import Backoff
from haltline.alerts.model import Alert, Balance
from haltline.alerts.text import block
from haltline.credentials import issue
from haltline.redact import MASK, Redactor
from support.post_office import ListChannel, PostOffice, an_alert


def canaries() -> list[str]:
    return [
        issue("s").token,
        issue("o").token,
        "ghp_" + "a1B2" * 10,
        "sk-" + "z9" * 20,
        "AKIA" + "ABCDEFGH12345678",
        "xoxb-" + "1234567890-abcdef",
        "Bearer " + "q1w2e3r4t5y6u7i8",
    ]


@pytest.mark.promise("P9")
async def test_no_secret_reaches_the_rows_a_channel_or_a_listing(office: PostOffice) -> None:
    channel = ListChannel()
    planted = [*canaries(), "hunter2-by-key-name"]
    everywhere = " ".join(planted[:-1]) + ' {"password": "hunter2-by-key-name"}'
    alert = an_alert(
        text=everywhere,
        task=everywhere,
        by=everywhere,
        rule=everywhere,
        threshold=everywhere,
        observed=everywhere,
        last_actions=(everywhere,),
        commands=(everywhere,),
        balances=(Balance(*[everywhere] * 5),),
        code=everywhere,
        kind=everywhere,
        agent=everywhere,
        session=everywhere,
    )
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, alert)
        await office.done(outbox)
        listed = orjson.dumps(await outbox.overview.newest(1)).decode()
        (row,) = await office.reader.rows("SELECT body, kind, session_id FROM alerts")
    seen = [bytes(row["body"]).decode(), block(channel.taken[0]), listed, str(row["kind"]), str(row["session_id"])]
    assert [secret for secret in planted for text in seen if secret in text] == []
    assert MASK in seen[0]


@pytest.mark.promise("P9")
def test_a_secret_across_the_cut_leaves_no_half_behind() -> None:
    token = issue("s").token
    for start in range(240, 300):
        fitted = an_alert(task="x" * start + token).fit(Redactor().text)
        assert fitted.task is not None
        assert "hl_s" not in fitted.task
        assert len(fitted.task) <= 300


def test_every_value_is_bounded() -> None:
    long = "x" * 10_000
    alert = Alert(long, long, long, long, long, long, long, long, "critical", long, long, long, (long,) * 50,
                  (Balance(long, long, long, long, long),) * 50, (long,) * 50)  # fmt: skip
    assert len(alert.fit(str).stored()) < 20_000


def test_the_last_five_actions_are_kept() -> None:
    alert = an_alert(last_actions=tuple(str(n) for n in range(9)))
    assert alert.fit(str).last_actions == ("4", "5", "6", "7", "8")


def test_the_summary_names_agent_cause_and_the_balance_of_the_cap_concerned() -> None:
    assert an_alert().summary == (
        "agent booking-7 (session ses_booking-7): session.halted [budget.task_exceeded]: task cap 0.50 USD, spent 0.47,"
        " this call 0.05 (number 1); task cap: spent 0.47 USD, held 0.00 USD, remaining 0.03 USD of 0.50 USD"
    )
    assert "; day cap: spent 0.47" in an_alert(code="operator.halted").summary


def test_what_was_stored_reads_the_same_also_from_another_version() -> None:
    alert = an_alert()
    assert Alert.from_stored(alert.stored()) == alert
    newer = orjson.loads(alert.stored()) | {"of_a_newer_version": 1}
    del newer["balances"], newer["observed"]
    older = Alert.from_stored(orjson.dumps(newer))
    assert (older.balances, older.observed, older.agent) == ((), None, "booking-7")


def test_back_off_doubles_up_to_its_bound_and_is_spread_over_the_whole_step() -> None:
    half, none = Backoff(lambda: 0.5), Backoff(lambda: 0.0)
    assert [half.delay_s(n, None) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert half.delay_s(10_000, None) == 30.0
    assert none.delay_s(7, None) == 0.0
    assert none.delay_s(1, 60.0) == 60.0
    assert none.delay_s(1, float("inf")) == 3600.0
    assert all(0 <= Backoff().delay_s(3, None) < 4 for _ in range(50))
