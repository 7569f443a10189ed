"""`check_ledger` and `haltline ledger check`: memory, rows and events agree, and what was falsified is named."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from haltline.commands.ledger import check
from support.broker_process import broker_process
from support.desk import POLICY, Desk

pytestmark = pytest.mark.promise("P7", "R1")


async def spend(at: Desk) -> str:
    """A settled call and one in doubt, by one agent; its session."""
    await at.agent()
    session = await at.session()
    await at.call(session["token"])
    at.upstream.script["charge"] = at.upstream.unknown
    await at.call(session["token"])
    return session["session"]


def falsify(database: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute(sql, values).rowcount > 0
        connection.commit()


async def test_books_that_agree_are_said_to_agree_with_their_sums(at: Desk) -> None:
    await spend(at)
    found = await at.ask("check_ledger")
    assert found == {
        "ok": True,
        "calls": 2,
        "agents": 1,
        "sessions": 1,
        "rows": {"settled": 50_000, "held": 0, "in_doubt": 50_000},
        "events": {"settled": 50_000, "held": 0, "in_doubt": 50_000},
        "differences": [],
        "faults": [],
    }


async def test_a_sum_in_memory_that_the_rows_do_not_give_is_named(at: Desk) -> None:
    session = await spend(at)
    await at.parts.writer.run(lambda tx: at.parts.ledger._accounts.task(tx, session).admit(7))
    found = await at.ask("check_ledger")
    assert not found["ok"]
    assert {(one["name"], one["figure"], one["remembered"] - one["rows"]) for one in found["differences"]} == {
        (session, "held", 7),
        (session, "calls_open", 1),
    }
    assert found["faults"] == []


@pytest.mark.promise("P4", "R16")
async def test_a_halt_or_an_allowance_that_is_remembered_otherwise_than_the_rows_have_it_is_named(at: Desk) -> None:
    session = await spend(at)
    await at.ask("halt", target=session, reason="a look")
    await at.ask("resume", target=session, reason="looked", allow="task=0.20")
    await at.ask("halt", target="booking-7", reason="enough")
    assert (await at.ask("check_ledger"))["ok"]
    database = at.parts.reader._path
    falsify(database, "UPDATE allowances SET amount = 900000")
    falsify(database, "UPDATE halts SET lifted_us = 1 WHERE scope = 'agent'")
    found = await at.ask("check_ledger")
    assert {(one["name"], one["figure"], one["remembered"], one["rows"]) for one in found["differences"]} == {
        (session, "added_to_task", 200_000, 900_000),
        ("booking-7", "halted", 1, 0),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("charged_micros = charged_micros - 1", "49999 was charged"),
        ("amount_micros = amount_micros + 1", "its hold is 50001"),
        ("admitted_us = admitted_us - 3600000000", "its hold was admitted at"),
    ],
)
async def test_a_row_that_somebody_changed_differs_from_memory_and_from_its_event(
    at: Desk, change: str, said: str
) -> None:
    await spend(at)
    falsify(at.parts.reader._path, f"UPDATE holds SET {change} WHERE state = 'settled'")  # noqa: S608 - of the test
    found = await at.ask("check_ledger")
    assert not found["ok"]
    [fault] = found["faults"]
    assert said in fault["what"]
    if "charged" in change:
        assert {one["figure"] for one in found["differences"]} == {"settled", "day_settled", "hour_settled"}


def test_the_command_proves_a_running_broker_and_a_folder_without_one(tmp_path: Path) -> None:
    with broker_process(tmp_path, upstreams={}, policy=POLICY) as broker:
        ran = broker.haltline("ledger", "check", "--json")
        assert (ran.code, json.loads(ran.out)["ok"], json.loads(ran.out)["agents"]) == (0, True, 0), ran
        data = broker.data_seen
        broker.stop()
        alone = CliRunner().invoke(check, ["--json", "--data", str(data)], standalone_mode=False)
        assert alone.exit_code == 0, alone
        found = json.loads(alone.stdout.splitlines()[-1])
        assert (found["ok"], found["agents"]) == (True, None)
        assert "only the records" in alone.stderr
