"""`haltline stdio`: the bridge as a command. Owns its settings, its signals and its end; what it does is in `stdio/`.

Standard output belongs to the host alone. Everything heavier than click is imported when it runs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from haltline_client.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline_client.discover import AgentConnection
    from haltline_client.stdio.words import Notes

__all__ = ["stdio"]

EXIT_FAILURE = 1


@click.command(
    "stdio",
    epilog="\b\nExamples:\n"
    "  haltline client-config claude-desktop\n"
    "  haltline stdio --token-file bot.token\n"
    "  HALTLINE_TOKEN=hl_a_… haltline stdio --url https://haltline.example/mcp",
)
@click.option("--url", metavar="URL", help="Agents' URL. [default: HALTLINE_URL, else the running broker's]")
@click.option(
    "--token-file",
    metavar="FILE",
    help="File with an agent's or a session's credential. [default: HALTLINE_TOKEN, else HALTLINE_TOKEN_FILE]",
)
@click.option("--data", metavar="FOLDER", help="The broker's data folder, to find its address.")
@click.option("--insecure-http", is_flag=True, help="Allow http to another machine (the credential is readable).")
def stdio(url: str | None, token_file: str | None, data: str | None, insecure_http: bool) -> None:
    """Speak MCP on standard input and output, for hosts that only launch commands. A host runs this, not a person."""
    from haltline_client.stdio.words import Notes  # noqa: PLC0415 - a command imports what it needs when it runs

    notes = Notes()
    try:
        code = _run(lambda: _found(url, token_file, data, insecure_http=insecure_http), notes)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: nothing but sentences for who reads the log
        notes.say(f"the bridge ended because of a fault of its own: {error!r}")
        code = EXIT_FAILURE
    sys.stderr.flush()
    # The thread that waits for the host, or for a slow name server, must not hold the process back.
    os._exit(code)


def _found(
    url: str | None, token_file: str | None, data: str | None, *, insecure_http: bool
) -> tuple[AgentConnection, bool]:
    from haltline_client.discover import discover_agent  # noqa: PLC0415

    return discover_agent(url=url, token_file=token_file, data=data), insecure_http


def _run(find: Callable[[], tuple[AgentConnection, bool]], notes: Notes) -> int:
    import asyncio  # noqa: PLC0415

    from haltline_client.stdio.bridge import Bridge  # noqa: PLC0415
    from haltline_client.stdio.endpoint import Endpoint  # noqa: PLC0415
    from haltline_client.stdio.http import Http, target  # noqa: PLC0415
    from haltline_client.stdio.pipes import Pipes, take_standard_streams  # noqa: PLC0415
    from haltline_client.stdio.words import Trouble  # noqa: PLC0415

    async def serve() -> int:
        endpoint: Endpoint | Trouble
        try:
            connection, insecure_http = find()
            where = target(connection.url, insecure_http=insecure_http)
            endpoint = Endpoint(Http(where), connection.token, _named(connection))
        except SettingError as error:
            endpoint = Trouble("client.setting", f"{error.message}. Nothing was sent.")
            notes.say(endpoint.text)
        bridge = Bridge(Pipes(*take_standard_streams()), endpoint, notes)
        _on_signals(bridge.stop)
        await bridge.run()
        return SettingError.exit_code if isinstance(endpoint, Trouble) else 0

    return asyncio.new_event_loop().run_until_complete(serve())


def _on_signals(stop: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(one, stop)
        except NotImplementedError:  # Windows
            signal.signal(one, lambda *_: loop.call_soon_threadsafe(stop))


def _named(connection: AgentConnection) -> str:
    """Which credential it is, without its secret."""
    parts = connection.token.split("_")
    identifier = "_".join(parts[:3]) + "_…" if len(parts) > 3 and parts[0] == "hl" else "of an unknown form"
    return f"the credential from {connection.token_from} ({identifier})"
