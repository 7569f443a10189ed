"""`haltline completion`: prints the script that makes a shell complete the commands; click's own."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(
    "completion",
    epilog="\b\nExamples:\n"
    "  haltline completion bash > ~/.local/share/bash-completion/completions/haltline\n"
    "  haltline completion zsh > ~/.zfunc/_haltline\n"
    "  haltline completion fish > ~/.config/fish/completions/haltline.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    made_for = get_completion_class(shell)
    if made_for is None:
        raise click.UsageError(f"no completion for {shell}", context)
    click.echo(made_for(context.find_root().command, {}, "haltline", "_HALTLINE_COMPLETE").source())
