"""Rules over an agent's ways in whole calls: what halts stops the very call, what alerts lets it go, restarts forget nothing."""

from __future__ import annotations

import anyio
import pytest

from haltline.signals.state import AgentSignals
from haltline.signals.table import folded
from support.scripted import ScriptedUpstream
from support.world import POLICY, Request, World, world

RULES = """
rules:
  fast: {kind: velocity, over: "0.10", window: 15m, do: halt, tiers: [roomy]}
  twice: {kind: repeats, times: 3, do: alert, tiers: [experimental]}
  payees: {kind: first_use, of: destination, declared: [acme], do: halt, running: cancel, tiers: [experimental]}
"""
CHARGES = '  payments__charge: {price: "0.05"}'
RULED = POLICY.replace(CHARGES, '  payments__charge: {price: "0.05", destination: args.recipient}') + RULES


async def live_and_recomputed(there: World, agent_id: str) -> tuple[dict, dict]:
    rows = await there.parts.reader.rows("SELECT body FROM events WHERE agent_id = ? ORDER BY seq", (agent_id,))
    live = await there.run(lambda tx: there.parts.signals.agent(tx, agent_id).stored())
    recomputed = folded([row["body"] for row in rows], AgentSignals(), "UTC").stored()
    return {**live, "seq": 0}, {**recomputed, "seq": 0}


@pytest.mark.promise("R27", "R18")
async def test_a_counting_rule_halts_at_the_very_call_that_crosses_its_line(tmp_path):
    async with world(tmp_path, policy=RULED) as there:
        agent = await there.agent(tier="roomy")
        _, token = await there.session(agent)
        for _ in range(2):
            assert "result" in await there.call(token)
        answer = await there.call(token)
        assert answer["result"]["isError"]
        assert answer["result"]["content"][0]["text"].startswith("Halted [rule.fast]: 0.10 USD in 15 min: 0.15")
        assert [state for _, state, _, _ in await there.holds()] == ["settled", "settled"]
        fired = await there.events("rule.fired")
        assert [(one["rule"], one["does"], one["facts"]) for one in fired] == [
            ("fast", "halt", {"limit": 100_000, "observed": 150_000})
        ]
        (halt,) = await there.halts()
        assert (halt.scope, halt.by) == ("agent", "rule fast")
        (alert,) = await there.parts.reader.rows("SELECT kind FROM alerts")
        assert alert["kind"] == "agent.halted"


