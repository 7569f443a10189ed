"""`haltline alerts …`: what was told to people, whether it reached them, who has it in hand, and how fast they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Cell, Styled, state
from haltline_client.commands.words import clean, count, many, when

if TYPE_CHECKING:
    from haltline_client.alert_results import Alert, AlertStats, Delivery, Episode, EpisodeChanged, Spread

__all__ = ["ack", "list_alerts", "resolve", "retry", "stats", "test"]


@click.command(
    "list", epilog=examples("haltline alerts list", "haltline alerts list --live", "haltline alerts list --json")
)
@click.option("--limit", type=click.IntRange(1, 1000), metavar="NUMBER", help="At most so many, the newest.")
@click.option("--live", is_flag=True, help="Only what nobody resolved yet.")
@click.option("--deliveries", is_flag=True, help="Every message and how far each of its deliveries is.")
@operator_options
def list_alerts(desk: Desk, limit: int | None, live: bool, deliveries: bool) -> None:
    """The newest episodes: what happened, how often, and who has it in hand."""
    result = desk.ask(lambda control: control.list_alerts(limit=limit, live=live))

    def show() -> None:
        _print_episodes(desk, result["episodes"])
        failed = [one for one in result["alerts"] if any(each.get("last_error") for each in one["deliveries"])]
        _print_messages(desk, result["alerts"] if deliveries else failed)

    desk.show(result, show)


@click.command(
    "ack", epilog=examples("haltline alerts ack epi_4f1c…", 'haltline alerts ack epi_4f1c… --reason "looking"')
)
@click.argument("episode")
@click.option("--reason", metavar="TEXT", help="What you are about to do; the audit log keeps it.")
@operator_options
def ack(desk: Desk, episode: str, reason: str | None) -> None:
    """Say that you have it in hand, so that nobody else is called."""
    _changed(desk, desk.ask(lambda control: control.acknowledge_alert(episode, reason=reason)))


@click.command("resolve", epilog=examples('haltline alerts resolve epi_4f1c… --reason "expected, month end"'))
@click.argument("episode")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is over; the audit log keeps it.")
@operator_options
def resolve(desk: Desk, episode: str, reason: str) -> None:
    """Say that it is over, where nothing is halted: what is halted is resolved by its resume."""
    _changed(desk, desk.ask(lambda control: control.resolve_alert(episode, reason=reason)))


@click.command("retry", epilog=examples("haltline alerts retry alt_9be2…", "haltline alerts retry epi_4f1c…"))
@click.argument("identifier", metavar="ID")
@operator_options
def retry(desk: Desk, identifier: str) -> None:
    """Send again what a channel gave up, of one alert or of all of an episode."""
    result = desk.ask(lambda control: control.retry_alert(identifier))
    desk.show(
        result,
        lambda: desk.page.line(
            f"{many(result['deliveries'], 'delivery', 'deliveries')} of {clean(result['id'])} "
            f"{'waits' if result['deliveries'] == 1 else 'wait'} again."
        ),
    )


@click.command("test", epilog=examples("haltline alerts test pager", "haltline alerts test stderr --json"))
@click.argument("channel")
@operator_options
def test(desk: Desk, channel: str) -> None:
    """Send an alert that is marked as a test. Exits 1 where the channel did not take it."""
    result = desk.ask(lambda control: control.test_alert_channel(channel))
    said = f"took it in {result['took_s']:.2f} s" if result["delivered"] else f"did not take it: {clean(result['why'])}"
    desk.show(result, lambda: desk.page.line(f"{clean(result['channel'])} ", said))
    if not result["delivered"]:
        raise click.exceptions.Exit(1)


@click.command("stats", epilog=examples("haltline alerts stats", "haltline alerts stats --since 7d --json"))
@click.option("--since", metavar="WHEN", help="ISO-8601, or an age such as 7d; 28d by default.")
@operator_options
def stats(desk: Desk, since: str | None) -> None:
    """How long people took to acknowledge and to act."""
    result = desk.ask(lambda control: control.alert_stats(since=since))
    desk.show(result, lambda: _print_stats(desk, result))


def _changed(desk: Desk, result: EpisodeChanged) -> None:
    taken = [
        f"{word} after {seconds:.0f} s"
        for word, seconds in (("acknowledged", result["to_acknowledge_s"]), ("acted on", result["to_act_s"]))
        if seconds is not None
    ]
    said = f" ({', '.join(taken)})" if taken else ""
    desk.show(result, lambda: desk.page.line(f"{clean(result['episode'])} ", state(result["state"]), said))


def _print_episodes(desk: Desk, episodes: list[Episode]) -> None:
    if not episodes:
        desk.page.line(Styled("No alerts.", "dim"))
    for one in episodes:
        who = clean(one["agent"] or one.get("tool") or "everything")
        session = f"/{clean(one['session'])}" if one.get("session") else ""
        times = f"  ×{one['count']}" if one["count"] > 1 else ""
        head = Styled(f"{clean(one['kind'])}  {who}{session}{times}", "bold")
        _line_with_id(desk, [f"{when(one['since'], desk.now)}  ", state(one["state"]), "  ", head], clean(one["id"]))
        desk.page.wrapped(clean(one["summary"]), head="    ")
        for line in _standing(desk, one):
            desk.page.wrapped(clean(line), head="    ")


def _standing(desk: Desk, one: Episode) -> list[str]:
    """Who has it, and what waits."""
    lines = [
        f"{word} by {one[f'{key}_by']}"  # type: ignore[literal-required]  # two of the keys
        for key, word in (("acknowledged", "in hand: acknowledged"), ("resolved", "resolved"))
        if one.get(f"{key}_by")
    ]
    if one.get("escalates_at"):
        lines.append(f"goes to the next route at {when(one['escalates_at'], desk.now)} unless acknowledged")
    if one["waiting"] or one["failed"]:
        lines.append(
            f"deliveries: {one['waiting']} waiting, {one['failed']} given up (haltline alerts retry {one['id']})"
        )
    if one["state"] == "open":
        lines += one["commands"]
    return lines


def _print_messages(desk: Desk, alerts: list[Alert]) -> None:
    for alert in alerts:
        head = f"{when(alert['at'], desk.now)}  {clean(alert.get('act') or 'trigger')} {clean(alert['kind'])}"
        _line_with_id(desk, [head], f"{clean(alert['id'])}  {clean(alert.get('episode') or '')}".rstrip(" -"))
        for delivery in alert["deliveries"]:
            _print_delivery(desk, delivery)


def _print_delivery(desk: Desk, delivery: Delivery) -> None:
    attempts = delivery["attempts"]
    tried = "" if attempts <= 1 else f" after {attempts} attempts"
    error = f": {clean(delivery['last_error'])}" if delivery.get("last_error") else ""
    said = f"{clean(delivery['channel'])} {clean(delivery['state'])}{tried}{error}"
    desk.page.wrapped(said, head="    ", style=state(delivery["state"]).style)


def _line_with_id(desk: Desk, head: list[Cell], identifier: str) -> None:
    """The id at the end of the line, or below where there is no room for it."""
    page = desk.page
    length = sum(len(part if isinstance(part, str) else part.text) for part in head) + 2 + len(identifier)
    if page.width is None or length <= page.width:
        page.line(*head, Styled(f"  {identifier}", "dim"))
        return
    page.line(*head)
    page.line(Styled(f"    {identifier}", "dim"))


def _print_stats(desk: Desk, one: AlertStats) -> None:
    page = desk.page
    page.fact("since", when(one["since"], desk.now))
    page.fact(
        "episodes",
        f"{count(one['episodes'])}, {count(one['critical'])} critical, raised {many(one['raised'], 'time')}",
    )
    page.fact("seen", f"{count(one['acknowledged'])}, {count(one['acknowledged_in_time'])} within 5 minutes")
    page.fact("unseen", Styled(count(one["unseen"]), "bad" if one["unseen"] else "good"))
    page.fact("escalated", count(one["escalated"]))
    page.fact("resolved", count(one["resolved"]))
    page.fact("to ack", _spread(one["to_acknowledge_s"]))
    page.fact("to act", _spread(one["to_act_s"]))


def _spread(one: Spread | None) -> str:
    return (
        "nobody has"
        if one is None
        else f"half within {one['p50']:.1f} s, 95 % within {one['p95']:.1f} s, all within {one['max']:.1f} s"
    )
