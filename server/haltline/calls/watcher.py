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

from haltline.errors import StoreUnavailable
from haltline.policy.watch_ways import Silence, TaskSilence
from haltline.rules.afterwards import ask
from haltline.rules.asking import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.identity import AgentRow
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["LOOK_EVERY_S", "Watcher"]

LOOK_EVERY_S = 0.5
SESSIONS_EVERY_LOOKS = 10
SAVE_EVERY_LOOKS = 60
SESSIONS_AN_AGENT = 500
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
                if looks % SESSIONS_EVERY_LOOKS == 0:
                    await self.look_at_sessions()
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
        for _ in range(
            0, self._parts.signals.waits, AGENTS_A_UNIT
        ):  # not of what is told meanwhile: that would never end
            await self._parts.writer.run(lambda tx: self._of_facts(tx, policy))

    async def look_at_sessions(self) -> None:
        """Ask the rules about every session that goes on and of which nothing is heard."""
        policy = self._parts.policies.current
        if policy is None or policy.shortest_task_silence_s is None:
            return
        outputs: dict[str, int] = {}
        for running in self._parts.calls.dispatched():
            session, (_, since_us) = running.session_id or "", self._heard.get(running.id, (0, 0))
            outputs[session] = max(outputs.get(session, 0), since_us)
        after: str | None = ""
        while after is not None:
            after = await self._parts.writer.run(
                partial(self._of_sessions, policy=policy, after=after, outputs=outputs)
            )

    def _of_sessions(self, tx: Tx, policy: Policy, after: str, outputs: Mapping[str, int]) -> str | None:
        """Some agents' sessions; the last agent's id, or None where there is none after it."""
        agents = self._parts.identity.active_after(tx, after, AGENTS_A_UNIT)
        for agent in agents:
            rules = [rule for rule in policy.watch(agent.tier, agent.handle) if isinstance(rule, TaskSilence)]
            if rules:
                self._of_agent_s_sessions(tx, policy, agent, rules, outputs)
        return agents[-1].id if agents else None

    def _of_agent_s_sessions(
        self, tx: Tx, policy: Policy, agent: AgentRow, rules: list[TaskSilence], outputs: Mapping[str, int]
    ) -> None:
        identity, now_us = self._parts.identity, tx.now_us
        open_ones = identity.sessions(tx, agent_id=agent.id, all_states=False, most=SESSIONS_AN_AGENT)
        if not open_ones:
            return
        heard_us = self._parts.signals.agent(tx, agent.id).sessions
        above = {one.id: one.parent_id for one in open_ones}
        last: dict[str, int] = {}
        for one in open_ones:  # what is heard of a child is heard of those above it, and they are asked about
            root = one.id
            while above.get(root) is not None:
                root = str(above[root])
            last[root] = max(last.get(root, 0), heard_us.get(one.id, 0), outputs.get(one.id, 0))
        shortest_us = int(min(rule.for_s for rule in rules) * 1_000_000)
        for one in open_ones:
            if last.get(one.id) and now_us - last[one.id] >= shortest_us:
                who = identity.principal(tx, agent, one)
                now = moment(tx, self._parts, policy, who)
                ask(tx, self._parts, policy, who, rules, now._replace(silent_tasks=((one.id, now_us - last[one.id]),)))

    def _silent(self, policy: Policy) -> dict[tuple[str, str], list[SilentCall]]:
        """Running calls without output for at least as long as some rule says, by agent and session."""
        shortest_s = policy.shortest_silence_s
        if shortest_s is None and policy.shortest_task_silence_s is None:
            return {}
        now_us = self._parts.clock.now_us()
        heard, self._heard = self._heard, {}
        found: dict[tuple[str, str], list[SilentCall]] = {}
        for running in self._parts.calls.dispatched():
            outputs, since_us = heard.get(running.id, (running.outputs, now_us))
            if outputs != running.outputs:
                outputs, since_us = running.outputs, now_us
            self._heard[running.id] = (outputs, since_us)
            if shortest_s is not None and now_us - since_us >= int(shortest_s * 1_000_000):
                key = (running.agent_id or "", running.session_id or "")
                found.setdefault(key, []).append((running.id, running.tool, now_us - since_us))
        return found

    def _of_silence(
        self, tx: Tx, policy: Policy, agent_id: str, session_id: str, silent: tuple[SilentCall, ...]
    ) -> None:
        who = replace(self._who(tx, agent_id), session_id=session_id)
        rules = [rule for rule in policy.watch(who.tier, who.agent) if isinstance(rule, Silence)]
        ask(tx, self._parts, policy, who, rules, moment(tx, self._parts, policy, who)._replace(silent=silent))

    def _of_facts(self, tx: Tx, policy: Policy) -> None:
        for agent_id in self._parts.signals.touched(AGENTS_A_UNIT):
            who = self._who(tx, agent_id)
            rules = [rule for rule in policy.watch(who.tier, who.agent) if not (rule.counting or rule.each)]
            if rules:
                ask(tx, self._parts, policy, who, rules, moment(tx, self._parts, policy, who))

    def _who(self, tx: Tx, agent_id: str) -> Principal:
        return self._parts.identity.sessionless(self._parts.identity.agent_by_id(tx, agent_id))
