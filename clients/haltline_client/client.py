"""ControlClient: every control tool of a broker as one typed method.

Owns the names and arguments of the tools; `wire` owns how they travel. Knows nothing of terminals or of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haltline_client import alert_results as a
    from haltline_client import results as r
    from haltline_client.drill_results import Drilled
    from haltline_client.ledger_results import LedgerChecked
    from haltline_client.resume_results import Resumed
    from haltline_client.status_results import Status
    from haltline_client.wire import Wire

__all__ = ["ControlClient"]


class ControlClient:
    """A synchronous client of one control endpoint.

    `url` is the control listener (`http://127.0.0.1:7401`, `/mcp` is added when no path is given), `token` an operator
    credential (`hl_o_…`), `timeout_s` bounds connecting and each whole answer, in seconds. Plain http goes to loopback
    only, unless `insecure_http`; https verifies against the system's authorities (`SSL_CERT_FILE` is honoured).

    Every method raises `BrokerUnreachable`, `Refused` or `RequestFailed`; the constructor raises `SettingError`.
    Not for use by two threads at once. Close it, or use it as a context manager.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 10, *, insecure_http: bool = False) -> None:
        # http.client and ssl cost 40 ms: `haltline --help`, which imports this module, need not pay them.
        from haltline_client.wire import Wire as _Wire  # noqa: PLC0415 - see above

        self._wire: Wire = _Wire(url, token, timeout_s, insecure_http=insecure_http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        self._wire.close()

    def call(self, tool: str, /, **arguments: object) -> dict[str, Any]:
        """Any control tool by name; arguments that are None are left out. For tools newer than this client."""
        return self._wire.call(tool, {name: value for name, value in arguments.items() if value is not None})

    # Stopping, and starting again.

    def revoke(self, target: str, *, reason: str) -> r.Revoked:
        """End the credential of a session (`ses_…`) or of an agent and all its sessions. Final; safe to repeat."""
        return cast("r.Revoked", self.call("revoke", target=target, reason=reason))

    def halt(self, target: str, *, reason: str) -> r.Halted:
        """Stop a session, an agent or `"everything"` until a person resumes it. Safe to repeat."""
        return cast("r.Halted", self.call("halt", target=target, reason=reason))

    def resume(
        self,
        target: str,
        *,
        reason: str,
        allow: str | None = None,
        allow_for: str | None = None,
        preview: bool = False,
    ) -> Resumed:
        """Lift exactly one halt. A person's credential only.

        `allow` is added to the cap that caused it ("0.50"), or to one that is named ("day=2.00"), until the cap's window
        ends or for `allow_for` ("2h"). With `preview` nothing is lifted.
        """
        given = {"allow": allow, "allow_for": allow_for, "preview": preview or None}
        return cast("Resumed", self.call("resume", target=target, reason=reason, **given))

    def status(self) -> Status:
        """Readiness, halts, agents, calls in doubt, alerts, upstreams and store, as of now."""
        return cast("Status", self.call("status"))

    def run_drill(self, *, agent: str | None = None, halt: bool = False) -> Drilled:
        """Prove the stop path; give the client 100 s. `halt` also resumes and takes a person's credential."""
        return cast("Drilled", self.call("run_drill", agent=agent, halt=halt or None))

    # Agents and sessions.

    def add_agent(
        self,
        handle: str,
        tier: str,
        *,
        owner: str | None = None,
        scopes: Sequence[str] | None = None,
        hours: r.Hours | None = None,
        caps: r.Caps | None = None,
        credential: bool = False,
    ) -> r.AddedAgent:
        """Register an agent; `credential` also makes a permanent one (`hl_a_…`), shown once (R24)."""
        arguments = {"owner": owner, "scopes": _list(scopes), "hours": hours, "caps": caps}
        return cast(
            "r.AddedAgent",
            self.call("add_agent", handle=handle, tier=tier, credential=credential or None, **arguments),
        )

    def list_agents(self) -> r.AgentList:
        """Every agent with its state and what it spent today."""
        return cast("r.AgentList", self.call("list_agents"))

    def show_agent(self, agent: str) -> r.AgentDetail:
        """One agent with scopes, caps, balances, open sessions and last actions."""
        return cast("r.AgentDetail", self.call("show_agent", agent=agent))

    def reissue_agent(self, agent: str, *, reason: str, credential: bool = False) -> r.Reissued:
        """Lift the revoked state of an agent; what it has spent stays spent (R19). A person's credential only."""
        return cast("r.Reissued", self.call("reissue_agent", agent=agent, reason=reason, credential=credential or None))

    def open_session(
        self,
        agent: str,
        task: str,
        *,
        tools: Sequence[str] | None = None,
        caps: r.Caps | None = None,
        expires_in: str | None = None,
    ) -> r.OpenedSession:
        """Open a session for one task. `tools` are patterns, `expires_in` a duration such as "8h" (the default)."""
        arguments = {"tools": _list(tools), "caps": caps, "expires_in": expires_in}
        return cast("r.OpenedSession", self.call("open_session", agent=agent, task=task, **arguments))

    def list_sessions(self, *, agent: str | None = None, all_states: bool = False) -> r.SessionList:
        """The open sessions, of one agent or of all; with `all_states` also those that ended."""
        return cast("r.SessionList", self.call("list_sessions", agent=agent, all=all_states or None))

    def show_session(self, session: str) -> r.SessionDetail:
        """One session with tools, caps, balances and last actions."""
        return cast("r.SessionDetail", self.call("show_session", session=session))

    # Records, money and alerts.

    def query_audit(
        self,
        *,
        agent: str | None = None,
        session: str | None = None,
        kind: str | None = None,
        call: str | None = None,
        tool: str | None = None,
        since: str | None = None,
        until: str | None = None,
        after_seq: int | None = None,
        before_seq: int | None = None,
        limit: int | None = None,
        newest: bool = False,
    ) -> r.AuditPage:
        """A page of audit events. `since`, `until`: ISO-8601 or an age such as "2h"; `limit` <= 1000 (default 100)."""
        filters = {"agent": agent, "session": session, "kind": kind, "call": call, "since": since, "until": until}
        place = {"after_seq": after_seq, "before_seq": before_seq, "limit": limit, "newest": newest or None}
        return cast("r.AuditPage", self.call("query_audit", tool=tool, **filters, **place))

    def list_in_doubt(self) -> r.InDoubtList:
        """The calls whose outcome is unknown."""
        return cast("r.InDoubtList", self.call("list_in_doubt"))

    def check_ledger(self) -> LedgerChecked:
        """Compare the sums in memory with the ledger's rows, and the rows with the events. Long logs take long."""
        return cast("LedgerChecked", self.call("check_ledger"))

    def resolve_in_doubt(
        self, call: str, outcome: Literal["settle", "void"], *, reason: str, amount: str | None = None
    ) -> r.Resolved:
        """Charge a call in doubt (`amount`, default its full hold) or void it. A person's credential only."""
        arguments = {"outcome": outcome, "amount": amount, "reason": reason}
        return cast("r.Resolved", self.call("resolve_in_doubt", call=call, **arguments))

    def list_alerts(self, *, limit: int | None = None, live: bool = False) -> a.AlertList:
        """The newest episodes and messages; `live` leaves out the episodes that are resolved."""
        return cast("a.AlertList", self.call("list_alerts", limit=limit, live=live or None))

    def acknowledge_alert(self, episode: str, *, reason: str | None = None) -> a.EpisodeChanged:
        """Say that somebody has it in hand: it escalates no further. A person's credential only."""
        return cast("a.EpisodeChanged", self.call("acknowledge_alert", episode=episode, reason=reason))

    def resolve_alert(self, episode: str, *, reason: str) -> a.EpisodeChanged:
        """Say that it is over, where no resume ends it. A person's credential only."""
        return cast("a.EpisodeChanged", self.call("resolve_alert", episode=episode, reason=reason))

    def retry_alert(self, id: str) -> a.Retried:  # noqa: A002 - the tool's own word
        """Queue what was given up of an alert (`alt_…`) or an episode (`epi_…`) again."""
        return cast("a.Retried", self.call("retry_alert", id=id))

    def test_alert_channel(self, channel: str) -> a.ChannelTried:
        """Send a marked alert to a channel now, and say whether it was taken."""
        return cast("a.ChannelTried", self.call("test_alert_channel", channel=channel))

    def alert_stats(self, *, since: str | None = None) -> a.AlertStats:
        """How long people took to acknowledge and to act. `since`: ISO-8601 or an age; 28d by default."""
        return cast("a.AlertStats", self.call("alert_stats", since=since))

    # Tools, policy and operators.

    def list_tools(self, *, upstream: str | None = None) -> r.ToolList:
        """The tools on offer with their prices, and the state of their upstreams."""
        return cast("r.ToolList", self.call("list_tools", upstream=upstream))

    def import_tools(self, upstream: str) -> r.ImportedTools:
        """Write price entries (price 0, for review) for what an upstream offers. A person's credential only."""
        return cast("r.ImportedTools", self.call("import_tools", upstream=upstream))

    def review_tools(self, *, target: str | None = None) -> r.ToolReview:
        """The definitions that wait for approval, of a tool, of an upstream or of all, with what changed."""
        return cast("r.ToolReview", self.call("review_tools", target=target))

    def approve_tool(self, tool: str, *, digest: str, reason: str, upstream: str | None = None) -> r.ApprovedTool:
        """Serve a tool as `review_tools` showed it under this digest. A person's credential only."""
        arguments = {"digest": digest, "reason": reason, "upstream": upstream}
        return cast("r.ApprovedTool", self.call("approve_tool", tool=tool, **arguments))

    def explain_decision(
        self, agent: str, tool: str, *, arguments: Mapping[str, object] | None = None, session: str | None = None
    ) -> r.Explanation:
        """What the policy would say to this call now, and which rule said it; nothing is held or recorded."""
        given = {"agent": agent, "tool": tool, "arguments": arguments, "session": session}
        return cast("r.Explanation", self.call("explain_decision", **given))

    def reload_policy(self) -> r.ReloadedPolicy:
        """Read the policy folder again. A person's credential only."""
        return cast("r.ReloadedPolicy", self.call("reload_policy"))

    def add_operator(self, name: str) -> r.NewToken:
        """A new operator; the credential is shown once. A person's credential only."""
        return cast("r.NewToken", self.call("add_operator", name=name))

    def list_operators(self) -> r.OperatorList:
        """The operators with class and state."""
        return cast("r.OperatorList", self.call("list_operators"))

    def rotate_operator(self, name: str) -> r.NewToken:
        """A new credential for an operator; the old one ends. A person's credential only."""
        return cast("r.NewToken", self.call("rotate_operator", name=name))

    def revoke_operator(self, name: str, *, reason: str) -> r.RevokedOperator:
        """End an operator's credential. A person's credential only."""
        return cast("r.RevokedOperator", self.call("revoke_operator", name=name, reason=reason))


def _list(values: Sequence[str] | None) -> list[str] | None:
    return None if values is None else list(values)
