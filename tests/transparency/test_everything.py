"""The reference server of others, over stdio and HTTP: everything that it offers is asked directly and through (P11)."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import processes
from support.broker_process import broker_process
from support.field_diff import differences
from support.raw_mcp import HttpClient, StdioClient
from transparency.comparison import POLICY, PRICED, unexplained, unprefixed

SCRIPT = Path(__file__).parents[2] / ".tools/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
START_S = 20.0
PREFIX = "every__"
ALLOWED = [
    (r"open\.result\..*", "the broker says of itself who it is, what it offers and how its refusals are to be read"),
    PRICED,
    (
        r"tools/call get-env\[0\]\.result\.content\[0\]\.text",
        "the program has the environment that is configured for it",
    ),
]
"""What may differ: where, and why. Nothing else may."""
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"message": "é 😀 \u2028"}),
    *(("get-annotated-message", {"messageType": kind, "includeImage": True}) for kind in ("error", "success", "debug")),
    ("get-env", {}),
    ("get-resource-links", {"count": 4}),
    ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
    ("get-resource-reference", {"resourceType": "Blob", "resourceId": 2}),
    ("get-structured-content", {"location": "Chicago"}),
    ("get-sum", {"a": 1, "b": 2.5}),
    ("get-tiny-image", {}),
    ("gzip-file-as-resource", {"name": "a.gz", "data": "data:text/plain,hello", "outputType": "resource"}),
    ("trigger-long-running-operation", {"duration": 0.3, "steps": 3}),
    ("simulate-research-query", {"topic": "x"}),
]
PROMPTS: list[tuple[str, dict[str, str]]] = [
    ("simple-prompt", {}),
    ("args-prompt", {"city": "Bern", "state": "BE"}),
    ("completable-prompt", {"department": "Engineering", "name": "Alice"}),
    ("resource-prompt", {"resourceType": "Text", "resourceId": "1"}),
]
TEMPLATED = ("demo://resource/dynamic/text/1", "demo://resource/dynamic/blob/2", "demo://resource/nowhere")
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
_TIME = re.compile(r"\d{1,2}:\d{2}:\d{2}(\s[AP]M)?")


def asked(client: HttpClient | StdioClient, prefix: str) -> dict[str, Any]:
    said: dict[str, Any] = {"open": client.open()}
    for method, key in LISTS.items():
        said[method] = client.ask(method)[-1:]
        said[method][0]["result"][key].sort(key=lambda item: str(item["name"]))
    uris = [resource["uri"] for resource in said["resources/list"][0]["result"]["resources"]]
    for number, (tool, arguments) in enumerate(CALLS):
        params = {"name": prefix + tool, "arguments": arguments}
        heard = client.ask("tools/call", params, identifier=number, meta={"progressToken": f"t{number}"})
        said[f"tools/call {tool}"] = [one for one in heard if one.get("method") != "notifications/tools/list_changed"]
    for prompt, given in PROMPTS:
        said[f"prompts/get {prompt}"] = client.ask("prompts/get", {"name": prefix + prompt, "arguments": given})[-1:]
    for uri in [*uris, *TEMPLATED]:
        said[f"resources/read {uri}"] = client.ask("resources/read", {"uri": uri})[-1:]
    for name, known in (("department", {}), ("name", {"department": "Sales"})):
        ref = {"type": "ref/prompt", "name": f"{prefix}completable-prompt"}
        params = {"ref": ref, "argument": {"name": name, "value": ""}, "context": {"arguments": known}}
        said[f"completion/complete {name}"] = client.ask("completion/complete", params)[-1:]
    client.close()
    return said


def timeless(value: Any) -> Any:
    """Without the times of day that the server writes into its texts, also those that are told in base64."""
    if isinstance(value, dict):
        return {
            key: timeless(b64decode(item).decode("latin-1") if key == "blob" else item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return _TIME.sub("TIME", value) if isinstance(value, str) else value


@contextmanager
def over_http(folder: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    command = ["env", f"PORT={port}", "node", str(SCRIPT), "streamableHttp"]
    with processes.running(command, folder=folder, log=folder / "everything.log"):
        by = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < by, processes.last_words(folder / "everything.log")
            time.sleep(0.02)
        yield port


def compare(folder: Path, title: str, direct: HttpClient | StdioClient, upstream: dict[str, Any]) -> list[str]:
    alone = asked(direct, "")
    with broker_process(folder / "broker", upstreams={"every": upstream}, policy=POLICY) as broker:
        broker.await_tools(f"{PREFIX}echo")
        (opened,) = broker.open(["reader"], "all")
        through = asked(HttpClient(broker.agents_port, modern=False, token=opened.token), PREFIX)
    found = differences(timeless(alone), timeless(unprefixed(through, PREFIX)))
    return unexplained(f"server-everything, {title}", found, ALLOWED)


@pytest.fixture(autouse=True)
def _there() -> None:
    if shutil.which("node") is None:
        pytest.skip("@modelcontextprotocol/server-everything was not tried: there is no node")
    if not SCRIPT.exists():
        pytest.skip(
            "@modelcontextprotocol/server-everything could not be had from npm: it is not in .tools/node_modules"
        )


@pytest.mark.promise("P11")
def test_the_reference_server_over_stdio_is_the_same_through_the_broker(tmp_path: Path):
    client = StdioClient(["node", str(SCRIPT)], {"PATH": os.environ["PATH"]})
    others = compare(tmp_path, "stdio", client, {"command": "node", "args": [str(SCRIPT)]})
    assert others == [], "\n".join(others)


@pytest.mark.promise("P11")
def test_the_reference_server_over_http_is_the_same_through_the_broker(tmp_path: Path):
    with over_http(tmp_path) as port:
        client = HttpClient(port, modern=False)
        others = compare(tmp_path, "HTTP", client, {"url": f"http://127.0.0.1:{port}/mcp"})
    assert others == [], "\n".join(others)
