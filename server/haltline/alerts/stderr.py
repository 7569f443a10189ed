"""The channel that is always there: one readable block on standard error. Knows nothing of other channels."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from haltline.alerts.model import Later, Never
from haltline.alerts.text import block

if TYPE_CHECKING:
    from typing import TextIO

    from haltline.alerts.model import Act, Delivery

__all__ = ["StderrChannel"]

_WRITE_TIMEOUT_S = 5.0
_CLOSED = {errno.EPIPE, errno.EBADF}


class StderrChannel:
    """Written in a thread: a pipe that nobody reads must not stop the broker."""

    name = "stderr"
    kind = "stderr"
    acts: frozenset[Act] = frozenset({"trigger", "acknowledge", "resolve", "notice"})

    def __init__(self, stream: TextIO | None, timeout_s: float = _WRITE_TIMEOUT_S) -> None:
        self._stream = stream
        self._timeout_s = timeout_s
        self._turn = anyio.Lock()
        self._stuck = False

    async def send(self, delivery: Delivery) -> None:
        text = block(delivery)
        async with self._turn:
            if self._stuck:
                raise Later("an earlier write to standard error has not ended")
            try:
                with anyio.fail_after(self._timeout_s):
                    await anyio.to_thread.run_sync(self._write, text, abandon_on_cancel=True)
            except TimeoutError:
                raise Later("standard error takes nothing: is it a pipe that nobody reads?") from None

    async def aclose(self) -> None:
        """The stream is not ours to close."""

    def _write(self, text: str) -> None:
        stream = self._stream
        if stream is None:
            raise Never("this process has no standard error")
        self._stuck = True
        try:
            encoding = stream.encoding or "utf-8"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except ValueError:
            raise Never("standard error is closed") from None
        except OSError as error:
            why = f"standard error cannot be written: {error.strerror}"
            raise (Never(why) if error.errno in _CLOSED else Later(why)) from None
        finally:
            self._stuck = False
