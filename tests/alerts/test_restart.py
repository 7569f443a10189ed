"""All that the outbox knows is in the rows: what a killed process leaves behind is delivered by the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from haltline.alerts.model import Delivery, Later
from support.post_office import START_US, ListChannel, PostOffice, an_alert, post_office

CHILD = """
import anyio, os, pathlib, signal, sys
from support.post_office import PostOffice, ListChannel, an_alert

class Dies(ListChannel):
    async def send(self, delivery):
        await super().send(delivery)
        print(delivery.id, flush=True)
        if len(self.taken) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    office = PostOffice(pathlib.Path(sys.argv[1]))
    outbox = office.outbox(Dies())
    await office.put(outbox, *(an_alert(f"agent-{n % 3}", n) for n in range(20)))
    await outbox.run()

anyio.run(main)
"""


@pytest.mark.promise("P10")
async def test_a_broker_that_just_stopped_leaves_its_alerts_to_the_next(office: PostOffice, tmp_path: Path) -> None:
    def later(_: Delivery) -> None:
        raise Later("HTTP 503")

    before = office.outbox(ListChannel(fail=later))
    async with office.running(before):
        (alert_id,) = await office.put(before, an_alert())
        await office.done(before)
    channel = ListChannel()
    later_us = START_US + 90_000_000
    async with post_office(tmp_path / "haltline.db", later_us) as again, again.running(again.outbox(channel)) as outbox:
        assert await again.done(outbox)
    assert [(one.alert_id, one.attempt) for one in channel.taken] == [(alert_id, 2)]


@pytest.mark.promise("P10")
async def test_killed_in_the_middle_nothing_is_lost_and_the_order_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "haltline.db"
    command = [sys.executable, "-c", CHILD, str(file)]
    path = {"PYTHONPATH": ":".join(sys.path)}
    child = await anyio.run_process(command, check=False, env=path, stderr=subprocess.PIPE)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    sent = child.stdout.decode().split()
    assert len(sent) == 5
    channel = ListChannel()
    async with post_office(file) as office, office.running(office.outbox(channel)) as outbox:
        assert await office.done(outbox)
    after = [one.id for one in channel.taken]
    assert len({*sent, *after}) == 20
    assert sent[-1] in after, "what was sent but not recorded is sent again, under its id"
    for agent in range(3):
        texts = [one.alert.text for one in channel.taken if one.alert.agent == f"agent-{agent}"]
        numbers = [int(text.rsplit(" ", 1)[1].rstrip(")")) for text in texts]
        assert numbers == sorted(numbers)
