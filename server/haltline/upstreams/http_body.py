"""The whole answer to one HTTP request, whatever its status: head and body, the body up to a bound and no further.

Does not judge it: which status or type is good is for whoever asked. What arrives after the bound is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from haltline.upstreams import faults
from haltline.upstreams.http_wire import Lost

__all__ = ["BodyReply", "HttpAnswer"]

MAX_ERROR_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """`cut`: there was more than `body` holds. `headers` by lower-case names."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes
    cut: bool = False

    def header(self, name: str) -> str:
        return self.headers.get(name.encode("ascii"), b"").decode("utf-8", "replace").strip()

    @property
    def media_type(self) -> str:
        return self.header("content-type").partition(";")[0].strip().lower()


class BodyReply:
    """The receiver of one answer. `answer` ends with it, or with an UpstreamError."""

    def __init__(self, name: str, max_bytes: int, *, head_only: bool = False) -> None:
        self.answer: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        self.answered = False
        self._name = name
        self._max = max_bytes
        self._head_only = head_only
        self._status = 0
        self._headers: Mapping[bytes, bytes] = {}
        self._body = bytearray()

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever waited may have been cancelled in the same moment

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self._status, self._headers = status, headers
        if status >= 300:
            self._max = min(self._max, MAX_ERROR_BYTES)
        if self._head_only:
            self._settle(cut=False)  # its length is said, but no body follows
        elif headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self.fail(faults.malformed(self._name, "it is compressed although that was not asked for"))

    def body(self, data: bytes) -> None:
        if self.answer.done():
            return
        self._body += data[: self._max + 1 - len(self._body)]
        if len(self._body) > self._max:
            del self._body[self._max :]
            self._settle(cut=True)

    def done(self) -> None:
        self._settle(cut=False)

    def lost(self, error: Exception) -> None:
        self.fail(faults.lost(self._name, str(error)) if isinstance(error, Lost) else error)

    def _settle(self, *, cut: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(HttpAnswer(self._status, self._headers, bytes(self._body), cut))
