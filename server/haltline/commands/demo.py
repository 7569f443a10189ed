"""`haltline demo`: see the whole of it work, with real processes and nothing set up."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import click

from haltline_client.commands.desk import examples

__all__ = ["command"]

EXIT_INTERRUPTED = 130


@click.command("demo", epilog=examples("haltline demo", "haltline demo --keep", "haltline demo --json"))
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print what held and the facts as one line of JSON.")
@click.option(
    "--data",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="An empty folder to play in, which stays. [default: a temporary one, deleted at the end]",
)
@click.option("--debug", is_flag=True, help="Print logs and tracebacks on standard error.")
@click.pass_context
def command(context: click.Context, *, keep: bool, as_json: bool, folder: Path | None, debug: bool) -> None:
    """See it work: three agents, two upstreams with books of their own, a cap that halts, a revoke, a resume.

    A broker and its upstreams are started on this machine, on free ports of the loopback address, and ended again.
    """
    # The MCP client and the server's parts cost half a second to import; the other commands must not pay it.
    import anyio  # noqa: PLC0415 - see above

    from haltline.demo.printing import Teller  # noqa: PLC0415 - see above
    from haltline.demo.story import as_json as facts  # noqa: PLC0415 - see above
    from haltline.demo.story import perform  # noqa: PLC0415 - see above
    from haltline.logs import configure  # noqa: PLC0415 - see above

    if keep and as_json:
        raise click.UsageError("--keep and --json exclude each other.")
    configure("debug" if debug else "error")
    if not debug:
        # A revoked session's client complains about what the story is there to show.
        logging.disable(logging.CRITICAL)
    tell = Teller(io.StringIO() if as_json else None)
    outcome = anyio.run(lambda: perform(tell, folder, keep=keep))
    if as_json:
        click.echo(json.dumps(facts(tell, outcome), separators=(",", ":")))
    if outcome.interrupted:
        context.exit(EXIT_INTERRUPTED)
    if not (tell.held and outcome.played):
        context.exit(1)
