"""`haltline serve`: run the broker in the foreground until it is told to stop."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import examples

if TYPE_CHECKING:
    from haltline.app import Started

__all__ = ["command"]


_LOOKED_FOR_CYCLES_AFTER = 10_000
"""New objects that can be part of one."""
_THREADS_WAIT_S = 0.001
"""How long the event loop may keep the interpreter when a thread wants it: a revoke's unit, which asks SQLite a dozen times
in the writer's thread, asks for it after each.
"""


@click.command(
    "serve",
    epilog=examples(
        "haltline serve",
        "haltline serve --config /etc/haltline/haltline.yaml",
        "haltline serve --agents 127.0.0.1:0 --control 127.0.0.1:0 --data ./scratch",
    ),
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="[default: ./haltline.yaml, made if absent]"
)
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the records and keys are.")
@click.option("--agents", metavar="HOST:PORT", help="Where agents connect. [default: 127.0.0.1:7400]")
@click.option("--control", metavar="HOST:PORT", help="Where operators connect. [default: 127.0.0.1:7401]")
@click.option(
    "--operator-token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the first operator's credential there, not to the screen.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", help="[default: info]"
)
def command(
    config: Path | None,
    data: Path | None,
    agents: str | None,
    control: str | None,
    operator_token_file: Path | None,
    log_level: str,
) -> None:
    """Run the broker. The first start in an empty folder writes a configuration, policies and keys."""
    # The server costs half a second to import; the other commands must not pay it.
    import anyio  # noqa: PLC0415 - see above

    from haltline.app import serve  # noqa: PLC0415 - see above
    from haltline.logs import configure  # noqa: PLC0415 - see above
    from haltline.setup.settings import load_settings  # noqa: PLC0415 - see above
    from haltline.setup.starter import write_starter  # noqa: PLC0415 - see above

    configure(log_level)
    if config is None and not os.environ.get("HALTLINE_CONFIG"):
        for written in write_starter(Path()):
            click.echo(f"wrote {written}", err=True)
    overrides = {"data": data, "agents": agents, "control": control}
    settings = load_settings(
        config, environ=os.environ, overrides={key: str(value) for key, value in overrides.items() if value is not None}
    )

    def ready(started: Started) -> None:
        _announce(started, operator_token_file)
        # What is there now stays: without it a full collection, in which every call stands still, is short. Calls make no
        # cycles, so looking for some after every few of them (the interpreter's default) takes 5 % of the processor for nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_LOOKED_FOR_CYCLES_AFTER)
        sys.setswitchinterval(_THREADS_WAIT_S)

    anyio.run(lambda: serve(settings, on_ready=ready), backend_options={"use_uvloop": True})


def _announce(started: Started, token_file: Path | None) -> None:
    if started.operator_token is not None:
        _show_token(started.operator_token, token_file)
    click.echo(f"Haltline is {'ready' if started.problem is None else 'NOT READY'}.", err=True)
    if started.problem is not None:
        click.echo(f"  because: {started.problem}", err=True)
    click.echo(f"  agents connect to     {started.agents_url}", err=True)
    click.echo(f"  operators connect to  {started.control_url}", err=True)
    click.echo("  next: haltline agents add NAME --tier experimental; haltline status", err=True)


def _show_token(token: str, token_file: Path | None) -> None:
    if token_file is not None:
        from haltline.store.folder import write_private  # noqa: PLC0415 - only at the first start

        write_private(token_file, token.encode() + b"\n")
        click.echo(f"The credential of the first operator, admin, is in {token_file}.", err=True)
        return
    click.echo(
        "The credential of the first operator, admin. It is shown this once; keep it where only you can read it:\n"
    )
    click.echo(token)
    click.echo(
        "\nGive it to commands that loosen (resume, settle, operators …) as HALTLINE_OPERATOR_TOKEN, or type it."
    )
