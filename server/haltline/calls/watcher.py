"""Rules over history and time: asked in a background reader of committed facts, never on the path of a call (R27).

What fires commits its event, its alert and its halt in one transaction; no call of that agent is dispatched after it.
Also keeps the snapshots of signals young, so that a start has little to fold.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import structlog

from haltline.calls import records
from haltline.calls.watching import asked, cancel, fire, halt_of, moment
from haltline.errors import StoreUnavailable
from haltline.facts import gather
from haltline.policy.model import CapKind
from haltline.policy.watch import Forecast, Silence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.policy.watch import Moment, WatchRule
    from haltline.store.writer import Tx

__all__ = ["LOOK_EVERY_S", "Watcher"]

LOOK_EVERY_S = 0.5
SAVE_EVERY_LOOKS = 60
AGENTS_A_UNIT = 20
"""So many are looked at in one unit of work, so that no call waits long behind them."""
log = structlog.get_logger(__name__)
SilentCall = tuple[str, str, int]
"""(call, tool, microseconds since its last output)"""


class Watcher:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._heard: dict[str, tuple[int, int]] = {}
        """Of each running call: how much it had put out when it was last seen to put out something, and when."""

    async def run(self) -> None:
        """For ever."""
        looks = 0
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            looks += 1
            try:
                await self.look()
                if looks % SAVE_EVERY_LOOKS == 0:
                    await self.save()
            except StoreUnavailable as error:
                log.error("rules_not_evaluated", error=str(error))

    async def save(self) -> None:
        while await self._parts.writer.run(self._parts.signals.save):
            pass

    async def look(self) -> None:
        """Ask the rules about every agent that did something since the last look, and about what runs in silence."""
        policy = self._parts.policies.current
        if policy is None:
            return
        for (agent_id, session_id), silent in self._silent(policy).items():
            unit = partial(
                self._of_silence, policy=policy, agent_id=agent_id, session_id=session_id, silent=tuple(silent)
            )
            await self._parts.writer.run(unit)
        while self._parts.signals.waits:
            await self._parts.writer.run(lambda tx: self._of_facts(tx, policy))

    def _silent(self, policy: Policy) -> dict[tuple[str, str], list[SilentCall]]:
        """Running calls without output for at least as long as some rule says, by agent and session."""
        shortest_s = policy.shortest_silence_s
        if shortest_s is None:
            return {}
        now_us = self._parts.clock.now_us()
        heard, self._heard = self._heard, {}
        found: dict[tuple[str, str], list[SilentCall]] = {}
        for running in self._parts.calls.dispatched():
            outputs, since_us = heard.get(running.id, (running.outputs, now_us))
            if outputs != running.outputs:
                outputs, since_us = running.outputs, now_us
            self._heard[running.id] = (outputs, since_us)
            if now_us - since_us >= int(shortest_s * 1_000_000):
                key = (running.agent_id or "", running.session_id or "")
                found.setdefault(key, []).append((running.id, running.tool, now_us - since_us))
        return found

    def _of_silence(
        self, tx: Tx, policy: Policy, agent_id: str, session_id: str, silent: tuple[SilentCall, ...]
    ) -> None:
        who = replace(self._who(tx, agent_id), session_id=session_id)
        now = moment(tx, self._parts, policy, who)
        rules = [rule for rule in policy.watch(who.tier, who.agent) if isinstance(rule, Silence)]
        for call in silent:
            self._ask(tx, policy, who, rules, now._replace(silent=(call,)))

    def _of_facts(self, tx: Tx, policy: Policy) -> None:
        for agent_id in self._parts.signals.touched(AGENTS_A_UNIT):
            who = self._who(tx, agent_id)
            rules = [rule for rule in policy.watch(who.tier, who.agent) if not rule.counting]
            if rules:
                now = moment(tx, self._parts, policy, who)
                if any(isinstance(rule, Forecast) for rule in rules):
                    now = now._replace(caps=self._caps(tx, policy, who))
                self._ask(tx, policy, who, rules, now)

    def _who(self, tx: Tx, agent_id: str) -> Principal:
        return self._parts.identity.sessionless(self._parts.identity.agent_by_id(tx, agent_id))

    def _ask(self, tx: Tx, policy: Policy, who: Principal, rules: Sequence[WatchRule], now: Moment) -> None:
        for rule in rules:
            fired = asked(rule, now)
            if fired is None or self._parts.halts.on(tx, who.session_id, who.agent_id):
                continue  # what is stopped already needs no second alarm
            fire(tx, self._parts, policy, who, fired, told=not fired.halts)
            if fired.halts:
                halt = halt_of(fired)
                records.halted(tx, self._parts, who, halt, policy.version)
                if rule.of.cancels:
                    cancel(tx, self._parts, who, halt)

    def _caps(self, tx: Tx, policy: Policy, who: Principal) -> tuple[tuple[str, int, int], ...]:
        """The caps of hour and day, with what a person added to them and what counts in them now."""
        facts = gather(tx, self._parts, who, policy)
        usage = {CapKind.HOUR: facts.hour, CapKind.DAY: facts.day}
        return tuple(
            (
                cap.kind.value,
                cap.limit + facts.allowances.get(cap.kind, 0),
                usage[cap.kind].settled_micros + usage[cap.kind].held_micros,
            )
            for cap in policy.limits(who)
            if cap.kind in usage
        )
