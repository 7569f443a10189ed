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
    from collections.abc import Callable, Collection, Iterator, Mapping

    from haltline.upstreams.catalog import Catalog

__all__ = ["LISTINGS", "Listing", "Offers", "target_of"]

K = TypeVar("K")
T = TypeVar("T")
Kind = Literal["prompts", "resources", "tasks"]
TASKS = "io.modelcontextprotocol/tasks"
"""The extension of 2026-07-28 by which a call may be answered with a task."""
LIST_S = 10.0
MAX_PAGES = 100
MAX_ITEMS = 5_000
_LEADS_MAX = 50_000
TEMPLATES_MAX = 1_000
TEMPLATE_URI_MAX = 4_096
"""A longer URI is found by its listing alone."""
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
TASKS_LISTING = Listing("tasks/list", "tasks", "tasks", "taskId")
LISTINGS = {listing.method: listing for listing in (PROMPTS, RESOURCES, TEMPLATES)}


class Offers:
    """Lives on the event loop. What it returns as a target is what policy and records call `tool`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._prompts: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._uris: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._templates: OrderedDict[tuple[str, str], Template] = OrderedDict()
        """By upstream and text."""

    def capabilities(self) -> dict[str, Any]:
        """What some upstream offers, as an agent's client is told."""
        offered: dict[str, Any] = {}
        for upstream in self._catalog.upstreams():
            for name in ("prompts", "resources", "completions", "logging", "tasks"):
                _merge(offered, name, upstream.capabilities.get(name))
            extensions = upstream.capabilities.get("extensions")
            if isinstance(extensions, dict) and TASKS in extensions:
                _merge(offered, "extensions", {TASKS: extensions[TASKS]})
        return offered

    async def listed(
        self,
        listing: Listing,
        caller: Caller,
        peer: Peer,
        *,
        granted: Callable[[str, str], bool],
        before_send: Callable[[], None],
    ) -> list[dict[str, Any]]:
        """The items of every upstream that has them and is granted, prompts under their prefixed names."""
        asked = [
            one
            for one in self._offering(listing.kind)
            if listing is PROMPTS or granted(_resources_of(one), one.spec.name)
        ]
        found = await _of_each(asked, listing, caller, peer, before_send)
        items: dict[str, dict[str, Any]] = {}
        for upstream in asked:
            for item in found[upstream.spec.name]:
                shown = self._shown(listing, upstream, item)
                if listing is not PROMPTS or granted(shown["name"], upstream.spec.name):
                    items.setdefault(shown[listing.lead], shown)  # of two with one name the first upstream's
        return list(items.values())

    async def tasks(
        self, made: Mapping[str, Collection[str]], caller: Caller, peer: Peer, *, before_send: Callable[[], None]
    ) -> list[dict[str, Any]]:
        """What upstreams say of these tasks, by their names the ids; of others' they may tell nothing is passed on."""
        asked = [
            one
            for one in self._catalog.upstreams()
            if one.spec.name in made and "list" in (one.capabilities.get("tasks") or {})
        ]
        found = await _of_each(asked, TASKS_LISTING, caller, peer, before_send)
        return [item for name, items in found.items() for item in items if item["taskId"] in made[name]]

    def prompt(self, name: str) -> Tool | None:
        """Where a prompt of this name is, listed or not."""
        known = self._prompts.get(name)
        if known is None:
            known = next(self._by_prefix(name), None)
        return None if known is None else target_of(name, *known)

    def resource(self, uri: str, granted: Callable[[str, str], bool] = lambda _name, _upstream: True) -> Tool | None:
        """Where a resource is: as listed, as a template says, or with the only one that has any. What is granted goes first."""
        offering = {upstream.spec.name: upstream for upstream in self._offering("resources")}
        owners = list(self._uris.get(uri, ()))
        if not owners and len(uri) <= TEMPLATE_URI_MAX:
            owners = [template.owner for template in self._templates.values() if template.matches(uri)]
        if not owners and len(offering) == 1:
            owners = list(offering)
        targets = [target_of(_resources_of(offering[name]), name, uri) for name in owners if name in offering]
        return next((one for one in targets if granted(one.name, one.upstream)), targets[0] if targets else None)

    def _offering(self, kind: Kind) -> list[Upstream]:
        return [one for one in self._catalog.upstreams() if isinstance(one.capabilities.get(kind), dict)]

    def _shown(self, listing: Listing, upstream: Upstream, item: dict[str, Any]) -> dict[str, Any]:
        """An item as agents see it; where it leads is remembered."""
        lead, owner = item[listing.lead], upstream.spec.name
        if listing is PROMPTS:
            name = tool_name(_prefix(upstream), lead)
            _remember(self._prompts, name, (owner, lead), _LEADS_MAX)
            return {**item, "name": name}
        if listing is RESOURCES:
            known = self._uris.get(lead, ())
            self._uris[lead] = known if owner in known else (*known, owner)
            _remember(self._uris, lead, self._uris[lead], _LEADS_MAX)
        else:
            _remember(self._templates, (owner, lead), Template.of(owner, lead), TEMPLATES_MAX)
        return item

    def _by_prefix(self, name: str) -> Iterator[tuple[str, str]]:
        for upstream in self._offering("prompts"):
            prefix = _prefix(upstream)
            if not prefix:
                yield upstream.spec.name, name
            elif name.startswith(prefix + SEPARATOR):
                yield upstream.spec.name, name.removeprefix(prefix + SEPARATOR)


