"""A fake control endpoint with every answer prepared, and the command line run against it in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from haltline.cli import main
from support.control_answers import all_answers
from support.fake_control import LOCAL, PERSON, FakeControl, fake_control
from support.fake_endpoint import FakeEndpoint, fake_endpoint
from support.stdio_host import stdio_host


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def control() -> Iterator[FakeControl]:
    with fake_control() as running:
        running.answers.update(all_answers())
        yield running


@pytest.fixture
def person_file(tmp_path: Path) -> Path:
    return _secret(tmp_path / "person.token", PERSON)


@pytest.fixture
def local_data(tmp_path: Path) -> Path:
    """A data folder with the local credential in it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    _secret(folder / "local-operator.token", LOCAL)
    return folder


@pytest.fixture
def haltline(control: FakeControl, person_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line as a person with an own credential runs it."""

    def run(*arguments: str) -> Ran:
        code = main([*arguments, "--url", control.url, "--token-file", str(person_file)])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def bare(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line with the given arguments alone."""

    def run(*arguments: str) -> Ran:
        code = main(list(arguments))
        return Ran(code, *capsys.readouterr())

    return run


def _secret(file: Path, token: str) -> Path:
    file.write_text(token + "\n")
    file.chmod(0o600)
    return file


# what the bridge speaks to, and the host that launched it


@pytest.fixture
async def endpoint():
    async with fake_endpoint() as running:
        yield running


@pytest.fixture
async def host(endpoint: FakeEndpoint):
    async with stdio_host(endpoint.url) as running:
        yield running
