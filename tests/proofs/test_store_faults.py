"""A store that cannot be written: a full disk, a file that may not grow, an fdatasync that fails (P1, P6, R12).

Under load the store breaks, stays broken and is mended while the broker runs on. Meanwhile nothing leaves without a record,
callers are told, and afterwards every call is accounted for, without a restart.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Caller
from support.counting_upstream import Receipts, counting_upstream
from support.figures import Figures
from support.small_caps import POLICY, upstream
from support.stored_calls import stored_calls

TOOLS = ("now__pay", "old__pay")
RESULTS_FIRST = 60
BROKEN_S = 2.0
RECOVERED_BELOW_S = 5.0
DISK_BYTES = 24 * 1024 * 1024
UNAVAILABLE = "store.unavailable"


@dataclass
class Fault:
    """One way to break the store of a running broker, and to mend it. `disk`: it needs a small one of its own."""

    name: str
    breaks: Callable[[BrokerProcess], None]
    mends: Callable[[BrokerProcess], None]
    needs: Callable[[], str | None] = lambda: None
    disk: bool = False


class FullDisk:
    """Fills the small disk of the broker from outside."""

    @staticmethod
    def fill(broker: BrokerProcess) -> None:
        with (broker.data_seen.parent / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    @staticmethod
    def empty(broker: BrokerProcess) -> None:
        (broker.data_seen.parent / "ballast").unlink()

    @staticmethod
    def missing() -> str | None:
        if shutil.which("unshare") is None:
            return "there is no unshare"
        tried = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
        )
        return None if tried.returncode == 0 else f"no mount namespace may be made here: {tried.stderr.strip()}"


def _limit(broker: BrokerProcess) -> None:
    """No file of the broker may be longer than its database is now; its log stays shorter than that."""
    _, hard = resource.prlimit(broker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (broker.database.stat().st_size, hard))


def _unlimit(broker: BrokerProcess) -> None:
    _, hard = resource.prlimit(broker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (hard, hard))


class FailingSync:
    """strace lets every fdatasync of the running broker fail with EIO, until it is ended."""

    def __init__(self) -> None:
        self._strace: subprocess.Popen[str] | None = None

    def begin(self, broker: BrokerProcess) -> None:
        command = ["strace", "-f", "-p", str(broker.pid), "-e", "trace=fdatasync,fsync", "-o", "/dev/null"]
        command += ["-e", "inject=fdatasync,fsync:error=EIO"]
        self._strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._strace.stderr is not None
        self._strace.stderr.readline()  # "attached"

    def end(self, broker: BrokerProcess) -> None:
        del broker
        assert self._strace is not None
        self._strace.terminate()
        self._strace.communicate()

    @staticmethod
    def missing() -> str | None:
        if shutil.which("strace") is None:
            return "there is no strace"
        tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
        return None if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()}"


def _faults() -> list[Fault]:
    sync = FailingSync()
    return [
        Fault("full disk, its log on it too", FullDisk.fill, FullDisk.empty, FullDisk.missing, disk=True),
        Fault("files may not grow", _limit, _unlimit),
        Fault("fdatasync fails with EIO", sync.begin, sync.end, FailingSync.missing),
    ]


@dataclass
class Load:
    """Callers who go on through everything, and what they were answered."""

    broker: BrokerProcess
    answers: list[tuple[str, str, str, int]] = field(default_factory=list)
    """(reference, kind, code, when)"""
    over: bool = False

    async def work(self, opened: Opened, mode: str) -> None:
        caller = Caller(self.broker.agents_port, opened.token, mode)
        count = 0
        while not self.over:
            count += 1
            reference = f"{opened.session}-{mode}-{count}"
            told = {"reference": reference, "wait_ms": (0, 20, 60)[count % 3]}
            answer = await caller.call(TOOLS[count % 2], told)
            self.answers.append((reference, answer.kind, answer.code, time.time_ns()))
            if answer.kind != "result":
                await anyio.sleep(0.01)  # a refused agent does not hammer
        caller.cut()

    def count(self, what: str, since_ns: int = 0) -> int:
        return sum(what in {kind, code} and at_ns > since_ns for _, kind, code, at_ns in self.answers)

    async def until(self, what: str, count: int, within_s: float, since_ns: int = 0) -> float:
        """Seconds until so many answers of a sort have come since then."""
        begun = time.perf_counter()
        with anyio.fail_after(within_s):
            while self.count(what, since_ns) < count:
                await anyio.sleep(0.005)  # another process has no event to wait for
        return time.perf_counter() - begun


@contextmanager
def _broker(folder: Path, fault: Fault, now: Receipts, old: Receipts) -> Iterator[BrokerProcess]:
    upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
    settings: dict[str, object] = {"upstreams": upstreams, "policy": POLICY}
    if fault.disk:
        disk = folder / "disk"
        disk.mkdir()
        script = f'mount -t tmpfs -o size={DISK_BYTES},mode=0700 tmpfs "{disk}" && exec "$@" >"{disk}/log" 2>&1'
        settings |= {"data": disk / "data", "wrap": ["unshare", "-m", "sh", "-c", script, "sh"]}
    with broker_process(folder / "broker", **settings) as broker:
        yield broker


@pytest.mark.promise("P1", "P6", "P7", "R11", "R12", "R15")
@pytest.mark.parametrize("fault", _faults(), ids=lambda fault: fault.name)
async def test_while_the_store_is_broken_nothing_is_dispatched_and_afterwards_all_is_accounted_for(
    tmp_path: Path, long: bool, fault: Fault
):
    missing = fault.needs()
    if missing is not None:
        pytest.skip(f"not run: {missing}")
    times = 5 if long else 1
    with (
        counting_upstream(tmp_path) as now,
        counting_upstream(tmp_path, handshake=True) as old,
        _broker(tmp_path, fault, now, old) as broker,
    ):
        broker.await_tools(*TOOLS)
        load = Load(broker)
        told = Told(load)
        async with anyio.create_task_group() as tasks:
            for opened in broker.open(["one", "two", "three", "four"], "wide"):
                for mode in MODES:
                    tasks.start_soon(load.work, opened, mode)
            for _ in range(times):
                await told.once(fault)
            load.over = True
        await _quiet(broker, tmp_path / "copy")
        stored = stored_calls(_copied(broker, tmp_path / "copy"))
        receipts = [*now.all(), *old.all()]
        verified = await anyio.to_thread.run_sync(broker.haltline, "audit", "verify", "--data", str(tmp_path / "copy"))
        pid, code = broker.pid, broker.stop()
    received = Counter(one.reference for one in receipts)
    delivered = [reference for reference, kind, _, _ in load.answers if kind == "result"]

    figures = Figures(f"{fault.name}, {times} times (broker {pid} all the time)")
    answers = Counter(kind if kind == "result" else f"{kind} {code}" for _, kind, code, _ in load.answers)
    figures.note("answers", ", ".join(f"{n} {what}" for what, n in answers.most_common()))
    figures.note("calls admitted", dict(Counter(one.state for one in stored.values())))
    during = [one for one in receipts if any(a < one.at_ns < b for a, b in told.broken)]
    figures.note(
        "received while it was broken, each with its durable event", sum(one.reference in stored for one in during)
    )
    figures.zero("received while it was broken, without one", [one for one in during if one.reference not in stored])
    figures.zero("received without a call.allowed event", sorted(set(received) - set(stored)))
    figures.zero("received twice", [reference for reference, count in received.items() if count > 1])
    figures.zero(
        "received, but recorded as never sent",
        [one for one in received if one in stored and stored[one].state == "voided"],
    )
    figures.zero(
        "delivered, not settled", [one for one in delivered if one not in stored or stored[one].state != "settled"]
    )
    figures.zero("holds left", [one for one in stored.values() if one.state == "held"])
    figures.must("/readyz said no while it was broken", told.not_ready, told.not_ready == times, f"{times} times")
    slowest = max(told.recovered_s)
    figures.must(
        "until calls go through again", f"{slowest:.2f} s", slowest < RECOVERED_BELOW_S, f"< {RECOVERED_BELOW_S:g} s"
    )
    figures.chain(verified)
    figures.equal("exit code", code, 0)
    figures.show()


class Told:
    """Breaks and mends while the load runs on."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.broken: list[tuple[int, int]] = []
        self.recovered_s: list[float] = []
        self.not_ready = 0

    async def once(self, fault: Fault) -> None:
        broker = self.load.broker
        await self.load.until("result", RESULTS_FIRST, 20, time.time_ns())
        asked_ns = time.time_ns()
        await anyio.to_thread.run_sync(fault.breaks, broker)
        try:
            await self.load.until(UNAVAILABLE, 1, 20, asked_ns)
            broken_ns = time.time_ns()
            await anyio.sleep(BROKEN_S)
            self.not_ready += not await anyio.to_thread.run_sync(broker.ready)
        finally:
            await anyio.to_thread.run_sync(fault.mends, broker)
        mended_ns = time.time_ns()
        self.broken.append((broken_ns, mended_ns))
        self.recovered_s.append(await self.load.until("result", 1, 30, mended_ns))


def _copied(broker: BrokerProcess, copy: Path) -> Path:
    """The database in a copy of the data folder: SQLite opens no file through another process's view of the mounts."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(broker.data_seen, copy)
    return copy / "haltline.db"


async def _quiet(broker: BrokerProcess, copy: Path) -> None:
    """Until nothing is held any more, or for long enough."""
    for _ in range(100):
        stored = await anyio.to_thread.run_sync(lambda: stored_calls(_copied(broker, copy)))
        if not any(one.state == "held" for one in stored.values()):
            return
        await anyio.sleep(0.05)  # another process has no event to wait for