@pytest.mark.promise("R27", "R18", "R11")
async def test_a_call_that_waits_to_be_sent_when_a_rule_halts_is_not_sent_and_one_that_was_sent_runs_on(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script |= {"refund": upstream.waiting_unsent, "charge": upstream.waiting}
    async with world(tmp_path, policy=RULED, upstreams=[upstream]) as there:
        _, token = await there.session(await there.agent(tier="roomy"))
        sent, waits = Request(token, "payments__charge"), Request(token, "payments__refund")
        answers = {}

        async def call(name: str, request: Request) -> None:
            answers[name] = await there.send(request)

        async with anyio.create_task_group() as tasks:
            for name, request in (("sent", sent), ("waits", waits)):
                upstream.started = anyio.Event()
                tasks.start_soon(call, name, request)
                with anyio.fail_after(20):
                    await upstream.started.wait()
            assert (await there.call(token))["result"]["isError"]  # the third crosses the line
            upstream.release.set()
        assert len(upstream.sent) == 1
        assert sent.delivered[0]["result"]["content"][0]["text"] == "late"
        assert waits.delivered == []
        assert answers["waits"]["result"]["content"][0]["text"].startswith("Halted [rule.fast]: ")
        assert [state for _, state, _, _ in await there.holds()] == ["settled", "voided"]


async def test_an_alerting_rule_lets_the_call_go_and_tells_once(tmp_path):
    async with world(tmp_path, policy=RULED) as there:
        agent = await there.agent()
        _, token = await there.session(agent)
        for _ in range(5):
            assert "result" in await there.call(token, arguments={"recipient": "acme"})
        assert [one["rule"] for one in await there.events("rule.fired")] == ["twice"]
        assert len(await there.parts.reader.rows("SELECT id FROM alerts")) == 1
        assert await there.halts() == []


async def test_a_destination_that_is_not_declared_is_never_reached(tmp_path):
    async with world(tmp_path, policy=RULED) as there:
        agent = await there.agent()
        _, token = await there.session(agent)
        await there.call(token, arguments={"recipient": "acme"})
        await there.call(token, arguments={"recipient": "mallory"})
        assert len(await there.holds()) == 1
        (fired,) = await there.events("rule.fired")
        assert fired["cause"] == "destination mallory"


@pytest.mark.promise("R8", "P12")
async def test_signals_are_the_same_folded_live_recomputed_and_after_a_restart(tmp_path):
    async with world(tmp_path, policy=RULED) as there:
        agent = await there.agent()
        _, token = await there.session(agent)
        for recipient in ("acme", "acme", "mallory"):
            await there.call(token, arguments={"recipient": recipient})
        await there.run(there.parts.signals.save)
        live, recomputed = await live_and_recomputed(there, agent.id)
        assert live == recomputed
        assert live["destinations"] == {"acme": 2}
        await there.call(token, arguments={"recipient": "acme"})
    async with world(tmp_path, policy=RULED) as again:
        live, recomputed = await live_and_recomputed(again, agent.id)
        assert live == recomputed
        assert live["refused"] == 2


async def test_a_unit_that_fails_leaves_no_trace_in_what_is_remembered(tmp_path):
    async with world(tmp_path, policy=RULED) as there:
        agent = await there.agent()
        _, token = await there.session(agent)
        await there.call(token, arguments={"recipient": "acme"})

        def broken(tx):
            from haltline.audit import Event, Kind

            body = {"amount_micros": 1, "same": "x"}
            there.parts.audit.append(tx, Event(Kind.CALL_ALLOWED, "t", agent_id=agent.id, tool="lost", body=body))
            raise ValueError("lost")

        with pytest.raises(ValueError, match="lost"):
            await there.run(broken)
        live, recomputed = await live_and_recomputed(there, agent.id)
        assert live == recomputed
        assert "lost" not in live["tools"]


@pytest.mark.promise("R8", "P12")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("UPDATE signals SET form = '0.older', state = CAST('{\"seq\":3,\"calls\":7}' AS BLOB)", "its form is 0.older"),
        ("UPDATE signals SET form = '', digest = x''", "its form is an old one"),
        ("UPDATE signals SET state = substr(state, 1, length(state) / 2)", "it is damaged"),
        ("UPDATE signals SET state = CAST(replace(state, '\"calls\":3', '\"calls\":9') AS BLOB)", "it is damaged"),
        ("UPDATE signals SET state = x'5b5d'", "it is damaged"),
    ],
)
@pytest.mark.parametrize("at_start", [True, False])
async def test_a_snapshot_of_another_form_or_a_damaged_one_is_rebuilt_from_the_log_and_said_to_be(
    tmp_path, capfd, spoil, why, at_start
):
    async with world(tmp_path, policy=RULED) as there:
        agent = await there.agent()
        _, token = await there.session(agent)
        for _ in range(3):
            await there.call(token, arguments={"recipient": "acme"})
        await there.run(there.parts.signals.save)
        changed = await there.run(lambda tx: tx.execute(spoil).rowcount)
        assert changed == 1
    async with world(tmp_path, policy=RULED) as again:
        while at_start and await again.run(again.parts.signals.catch_up):
            pass
        assert "result" in await again.call(token, arguments={"recipient": "acme"})
        live, recomputed = await live_and_recomputed(again, agent.id)
        assert live == recomputed
        assert live["calls"] == 4
        said = "".join(capfd.readouterr())
        assert (said.count("signals_rebuilt_from_the_log"), said.count(why)) == (1, 1)


async def test_with_more_agents_than_are_remembered_each_is_let_go_of_with_its_snapshot(tmp_path):
    async with world(tmp_path, policy=RULED) as there:
        signals = there.parts.signals
        signals._most = 2
        agents = [await there.agent(f"agent-{number}") for number in range(5)]
        tokens = [(await there.session(agent))[1] for agent in agents]
        for _ in range(2):
            for token in tokens:
                assert "result" in await there.call(token, arguments={"recipient": "acme"})
        await there.run(signals.save)
        behind = await there.parts.reader.rows(
            "SELECT 1 FROM agents LEFT JOIN signals ON agent_id = agents.id"
            " WHERE seq IS NULL OR seq < (SELECT max(seq) FROM events WHERE events.agent_id = agents.id)"
        )
        assert behind == []
        for agent in agents:
            live, recomputed = await live_and_recomputed(there, agent.id)
            assert live == recomputed


@pytest.mark.promise("P6")
async def test_a_tool_without_the_argument_that_names_whom_it_reaches_is_refused_and_listed_as_astray(tmp_path):
    async with world(tmp_path, policy=RULED.replace("args.recipient", "args.payee")) as there:
        _, token = await there.session(await there.agent())
        answer = await there.call(token, arguments={"recipient": "acme"})
        text = answer["result"]["content"][0]["text"]
        assert text.startswith(
            "Denied [policy.error]: whom payments__charge reaches is to be read from args.payee, but"
        )
        assert await there.holds() == []
        assert "result" in await there.call(token, "payments__refund")
        assert len(await there.holds()) == 1
