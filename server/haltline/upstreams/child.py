"""One program, its pipes and its process group: started with a minimal environment, ended with all its children.

Knows lines and signals, no JSON. What it writes to standard error is kept, bounded, for operators. On Linux the kernel kills
it when the broker dies in whatever way; elsewhere, and for its children, the closed standard input says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import cast

import structlog

from haltline.upstreams.lines import LineReader, LineTooLong
from haltline.upstreams.model import UpstreamSpec
from haltline.upstreams.pace import TURN_S, Pace

__all__ = ["Child", "NotStarted", "environment", "start"]

log = structlog.get_logger(__name__)

INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
)
"""Of the broker's environment; everything else a program needs is configured (`env`)."""
EOF_GRACE_S = 0.3
TERM_GRACE_S = 0.4
"""After its input was closed it may end by itself, then SIGTERM, then SIGKILL: together less than a second (R17)."""
LAST_OUTPUT_S = 0.25
MAX_STDERR_LINE = 1000
KEPT_STDERR_LINES = 20
MAX_UNWRITTEN_BYTES = 8 * 1024 * 1024

_PRELUDE = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[3:])
"""
"""Runs in the child and becomes the program. PR_SET_PDEATHSIG outlives exec; uvloop hands down more files than the three.
Not a preexec function, which would run Python between fork and exec of a process with threads."""


class NotStarted(Exception):
    """The program could not be started; says why to an operator."""


class Child(asyncio.SubprocessProtocol):
    """`on_line` hears each line of its output; `on_end` is called once, when nothing more can come from it."""

    def __init__(
        self,
        name: str,
        max_line_bytes: int,
        on_line: Callable[[bytes], None],
        on_end: Callable[[str], None],
        pace: Pace | None = None,
    ) -> None:
        self._name = name
        self._pace = pace or Pace()
        self._on_line = on_line
        self._on_end = on_end
        self._lines = LineReader(max_line_bytes)
        self._heard: deque[bytes] = deque()
        self._paused: set[int] = set()
        self._errors = LineReader(MAX_STDERR_LINE)
        self._kept: deque[str] = deque(maxlen=KEPT_STDERR_LINES)
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._exited = asyncio.Event()
        self._ended = False
        self._output_open = True
        self.broken = False
        """It wrote a line longer than allowed."""
        self.pid = 0

    @property
    def alive(self) -> bool:
        return not self._ended and not self._exited.is_set()

    @property
    def over(self) -> bool:
        """Nothing that it may still write is heard."""
        return self._ended

    @property
    def last_words(self) -> str | None:
        return "\n".join(self._kept)[-2000:] or None

    @property
    def writable(self) -> bool:
        """It is there, and reads what it is sent."""
        return (
            self.alive
            and self._stdin is not None
            and not self._stdin.is_closing()
            and self._stdin.get_write_buffer_size() <= MAX_UNWRITTEN_BYTES
        )

    def write(self, line: bytes) -> bool:
        """False, with nothing written, when it is not `writable`."""
        if not self.writable or self._stdin is None:
            return False
        self._stdin.write(line + b"\n")
        return True

    def kill(self) -> None:
        """The whole group, now. It is reaped by the event loop."""
        if self.pid and not self._exited.is_set():
            _signal_group(self.pid, signal.SIGKILL)
        self._end("it was ended")

    async def end(self) -> None:
        """Politely, then firmly, in less than a second; returns when it is reaped."""
        self._end("it was ended")
        if self._stdin is not None:
            self._stdin.close()
        try:
            for grace_s, number in ((EOF_GRACE_S, signal.SIGTERM), (TERM_GRACE_S, signal.SIGKILL)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await self._exited.wait()
                        break
                _signal_group(self.pid, number)
            await self._exited.wait()
        finally:
            if not self._exited.is_set():
                _signal_group(self.pid, signal.SIGKILL)
            if self._transport is not None:
                self._transport.close()

    # asyncio.SubprocessProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()
        self._stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._safely(self._hear_errors if fd == 2 else self._hear, data)

    def _safely(self, work: Callable[..., None], *arguments: bytes) -> None:
        try:
            work(*arguments)
        except LineTooLong:
            self.broken = True
            self._lines.clear()
            self.kill()
        except Exception:  # the boundary to the event loop: whatever broke, this child is ended
            log.exception("upstream_output_failed", upstream=self._name)
            self.kill()

    def _hear(self, data: bytes) -> None:
        if not self.over:
            self._heard.extend(self._lines.feed(data))
            self._hand_on()

    def _hand_on(self) -> None:
        """Tell the lines that are there, for so long as one turn may take; nothing is read meanwhile."""
        begun, until = self._pace.worked(), perf_counter() + TURN_S
        while self._heard:
            if self.over:  # hearing a line may end it
                self._heard.clear()
                return
            self._on_line(self._heard.popleft())
            if self._heard and perf_counter() > until:
                break
        self._rest(1, self._pace.rest_s(begun), self._hand_on)

    def _rest(self, fd: int, seconds: float, then: Callable[[], None]) -> None:
        """Read on, or after a rest: a program that writes too much waits for it."""
        if not seconds and not (fd == 1 and self._heard):
            self._read_on(fd, wanted=True)
            return
        self._read_on(fd, wanted=False)
        loop = asyncio.get_running_loop()
        if seconds:
            loop.call_later(seconds, self._safely, then)
        else:
            loop.call_soon(self._safely, then)

    def _read_on(self, fd: int, *, wanted: bool) -> None:
        if (fd in self._paused) == (not wanted) or self._transport is None:
            return
        pipe = cast("asyncio.ReadTransport | None", self._transport.get_pipe_transport(fd))
        if pipe is None or pipe.is_closing():
            return
        if wanted:
            self._paused.discard(fd)
            pipe.resume_reading()
        else:
            self._paused.add(fd)
            pipe.pause_reading()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        del exc
        if fd == 2:
            return
        self._output_open = self._output_open and fd != 1
        if not self._exited.is_set():
            asyncio.get_running_loop().call_later(LAST_OUTPUT_S, self.kill)  # it hears or answers nothing any more
        elif fd == 1:
            self._end("it exited")

    def process_exited(self) -> None:
        self._exited.set()
        _signal_group(self.pid, signal.SIGKILL)  # whoever it left behind
        if self._output_open:
            asyncio.get_running_loop().call_later(LAST_OUTPUT_S, self._output_over)
        else:
            self._end("it exited")
        if self._transport is not None:
            code = self._transport.get_returncode()
            log.debug("upstream_exited", upstream=self._name, pid=self.pid, code=code)

    def _output_over(self) -> None:
        if self._heard:
            asyncio.get_running_loop().call_later(LAST_OUTPUT_S, self._output_over)
        else:
            self._end("it exited")

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(why)
        if self._exited.is_set() and self._transport is not None:
            self._transport.close()

    def _hear_errors(self, data: bytes) -> None:
        begun = self._pace.worked()
        try:
            lines = self._errors.feed(data)
        except LineTooLong:
            self._errors = LineReader(MAX_STDERR_LINE)
            lines = [data[:MAX_STDERR_LINE]]
        for line in lines:
            text = line[:MAX_STDERR_LINE].decode("utf-8", "replace")
            self._kept.append(text)
            log.debug("upstream_stderr", upstream=self._name, line=text)
        self._rest(2, self._pace.rest_s(begun), lambda: self._read_on(2, wanted=True))


def environment(spec: UpstreamSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    return {name: inherited[name] for name in INHERITED if name in inherited} | dict(spec.env)


async def start(
    spec: UpstreamSpec,
    max_line_bytes: int,
    on_line: Callable[[bytes], None],
    on_end: Callable[[str], None],
    pace: Pace | None = None,
) -> Child:
    """`pace`: of all its processes together. Raises NotStarted."""
    assert spec.command is not None
    env = environment(spec, os.environ)
    if spec.cwd is not None and not os.path.isdir(spec.cwd):  # noqa: ASYNC240, PTH112 - one stat
        raise NotStarted(f"cwd {spec.cwd} is not a folder")
    written = os.path.join(spec.cwd or "", spec.command) if os.sep in spec.command else spec.command  # noqa: PTH118
    program = shutil.which(written, path=env.get("PATH"))
    if program is None:
        raise NotStarted(f"the program {spec.command} is not found")
    program = os.path.abspath(program)  # noqa: ASYNC240, PTH100 - the child may have another working folder
    prelude = [sys.executable, "-I", "-S", "-c", _PRELUDE, str(os.getpid())]
    try:
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: Child(spec.name, max_line_bytes, on_line, on_end, pace),
            *prelude,
            program,
            spec.command,
            *spec.args,
            env=env,
            cwd=spec.cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotStarted(f"{spec.command} cannot be started: {error}") from error
    return child


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
