"""Where an API's document comes from: a file, or an address that is fetched under the same guard as the API's calls.

Reads the documents it refers to as well where that is allowed, and only then. Credentials are never sent for a document.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from haltline.upstreams import faults
from haltline.upstreams.address import Address
from haltline.upstreams.destinations import addresses_of
from haltline.upstreams.http_body import BodyReply
from haltline.upstreams.http_reply import exchange
from haltline.upstreams.http_wire import NoConnection, Pool
from haltline.upstreams.model import OpenApiSource, OutcomeUnknown, UpstreamError, UpstreamSpec
from haltline.upstreams.openapi_document import (
    MAX_JSON_BYTES,
    Documents,
    Unreadable,
    other_documents,
    parse,
    version_of,
)

__all__ = ["DocumentSource", "Loaded", "is_address"]

MAX_DOCUMENTS = 50
MAX_OTHER_BYTES = 16 * 1024 * 1024
_ACCEPT = "application/json, application/yaml;q=0.9, */*;q=0.5"


@dataclass(frozen=True, slots=True)
class Loaded:
    """`digest` tells whether anything changed since."""

    documents: Documents
    digest: str


def is_address(document: str) -> bool:
    return document.startswith(("http://", "https://"))


class DocumentSource:
    """`turns`: a document that is read for nobody any more is read to its end before the next one."""

    def __init__(
        self, spec: UpstreamSpec, source: OpenApiSource, tls: ssl.SSLContext | None, turns: anyio.CapacityLimiter
    ) -> None:
        self._spec = spec
        self._source = source
        self._tls = tls
        path = Path(source.document)
        self._turns = turns
        self._home = source.document if is_address(source.document) else path.name
        self._folder = path.parent

    async def load(self, known: str | None) -> Loaded | None:
        """All documents; None where nothing is different from `known`. Raises UpstreamError."""
        data = await self._bytes(self._home, MAX_JSON_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        if digest == known and not self._source.remote_refs:
            return None
        root = await self._parsed(data, self._home)
        version_of(root)
        if not self._source.remote_refs:
            return Loaded(Documents(self._home, root), digest)
        others, digest = await self._others(root, digest)
        return None if digest == known else Loaded(Documents(self._home, root, others), digest)

    async def _others(self, root: Any, digest: str) -> tuple[Mapping[str, Any], str]:
        found: dict[str, Any] = {self._home: root}
        waiting = set(other_documents(root, self._home))
        left = MAX_OTHER_BYTES
        while waiting - set(found):
            where = min(waiting - set(found))
            if len(found) > MAX_DOCUMENTS:
                raise Unreadable(f"it refers to more than {MAX_DOCUMENTS} other documents")
            data = await self._bytes(where, left)
            left -= len(data)
            digest = hashlib.sha256(digest.encode() + where.encode() + hashlib.sha256(data).digest()).hexdigest()
            found[where] = await self._parsed(data, where)
            waiting |= set(other_documents(found[where], where))
        del found[self._home]
        return found, digest

    async def _parsed(self, data: bytes, where: str) -> Any:
        try:
            return await anyio.to_thread.run_sync(parse, data, abandon_on_cancel=True, limiter=self._turns)
        except Unreadable as error:
            raise Unreadable(f"{where}: {error}" if where != self._home else str(error)) from error

    async def _bytes(self, where: str, most: int) -> bytes:
        if is_address(where):
            return await self._fetched(where, most)
        if is_address(self._home) or where.startswith(("/", "..", "~")) or ":" in where or "\\" in where:
            raise Unreadable(f"it refers to {where[:100]}, which is neither beside it nor at an http address")
        return await anyio.to_thread.run_sync(_file, self._folder, where, most, where == self._home)

    async def _fetched(self, url: str, most: int) -> bytes:
        address = _address(url)
        head = f"GET {address.target} HTTP/1.1\r\nHost: {address.host_header}\r\nUser-Agent: haltline\r\n"
        request = f"{head}Accept: {_ACCEPT}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        pool = Pool(address, self._tls, addresses_of(allow_private=self._source.allow_private))
        now = asyncio.get_running_loop().time()
        try:
            answer = await exchange(
                pool,
                request.encode("ascii"),
                BodyReply(self._spec.name, most),
                before_send=lambda: None,
                ready_by=now + self._spec.connect_timeout_s,
                overdue=(now + self._spec.timeout_s, faults.overdue(self._spec.name, self._spec.timeout_s)),
            )
        except NoConnection as error:
            raise faults.unreachable(self._spec.name, f"its document at {address.host}: {error}") from error
        finally:
            pool.close()
        if answer.status != 200:
            raise Unreadable(f"{address.host} answered HTTP {answer.status} for it" + _redirect(answer.status))
        if answer.cut:
            raise Unreadable(f"larger than {most} bytes")
        return answer.body


def unreadable(name: str, why: str) -> UpstreamError:
    """In an operator's words; an agent only reads that it cannot be used now."""
    return OutcomeUnknown("upstream.malformed", f"the description of {name} cannot be used", f"the document: {why}")


def _redirect(status: int) -> str:
    return ", and redirects are not followed" if 300 <= status < 400 else ""


def _address(url: str) -> Address:
    try:
        return Address.of(url)
    except ValueError as error:
        raise Unreadable(f"{url[:100]} is no address") from error


def _file(folder: Path, where: str, most: int, anywhere: bool) -> bytes:
    path = folder / where
    try:
        if not anywhere and not path.resolve().is_relative_to(folder.resolve()):
            raise Unreadable(f"it refers to {where[:100]}, which is outside its folder")
        with path.open("rb") as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    if len(data) > most:
        raise Unreadable(f"larger than {most} bytes")
    return data
