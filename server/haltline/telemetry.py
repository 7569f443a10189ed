"""What is counted and timed as it happens: for `/metrics`, and as spans where OpenTelemetry is configured.

Counts audit events once they are committed; a label is always a word of ours, never something that an agent, a tool or an
upstream said (P9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    from haltline.spans import Spans

__all__ = ["Telemetry"]

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
_SLOW_S = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ENDS = {"call.succeeded", "call.failed", "call.voided", "call.in_doubt"}


class Telemetry:
    def __init__(self, spans: Spans | None = None) -> None:
        self.spans = spans
        self.registry = CollectorRegistry(auto_describe=True)
        self._decisions = Counter(
            "haltline_decisions", "Calls decided, by outcome and the code of the first reason.", ["outcome", "code"],
            registry=self.registry,
        )  # fmt: skip
        self._ends = Counter("haltline_calls", "Calls ended, by how.", ["outcome"], registry=self.registry)
        self._spent = Counter(
            "haltline_spent_micros", "Charged, in millionths of the policy's currency.", registry=self.registry
        )
        self._rules = Counter(
            "haltline_rules_fired", "Rules that fired, by the policy's name for them.", ["rule"], registry=self.registry
        )
        self._drills = Counter("haltline_drills", "Drills, by whether they held.", ["outcome"], registry=self.registry)
        self._decided = Histogram(
            "haltline_decision_seconds", "From a call's arrival to its committed decision, drills' included.", buckets=_FAST_S,
            registry=self.registry,
        )  # fmt: skip
        self._dispatched = Histogram(
            "haltline_dispatch_seconds",
            "A call at its upstream.",
            ["upstream"],
            buckets=_SLOW_S,
            registry=self.registry,
        )
        self._stopped = Histogram(
            "haltline_stop_seconds", "From an operator's revoke or halt to its return.", ["act"], buckets=_FAST_S,
            registry=self.registry,
        )  # fmt: skip
        self._known: dict[tuple[str, str], Any] = {}

    def heard(self, kind: str, body: Any) -> None:
        """One audit event that was committed. A drill's calls are no calls of agents, so that they are not among them."""
        if kind == "drill.ended":
            self._drills.labels("held" if body.get("ok") else "failed").inc()
        elif body.get("drill") is True:
            return
        elif kind == "call.allowed":
            self._decision("allow", "").inc()
        elif kind == "call.denied":
            reasons = body.get("reasons") or ()
            self._decision(body.get("decision", "deny"), reasons[0]["code"] if reasons else "").inc()
        elif kind in _ENDS:
            self._end(kind.partition(".")[2]).inc()
            self._spent.inc(body.get("charged_micros", 0))
        elif kind == "call.resolved":
            self._spent.inc(body.get("charged_micros") or 0)
        elif kind == "rule.fired":
            self._rules.labels(str(body.get("rule", ""))).inc()

    def decided(self, seconds: float) -> None:
        self._decided.observe(seconds)

    def dispatched(self, upstream: str, seconds: float) -> None:
        known = self._known.get(("dispatch", upstream))
        if known is None:
            known = self._known["dispatch", upstream] = self._dispatched.labels(upstream)
        known.observe(seconds)

    def stopped(self, act: str, seconds: float) -> None:
        self._stopped.labels(act).observe(seconds)

    def _decision(self, outcome: str, code: str) -> Any:
        known = self._known.get((outcome, code))
        if known is None:
            known = self._known[outcome, code] = self._decisions.labels(outcome, code)
        return known

    def _end(self, outcome: str) -> Any:
        known = self._known.get(("end", outcome))
        if known is None:
            known = self._known["end", outcome] = self._ends.labels(outcome)
        return known

    def close(self) -> None:
        if self.spans is not None:
            self.spans.close()
