"""What an upstream sends is what an agent gets, field by field: everything is asked directly and through the broker (P11).

The upstream sends every field that MCP knows, fields that it does not know, nulls, big numbers and a mebibyte of text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.broker_process import broker_process
from support.counting_upstream import environment
from support.field_diff import differences
from support.raw_mcp import HttpClient, StdioClient
from support.rich_messages import LISTS, NOTICES, PROMPTS, READ, RESULTS
from support.rich_upstream import rich_upstream
from transparency.comparison import POLICY, PRICED, unexplained, unprefixed

CAPABILITIES = {"elicitation": {"form": {}}, "x-more": {"null": None, "big": 2**70}, "experimental": {"x": {}}}
ARGUMENTS = {"a": None, "n": 2**70, "f": 1.0, "i": 1, "text": "\u2028 é 😀 \u0000", "deep": [[{"b": []}]], "": {}}
META = {"progressToken": 0, "x/y": {"null": None, "big": -(2**70)}}
ALLOWED = [
    (r"open\.result\..*", "the broker says of itself who it is, what it offers and how its refusals are to be read"),
    (
        r".*/list\[0\]\.result\.(ttlMs|cacheScope)",
        "a list is put together for this agent from all upstreams, so how long it holds is the broker's to say (2026-07-28)",
    ),
    PRICED,
    (
        r"tools/call nothing\[0\]\.result\.resultType",
        "2026-07-28 demands it; an upstream that leaves it out is understood as the revision says",
    ),
    (
        r"tools/call of_another_type\[0\]\.result\.resultType",
        "a client of the handshake era does not know it: there a result has no type",
    ),
]
"""What may differ: where, and why. Nothing else may."""
OVER_STDIO = [
    (
        r"tools/call params\[0\]\.result\.structuredContent\._meta\.progressToken",
        "a program is sent a token of the broker's own, so that calls with the same one can be told apart; agents hear theirs",
    )
]
"""What may differ besides where the upstream is a program."""
TRANSLATED = [
    *ALLOWED,
    (r".*\.result\.resultType", "it belongs to 2026-07-28: there every result has it, before it none"),
    (
        r"tools/call [a-z ]+\[0\]\.result\.structuredContent\._meta\.io\.modelcontextprotocol/logLevel",
        "a client of the handshake era sets its log level once, and this one did not",
    ),
]
"""What may differ besides where the agent is of another era than the upstream."""
PREFIX = "rich__"


def asked(client: HttpClient | StdioClient, prefix: str) -> dict[str, Any]:
    """The answer to every question there is, by question."""
    said: dict[str, Any] = {"open": client.open()}
    for method, (key, _) in LISTS.items():
        said[method] = client.ask(method)
        said[method][-1]["result"][key].sort(key=lambda item: str(item.get("name")))
    for tool in RESULTS:
        sent = {"name": prefix + tool, "arguments": ARGUMENTS, "x-more": {"null": None}}
        said[f"tools/call {tool}"] = client.ask("tools/call", sent, identifier=f"id of {tool}", meta=META)
    said["tools/call without arguments"] = client.ask("tools/call", {"name": f"{prefix}params"})
    for prompt in PROMPTS:
        said[f"prompts/get {prompt}"] = client.ask("prompts/get", {"name": prefix + prompt, "arguments": {"a": "é"}})
    for uri in READ:
        said[f"resources/read {uri}"] = client.ask("resources/read", {"uri": uri})
    for ref in ({"type": "ref/prompt", "name": f"{prefix}ask"}, {"type": "ref/resource", "uri": "x://{id}/more{?q}"}):
        params = {"ref": {**ref, "x": None}, "argument": {"name": "a", "value": ""}, "context": {"arguments": {}}}
        said[f"completion/complete {ref['type']}"] = client.ask("completion/complete", params)
    client.close()
    return said


@contextmanager
def served(folder: Path, era: str, shape: str) -> Iterator[tuple[HttpClient | StdioClient, dict[str, Any]]]:
    """A client of the upstream itself, and how the broker finds the same."""
    modern = era == "modern"
    if shape != "stdio":
        with rich_upstream(folder, era, shape) as port:
            direct = HttpClient(port, modern=modern, capabilities=CAPABILITIES)
            yield direct, {"url": f"http://127.0.0.1:{port}/mcp"}
        return
    args, code = ["-m", "support.rich_upstream", era, "stdio"], environment()["PYTHONPATH"]
    program = {"command": sys.executable, "args": args, "env": {"PYTHONPATH": code}}
    yield StdioClient([sys.executable, *args], program["env"], modern=modern, capabilities=CAPABILITIES), program


def through(folder: Path, upstream: dict[str, Any], *, modern: bool) -> dict[str, Any]:
    with broker_process(folder / "broker", upstreams={"rich": upstream}, policy=POLICY) as broker:
        broker.await_tools(*(PREFIX + name for name in RESULTS))
        (opened,) = broker.open(["reader"], "all")
        client = HttpClient(broker.agents_port, modern=modern, token=opened.token, capabilities=CAPABILITIES)
        said: dict[str, Any] = unprefixed(asked(client, PREFIX), PREFIX)
    return said


def _more(shape: str) -> list[tuple[str, str]]:
    return OVER_STDIO if shape == "stdio" else []


@pytest.mark.promise("P11")
@pytest.mark.parametrize(
    ("era", "shape"),
    [("modern", "json"), ("modern", "sse"), ("modern", "stdio"), ("handshake", "json"), ("handshake", "sse")],
)
def test_every_field_that_an_upstream_sends_reaches_the_agent_as_it_is(tmp_path: Path, era: str, shape: str):
    with served(tmp_path, era, shape) as (client, upstream):
        direct = asked(client, "")
        brokered = through(tmp_path, upstream, modern=era == "modern")
    assert len(direct["tools/call talks"]) == len(NOTICES) + 1, "the upstream did not say all that it should"
    others = unexplained(f"{era}, {shape}", differences(direct, brokered), [*ALLOWED, *_more(shape)])
    assert others == [], "\n".join(others)


@pytest.mark.promise("P11")
@pytest.mark.parametrize(("era", "shape"), [("modern", "sse"), ("modern", "stdio"), ("handshake", "sse")])
def test_an_agent_of_the_other_era_gets_every_field_too(tmp_path: Path, era: str, shape: str):
    with served(tmp_path, era, shape) as (client, upstream):
        direct = asked(client, "")
        brokered = through(tmp_path, upstream, modern=era != "modern")
    others = unexplained(
        f"{era} upstream, {shape}, agent of the other era", differences(direct, brokered), [*TRANSLATED, *_more(shape)]
    )
    assert others == [], "\n".join(others)
