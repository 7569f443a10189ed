"""`--cap NAME=VALUE`: caps given on the command line, as the control tools take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline_client.results import Caps

__all__ = ["cap_option"]

F = TypeVar("F", bound="Callable[..., Any]")
MONEY = ("per_call", "task", "hour", "day")
COUNTS = ("calls", "concurrent")


def cap_option(command: F) -> F:
    """A repeatable `--cap`; the command gets `caps`, or None for those of the tier."""
    return click.option(
        "--cap",
        "caps",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_caps,
        help="per_call, task, hour or day=AMOUNT; calls or concurrent=NUMBER; rate=5/minute. May be repeated.",
    )(command)


def _caps(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Caps | None:
    caps: dict[str, str | int] = {}
    for value in values:
        name, equals, given = value.partition("=")
        name, given = name.strip().replace("-", "_"), given.strip()
        if not equals or not given or name not in (*MONEY, *COUNTS, "rate"):
            raise click.BadParameter(
                f"{value!r}: write NAME=VALUE with {', '.join((*MONEY, *COUNTS))} or rate", context, option
            )
        if name in caps:
            raise click.BadParameter(f"{name} is given twice", context, option)
        if name in COUNTS and not given.isdecimal():
            raise click.BadParameter(f"{value!r}: {name} is a whole number", context, option)
        caps[name] = int(given) if name in COUNTS else given
    return cast("Caps", caps) if caps else None
