"""What upstreams offer beside tools: prompts and resources, asked for when an agent asks, on that agent's behalf.

Nothing is cached but where a name or a URI leads. An upstream that cannot be listed now is left out of a list and
affects no other.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import structlog

from haltline.upstreams.catalog import Tool
from haltline.upstreams.model import Caller, Peer, Upstream, UpstreamCall, UpstreamError
from haltline.upstreams.tool_names import SEPARATOR, tool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from haltline.upstreams.catalog import Catalog

__all__ = ["LISTINGS", "Listing", "Offers"]

T = TypeVar("T")
Kind = Literal["prompts", "resources"]
TASKS = "io.modelcontextprotocol/tasks"
"""The extension of 2026-07-28 by which a call may be answered with a task."""
LIST_S = 10.0
MAX_PAGES = 100
MAX_ITEMS = 5_000
_LEADS_MAX = 50_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """A list method: its name, the capability it needs, the key of its items and what of an item leads to it."""

    method: str
    kind: Kind
    items: str
    lead: str


PROMPTS = Listing("prompts/list", "prompts", "prompts", "name")
RESOURCES = Listing("resources/list", "resources", "resources", "uri")
TEMPLATES = Listing("resources/templates/list", "resources", "resourceTemplates", "uriTemplate")
LISTINGS = {listing.method: listing for listing in (PROMPTS, RESOURCES, TEMPLATES)}


class Offers:
    """Lives on the event loop. What it returns as a target is what policy and records call `tool`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._prompts: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._uris: OrderedDict[str, str] = OrderedDict()
        self._templates: OrderedDict[str, tuple[re.Pattern[str], str]] = OrderedDict()

    def capabilities(self) -> dict[str, Any]:
        """What some upstream offers, as an agent's client is told."""
        offered: dict[str, Any] = {}
        for upstream in self._catalog.upstreams():
            for name in ("prompts", "resources", "completions", "logging", "tasks"):
                _merge(offered, name, upstream.capabilities.get(name))
            extensions = upstream.capabilities.get("extensions")
            if isinstance(extensions, dict) and TASKS in extensions:
                _merge(offered, "extensions", {TASKS: extensions[TASKS]})
        offered.get("tasks", {}).pop("list", None)  # of what others made, nothing may be seen
        return offered

    async def listed(
        self, listing: Listing, caller: Caller, peer: Peer, granted: Callable[[str, str], bool]
    ) -> list[dict[str, Any]]:
        """The items of every upstream that has them and is granted, prompts under their prefixed names."""
        found: dict[str, list[dict[str, Any]]] = {}

        async def one(upstream: Upstream) -> None:
            try:
                found[upstream.spec.name] = await _all_pages(upstream, listing, caller, peer)
            except UpstreamError as error:
                log.warning("not_listed", upstream=upstream.spec.name, method=listing.method, code=error.code)

        async with anyio.create_task_group() as tasks:
            for upstream in self._offering(listing.kind):
                tasks.start_soon(one, upstream)
        items: list[dict[str, Any]] = []
        for upstream in self._offering(listing.kind):
            for item in found.get(upstream.spec.name, ()):
                shown = self._shown(listing, upstream, item)
                if shown is not None and granted(_subject(listing.kind, upstream, shown), upstream.spec.name):
                    items.append(shown)
        return items

    def prompt(self, name: str) -> Tool | None:
        """Where a prompt of this name is, listed or not."""
        known = self._prompts.get(name)
        if known is None:
            known = next(self._by_prefix(name), None)
        return None if known is None else _target(name, *known)

    def resource(self, uri: str) -> Tool | None:
        """Where a resource is: as listed, as a template says, or with the only one that has any."""
        owner = self._uris.get(uri) or next(
            (name for pattern, name in self._templates.values() if pattern.fullmatch(uri)), None
        )
        offering = [upstream.spec.name for upstream in self._offering("resources")]
        if owner is None and len(offering) == 1:
            owner = offering[0]
        if owner is None or owner not in offering:
            return None
        return _target(_subject("resources", self._catalog.upstream(owner), {}), owner, uri)

    def _offering(self, kind: Kind) -> list[Upstream]:
        return [one for one in self._catalog.upstreams() if isinstance(one.capabilities.get(kind), dict)]

    def _shown(self, listing: Listing, upstream: Upstream, item: dict[str, Any]) -> dict[str, Any] | None:
        """An item as agents see it, remembered; None where another upstream has it already."""
        lead, owner = item[listing.lead], upstream.spec.name
        if listing is PROMPTS:
            name = tool_name(_prefix(upstream), lead)
            if _remember(self._prompts, name, (owner, lead))[0] != owner:
                return None
            return {**item, "name": name}
        if listing is RESOURCES:
            return item if _remember(self._uris, lead, owner) == owner else None
        pattern = _template(lead)
        return item if _remember(self._templates, lead, (pattern, owner))[1] == owner else None

    def _by_prefix(self, name: str) -> Iterator[tuple[str, str]]:
        for upstream in self._offering("prompts"):
            prefix = _prefix(upstream)
            if not prefix:
                yield upstream.spec.name, name
            elif name.startswith(prefix + SEPARATOR):
                yield upstream.spec.name, name.removeprefix(prefix + SEPARATOR)


async def _all_pages(upstream: Upstream, listing: Listing, caller: Caller, peer: Peer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        call = UpstreamCall(
            caller=caller,
            params={} if cursor is None else {"cursor": cursor},
            deadline_s=LIST_S,
            before_send=_nothing,
            on_notification=_pass_over,
            method=listing.method,
            peer=peer,
        )
        answer = await upstream.call(call)
        result = answer.get("result", {})
        page = result.get(listing.items)
        items += [item for item in page or () if isinstance(item, dict) and isinstance(item.get(listing.lead), str)]
        following = result.get("nextCursor")
        if not isinstance(following, str) or following == cursor or len(items) > MAX_ITEMS:
            break
        cursor = following
    return items[:MAX_ITEMS]


def _merge(offered: dict[str, Any], name: str, said: Any) -> None:
    if isinstance(said, dict):
        merged = offered.setdefault(name, {})
        merged.update({key: merged.get(key) or value for key, value in said.items()})


def _prefix(upstream: Upstream) -> str:
    return upstream.spec.name if upstream.spec.prefix is None else upstream.spec.prefix


def _subject(kind: Kind, upstream: Upstream, item: Mapping[str, Any]) -> str:
    """The name that policies grant: a prompt's own, and `UPSTREAM__resources` for all resources of an upstream."""
    return str(item["name"]) if kind == "prompts" else tool_name(_prefix(upstream), "resources")


def _target(subject: str, upstream: str, own: str) -> Tool:
    return Tool(name=subject, upstream=upstream, own_name=own, definition={}, input_schema=None, digest="")


def _remember(leads: OrderedDict[str, T], key: str, value: T) -> T:
    known = leads.setdefault(key, value)
    leads.move_to_end(key)
    if len(leads) > _LEADS_MAX:
        leads.popitem(last=False)
    return known


def _template(text: str) -> re.Pattern[str]:
    """A URI template (RFC 6570) as a pattern: each expression stands for any text."""
    return re.compile(
        "".join(".+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", text))
    )


def _nothing() -> None:
    """A list moves no money, and may be asked for at any time."""


def _pass_over(message: dict[str, Any]) -> None:
    del message
