"""Servers that others wrote, as upstreams over stdio: two from PyPI, two from npm."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.upstreams.catalog import Catalog
from haltline.upstreams.model import UpstreamSpec
from haltline.upstreams.open import open_upstream
from haltline.upstreams.stdio import StdioUpstream
from support.upstream_calls import BOB, Sent, closing, text_of

PACKAGES = Path(__file__).parents[2] / ".tools" / "node_modules" / "@modelcontextprotocol"


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """The broker's loop alone: these start slow programs."""
    return "asyncio", {"use_uvloop": True}


def from_pypi(name: str, module: str, *args: str) -> UpstreamSpec:
    pytest.importorskip(module, reason=f"{module} from PyPI is not installed")
    return UpstreamSpec(name, command=sys.executable, args=("-m", module, *args))


def from_npm(name: str, package: str, *args: str) -> UpstreamSpec:
    script = PACKAGES / package / "dist" / "index.js"
    if shutil.which("node") is None:
        pytest.skip(f"@modelcontextprotocol/{package} was not tried: there is no node")
    if not script.exists():
        pytest.skip(f"@modelcontextprotocol/{package} could not be had from npm: it is not in .tools/node_modules")
    return UpstreamSpec(name, command="node", args=(str(script), *args))


async def test_mcp_server_time() -> None:
    async with closing(StdioUpstream(from_pypi("time", "mcp_server_time"))) as server:
        assert {tool["name"] for tool in await server.list_tools()} == {"get_current_time", "convert_time"}
        answer = await Sent()(server, "get_current_time", {"timezone": "UTC"})
        assert json.loads(text_of(answer))["timezone"] == "UTC"
        assert (await Sent()(server, "get_current_time", {"timezone": "Moon"}))["result"]["isError"] is True


async def test_mcp_server_git(tmp_path: Path) -> None:
    spec = from_pypi("git", "mcp_server_git", "--repository", str(tmp_path))
    await anyio.run_process(["git", "init", "-q", str(tmp_path)], stdout=subprocess.DEVNULL)
    (tmp_path / "a.txt").write_text("a")
    async with closing(StdioUpstream(spec)) as server:
        assert "git_status" in {tool["name"] for tool in await server.list_tools()}
        assert "a.txt" in text_of(await Sent()(server, "git_status", {"repo_path": str(tmp_path)}))


@pytest.mark.promise("P11")
async def test_server_everything() -> None:
    async with closing(StdioUpstream(from_npm("every", "server-everything"))) as server:
        tools = {tool["name"]: tool for tool in await server.list_tools()}
        assert "outputSchema" in tools["get-structured-content"]
        assert "hello" in text_of(await Sent()(server, "echo", {"message": "hello"}))
        image = (await Sent()(server, "get-tiny-image"))["result"]["content"]
        assert "image" in {block["type"] for block in image}
        structured = (await Sent()(server, "get-structured-content", {"location": "Chicago"}))["result"]
        assert structured["structuredContent"]["temperature"]
        working = Sent()
        await working(
            server,
            "trigger-long-running-operation",
            {"duration": 0.2, "steps": 2},
            meta={"progressToken": 0},
        )
        assert [one["params"]["progress"] for one in working.heard if "progress" in one["params"]] == [1, 2]
        assert {one["params"]["progressToken"] for one in working.heard} == {0}
        env = json.loads(text_of(await Sent()(server, "get-env")))
        assert "PYTHONPATH" not in env


async def test_server_filesystem(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("as written")
    async with closing(StdioUpstream(from_npm("files", "server-filesystem", str(tmp_path)))) as server:
        assert "read_text_file" in {tool["name"] for tool in await server.list_tools()}
        answer = await Sent()(server, "read_text_file", {"path": str(tmp_path / "note.txt")})
        assert text_of(answer) == "as written"
        assert (await Sent()(server, "read_text_file", {"path": "/etc/passwd"}))["result"]["isError"] is True


async def test_all_in_one_catalogue(tmp_path: Path) -> None:
    specs = [from_pypi("time", "mcp_server_time"), from_npm("files", "server-filesystem", str(tmp_path))]
    catalog: Any = Catalog([open_upstream(spec) for spec in specs])
    async with closing(catalog), anyio.create_task_group() as tasks:
        tasks.start_soon(catalog.run)
        with anyio.fail_after(20):
            await catalog.tried()
        assert [state.state for state in catalog.states()] == ["ready", "ready"]
        tool = catalog.tool("files__list_allowed_directories")
        assert tool is not None
        assert tool.definition["name"] == "files__list_allowed_directories"
        answer = await Sent()(catalog.upstream(tool.upstream), tool.own_name, caller=BOB)
        assert str(tmp_path) in text_of(answer)
        tasks.cancel_scope.cancel()
