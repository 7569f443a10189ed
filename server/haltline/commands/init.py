"""`haltline init`: write a first configuration to look at and edit before the broker is started."""

from __future__ import annotations

from pathlib import Path

import click

from haltline_client.commands.desk import examples

__all__ = ["command"]


@click.command("init", epilog=examples("haltline init", "haltline init /etc/haltline"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
def command(folder: Path) -> None:
    """Write haltline.yaml and policies/ into FOLDER (the current one by default). Never overwrites a file."""
    from haltline.setup.starter import write_starter  # noqa: PLC0415 - the other commands must not pay for a YAML parser

    written = write_starter(folder)
    for file in written:
        click.echo(f"wrote {file}")
    if not written:
        click.echo(f"{folder / 'haltline.yaml'} and {folder / 'policies'} are there already; nothing was changed.")
    inside = "" if folder == Path() else f"cd {folder} && "
    click.echo("\nNext:")
    click.echo(f"  1. name your MCP servers under `upstreams:` in {folder / 'haltline.yaml'}")
    click.echo(f"  2. look at the tiers and prices in {folder / 'policies'}")
    click.echo(f"  3. {inside}haltline doctor")
    click.echo(f"  4. {inside}haltline serve")
