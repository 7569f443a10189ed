"""What is counted and timed as it happens: for `/metrics`, and as spans where OpenTelemetry is configured.

Counts audit events once they are committed; a label is always a word of ours, never something that an agent, a tool or an
upstream said (P9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from haltline.counters import Count, Times

if TYPE_CHECKING:
    from haltline.spans import Spans

__all__ = ["Telemetry"]

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
_SLOW_S = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ENDS = {
    "call.succeeded": "succeeded",
    "call.failed": "failed",
    "call.voided": "voided",
    "call.in_doubt": "in_doubt",
}


class Telemetry:
    def __init__(self, spans: Spans | None = None) -> None:
        self.spans = spans
        registry = self.registry = CollectorRegistry(auto_describe=True)
        self._decisions = Count(
            "haltline_decisions",
            "Calls decided, by outcome and the code of the first reason.",
            ["outcome", "code"],
            registry=registry,
        )
        self._ends = Count("haltline_calls", "Calls ended, by how.", ["outcome"], registry=registry)
        self._spent = Count(
            "haltline_spent_micros", "Charged, in millionths of the policy's currency.", registry=registry
        )
        self._rules = Count(
            "haltline_rules_fired", "Rules that fired, by the policy's name for them.", ["rule"], registry=registry
        )
        self._drills = Count("haltline_drills", "Drills, by whether they held.", ["outcome"], registry=registry)
        self._decided = Times(
            "haltline_decision_seconds",
            "From a call's arrival to its committed decision, drills' included.",
            bounds=_FAST_S,
            registry=registry,
        )
        self._dispatched = Times(
            "haltline_dispatch_seconds", "A call at its upstream.", ["upstream"], bounds=_SLOW_S, registry=registry
        )
        self._stopped = Times(
            "haltline_stop_seconds",
            "From an operator's revoke or halt to its return.",
            ["act"],
            bounds=_FAST_S,
            registry=registry,
        )

    def heard(self, kind: str, body: Any) -> None:
        """One audit event that was committed. A drill's calls are no calls of agents, so that they are not among them."""
        if kind == "drill.ended":
            self._drills.add(1, "held" if body.get("ok") else "failed")
        elif body.get("drill") is True:
            return
        elif kind == "call.allowed":
            self._decisions.add(1, "allow", "")
        elif kind == "call.denied":
            reasons = body.get("reasons") or ()
            self._decisions.add(1, body.get("decision", "deny"), reasons[0]["code"] if reasons else "")
        elif kind in _ENDS:
            self._ends.add(1, _ENDS[kind])
            self._spent.add(body.get("charged_micros", 0))
        elif kind == "call.resolved":
            self._spent.add(body.get("charged_micros") or 0)
        elif kind == "rule.fired":
            self._rules.add(1, str(body.get("rule", "")))

    def decided(self, seconds: float) -> None:
        self._decided.took(seconds)

    def dispatched(self, upstream: str, seconds: float) -> None:
        self._dispatched.took(seconds, upstream)

    def stopped(self, act: str, seconds: float) -> None:
        self._stopped.took(seconds, act)

    def close(self) -> None:
        if self.spans is not None:
            self.spans.close()
