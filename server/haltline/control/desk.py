"""What every act of an operator shares: who asks, whether their credential may, one unit of work, and its audit event.

Owns the rule which acts need a person (R21) and the record of refused ones. Knows neither the wire nor what an act means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import structlog

from haltline.audit import Event, Kind
from haltline.errors import Forbidden, HaltlineError, RequestError
from haltline.identity import Unknown
from haltline.upstreams.model import Caller

if TYPE_CHECKING:
    from haltline.identity import AgentRow
    from haltline.parts import Parts
    from haltline.store.writer import Tx

__all__ = ["PERSON_ONLY", "Desk", "Operator", "Request", "Stranger"]

T = TypeVar("T")

PERSON_ONLY = frozenset(
    {
        "resume",
        "reissue_agent",
        "resolve_in_doubt",
        "import_tools",
        "approve_tool",
        "acknowledge_alert",
        "resolve_alert",
        "reload_policy",
        "add_operator",
        "rotate_operator",
        "revoke_operator",
    }
)
"""Whatever loosens. The credential that the command line finds by itself on the broker's machine may do the rest (R21)."""

OPERATORS = frozenset({"o"})
REASON_MAX_CHARS = 500
TEARDOWN_S = 1.0
"""How long after a stop the streams and processes of what was stopped may take to end (R17)."""
_ARGUMENTS_MAX = 32
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One act as it was asked for: by whose token, from which address, with which arguments."""

    act: str
    token: str | None
    source: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, resolved inside the unit that does it."""

    name: str
    cls: Literal["person", "local"]

    @property
    def actor(self) -> str:
        return f"operator:{self.name}"


class Stranger(Exception):
    """The token is no operator's (any more). `code` is one of `credential.*`."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__(unknown.text)
        self.code = unknown.code
        self.text = unknown.text


_ENDED = Unknown(
    "credential.revoked", "This operator credential was revoked or replaced; ask another operator for a new one."
)


class Desk:
    """Where an operator's act becomes one unit of work."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._teardowns: set[asyncio.Task[None]] = set()

    # one act

    async def act(self, request: Request, unit: Callable[[Tx, Operator], T]) -> T:
        """Run `unit` before everything that waits, once the credential and its class were checked in the same unit.

        Raises Stranger, Forbidden, StoreUnavailable, and what the unit raises; then nothing of it is done.
        """

        def whole(tx: Tx) -> T:
            operator = self.identify(tx, request.token)
            if request.act in PERSON_ONLY and operator.cls != "person":
                raise Forbidden(
                    f"{request.act} needs a person's own operator credential; the one found on the broker's machine may "
                    "look, halt, revoke, add agents and open sessions (set HALTLINE_OPERATOR_TOKEN)"
                )
            return unit(tx, operator)

        return await self.parts.writer.run(whole, urgent=True)

    def identify(self, tx: Tx, token: str | None) -> Operator:
        """The operator of a live credential. Raises Stranger."""
        credential = self.parts.identity.verify(tx, token, OPERATORS)  # type: ignore[arg-type]  # one of the classes
        if isinstance(credential, Unknown):
            raise Stranger(credential)
        if credential.revoked_us is not None:
            raise Stranger(_ENDED)
        assert credential.operator is not None
        row = self.parts.identity.operator(tx, credential.operator)
        return Operator(row.name, row.cls)

    async def refused(self, request: Request, error: HaltlineError) -> None:
        """Record an act that was not done. Raises Stranger where its token is nobody's: then that is the answer."""

        def record(tx: Tx) -> None:
            body = {"act": request.act, "code": error.code, "text": self.plain(str(error)), "from": request.source}
            target = _target(request.arguments)
            if target is not None:
                body["target"] = self.plain(target)
            given = dict(list(request.arguments.items())[:_ARGUMENTS_MAX])
            operator = self.identify(tx, request.token)
            self.parts.audit.append(
                tx, Event(Kind.CONTROL_REFUSED, operator.actor, body=body, payloads={"arguments": given})
            )

        await self.parts.writer.run(record, urgent=True)

    # words for the record

    def why(self, reason: str) -> str:
        """The reason as it is kept. Raises RequestError when it says nothing or too much."""
        text = reason.strip()
        if not text:
            raise RequestError("reason: say why, in a few words; it is what the audit log will tell")
        if len(text) > REASON_MAX_CHARS:
            raise RequestError(f"reason: at most {REASON_MAX_CHARS} characters; this one has {len(text)}")
        return self.plain(text)

    def plain(self, text: str) -> str:
        """Text of a person for the record: people paste the very token that leaked into the reason (P9)."""
        return self.parts.audit.redactor.text(text)

    def event(
        self,
        kind: Kind,
        operator: Operator,
        request: Request,
        *,
        agent: AgentRow | None = None,
        session: str | None = None,
        body: Mapping[str, Any],
    ) -> Event:
        """Who did what, from where; when is the transaction's time. Keys of `body` that are None are left out."""
        policy = self.parts.policies.current
        said = {"act": request.act, "from": request.source, **body}
        return Event(
            kind,
            operator.actor,
            agent=None if agent is None else agent.handle,
            agent_id=None if agent is None else agent.id,
            session=session,
            policy=None if policy is None else policy.version,
            body={key: value for key, value in said.items() if value is not None},
        )

    # afterwards

    def tear_down(self, callers: Iterable[Caller]) -> None:
        """End the streams and processes that existed for these alone, beside the answer. A `session_id` of "" is all."""
        for caller in callers:
            task = asyncio.get_running_loop().create_task(self._forget(caller), name="haltline-teardown")
            self._teardowns.add(task)
            task.add_done_callback(self._teardowns.discard)

    async def _forget(self, caller: Caller) -> None:
        try:
            with anyio.move_on_after(TEARDOWN_S) as scope:
                await self.parts.catalog.forget(caller, session_only=bool(caller.session_id))
        except Exception:  # the boundary: the stop itself is done, this only cleans up after it
            log.exception("teardown_failed", agent=caller.agent_id, session=caller.session_id)
            return
        if scope.cancelled_caught:
            log.warning("teardown_too_slow", agent=caller.agent_id, session=caller.session_id, after_s=TEARDOWN_S)


def _target(arguments: Mapping[str, Any]) -> str | None:
    """What a refused act was about, whatever its tool calls it."""
    for key in ("target", "agent", "session", "call", "handle", "name", "tool", "upstream", "episode", "id"):
        value = arguments.get(key)
        if isinstance(value, str):
            return value[:200]
    return None
