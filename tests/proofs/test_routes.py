"""Every route, method and sort of credential on both listeners: who may pass, and that nobody else does (P6, R21, R23).

Black box and blunt: whatever answers with a success is written down and laid beside what may.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.load import HANDSHAKE_VERSION, META, MODERN_VERSION
from support.broker_process import BrokerProcess, broker_process
from support.callers import REFUSAL_KEY
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.raw_http import RawAnswer, raw_request
from support.small_caps import POLICY, upstream

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
PATHS = (
    "/mcp", "/healthz", "/readyz", "/", "/mcp/", "//mcp", "/MCP", "/%6dcp", "/mcp%00", "/mcp;x", "/mcp?token={token}",
    "/./mcp", "/x/../mcp", "/metrics", "/sse", "/messages", "/docs", "/openapi.json", "/admin", "/status", "/console",
    "/.well-known/oauth-protected-resource", "/healthz/", "/healthz?x=1", "/readyz/../mcp",
)  # fmt: skip
OPEN = {("control", method, path) for method in ("GET", "HEAD") for path in ("/healthz", "/readyz", "/healthz?x=1")}
"""What answers without a credential."""
KINDS = ("none", "junk", "malformed", "unknown", "expired", "revoked", "session", "agent", "operator", "local")
OF = {"agents": {"session", "agent"}, "control": {"operator", "local"}}
DEAD = {"expired", "revoked"}
HOSTS = (
    "evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1:{port}.evil.example",
    "127.0.0.1:{port}@evil.example", "localhost:{port}@evil.example", "evil.example@127.0.0.1:{port}",
    "127.0.0.1:{port}/evil", "127.0.0.1:{port}?evil", "127.0.0.1:{port}#evil", "127.0.0.1", "localhost", "127.0.0.1:1",
    "[::1]:1", "0.0.0.0:{port}", "127.1:{port}", "2130706433:{port}", "127.0.0.1:{port},evil.example",
    "evil.example,127.0.0.1:{port}", "127.0.0.1:0{port}", "localhost.:{port}", "http://127.0.0.1:{port}", "",
    "127.0.0.1:{port}\r\nHost: evil.example", "evil.example\r\nHost: 127.0.0.1:{port}",
)  # fmt: skip
ORIGINS = (
    "http://evil.example", "null", "", "http://127.0.0.1:{port}@evil.example", "http://localhost:{port}.evil.example",
    "http://127.0.0.1:{port}/", "http://127.0.0.1:1", "https://evil.example:{port}", "file://", "chrome-extension://x",
    "http://127.0.0.1:{port} http://evil.example", "http://127.0.0.1:{port},http://evil.example", "http://[::1]:1", "*",
    "javascript:alert(1)", "http://localhost:1@evil.example", "moz-extension://x", "data:", "about:blank", "http://2130706433",
)  # fmt: skip
PIECES = ("'", '"', ";", "--", "/*", " OR 1=1", "' OR '1'='1", "') OR ('1'='1", " UNION SELECT hash FROM credentials", "\\",
          "%27", "\x7f", "\xff", "%", "_", "*", "\t", "hl_s_", "hl_o_", "hl_a_", "'; DROP TABLE credentials; --")  # fmt: skip


@dataclass
class Place:
    """The broker, a credential of each sort, and what passed."""

    broker: BrokerProcess
    tokens: Mapping[str, str]
    requests: int = 0
    passed: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """(listener, method, path, credential) → how often it was served."""
    failed: list[tuple[Any, ...]] = field(default_factory=list)
    """Answers of 500 and above."""

    def port(self, listener: str) -> int:
        return self.broker.agents_port if listener == "agents" else int(self.broker.control_url.rsplit(":", 1)[1])

    def ask(
        self, listener: str, method: str, path: str, lines: list[bytes], body: bytes = b"", host: bytes | None = None
    ) -> RawAnswer:
        self.requests += 1
        answer = raw_request(self.port(listener), method, path, lines, body, host=host)
        not_ready = (
            path == "/readyz" and answer.status == 503
        )  # a live operator's own halt of everything, which is no fault
        if answer.status >= 500 and not not_ready:
            self.failed.append((listener, method, path, lines[-1:], answer.status))
        return answer


def _messages(listener: str) -> Iterator[tuple[str, list[bytes], bytes]]:
    """(name, header lines, body) of requests in both eras."""
    calls: list[tuple[str, dict[str, Any]]] = [("now__pay", {"reference": "through-a-side-door"})]
    if listener == "control":
        calls = [
            ("status", {}),
            ("add_agent", {"handle": "intruder", "tier": "wide"}),
            ("halt", {"target": "everything", "reason": "x"}),
        ]
    info = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    requests = [("initialize", info), ("ping", {}), ("tools/list", {})]
    requests += [("tools/call", {"name": name, "arguments": arguments}) for name, arguments in calls]
    base = [b"Content-Type: application/json", b"Accept: application/json, text/event-stream"]
    for method, params in requests:
        told = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        yield method, [*base, b"MCP-Protocol-Version: " + HANDSHAKE_VERSION.encode()], json.dumps(told).encode()
    for method, params in [("server/discover", {}), *requests[2:]]:
        told = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        lines = [*base, b"MCP-Protocol-Version: " + MODERN_VERSION.encode(), b"Mcp-Method: " + method.encode()]
        if "name" in params:
            lines.append(b"Mcp-Name: " + str(params["name"]).encode())
        yield method, lines, json.dumps(told).encode()


def _served(method: str, answer: RawAnswer) -> bool:
    """Whether anything was done or shown: not for a refusal, an error, an empty list, or a greeting."""
    if not 200 <= answer.status < 300:
        return False
    message = answer.json
    if not isinstance(message, dict) or "jsonrpc" not in message:
        return True
    result = message.get("result")
    if result is None or REFUSAL_KEY in (result.get("_meta") or {}):
        return False
    return method == "tools/call" or bool(result.get("tools"))


def _bearer(token: str) -> list[bytes]:
    return [b"Authorization: Bearer " + token.encode("latin-1")] if token else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Place, Any]]:
    with (
        counting_upstream(tmp_path) as now,
        broker_process(tmp_path / "broker", upstreams={"now": upstream(now.url)}, policy=POLICY) as broker,
    ):
        broker.await_tools("now__pay")
        with broker.control() as control:
            agent = control.add_agent("agent", "wide", credential=True)
            live = control.open_session("agent", "a task")
            dead = control.open_session("agent", "a task")
            short = control.open_session("agent", "a task", expires_in="1s")
            control.revoke(dead["session"], reason="to see")
        time.sleep(1.1)  # it must have expired by the broker's own clock
        mixed = live["token"][:-6] + "AAAAAA"
        yield (
            Place(
                broker,
                {
                    "none": "",
                    "junk": "letmein",
                    "malformed": mixed,
                    "unknown": _stranger(),
                    "expired": short["token"],
                    "revoked": dead["token"],
                    "session": live["token"],
                    "agent": str(agent["token"]),
                    "operator": broker.token,
                    "local": (broker.data / "local-operator.token").read_text().strip(),
                },
            ),
            now,
        )


def _stranger() -> str:
    """A well-formed credential that nobody was given."""
    from haltline.credentials import issue

    return issue("s").token


@pytest.mark.promise("P6", "R21", "R23")
def test_only_health_answers_without_a_credential_and_no_credential_is_valid_on_the_other_listener(place):
    where, upstream_ = place
    greeted: Counter[tuple[str, str]] = Counter()
    unauthorized: Counter[tuple[str, str]] = Counter()
    for listener in OF:
        for kind in KINDS:
            token = where.tokens[kind]
            for path in PATHS:
                asked = path.replace("{token}", token or "x")
                for method in METHODS:
                    answer = where.ask(listener, method, asked, _bearer(token))
                    where.passed[listener, method, path, kind] += _served("", answer)
            for name, lines, body in _messages(listener):
                for path in ("/mcp", "/healthz", "/", "//mcp"):
                    answer = where.ask(listener, "POST", path, [*lines, *_bearer(token)], body)
                    where.passed[listener, f"POST {name}", path, kind] += _served(name, answer)
                    if path == "/mcp":
                        greeted[listener, kind] += 200 <= answer.status < 300
                        unauthorized[listener, kind] += answer.status == 401
    passed = {key for key, count in where.passed.items() if count}
    with where.broker.control() as control:
        agents = [one["agent"] for one in control.list_agents()["agents"]]
        # a live operator's requests are among those above, so its acts were done; nobody else's may have been
    references = Counter(one.reference for one in upstream_.all())

    figures = Figures(f"{len(PATHS)} paths x {len(METHODS)} methods x {len(KINDS)} credentials on {len(OF)} listeners")
    figures.note("requests", where.requests)
    side_doors = {key for key in passed if key[3] not in OF[key[0]] and key[:3] not in OPEN}
    figures.zero("served without a live credential of its listener, beside health", sorted(side_doors))
    figures.zero(
        "agents' credentials served on control",
        [key for key in side_doors if key[0] == "control" and key[3] in OF["agents"]],
    )
    figures.zero(
        "operators' credentials served on agents",
        [key for key in side_doors if key[0] == "agents" and key[3] in OF["control"]],
    )
    on_other = [
        (key, greeted[key])
        for key in greeted
        if greeted[key] and key[1] not in OF[key[0]] | (DEAD if key[0] == "agents" else set())
    ]
    figures.zero("greeted (initialize, discover) without any standing there", on_other)
    figures.note("told 401 on /mcp", sum(unauthorized.values()))
    health = {key[:3] for key in passed if key[3] == "none"}
    told = ", ".join(sorted({f"{listener} {path.partition('?')[0]}" for listener, _, path in health}))
    figures.must(
        "answer without a credential", told, health == OPEN, "/healthz and /readyz of control, to GET and HEAD"
    )
    live = {
        kind: sum(1 for key in passed if key[3] == kind and key[2] == "/mcp") for kinds in OF.values() for kind in kinds
    }
    figures.must("live credentials served on their own /mcp", live, all(live.values()), "each")
    paths = {key[2] for key in passed if key[:3] not in OPEN}
    figures.equal("paths that serve a live credential", paths, {"/mcp", "/metrics"})
    figures.must("calls dispatched", dict(references), set(references) <= {"through-a-side-door"}, "only live ones")
    figures.must("agents", agents, set(agents) == {"agent", "intruder"}, "the one added by a live operator beside ours")
    figures.zero("answers of 500 and above", where.failed)
    figures.show()


@pytest.mark.promise("P6", "R23")
def test_a_credential_anywhere_but_in_the_authorization_header_is_not_read(place):
    where, upstream_ = place
    served = []
    for listener, kinds in OF.items():
        for kind in kinds:
            token = where.tokens[kind]
            basic = base64.b64encode(f"user:{token}".encode()).decode()
            for lines, query in (
                ([f"X-Api-Key: {token}"], ""), ([f"Cookie: token={token}"], ""), ([f"Authorization: Basic {basic}"], ""),
                ([f"Authorization: {token}"], ""), ([f"Authorization: Token {token}"], ""), ([f"X-Authorization: Bearer {token}"], ""),
                ([f"Proxy-Authorization: Bearer {token}"], ""), ([f"X-Forwarded-Authorization: Bearer {token}"], ""),
                ([f"Mcp-Session-Id: {token}"], ""), ([], f"?token={token}"), ([], f"?access_token={token}"),
                (["Authorization: Bearer letmein", f"Authorization: Bearer {token}"], ""), (["X-Haltline-Agent: agent"], ""),
            ):  # fmt: skip
                for name, head, body in _messages(listener):
                    answer = where.ask(
                        listener, "POST", f"/mcp{query}", [*head, *(line.encode() for line in lines)], body
                    )
                    if 200 <= answer.status < 300:
                        served.append((listener, name, [line.split(":")[0] for line in lines], query[:7]))
    figures = Figures("credentials in other places than Authorization: Bearer")
    figures.note("requests", where.requests)
    figures.zero("answered", served)
    figures.zero("calls dispatched", upstream_.all())
    figures.zero("answers of 500 and above", where.failed)
    figures.show()


@pytest.mark.promise("P6")
def test_no_hostile_host_or_origin_is_answered_on_any_route(place):
    where, upstream_ = place
    answered: list[tuple[str, ...]] = []
    refused: Counter[int] = Counter()
    for listener, kinds in OF.items():
        token = _bearer(where.tokens[max(kinds)])
        port = str(where.port(listener))
        requests = [("GET", path, [], b"") for path in ("/mcp", "/healthz", "/readyz", "/", "/metrics")]
        requests += [("POST", "/mcp", lines, body) for _, lines, body in _messages(listener)]
        for method, path, lines, body in requests:
            for host in HOSTS:
                answer = where.ask(
                    listener, method, path, [*lines, *token], body, host=host.replace("{port}", port).encode()
                )
                refused[answer.status] += 1
                if 200 <= answer.status < 300:
                    answered.append((listener, method, path, f"Host: {host}"))
            for origin in ORIGINS:
                line = f"Origin: {origin.replace('{port}', port)}".encode()
                answer = where.ask(listener, method, path, [*lines, *token, line], body)
                refused[answer.status] += 1
                if 200 <= answer.status < 300:
                    answered.append((listener, method, path, f"Origin: {origin}"))
    figures = Figures(
        f"{len(HOSTS)} hostile Hosts and {len(ORIGINS)} hostile Origins on every route, with live credentials"
    )
    figures.note("requests", where.requests)
    figures.note("answers by status", dict(refused))
    figures.zero("answered", answered)
    figures.zero("calls dispatched", upstream_.all())
    figures.zero("answers of 500 and above", where.failed)
    figures.show()


@pytest.mark.promise("P6")
def test_nothing_written_into_the_authorization_header_passes_or_breaks_anything(place, long: bool):
    where, upstream_ = place
    payloads = 2_000 if long else 150
    seed = time.time_ns()
    dice = random.Random(seed)
    statuses: Counter[int] = Counter()
    passed = []
    shown = list(where.tokens.values())[5:]
    for number in range(payloads):
        parts = dice.choices(PIECES, k=dice.randint(1, 6))
        real = dice.choice(shown)
        if number % 3 == 0:
            parts.insert(dice.randrange(len(parts) + 1), real[: dice.randrange(len(real))])
        if number % 7 == 0:
            parts = [dice.choice(PIECES) * 300]
        if number % 5 == 0:
            parts = [real, *parts]
        payload = "".join(parts)
        if payload.strip() in shown:
            continue  # white space around a live credential is HTTP's, not the credential's
        listener = ("agents", "control")[number % 2]
        messages = list(_messages(listener))
        name, lines, body = dice.choice(messages)
        answer = where.ask(
            listener, "POST", "/mcp", [*lines, b"Authorization: Bearer " + payload.encode("latin-1")], body
        )
        statuses[answer.status] += 1
        if 200 <= answer.status < 300:
            passed.append((payload[:80], name, answer.status))
    with where.broker.control() as control:
        agents = len(control.list_agents()["agents"])
    figures = Figures(f"{payloads} payloads in Authorization (seed {seed})")
    figures.note("answers by status", dict(statuses))
    figures.zero("passed", passed)
    figures.equal("agents still there", agents, 1)
    figures.zero("answers of 500 and above", where.failed)
    figures.zero("calls dispatched", upstream_.all())
    figures.show()
