from __future__ import annotations

import anyio

from support.desk import Desk


async def test_a_quiet_broker_says_that_it_is_ready(at: Desk) -> None:
    at.clock.forward(90)
    status = await at.ask("status", at.local)
    assert status["ready"] is True
    assert status["not_ready_because"] is None
    assert (status["uptime_s"], status["version"]) == (90.0, "0.0.0")
    assert status["policy"] == {"version": at.parts.policies.current.version, "mode": "enforce", "problems": []}
    assert status["halts"] == status["agents"] == []
    nothing = {"micros": 0, "text": "0.00 USD"}
    assert status["in_doubt"] == {"count": 0, "amount": nothing, "oldest_at": None, "charges_at": None}
    assert status["alerts"] == {
        "backlog": 0, "oldest_at": None, "oldest_age_s": 0.0, "failed": 0, "open_episodes": 0, "channels": [],
    }  # fmt: skip
    assert status["upstreams"][0]["state"] == "ready"
    assert status["store"]["events"] == len(at.upstream.tools), "each definition was pinned at first sight"
    assert status["store"]["size_bytes"] > 0


async def test_it_shows_who_runs_who_spends_and_who_is_halted(at: Desk) -> None:
    await at.agent()
    await at.agent("other")
    session = await at.session()
    await at.call(session["token"])
    at.upstream.script["slow"] = at.upstream.waiting
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.call, session["token"], "payments__slow")
            await at.upstream.started.wait()
            await at.ask("halt", target="other", reason="stop")
            first, second = (await at.ask("status"))["agents"]
            at.upstream.release.set()
    assert (first["agent"], first["state"], first["sessions_open"], first["running"]) == ("booking-7", "active", 1, 1)
    assert (first["spent_day"]["text"], first["held"]["text"], first["cap_day"]["text"]) == (
        "0.05 USD",
        "0.10 USD",
        "5.00 USD",
    )
    assert (second["agent"], second["state"]) == ("other", "halted")


async def test_halts_of_sessions_that_ended_are_no_longer_shown(at: Desk) -> None:
    await at.agent()
    for expires_in in ("1m", "8h"):
        session = await at.session(expires_in=expires_in)
        await at.ask("halt", target=session["session"], reason=expires_in)
    assert [one["text"] for one in (await at.ask("status"))["halts"]] == ["1m", "8h"]
    at.clock.forward(61)
    assert [one["text"] for one in (await at.ask("status"))["halts"]] == ["8h"]
