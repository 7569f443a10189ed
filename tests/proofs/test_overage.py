"""Upstreams that bill one and a half times what their price allows: recorded truly, summed exactly, and each session is halted
before it can send anything more (P2)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.billing_upstream import billing_upstream
from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller
from support.figures import Figures
from support.stored_calls import halts_set, stored_calls

AFTERWARDS = 3
"""Calls that each session tries once it was overcharged."""


def most_micros(number: int) -> int:
    """What the price of this upstream allows: another for each, and not a round one."""
    return 100_001 + 7_919 * number


def bill(number: int) -> str | float:
    """Exactly 1.5 times that, which for every other one is finer than a micro-unit; as text or as a number."""
    micros_x10 = most_micros(number) * 15
    text = f"{micros_x10 // 10_000_000}.{micros_x10 % 10_000_000:07d}"
    return text if number % 3 else float(text)


def charged(number: int) -> int:
    return -(-most_micros(number) * 15 // 10)


def policy(upstreams: int) -> str:
    prices = "".join(
        f"  u{number}__ask: {{price: {{result: structuredContent.cost, at_most: "
        f'"{most_micros(number) // 1_000_000}.{most_micros(number) % 1_000_000:06d}"}}}}\n'
        for number in range(upstreams)
    )
    return (
        f'version: "1"\ntiers:\n  wide: {{tools: ["*"], caps: {{task: "1000.00", day: "10000.00"}}}}\ntools:\n{prices}'
    )


async def overcharged(broker: BrokerProcess, opened: Opened, number: int) -> list[Answer]:
    """The call that is overcharged, and at once the next ones."""
    caller = Caller(broker.agents_port, opened.token, MODES[number % len(MODES)])
    told = {"bill": bill(number)}
    answers = [
        await caller.call(f"u{number}__ask", {"reference": f"{number}-{which}", **told})
        for which in range(AFTERWARDS + 1)
    ]
    caller.cut()
    return answers


@pytest.mark.promise("P2", "R7")
async def test_what_upstreams_bill_beyond_their_price_is_exact_and_halts_before_the_next_dispatch(
    tmp_path: Path, long: bool
):
    count = 100 if long else 20
    with billing_upstream(tmp_path) as billing:
        upstreams = {f"u{number}": {"url": billing.url(number)} for number in range(count)}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=policy(count)) as broker:
            broker.await_tools(*(f"u{number}__ask" for number in range(count)))
            opened = broker.open([f"agent-{number}" for number in range(count)], "wide")
            all_answers = await asyncio.gather(*(overcharged(broker, one, number) for number, one in enumerate(opened)))
            received = billing.received()
            with broker.control() as control:
                alerts = control.list_alerts(limit=500)["alerts"]
            code = broker.stop()
            halted = {one.subject_id for one in halts_set(broker.database) if one.code == "charge.overage"}
            stored = stored_calls(broker.database)
            overages = _overages(broker.database)
            verified = broker.verify()
    wanted = sum(charged(number) - most_micros(number) for number in range(count))
    figures = Figures(f"{count} upstreams that bill 1.5 times what their price allows")
    figures.equal(
        "overage in the ledger, micro-units", sum(one.charged - one.amount for one in stored.values()), wanted
    )
    figures.equal("overage in the events, micro-units", sum(overages), wanted)
    wrong = [number for number in range(count) if stored[f"{number}-0"].charged != charged(number)]
    figures.zero("calls charged another amount than was billed", wrong)
    figures.equal("sessions halted", len(halted & {one.session for one in opened}), count)
    figures.equal("alerts of it", len({one["session"] for one in alerts if one["kind"] == "session.halted"}), count)
    figures.equal("first calls answered", sum(answers[0].kind == "result" for answers in all_answers), count)
    later = [answer for answers in all_answers for answer in answers[1:]]
    others = [answer for answer in later if (answer.kind, answer.code) != ("refused", "session.halted")]
    figures.zero(f"of {len(later)} later calls, not refused as halted", others)
    figures.zero("dispatched after the halt", [one for one in received if not one.endswith("-0")])
    figures.chain(verified)
    figures.equal("exit code", code, 0)
    figures.show()


def _overages(database: Path) -> list[int]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT body FROM events WHERE kind = 'call.succeeded'").fetchall()
    return [json.loads(row[0])["overage_micros"] for row in rows]
