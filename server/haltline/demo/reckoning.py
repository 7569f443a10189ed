"""The reckoning: the audit trail, the ledger beside the upstreams' own books, the proof of the log, and what comes next.

Compares only; the upstreams' books are read from their files, the broker's from its control tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from haltline.demo.books import read_books
from haltline.demo.play import spent_micros, usd
from haltline_client.commands.page import Cell, Column, Styled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.demo.play import Play
    from haltline_client.client import ControlClient
    from haltline_client.results import Event, OpenedSession

__all__ = ["books", "connect_your_own", "keep_running", "records", "verified"]

TAIL = 14
PAGE = 1000
COLUMNS = (
    Column("upstream"),
    Column("calls", right=True),
    Column("settled", right=True),
    Column("in doubt", right=True),
    Column("its own books", right=True),
    Column("difference", right=True),
)


async def records(play: Play) -> None:
    """The newest events, as the command prints them."""
    tell = play.tell
    tell.scene("The audit trail")
    tell.command("audit", "tail", "-n", str(TAIL))
    done = await play.stage.command("audit", "tail", "-n", str(TAIL))
    tell.quote(done.out + done.err)
    events = await _events(play)
    kinds = {event["kind"] for event in events}
    wanted = {
        "session.opened", "call.allowed", "call.succeeded", "call.denied", "session.halted", "session.revoked",
        "call.in_doubt", "session.resumed",
    }  # fmt: skip
    missing = ", ".join(sorted(wanted - kinds))
    tell.check(
        done.code == 0 and not missing,
        f"all of it is there: {len(events)} events" + (f", but nothing of {missing}" if missing else ""),
    )
    attributed = all(
        event.get("agent") and event.get("session") for event in events if event["kind"].startswith("call.")
    )
    tell.check(attributed, "every call says which agent and which session made it")
    tell.fact("events", len(events))


async def books(play: Play) -> None:
    """The same money counted three times: from the log, from the balances, and by those who billed it."""
    tell = play.tell
    tell.scene("The balances beside the upstreams' own books")
    events = await _events(play)
    files = {"payments": play.stage.payments_books, "tasks": play.stage.tasks_books}
    rows: list[list[Cell]] = []
    logged = billed = 0
    for name, file in files.items():
        own = sum(row.cost_micros for row in await anyio.to_thread.run_sync(read_books, file))
        ended = [event for event in events if event.get("upstream") == name and _ended(event)]
        settled, doubt = sum(map(_charged, ended)), sum(map(_in_doubt, ended))
        gap = settled + doubt - own
        shown = Styled(usd(gap), "good" if gap == 0 else "bad bold")
        rows.append([name, str(len(ended)), usd(settled), usd(doubt), usd(own), shown])
        logged, billed = logged + settled + doubt, billed + own
    tell.table(COLUMNS, rows)
    sessions = [await play.person.ask(_showing(agent.session)) for agent in play.cast.all]
    balances = sum(spent_micros(one["balances"]) for one in sessions)
    tell.say(f"the ledger's balances of the three sessions together: {usd(balances)} USD, in doubt included")
    tell.check(
        balances == logged == billed,
        f"log, ledger and the upstreams' own books agree to the micro-unit: {usd(billed)} USD",
    )
    tell.fact("money", {"ledger_micros": balances, "log_micros": logged, "books_micros": billed})


async def verified(play: Play) -> None:
    """The log proves itself."""
    play.tell.scene("The log was only added to")
    play.tell.command("audit", "verify")
    done = await play.stage.command("audit", "verify")
    play.tell.quote(done.out + done.err)
    play.tell.check(done.code == 0, "the hash chain holds from the first event to the last")


async def connect_your_own(play: Play) -> None:
    """How a reader goes on."""
    tell, url = play.tell, play.stage.agents_url
    tell.scene("Connect your own client")
    tell.command("client-config", "claude-code", "--agents-url", url)
    done = await play.stage.command("client-config", "claude-code", "--agents-url", url)
    tell.quote(done.out + done.err)
    tell.check(
        done.code == 0, "one snippet per host; the credential stays in the environment (haltline client-config --help)"
    )


async def keep_running(play: Play) -> None:
    """Leave everything as it is until a signal comes, and say how to reach it."""
    tell, stage = play.tell, play.stage

    def opening(control: ControlClient) -> OpenedSession:
        return control.open_session("billing", "yours to try", expires_in="8h")

    opened = await play.person.ask(opening)
    tell.heading("\nIt keeps running until Ctrl-C.")
    tell.say(f"agents connect to      {stage.agents_url}")
    tell.say(f"a session for you      HALTLINE_TOKEN={opened['token']}")
    tell.say(f"operate it             HALTLINE_DATA={stage.data} haltline status")
    tell.say(f"as a person            HALTLINE_OPERATOR_TOKEN_FILE={stage.person_token_file}")
    tell.say(f"the broker's log       {stage.folder / 'broker.log'}")
    await anyio.sleep_forever()


async def _events(play: Play) -> list[Event]:
    events: list[Event] = []
    after: int | None = 0
    while after is not None:
        page = await play.person.ask(_page_after(after))
        events += page["events"]
        after = page.get("next_after_seq")
    return events


def _page_after(seq: int) -> Any:
    return lambda control: control.query_audit(after_seq=seq, limit=PAGE)


def _showing(session: str) -> Any:
    return lambda control: control.show_session(session)


def _ended(event: Event) -> bool:
    return event["kind"] in {"call.succeeded", "call.failed", "call.in_doubt"}


def _charged(event: Mapping[str, Any]) -> int:
    """The body's own keys stand beside those that every event has."""
    return int(event.get("charged_micros", 0))


def _in_doubt(event: Mapping[str, Any]) -> int:
    return int(event.get("amount_micros", 0)) if event["kind"] == "call.in_doubt" else 0
