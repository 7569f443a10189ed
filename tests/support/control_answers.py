"""Results of the control tools as the contract shapes them, with a bad night in them, for the fake endpoint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["NOW", "all_answers", "ago", "money", "status"]

NOW = datetime.now(UTC)


def ago(**spans: float) -> str:
    """A stamp so long before now; negative spans lie ahead."""
    return (NOW - timedelta(**spans)).isoformat().replace("+00:00", "Z")


def money(text: str) -> dict[str, Any]:
    return {"micros": round(float(text) * 1_000_000), "text": f"{text} USD"}


HALT = {
    "target": "research-bot",
    "scope": "agent",
    "code": "budget.day_exceeded",
    "text": "day cap 5.00 USD, spent 4.98, this call 0.05: payments__charge in session ses_7Kq2 was refused",
    "by": "cap day",
    "since": ago(minutes=12),
}


def status() -> dict[str, Any]:
    def agent(name: str, tier: str, state: str, running: int, spent: str, cap: str, held: str) -> dict[str, Any]:
        return {
            "agent": name, "tier": tier, "state": state, "sessions_open": running + 1, "running": running,
            "spent_day": money(spent), "cap_day": money(cap), "held": money(held), "in_doubt": money("0.30"),
            "balances": [
                {"cap": "hour", "limit": money("2.00"), "settled": money("0.90"), "held": money(held),
                 "in_doubt": money("0.30"), "remaining": money("0.80"), "resets_at": ago(minutes=-20), "session": None},
                {"cap": "day", "limit": money(cap), "settled": money(spent), "held": money(held), "in_doubt": money("0.30"),
                 "remaining": money(f"{float(cap) - float(spent) - float(held) - 0.3:.2f}"), "resets_at": ago(hours=-3),
                 "session": None},
                {"cap": "rate", "limit": "60/minute", "settled": 3, "held": None, "in_doubt": None, "remaining": 57,
                 "resets_at": ago(seconds=-41), "session": None},
            ],
        }  # fmt: skip

    return {
        "now": ago(),
        "uptime_s": 22_333.5,
        "version": "0.1.0",
        "policy": {"version": 7, "mode": "enforce", "problems": []},
        "ready": True,
        "halts": [HALT],
        "allowances": [
            {
                "target": "billing",
                "cap": "day",
                "amount": money("20.00"),
                "left": money("1.60"),
                "until": ago(hours=-3),
                "by": "operator:anna",
            },
        ],
        "agents": [
            agent("research-bot", "experimental", "halted", 1, "4.98", "5.00", "0.00"),
            agent("billing", "production", "active", 2, "118.40", "250.00", "12.50"),
            agent("nightly-report-and-summary-agent", "staging", "active", 0, "0.00", "50.00", "0.00"),
        ],
        "in_doubt": {"count": 2, "amount": money("1.30"), "oldest_at": ago(minutes=14), "charges_at": ago(hours=-23)},
        "alerts": {"backlog": 1, "oldest_at": ago(minutes=3), "failed": 0},
        "upstreams": [
            {"name": "payments", "kind": "mcp", "state": "ready", "tools": 12},
            {"name": "git", "kind": "mcp", "state": "failed", "tools": 0, "detail": "exited with 1, restarts in 8 s"},
        ],
        "store": {"events": 12_345, "size_bytes": 34_100_000, "queue": 0},
    }


SESSION = {
    "session": "ses_7Kq2xYz",
    "agent": "research-bot",
    "task": "summarise ticket 4711 and pay the invoice that hangs from it",
    "state": "halted",
    "opened_at": ago(hours=6),
    "expires_at": ago(hours=-2),
    "spent": money("0.47"),
    "held": money("0.05"),
    "in_doubt": money("0.30"),
    "cap": money("0.50"),
    "calls": 41,
    "calls_cap": 50,
    "running": 1,
}
BALANCES = [
    {"cap": "task", "limit": money("0.50"), "settled": money("0.47"), "held": money("0.05"),
     "in_doubt": money("0.00"), "remaining": money("-0.02")},
    {"cap": "day", "limit": money("5.00"), "settled": money("4.98"), "held": money("0.00"),
     "in_doubt": money("0.00"), "remaining": money("0.02"), "resets_at": ago(hours=-3)},
    {"cap": "calls", "limit": 50, "settled": 40, "held": 1, "in_doubt": 0, "remaining": 9},
]  # fmt: skip
EVENTS = [
    {"seq": 811, "at": ago(minutes=13), "kind": "call.succeeded", "actor": "research-bot", "agent": "research-bot",
     "session": "ses_7Kq2xYz", "call": "call_9fX", "tool": "payments__charge", "upstream": "payments",
     "amount": money("0.05")},
    {"seq": 812, "at": ago(minutes=12), "kind": "agent.halted", "actor": "cap day", "agent": "research-bot",
     "session": None, "call": None, "tool": None, "upstream": None, "reasons": [{"code": "budget.day_exceeded"}]},
]  # fmt: skip
ALERT = {
    "id": "alt_1", "at": ago(minutes=12), "kind": "agent.halted", "agent": "research-bot", "session": "ses_7Kq2xYz",
    "summary": "research-bot stopped itself: day cap 5.00 USD, spent 4.98",
    "deliveries": [
        {"channel": "slack-ops", "state": "delivered", "attempts": 1},
        {"channel": "pagerduty", "state": "retrying", "attempts": 3, "last_error": "HTTP 503"},
    ],
}  # fmt: skip
EPISODE = {
    "id": "epi_1", "state": "open", "severity": "critical", "count": 3, "since": ago(minutes=12), "last_at": ago(minutes=2),
    "kind": "agent.halted", "code": "budget.day_exceeded", "agent": "research-bot", "session": "ses_7Kq2xYz",
    "summary": "agent research-bot: agent.halted: day cap 5.00 USD, spent 4.98", "acknowledged_by": None, "resolved_by": None,
    "escalates_at": ago(minutes=-3), "escalations": 0, "last_actions": [],
    "commands": ["haltline resume research-bot", "haltline alerts ack epi_1"], "waiting": 1, "failed": 0,
}  # fmt: skip
IN_DOUBT = {
    "call": "call_9fX", "agent": "research-bot", "session": "ses_7Kq2xYz", "tool": "payments__charge",
    "amount": money("0.30"), "since": ago(minutes=14), "age_s": 840.0, "charges_at": ago(hours=-1), "then": "settle",
    "why": "the connection broke after the request was sent",
}  # fmt: skip


def _resumed(arguments: dict[str, Any]) -> dict[str, Any]:
    added = (
        {}
        if arguments.get("allow") is None
        else {"allowance": money("0.50"), "allowance_cap": "day", "allowance_until": ago(hours=-2)}
    )
    return {
        "target": "research-bot", "scope": "agent", "was": HALT, "preview": bool(arguments.get("preview")), **added, "at": ago(),
        "since_halt": {"succeeded": 2, "failed": 0, "in_doubt": 1, "refused": 41, "running": 0, "charged": money("0.10"),
                       "more": False, "last": EVENTS},
        "balances": BALANCES, "ahead": "the next call like the refused one (0.05 USD) would halt again: day spend 5.02 of 5.00 USD",
    }  # fmt: skip


def _tools() -> dict[str, Any]:
    def tool(name: str, price: str | None, matched: str | None) -> dict[str, Any]:
        upstream, _, own = name.partition("__")
        return {"tool": name, "upstream": upstream, "upstream_tool": own, "price": price, "matched_by": matched,
                "shared_credential": upstream == "payments", "description": f"What {own} does, told at some length."}  # fmt: skip

    tools = [tool("payments__charge", "from amount", "tools.yaml:12"), tool("git__log", None, None)]
    return {"tools": tools, "upstreams": status()["upstreams"]}


def _review() -> dict[str, Any]:
    waits = {
        "tool": "git__log", "upstream": "git", "upstream_tool": "log", "state": "quarantined", "digest": "ab" * 32,
        "approved_digest": "cd" * 32, "approved_by": "operator:anna", "approved_at": ago(days=3), "seen_at": ago(minutes=2),
        "flags": ["hidden characters in description: U+200B ZERO WIDTH SPACE"],
        "diff": ["description:", "  - Show the log.", "  + Show the log[U+200B ZERO WIDTH SPACE]."],
    }  # fmt: skip
    return {"tools": [waits]}


def all_answers() -> dict[str, Any]:
    """An answer for every control tool."""
    detail = {"tools": ["payments__*"], "caps": {"task": money("0.50"), "calls": 50}, "halt": HALT,
              "balances": BALANCES, "last_actions": EVENTS}  # fmt: skip
    agent = {"agent": "research-bot", "tier": "experimental", "owner": "anna", "state": "halted", "sessions_open": 1,
             "spent_day": money("4.98"), "cap_day": money("5.00"), "held": money("0.05"), "in_doubt": money("0.30")}  # fmt: skip
    hours = {"days": "mon-fri", "from": "08:00", "to": "18:00", "time_zone": "Europe/Berlin"}
    return {
        "status": status(),
        "revoke": {"target": "research-bot", "kind": "agent", "sessions": ["ses_7Kq2xYz", "ses_8Lm3"],
                   "calls_cancelled": 3, "already": False, "at": ago()},
        "halt": {"target": "research-bot", "scope": "agent", "calls_cancelled": 1, "already": False, "at": ago()},
        "resume": _resumed,
        "run_drill": {"drill": "drl_1", "ok": True, "agent": "haltline-drill", "session": "ses_d", "how": "revoke", "failed": None,
                      "systems": 1, "took_ms": 1300, "at": ago(),
                      "steps": [{"step": "loop stopped", "state": "ok", "text": "none dispatched", "took_ms": 2, "at_ms": 936},
                                {"step": "credential dead on a new connection", "state": "ok", "took_ms": 2, "at_ms": 940,
                                 "text": "session.revoked in 2025-11-25 and 2026-07-28, and that is as much as can be said of it"}]},
        "add_agent": {"agent": "research-bot", "tier": "experimental", "owner": "anna", "token": "hl_a_once"},
        "list_agents": {"agents": [agent]},
        "show_agent": {**agent, "scopes": ["reading"], "hours": hours, "caps": {"day": money("5.00")}, "halt": HALT,
                       "sessions": [SESSION], "balances": BALANCES, "last_actions": EVENTS,
                       "usual": ["weekdays 09-17, weekends never (UTC)"], "unusual": ["9 of 87 calls failed in the last hour"]},
        "reissue_agent": {"agent": "research-bot", "token": "hl_a_again"},
        "open_session": {"session": "ses_new", "agent": "research-bot", "tier": "experimental", "task": "t",
                         "token": "hl_s_once", "expires_at": ago(hours=-8), "caps": {"task": money("0.50")},
                         "tools": ["search__*"]},
        "list_sessions": {"sessions": [SESSION]},
        "show_session": {**SESSION, **detail},
        "query_audit": {"events": EVENTS},
        "list_in_doubt": {"calls": [IN_DOUBT]},
        "resolve_in_doubt": lambda given: {"call": given["call"], "outcome": given["outcome"], "amount": money("0.30")},
        "list_alerts": {"episodes": [EPISODE], "alerts": [ALERT]},
        "acknowledge_alert": {
            "episode": "epi_1", "state": "acknowledged", "by": "operator:anna", "at": ago(minutes=0), "count": 3,
            "to_acknowledge_s": 41.0, "to_act_s": None,
        },
        "resolve_alert": {
            "episode": "epi_1", "state": "resolved", "by": "operator:anna", "at": ago(minutes=0), "count": 3,
            "to_acknowledge_s": 41.0, "to_act_s": 90.0,
        },
        "test_alert_channel": {"channel": "pager", "delivered": True, "why": None, "took_s": 0.12},
        "retry_alert": {"id": "epi_1", "deliveries": 2},
        "alert_stats": {
            "since": ago(hours=24), "episodes": 4, "raised": 9, "critical": 2, "acknowledged": 3, "acknowledged_in_time": 2,
            "escalated": 1, "resolved": 2, "unseen": 1, "to_acknowledge_s": {"p50": 30.0, "p95": 400.0, "max": 400.0},
            "to_act_s": None,
        },
        "check_ledger": {
            "ok": False, "calls": 40, "agents": 2, "sessions": 3,
            "rows": {"settled": 2_000_000, "held": 0, "in_doubt": 50_000},
            "events": {"settled": 1_900_000, "held": 0, "in_doubt": 50_000},
            "differences": [{
                "of": "agent", "id": "agt_1", "name": "research-bot", "figure": "day_settled", "remembered": 1_900_000,
                "rows": 2_000_000, "what": "agent research-bot: day_settled is 1900000 in memory, 2000000 from the rows",
            }],
            "faults": [{"seq": 12, "what": "call call_1: 150000 was charged, event 12 says 50000"}],
        },
        "list_tools": _tools(),
        "import_tools": {"written": "policies/tools.yaml", "tools": ["git__log", "git__diff"]},
        "review_tools": _review(),
        "approve_tool": {"tool": "git__log", "upstream": "git", "digest": "ab" * 32, "already": False},
        "explain_decision": {
            "decision": "deny", "amount": money("1.20"),
            "reasons": [{"code": "charge.too_large", "text": "1.20 USD is more than 1.00 a call", "facts": {},
                         "retryable": False}],
            "rules": [{"rule": "per_call", "where": "tiers.yaml:12", "spoke": "deny", "text": "at most 1.00 a call"},
                      {"rule": "scope", "where": "tiers.yaml:4", "spoke": "allow", "text": "payments__*"}],
        },
        "reload_policy": {"version": 8, "changed": True},
        "add_operator": {"operator": "anna", "token": "hl_o_once"},
        "rotate_operator": {"operator": "anna", "token": "hl_o_again"},
        "revoke_operator": {"operator": "anna"},
        "list_operators": {"operators": [{"name": "anna", "class": "person", "created_at": ago(days=3), "state": "active"}]},
    }  # fmt: skip
