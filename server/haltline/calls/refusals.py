"""A refusal as an agent reads it: a tool result with `isError`, one clear first line, the same facts in `_meta` (R22).

Never an HTTP error, never `structuredContent`: those kill clients or make them throw. Knows no policy and no store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from haltline.wire.eras import INVALID_PARAMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haltline.policy.model import Reason
    from haltline.wire.messages import Answer

__all__ = ["META_KEY", "as_error", "refusal", "refused_code"]

META_KEY = "io.haltline/refusal"
Verdict = Literal["denied", "halted", "unknown"]
_HEADS = {"denied": "Denied", "halted": "Halted", "unknown": "Unknown"}


def refusal(verdict: Verdict, reasons: Sequence[Reason], *, call: str | None = None) -> Answer:
    """`Denied [scope.tool]: … Do not retry; finish without it.` with every reason's facts in `_meta`."""
    first = reasons[0]
    lines = [f"{_HEADS[verdict]} [{first.code}]: {_sentence(first.text)} {_advice(verdict, first)}".rstrip()]
    lines += [f"Also [{reason.code}]: {_sentence(reason.text)}" for reason in reasons[1:]]
    facts: dict[str, Any] = {
        "decision": verdict,
        "reasons": [
            {"code": reason.code, "text": reason.text, "retryable": reason.retryable, "facts": dict(reason.facts)}
            for reason in reasons
        ],
    }
    if call is not None:
        facts["call"] = call
    content = [{"type": "text", "text": "\n".join(lines)}]
    return {"result": {"content": content, "isError": True, "_meta": {META_KEY: facts}}}


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _advice(verdict: Verdict, reason: Reason) -> str:
    if "do not retry" in reason.text:
        return ""
    if reason.code in {"args.schema", "args.rule"}:
        return "Correct the arguments before you call again."
    if reason.code == "args.idempotency_key":
        return "Nothing was sent."
    if verdict == "halted":
        return "This is stopped until an operator resumes it; do not retry."
    if verdict == "unknown":
        return "Do not retry: it may have run."
    return "You may retry shortly." if reason.retryable else "Do not retry; finish without it."


def as_error(answer: Answer) -> Answer:
    """The same refusal for what has no `isError`: prompts, resources, completions. The facts stay, in `data`."""
    result = answer.get("result")
    facts = result.get("_meta", {}).get(META_KEY) if isinstance(result, dict) else None
    if not isinstance(result, dict) or facts is None:
        return answer
    return {"error": {"code": INVALID_PARAMS, "message": result["content"][0]["text"], "data": {META_KEY: facts}}}


def refused_code(answer: object) -> str:
    """The first reason's code of a refusal; `call.refused` for what carries none: a name that nobody has, a stranger."""
    result = answer.get("result") if isinstance(answer, dict) else None
    facts = result.get("_meta", {}).get(META_KEY) if isinstance(result, dict) else None
    return "call.refused" if facts is None else str(facts["reasons"][0]["code"])
