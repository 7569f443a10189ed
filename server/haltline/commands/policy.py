"""`haltline policy check|test|schema`: what a folder of policy files says and lacks, its tests, its JSON Schema for editors."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haltline.errors import ConfigError
from haltline_client.commands.desk import examples
from haltline_client.commands.page import Styled, stdout_page
from haltline_client.commands.words import clean

if TYPE_CHECKING:
    from haltline.errors import Problem
    from haltline_client.commands.page import Page

__all__ = ["check", "schema", "test"]


@click.command(
    "check", epilog=examples("haltline policy check", "haltline policy check --policies /etc/haltline/policies")
)
@click.option(
    "--policies", default="policies", type=click.Path(path_type=Path), metavar="FOLDER", help="[default: policies]"
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="The haltline.yaml whose channels routes may name. [default: the one that names this folder]",
)
@click.option("--data", metavar="FOLDER", help="The broker's data folder, for the tools that it has seen.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def check(policies: Path, config: Path | None, data: str | None, as_json: bool) -> int:
    """Check the policy files of a folder. Exit code 3 when they cannot be used; warnings alone are 0.

    Where haltline.yaml is at hand, routes to channels that it has not are found. Where a broker has run here, tools of its
    upstreams that no price covers are named.
    """
    version, problems, warnings = _look(policies, config, data)
    if as_json:
        result: dict[str, Any] = {
            "folder": str(policies),
            "ok": not problems,
            "version": version,
            "problems": [asdict(problem) for problem in problems],
            "warnings": [asdict(warning) for warning in warnings],
        }
        click.echo(json.dumps(result, separators=(",", ":")))
    else:
        _print(stdout_page(), policies, version, problems, warnings)
    return ConfigError.exit_code if problems else 0


_TEST_HELP = """Run the tests of a policy: given this history and this call, expect this answer.

Exit code 1 when one fails. Nothing is called and no broker is needed. A test file says:

\b
    tests:
      the hundredth equal call halts:
        tier: experimental
        history: [{tool: payments__balance, ago: 99s, times: 99}]
        call: {tool: payments__balance}
        expect: halt rule.runaway-loop       # or: allow, deny CODE
        fires: [runaway-loop]                # may be left out
"""


@click.command(
    "test",
    help=_TEST_HELP,
    epilog=examples("haltline policy test", "haltline policy test --policies /etc/haltline/policies"),
)
@click.option(
    "--policies", default="policies", type=click.Path(path_type=Path), metavar="FOLDER", help="[default: policies]"
)
@click.option("--tests", type=click.Path(path_type=Path), metavar="FOLDER", help="[default: tests in that folder]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def test(policies: Path, tests: Path | None, as_json: bool) -> int:
    """Run the tests of a policy: given this history and this call, expect this answer. Exit code 1 when one fails."""
    from haltline.policy.policy import load_policy  # noqa: PLC0415 - keeps `--help` fast
    from haltline.policy_tests import run_tests  # noqa: PLC0415

    verdicts = run_tests(load_policy(policies), tests or policies / "tests")
    failed = [one for one in verdicts if one.wrong]
    if as_json:
        result = {"passed": len(verdicts) - len(failed), "failed": [asdict(one) for one in failed]}
        click.echo(json.dumps(result, separators=(",", ":")))
        return 1 if failed else 0
    page = stdout_page()
    for one in failed:
        page.line(Styled("failed  ", "bad"), clean(f"{one.where}: {one.name}: {one.wrong}"))
    if not verdicts:
        page.line(f"There are no tests in {clean(tests or policies / 'tests')}.")
    page.line(f"{len(verdicts) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


@click.command("schema", epilog=examples("haltline policy schema > policy.schema.json"))
def schema() -> None:
    """Print the JSON Schema of policy files, for editors that check and complete YAML."""
    from haltline.policy.document import json_schema  # noqa: PLC0415 - keeps `--help` fast

    click.echo(json.dumps(json_schema(), indent=2))


def _look(
    folder: Path, config: Path | None, data: str | None
) -> tuple[str | None, tuple[Problem, ...], tuple[Problem, ...]]:
    """Version, problems and warnings of what a broker would read there."""
    from haltline.commands.seen import misfits  # noqa: PLC0415
    from haltline.policy.folder import read_folder  # noqa: PLC0415 - keeps `--help` fast
    from haltline.policy.policy import Policy  # noqa: PLC0415
    from haltline.policy.review import review  # noqa: PLC0415
    from haltline.setup.channel_names import channel_names, config_of  # noqa: PLC0415

    here = config or config_of(folder, os.environ)
    try:
        merged = read_folder(folder, None if here is None else channel_names(here))
        return Policy(merged).version, (), (*review(merged), *misfits(merged, data))
    except ConfigError as error:
        return None, error.problems, ()


def _print(
    page: Page, folder: Path, version: str | None, problems: tuple[Problem, ...], warnings: tuple[Problem, ...]
) -> None:
    for problem in problems:
        page.line(Styled("error  ", "bad"), clean(problem))
    for warning in warnings:
        page.line(Styled("warning  ", "warn"), clean(warning))
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        page.line(f"{count}; a broker would not take up this policy.")
    else:
        page.line(Styled("ok", "good"), f"  policy {version} in {clean(folder)}")
