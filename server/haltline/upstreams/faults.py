"""What can go wrong with an upstream, in the words that an agent reads. One function for each, so that both kinds agree.

`detail` is for operators; nothing of it is in the text.
"""

from __future__ import annotations

from haltline.upstreams.model import NotSent, OutcomeUnknown

__all__ = [
    "failed_to_start",
    "http_error",
    "lost",
    "malformed",
    "overdue",
    "too_large",
    "too_late_to_send",
    "too_talkative",
    "unreachable",
]


def unreachable(name: str, detail: str | None = None) -> NotSent:
    return NotSent("upstream.unreachable", f"{name} cannot be reached now", detail)


def too_late_to_send(name: str) -> NotSent:
    return NotSent("upstream.unreachable", f"{name} was not ready in time")


def failed_to_start(name: str, detail: str | None, retry_s: float = 0) -> NotSent:
    text = f"{name} does not start" + (f"; the next attempt is due in {retry_s:.0f} s" if retry_s >= 1 else "")
    return NotSent("upstream.starting_failed", text, detail)


def overdue(name: str, seconds: float) -> OutcomeUnknown:
    return OutcomeUnknown("upstream.timeout", f"{name} did not answer within {seconds:g} s")


def lost(name: str, detail: str | None = None) -> OutcomeUnknown:
    return OutcomeUnknown("upstream.lost", f"the connection to {name} was lost before it answered", detail)


def too_large(name: str, max_bytes: int) -> OutcomeUnknown:
    return OutcomeUnknown("upstream.too_large", f"the answer of {name} is larger than the {max_bytes} bytes allowed")


def too_talkative(name: str) -> OutcomeUnknown:
    return OutcomeUnknown("upstream.too_large", f"{name} sent more messages beside its answer than are allowed")


def malformed(name: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown("upstream.malformed", f"the answer of {name} cannot be read: {why}")


def http_error(name: str, status: int) -> OutcomeUnknown:
    if 300 <= status < 400:
        text = f"{name} answered with a redirect (HTTP {status}), and redirects are not followed"
    else:
        text = f"{name} answered with HTTP {status}"
    return OutcomeUnknown("upstream.http_error", text)