async def _of_each(
    asked: Collection[Upstream], listing: Listing, caller: Caller, peer: Peer, before_send: Callable[[], None]
) -> dict[str, list[dict[str, Any]]]:
    """Their items by the upstreams' names, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}

    async def one(upstream: Upstream) -> None:
        try:
            found[upstream.spec.name] = await _all_pages(upstream, listing, caller, peer, before_send)
        except UpstreamError as error:
            log.warning("not_listed", upstream=upstream.spec.name, method=listing.method, code=error.code)

    async with anyio.create_task_group() as tasks:
        for upstream in asked:
            tasks.start_soon(one, upstream)
    return {one.spec.name: found.get(one.spec.name, []) for one in asked}


async def _all_pages(
    upstream: Upstream, listing: Listing, caller: Caller, peer: Peer, before_send: Callable[[], None]
) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        call = UpstreamCall(
            caller=caller,
            params={} if cursor is None else {"cursor": cursor},
            deadline_s=LIST_S,
            before_send=before_send,
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


def _resources_of(upstream: Upstream) -> str:
    """The name by which policies grant all resources of an upstream: `UPSTREAM__resources`."""
    return tool_name(_prefix(upstream), "resources")


def target_of(subject: str, upstream: str, own: str) -> Tool:
    return Tool(name=subject, upstream=upstream, own_name=own, definition={}, input_schema=None, digest="")


def _remember(leads: OrderedDict[K, T], key: K, value: T, most: int) -> None:
    leads.setdefault(key, value)
    leads.move_to_end(key)
    if len(leads) > most:
        leads.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Template:
    """A URI template (RFC 6570) by its literal parts; each expression between them stands for any text, at least one
    character. Matched from left to right in linear time: a URI comes from anybody, a template from any upstream.
    """

    owner: str
    parts: tuple[str, ...]

    @staticmethod
    def of(owner: str, text: str) -> Template:
        return Template(owner, tuple(re.split(r"\{[^}]*\}", text)))

    def matches(self, uri: str) -> bool:
        first, *middle = self.parts
        if not middle:
            return uri == first
        last = middle.pop()
        end = len(uri) - len(last)
        if not uri.startswith(first) or not uri.endswith(last):
            return False
        place = len(first)
        for part in middle:
            place = uri.find(part, place + 1, end)
            if place < 0:
                return False
            place += len(part)
        return end > place


def _pass_over(message: dict[str, Any]) -> None:
    del message
