"""`haltline tools pin`: what changed in the definitions of tools, and the approval of exactly what was shown."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Styled
from haltline_client.commands.words import clean, when

if TYPE_CHECKING:
    from haltline_client.client import ControlClient
    from haltline_client.results import ApprovedTool, PinnedTool

__all__ = ["pin"]

_STYLES = {"+": "good", "-": "bad"}


@click.command(
    "pin",
    epilog=examples(
        "haltline tools pin --diff                                   what waits, and what changed",
        'haltline tools pin payments__charge --reason "new field, read it"',
        'haltline tools pin payments --yes --reason "release 4.2, reviewed"',
    ),
)
@click.argument("target", required=False, metavar="[TOOL|UPSTREAM]")
@click.option("--diff", "only_look", is_flag=True, help="Show what changed; approve nothing.")
@click.option("--digest", metavar="SHA256", help="Approve only if this is still the digest of what is shown.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--reason", metavar="TEXT", help="Why; it is recorded. Required to approve.")
@operator_options
def pin(desk: Desk, target: str | None, only_look: bool, digest: str | None, yes: bool, reason: str | None) -> None:
    """Approve changed tool definitions, after showing what changed. Needs a person's own operator credential.

    A tool whose definition is not the approved one is neither listed nor called.
    """
    shown = desk.ask(lambda control: control.review_tools(target=target))
    waiting = [one for one in shown["tools"] if one["state"] == "quarantined" and digest in {None, one["digest"]}]
    if only_look or not waiting:
        desk.show(shown, lambda: _print_shown(desk, shown["tools"]))
        if digest is not None and not only_look:
            raise click.ClickException("No definition with that digest waits for approval: look again with --diff.")
        return
    if not desk.as_json:
        _print_shown(desk, waiting)
    _be_sure(desk, len(waiting), sure=yes or digest is not None, reason=reason)
    approved = [desk.ask(partial(_approve, one, (reason or "").strip())) for one in waiting]
    desk.show({"approved": approved}, lambda: _print_approved(desk, approved))


def _be_sure(desk: Desk, count: int, *, sure: bool, reason: str | None) -> None:
    if not (reason or "").strip():
        raise click.UsageError("Missing option '--reason': say why, it goes into the audit log. (--diff only looks.)")
    if sure:
        return
    if not desk.at_terminal():
        raise click.UsageError("Nobody is here to confirm: give --yes, or --digest with what --diff showed.")
    click.confirm("Approve it as shown?" if count == 1 else f"Approve these {count} as shown?", abort=True, err=True)


def _approve(one: PinnedTool, reason: str, control: ControlClient) -> ApprovedTool:
    return control.approve_tool(one["tool"], digest=one["digest"], reason=reason, upstream=one["upstream"])


def _print_shown(desk: Desk, tools: list[PinnedTool]) -> None:
    page = desk.page
    if not tools:
        page.line("Nothing waits: every tool is defined as it was approved.")
    for one in tools:
        waits = one["state"] == "quarantined"
        page.line(
            Styled("QUARANTINED " if waits else "pinned ", "bad" if waits else "good"),
            Styled(clean(one["tool"]), "bold"),
        )
        page.fact("upstream", f"{clean(one['upstream'])}, as {clean(one['upstream_tool'])}")
        page.fact("approved", _approval(desk, one))
        page.fact("digest", clean(one["digest"]))
        for flag in one["flags"]:
            page.fact("flag", Styled(clean(flag), "warn"))
        for line in one["diff"]:
            page.line(Styled(f"  {clean(line)}", _STYLES.get(line.lstrip()[:1], "plain")))


def _approval(desk: Desk, one: PinnedTool) -> str:
    if one["approved_at"] is None:
        return "never"
    return f"{when(one['approved_at'], desk.now)} by {clean(one['approved_by'])}"


def _print_approved(desk: Desk, approved: list[ApprovedTool]) -> None:
    for one in approved:
        before = " (it was before)" if one["already"] else ""
        desk.page.line(Styled(f"Approved {clean(one['tool'])}{before}: {one['digest'][:12]}…", "bold"))
