"""Credentials per agent or tier: each is used for its own alone, on connections, sessions and processes of its own (R32)."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.upstreams.credentialed import CredentialedUpstream
from haltline.upstreams.credentials import Credential, Credentials
from haltline.upstreams.model import NOBODY, Caller, NotSent, OpenApiSource, UpstreamSpec
from haltline.upstreams.open import open_upstream
from support.api_documents import document, written_to
from support.http_api import http_api
from support.upstream_calls import Sent, closing, text_of
from support.who_upstream import WhoServer, who_server
from support.world import world

BILLING = Caller("agent_1", "ses_1", "billing", tier="production")
"""Has one of its own, although its tier has one too."""
BOOKING = Caller("agent_2", "ses_2", "booking", tier="production")
OTHER = Caller("agent_3", "ses_3", "other", tier="experimental")
OTHER_TOO = Caller("agent_4", "ses_4", "other-too", tier="experimental")
EVERYBODY = {BILLING: "billing", BOOKING: "production", OTHER: "shared", OTHER_TOO: "shared"}
CANARY = "c4n4ry"


def bearer(who: str) -> str:
    return f"Bearer {CANARY}-{who}"


def credential(name: str, who: str) -> Credential:
    return Credential(name, {"Authorization": bearer(who)}, {"WHO_TOKEN": bearer(who)})


def credentials(*, default: bool = True, listing: bool = True) -> Credentials:
    return Credentials(
        agents={"billing": credential("agent billing", "billing")},
        tiers={"production": credential("tier production", "production")},
        default=credential("default", "shared") if default else None,
        listing=credential("listing", "listing") if listing else None,
    )


@pytest.fixture(params=[True, False], ids=["2026-07-28", "handshake"])
def who(request: pytest.FixtureRequest) -> Iterator[WhoServer]:
    with who_server(modern=request.param) as server:
        yield server


def over_http(who: WhoServer, **more: Any) -> UpstreamSpec:
    return UpstreamSpec("who", url=who.url, **{"credentials": credentials(), **more})


def program(**more: Any) -> UpstreamSpec:
    env = {"COMMON": "yes", "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = {"credentials": credentials(), "env": env, **more}
    return UpstreamSpec("who", command=sys.executable, args=("-m", "support.who_upstream"), **arguments)


async def ask(upstream: Any, caller: Caller, mark: str = "") -> str:
    return text_of(await Sent()(upstream, "who", {"mark": mark}, caller=caller))


@pytest.mark.promise("R32", "P9")
async def test_each_request_over_http_carries_exactly_the_credential_of_its_caller(who: WhoServer) -> None:
    async with closing(open_upstream(over_http(who))) as upstream:
        assert [one["name"] for one in await upstream.list_tools()] == ["who"]
        assert {one.authorization for one in who.heard} == {bearer("listing")}
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(25):
                    for caller in EVERYBODY:
                        tasks.start_soon(ask, upstream, caller, f"{caller.agent} {number}")
        calls = who.calls()
        assert len(calls) == 100
        wrong = [
            one for one in calls for caller, name in EVERYBODY.items()
            if (one.mark or "").split()[0] == caller.agent and one.authorization != bearer(name)
        ]  # fmt: skip
        assert wrong == []
        await upstream.list_tools()
    by_connection: dict[int, set[str | None]] = defaultdict(set)
    by_session: dict[str, set[str | None]] = defaultdict(set)
    for one in who.heard:
        by_connection[one.connection].add(one.authorization)
        if one.session is not None:
            by_session[one.session].add(one.authorization)
    assert all(len(used) == 1 for used in by_connection.values()), "a connection carries one credential, ever"
    assert all(len(used) == 1 for used in by_session.values()), "and so does a session"
    print(f"\n{len(who.heard)} requests, {len(by_connection)} connections, {len(by_session)} sessions: 0 crossed")


@pytest.mark.promise("R32")
async def test_each_program_has_the_credential_of_its_caller_and_serves_no_other() -> None:
    async with closing(open_upstream(program(isolation="shared"))) as upstream:
        await upstream.list_tools()
        said: dict[str, set[str]] = defaultdict(set)
        for _ in range(3):
            for caller, name in EVERYBODY.items():
                *token, pid, common = (await ask(upstream, caller)).split()
                assert " ".join(token) == bearer(name)
                assert common == "yes", "what the entry gives to all is there too"
                said[name].add(pid)
        assert all(len(pids) == 1 for pids in said.values()), "one process for each credential"
        assert len(set.union(*said.values())) == 3


@pytest.mark.promise("R32")
async def test_agents_that_share_a_credential_still_share_no_process_by_default() -> None:
    async with closing(open_upstream(program())) as upstream:
        pids = {(await ask(upstream, caller)).split()[2] for caller in EVERYBODY}
        assert len(pids) == 4


@pytest.mark.promise("R32", "R11")
async def test_whoever_has_none_is_refused_readably_and_nothing_is_sent(who: WhoServer) -> None:
    async with closing(open_upstream(over_http(who, credentials=credentials(default=False)))) as upstream:
        sent = Sent()
        with pytest.raises(NotSent, match="who has no credential for this agent") as refused:
            await sent(upstream, "who", caller=OTHER)
        assert refused.value.code == "upstream.no_credential"
        assert (sent.asked, who.heard) == (0, [])
        assert await ask(upstream, BOOKING) == bearer("production")
        with pytest.raises(NotSent):
            await ask(upstream, Caller("agent_9", "ses_9"))


@pytest.mark.promise("R32")
async def test_an_agents_or_a_tiers_credential_never_lists_for_all(who: WhoServer) -> None:
    given = credentials(default=False, listing=False)
    spec = over_http(who, credentials=given, headers={"X-Fixed": "1"})
    async with closing(open_upstream(spec)) as upstream:
        await upstream.list_tools()
        assert {one.authorization for one in who.heard} == {None}
    with who_server(modern=who.modern) as again:
        async with closing(open_upstream(over_http(again, credentials=credentials(listing=False)))) as upstream:
            await upstream.list_tools()
            assert {one.authorization for one in again.heard} == {bearer("shared")}


@pytest.mark.promise("R32")
async def test_an_api_is_called_with_the_credential_of_the_caller_too(tmp_path: Path) -> None:
    async with http_api() as api:
        paths = {"/any": {"get": {"operationId": "get", "responses": {}}}}
        source = OpenApiSource(written_to(tmp_path, document(paths)), base_url=api.url, allow_private=True)
        async with closing(open_upstream(UpstreamSpec("crm", openapi=source, credentials=credentials()))) as crm:
            await crm.list_tools()
            for caller in EVERYBODY:
                await Sent()(crm, "get", caller=caller)
        assert [one.headers["authorization"] for one in api.seen] == [bearer(name) for name in EVERYBODY.values()]


async def test_what_a_credential_says_replaces_what_the_entry_gives_to_all_in_any_case(who: WhoServer) -> None:
    async with closing(open_upstream(over_http(who, headers={"authorization": "Bearer all"}))) as upstream:
        assert await ask(upstream, BILLING) == bearer("billing")


async def test_a_credential_that_is_refused_spoils_no_others(who: WhoServer) -> None:
    who.refuse.add(bearer("billing"))
    async with closing(open_upstream(over_http(who))) as upstream:
        with pytest.raises(NotSent):
            await ask(upstream, BILLING)
        assert await ask(upstream, BOOKING) == bearer("production")
        assert await ask(upstream, OTHER) == bearer("shared")
        who.refuse.clear()
        assert await ask(upstream, BILLING) == bearer("billing")


@pytest.mark.promise("R32")
async def test_the_bound_on_calls_holds_for_all_credentials_together() -> None:
    running = most = 0

    class Slow:
        def __init__(self, spec: UpstreamSpec) -> None:
            self.spec = spec
            self.capabilities: dict[str, Any] = {}

        async def list_tools(self) -> list[Any]:
            return []

        async def call(self, call: Any) -> dict[str, Any]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await anyio.sleep(0.01)
            running -= 1
            return {"result": {"content": [{"type": "text", "text": ""}]}}

        async def aclose(self) -> None:
            return

    spec = UpstreamSpec("slow", url="http://127.0.0.1:1/", max_concurrent=4)
    upstream = CredentialedUpstream(spec, credentials(), Slow)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        for caller in [*EVERYBODY] * 5:
            tasks.start_soon(ask, upstream, caller)
    assert most == 4


@pytest.mark.promise("R32")
async def test_what_is_told_on_one_credentials_line_reaches_no_others() -> None:
    upstream = CredentialedUpstream(program(isolation="shared"), credentials(), open_upstream)
    heard: list[Any] = []
    upstream.on_told(lambda line, message: heard.append((line, message)) is None)
    lines = {caller: upstream.line_of(caller, NOBODY) for caller in EVERYBODY}
    assert len(set(lines.values())) == 3
    inner = {name: door.upstream for name, door in upstream._doors.items()}
    inner["agent billing"]._told(("", "", ""), {"method": "notifications/resources/updated"})
    assert [line for line, _ in heard] == [lines[BILLING]]
    upstream.quiet(lines[BILLING], "file:///x")
    async with closing(upstream):
        await ask(upstream, BOOKING)
        anonymous = Caller(BOOKING.agent_id, BOOKING.session_id)
        assert upstream.line_of(anonymous, NOBODY) == lines[BOOKING], "as it called last"


@pytest.mark.promise("P9", "R32")
async def test_no_credential_is_in_the_records_the_log_or_a_text(
    who: WhoServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = over_http(who, credentials=credentials(default=False))
    assert CANARY not in repr(spec)
    policy = (
        'version: "1"\ncurrency: USD\ntime_zone: UTC\ntiers:\n'
        '  production: {tools: ["*"], caps: {task: "9.00"}}\n  experimental: {tools: ["*"], caps: {task: "9.00"}}\n'
        'tools:\n  who__who: {price: "0.05"}\n'
    )
    texts: list[Any] = []
    async with world(tmp_path, policy=policy, upstreams=(open_upstream(spec),)) as at:  # type: ignore[arg-type]
        tokens = {}
        for caller in EVERYBODY:
            agent = await at.agent(caller.agent, caller.tier)
            tokens[caller.agent] = (await at.session(agent))[1]
        assert (await at.call(tokens["billing"], "who__who"))["result"]["content"][0]["text"] == bearer("billing")
        refused = (await at.call(tokens["other"], "who__who"))["result"]
        assert refused["content"][0]["text"].startswith("Denied [upstream.no_credential]: who has no credential")
        assert refused["content"][0]["text"].endswith("Do not retry; finish without it.")
        assert [state for _, state, _, _ in await at.holds()] == ["settled", "voided"]
        who.refuse.add(bearer("production"))
        texts += [await at.call(tokens["booking"], "who__who"), at.parts.catalog.states(), refused]
        await at.run(lambda tx: tx.execute("DELETE FROM payloads"))  # where this upstream echoes what it was given
        await at.parts.catalog.aclose()
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert CANARY.encode() not in stored
    logged = capfd.readouterr()
    assert CANARY not in logged.out + logged.err + repr(texts)
