"""`haltline status`: what an operator looks at first: is it ready, what stands still, who spends, what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.balances import COLUMNS as BALANCES
from haltline_client.commands.balances import balance_cells, print_allowances
from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Column, Page, Styled, state
from haltline_client.commands.stops import print_halt
from haltline_client.commands.words import age, amount, bare_amount, clean, count, duration, many, moment, size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from haltline_client.commands.page import Cell
    from haltline_client.status_results import Status, StatusAgent

__all__ = ["print_status", "status", "upstream_words"]

_NOBODY = ("",) * 5

COLUMNS = (
    Column("AGENT", flex=True),
    Column("STATE"),
    Column("SESSIONS", right=True, spare=3),
    Column("RUNNING", right=True, spare=2),
    Column("TIER", spare=4),
    *BALANCES,
)


@click.command("status", epilog=examples("haltline status", "haltline status --json | jq .halts"))
@operator_options
def status(desk: Desk) -> None:
    """Is it ready, what is halted, who spends, what waits for a person."""
    result = desk.ask(lambda control: control.status())
    desk.show(result, lambda: print_status(desk.page, result, moment(result["now"]) or desk.now))


def print_status(page: Page, result: Status, now: datetime) -> None:
    """The whole status on a page: what stands still and what waits for a person first, however many agents there are."""
    _print_head(page, result, now)
    if result["halts"]:
        page.line("")
    for one in result["halts"]:
        print_halt(page, one, now)
        page.line("    ", Styled(f'haltline resume {clean(one["target"])} --reason "..."', "dim"))
    print_allowances(page, result.get("allowances", []), now)
    page.line("")
    page.fact("in doubt", *_in_doubt(result, now))
    page.fact("alerts", *_alerts(result, now))
    page.line("")
    _print_agents(page, result["agents"], now)
    page.line("")
    _print_around(page, result)


def _print_head(page: Page, result: Status, now: datetime) -> None:
    policy = result["policy"]
    ready = Styled("ready", "good") if result["ready"] else Styled("NOT READY", "bad bold")
    clock = f"{now.astimezone():%H:%M:%S %Z}"
    up = duration(result["uptime_s"])
    name, more = f"Haltline {clean(result['version'])}", f"  up {up}  policy {clean(policy['version'])}"
    mode = f" ({clean(policy['mode'])})  {clock}"
    roomy = page.width is None or len(name) + len(ready.text) + len(more) + len(mode) + 2 <= page.width
    page.line(Styled(name, "bold"), "  ", ready, more, mode if roomy else "")
    if not roomy:
        page.line(" ", mode)
    if not result["ready"]:
        page.wrapped(f"because: {clean(result.get('not_ready_because'))}")
    for problem in policy["problems"]:
        page.wrapped(f"policy problem, the older policy stays in force: {_problem_words(problem)}")


def _problem_words(problem: object) -> str:
    """A policy problem as `tiers.yaml:12: what is wrong`, from an object or a sentence."""
    if not isinstance(problem, dict):
        return clean(problem)
    place = ":".join(str(problem[key]) for key in ("file", "line") if problem.get(key) is not None)
    return clean(": ".join(part for part in (place, problem.get("key"), problem.get("message")) if part))


def _print_agents(page: Page, agents: list[StatusAgent], now: datetime) -> None:
    """A line for each agent and each of its caps."""
    rows = []
    for one in agents:
        caps = [balance_cells(cap, now) for cap in one.get("balances", []) if cap["remaining"] is not None]
        who = (
            clean(one["agent"]),
            state(one["state"]),
            count(one["sessions_open"]),
            count(one["running"]),
            clean(one["tier"]),
        )
        rows += [((*who, *cells) if first else (*_NOBODY, *cells)) for first, cells in _first(caps or [_today(one)])]
    page.table(COLUMNS, rows, empty="No agents yet. Add one: haltline agents add NAME --tier experimental")


def _today(one: StatusAgent) -> tuple[Cell, ...]:
    """What an agent without caps spent all the same."""
    spent, held, in_doubt = bare_amount(one["spent_day"]), bare_amount(one["held"]), bare_amount(one.get("in_doubt"))
    return ("day", spent, held, in_doubt, "", amount(one["cap_day"]) if one["cap_day"] else "no cap", "")


def _first(cells: list[tuple[Cell, ...]]) -> Iterator[tuple[bool, tuple[Cell, ...]]]:
    return ((number == 0, one) for number, one in enumerate(cells))


def _print_around(page: Page, result: Status) -> None:
    if not result["upstreams"]:
        page.fact("upstreams", "none configured")
    for number, one in enumerate(result["upstreams"]):
        page.fact("" if number else "upstreams", *upstream_words(one))
    store = result["store"]
    page.fact("store", f"{count(store['events'])} events, {size(store['size_bytes'])}, queue {count(store['queue'])}")


def _in_doubt(result: Status, now: datetime) -> tuple[str | Styled, ...]:
    waiting = result["in_doubt"]
    if not waiting["count"]:
        return ("none",)
    text = f"{_calls(waiting['count'])}, {amount(waiting['amount'])}, oldest {age(waiting.get('oldest_at'), now)}"
    deadline = waiting.get("charges_at")
    ends = f", deadline in {age(deadline, now)}" if deadline else ""
    return (Styled(text + ends, "warn"), "  see: haltline calls in-doubt")


def _alerts(result: Status, now: datetime) -> tuple[str | Styled, ...]:
    alerts = result["alerts"]
    unseen = alerts.get("open_episodes", 0)
    seen = (Styled(f"{count(unseen)} not acknowledged", "bad"), "  see: haltline alerts list --live") if unseen else ()
    if not alerts["backlog"] and not alerts["failed"]:
        return ("all delivered", *((", ", *seen) if unseen else ()))
    oldest = f" (oldest {age(alerts['oldest_at'], now)})" if alerts.get("oldest_at") else ""
    text = f"{count(alerts['backlog'])} waiting{oldest}, {count(alerts['failed'])} failed"
    return (Styled(text, "bad" if alerts["failed"] else "warn"), "  see: haltline alerts list")


def _calls(number: int) -> str:
    return f"{count(number)} call" if number == 1 else f"{count(number)} calls"


def upstream_words(one: object) -> tuple[str | Styled, ...]:
    """`payments  ready  12 tools (mcp)`."""
    fields = one if isinstance(one, dict) else {}
    detail = f": {clean(fields['detail'])}" if fields.get("detail") else ""
    name, kind = clean(fields.get("name")), clean(fields.get("kind"))
    return (f"{name} ", state(fields.get("state")), f"  {many(int(fields.get('tools') or 0), 'tool')} ({kind}){detail}")
