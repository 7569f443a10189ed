"""`haltline client-config`: the snippet that points a host application or a framework at the broker.

Prints only: it reads no file, edits none, and never prints a credential.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from haltline_client.commands.desk import examples
from haltline_client.discover import agents_url as running_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["client_config"]

AGENTS_URL = "http://127.0.0.1:7400/mcp"


class Snippet(NamedTuple):
    """Where it goes and what it is."""

    place: str
    text: str


def _claude_code(url: str, env: str) -> Snippet:
    server = {"type": "http", "url": url, "headers": {"Authorization": f"Bearer ${{{env}}}"}}
    return Snippet(".mcp.json in the project", _json({"mcpServers": {"haltline": server}}))


def _cursor(url: str, env: str) -> Snippet:
    server = {"url": url, "headers": {"Authorization": f"Bearer ${{env:{env}}}"}}
    return Snippet(
        ".cursor/mcp.json in the project, or ~/.cursor/mcp.json", _json({"mcpServers": {"haltline": server}})
    )


def _vscode(url: str, _: str) -> Snippet:
    asked = {"type": "promptString", "id": "haltline-token", "description": "Haltline credential", "password": True}
    server = {"type": "http", "url": url, "headers": {"Authorization": "Bearer ${input:haltline-token}"}}
    return Snippet(
        ".vscode/mcp.json; VS Code asks for the credential once and keeps it",
        _json({"inputs": [asked], "servers": {"haltline": server}}),
    )


def _generic(url: str, env: str) -> Snippet:
    server = {"type": "streamable-http", "url": url, "headers": {"Authorization": f"Bearer ${{{env}}}"}}
    return Snippet(
        f"any host that takes mcpServers over HTTP; if it does not replace ${{{env}}}, use its own secret store",
        _json({"mcpServers": {"haltline": server}}),
    )


def _openai_agents(url: str, env: str) -> Snippet:
    return Snippet(
        "Python, openai-agents",
        f"""\
import os

from agents import Agent
from agents.mcp import MCPServerStreamableHttp

async with MCPServerStreamableHttp(
    name="haltline",
    params={{"url": "{url}", "headers": {{"Authorization": f"Bearer {{os.environ['{env}']}}"}}}},
) as haltline:
    agent = Agent(name="assistant", mcp_servers=[haltline])""",
    )


def _langchain(url: str, env: str) -> Snippet:
    return Snippet(
        "Python, langchain-mcp-adapters",
        f"""\
import os

from langchain_mcp_adapters.client import MultiServerMCPClient

client = MultiServerMCPClient({{
    "haltline": {{
        "transport": "streamable_http",
        "url": "{url}",
        "headers": {{"Authorization": f"Bearer {{os.environ['{env}']}}"}},
    }}
}})
tools = await client.get_tools()""",
    )


def _pydantic_ai(url: str, env: str) -> Snippet:
    return Snippet(
        "Python, pydantic-ai",
        f"""\
import os

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPServerStreamableHTTP

haltline = MCPServerStreamableHTTP(
    "{url}", headers={{"Authorization": f"Bearer {{os.environ['{env}']}}"}}
)
agent = Agent("openai:gpt-5", toolsets=[haltline])""",
    )


def _claude_desktop(url: str, token_file: str) -> Snippet:
    # Such a host has neither a shell's search path nor its variables, so both are spelled out.
    command, *arguments = _this_command()
    server = {"command": command, "args": [*arguments, "stdio", "--url", url, "--token-file", token_file]}
    return Snippet("Claude Desktop: Settings, Developer, Edit Config", _json({"mcpServers": {"haltline": server}}))


def _this_command() -> list[str]:
    """What runs this very installation, wherever it is started."""
    script = shutil.which(sys.argv[0])
    if script is not None and Path(script).stem == "haltline":
        return [str(Path(script).absolute())]
    return [sys.executable, "-m", "haltline"]


SNIPPETS: Mapping[str, Callable[[str, str], Snippet]] = {
    "claude-desktop": _claude_desktop,
    "claude-code": _claude_code,
    "cursor": _cursor,
    "vscode": _vscode,
    "openai-agents": _openai_agents,
    "langchain": _langchain,
    "pydantic-ai": _pydantic_ai,
    "generic": _generic,
}


@click.command(
    "client-config",
    epilog=examples(
        "haltline client-config claude-code",
        "haltline client-config cursor --agent research-bot",
        "haltline client-config generic --json > mcp.json",
    ),
)
@click.argument("host", type=click.Choice(list(SNIPPETS)))
@click.option(
    "--agent", metavar="HANDLE", help="The agent it is for: names its own variable, such as HALTLINE_TOKEN_BOT."
)
@click.option("--token-env", metavar="NAME", help="The variable that holds the credential. [default: HALTLINE_TOKEN]")
@click.option(
    "--agents-url", metavar="URL", help=f"The agents' listener. [default: the running broker's, else {AGENTS_URL}]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with place and text.")
def client_config(host: str, agent: str | None, token_env: str | None, agents_url: str | None, as_json: bool) -> None:
    """Print the configuration that points HOST at this broker. Edits nothing."""
    if agent and token_env:
        raise click.UsageError("--agent and --token-env exclude each other.")
    if host == "claude-desktop" and token_env:
        raise click.UsageError("claude-desktop takes the credential from a file, not from a variable.")
    env = token_env or ("HALTLINE_TOKEN_" + agent.upper().replace("-", "_") if agent else "HALTLINE_TOKEN")
    if not env.isidentifier() or not env.isascii():
        raise click.BadParameter(f"{env!r} is not the name of an environment variable", param_hint="--token-env")
    token_file = str(Path(click.get_app_dir("haltline")) / f"{agent or 'agent'}.token")
    url = agents_url or running_broker() or AGENTS_URL
    snippet = SNIPPETS[host](url, token_file if host == "claude-desktop" else env)
    if as_json:
        click.echo(json.dumps({"host": host, "place": snippet.place, "text": snippet.text}, separators=(",", ":")))
        return
    click.echo(f"# {snippet.place}", err=True)
    click.echo(snippet.text)
    click.echo(_credential_hint(host, agent, token_file if host == "claude-desktop" else env), err=True)


def _credential_hint(host: str, agent: str | None, place: str) -> str:
    where = "when VS Code asks" if host == "vscode" else f"as {place} in the environment"
    if host == "claude-desktop":
        where = f"in {place}, a file that only you can read (chmod 600)"
    name = agent or "NAME"
    return (
        f"# Give the agent's credential {where}.\n"
        f"# A new agent gets one by: haltline agents add {name} --tier experimental --credential\n"
        f'# (or a session\'s alone:    haltline sessions open {name} --task "…")'
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2)
