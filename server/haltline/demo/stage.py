"""The stage: a folder with configuration and policies, two upstreams, a receiver of alerts and a broker, all real.

Sets them up in order, waits until the broker is ready, and takes everything down again whatever happens. Plays nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx

from haltline.demo.processes import Failed, code_path, first_line, last_words, python, ran, running
from haltline.demo.receiver import Receiver, receiving
from haltline.errors import ConfigError
from haltline.setup.starter import write_starter
from haltline.store.folder import write_private

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import Process

    from haltline.demo.processes import Ran

__all__ = ["SECRET", "Stage", "set_up"]

START_WITHIN_S = 30.0
LOOK_EVERY_S = 0.02
SECRET = "demo-receiver-secret"  # noqa: S105 - signs the demonstration's own alerts to itself


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is once it runs."""

    folder: Path
    data: Path
    person_token_file: Path
    agents_url: str
    control_url: str
    payments_books: Path
    tasks_books: Path
    receiver: Receiver

    @property
    def person_token(self) -> str:
        return self.person_token_file.read_text(encoding="ascii").strip()

    @property
    def local_token(self) -> str:
        """The weaker credential that the command line finds by itself (R21)."""
        return (self.data / "local-operator.token").read_text(encoding="ascii").strip()

    async def command(self, *arguments: str, as_person: bool = False) -> Ran:
        """Run `haltline …` as somebody at a terminal of this machine would."""
        extra = {"HALTLINE_DATA": str(self.data)}
        if as_person:
            extra["HALTLINE_OPERATOR_TOKEN_FILE"] = str(self.person_token_file)
        return await ran(python("haltline", *arguments), folder=self.folder, extra=extra)


@asynccontextmanager
async def set_up(chosen: Path | None) -> AsyncIterator[Stage]:
    """A running stage in `chosen`, which stays, or in a temporary folder, which is deleted at the end."""
    async with AsyncExitStack() as stack:
        folder = _folder(chosen, stack)
        receiver = stack.enter_context(receiving())
        payments_books, tasks_books = folder / "payments.db", folder / "tasks.db"
        payments_log = folder / "payments.log"
        command = python("haltline.demo.payments", "--books", str(payments_books))
        payments = await stack.enter_async_context(running(command, folder=folder, log=payments_log))
        payments_url = await first_line(payments, START_WITHIN_S, payments_log)
        _write_config(folder, payments_url, tasks_books, receiver.url)
        stage = await _broker(folder, stack)
        yield Stage(
            folder=folder,
            data=folder / "data",
            person_token_file=folder / "person.token",
            agents_url=stage["agents"],
            control_url=stage["control"],
            payments_books=payments_books,
            tasks_books=tasks_books,
            receiver=receiver,
        )


def _folder(chosen: Path | None, stack: AsyncExitStack) -> Path:
    if chosen is None:
        folder = Path(tempfile.mkdtemp(prefix="haltline-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder
    try:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(chosen.iterdir()):
            raise ConfigError(f"{chosen} is not empty; the demo writes into an empty folder only")
    except OSError as error:
        raise ConfigError(f"cannot use {chosen} for the demo: {error.strerror}") from error
    return chosen.resolve()


def _write_config(folder: Path, payments_url: str, tasks_books: Path, alerts_url: str) -> None:
    """haltline.yaml and the shipped policies, as `haltline init` would write them."""
    upstreams = {
        "payments": {"type": "http", "url": payments_url},
        "tasks": {
            "command": sys.executable,
            "args": ["-m", "haltline.demo.tasks", "--books", str(tasks_books)],
            "env": {"PYTHONPATH": code_path()},
        },
    }
    webhook = {"name": "demo-pager", "url": alerts_url, "secret": SECRET}
    # A JSON value is a YAML value, and json.dumps quotes whatever a path may hold.
    lines = [
        'version: "1"',
        "data: data",
        'agents: {listen: "127.0.0.1:0"}',
        'control: {listen: "127.0.0.1:0"}',
        f"upstreams: {json.dumps(upstreams)}",
        f"alerts: {json.dumps({'webhooks': [webhook]})}",
    ]
    write_private(folder / "haltline.yaml", "\n".join([*lines, ""]).encode())
    write_starter(folder)


async def _broker(folder: Path, stack: AsyncExitStack) -> dict[str, str]:
    """Start the broker and wait until it is ready; returns where it listens."""
    log = folder / "broker.log"
    options = ["--config", str(folder / "haltline.yaml"), "--operator-token-file", str(folder / "person.token")]
    broker = await stack.enter_async_context(running(python("haltline", "serve", *options), folder=folder, log=log))
    with anyio.move_on_after(START_WITHIN_S):
        return await _ready(broker, folder / "data" / "endpoints.json", log)
    raise Failed(f"the broker was not ready within {START_WITHIN_S:g} s: {last_words(log)}")


async def _ready(broker: Process, endpoints: Path, log: Path) -> dict[str, str]:
    async with httpx.AsyncClient() as http:
        while True:
            if broker.returncode is not None:
                raise Failed(f"the broker ended with code {broker.returncode}: {last_words(log)}")
            where = _written(endpoints)
            if where is not None and await _answers(http, where["control"] + "/readyz"):
                return where
            await anyio.sleep(LOOK_EVERY_S)


def _written(endpoints: Path) -> dict[str, str] | None:
    """Where the broker listens, once it has written that down (in one step, so never half of it)."""
    if not endpoints.exists():
        return None
    where: dict[str, str] = json.loads(endpoints.read_text(encoding="utf-8"))
    return where


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
