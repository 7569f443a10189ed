"""Whom a change reaches: of lists everyone who wants to know, of a resource exactly those who subscribed to it and still
may have it.

Owns who listens now and who subscribed to what, and where that is told. Opens no stream and asks nothing of upstreams but
to be quiet when nobody listens any more.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from haltline.upstreams.telling import UPDATED, Line, Telling, updated
from haltline.wire.eras import SUBSCRIPTION_ID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from haltline.calls.streams import Stream
    from haltline.parts import Parts
    from haltline.wire.standing import Standing

__all__ = ["LISTS", "SUBSCRIPTIONS_MAX", "Hearer", "Hearers", "Place"]

HELD_MAX = 256
SUBSCRIPTIONS_MAX = 256
"""Resources that one session or one stream may subscribe to."""
LISTS = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}
_EVERYBODY: Line = ("", "", "")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a resource that somebody subscribed to is told, and the name that policies grant it by."""

    upstream: str
    line: Line
    subject: str

    @property
    def where(self) -> tuple[str, Line]:
        return self.upstream, self.line


class Hearer:
    """One session of the handshake era, or one subscription stream: what it wants to hear, and where, while it listens."""

    def __init__(self, kinds: frozenset[str], meta: Mapping[str, Any] | None = None) -> None:
        self.kinds = kinds
        self.places: dict[str, Place] = {}
        self.stream: Stream | None = None
        self._meta = meta
        self._standing: Standing | None = None
        self._held: list[dict[str, Any]] | None = None
        self.missed: dict[str, Place] = {}
        """Resources that changed while it did not listen."""

    def open(self, stream: Stream, standing: Standing) -> None:
        self.stream, self._standing = stream, standing

    def close(self) -> None:
        self.stream = self._standing = None

    def hold(self, stream: Stream) -> None:
        """Keep what comes until `release`: something else must be said first."""
        self.stream, self._held = stream, []

    def release(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            self._say(message)

    def tell(self, message: Mapping[str, Any]) -> bool:
        """False: it does not listen now."""
        if self.stream is None or self.stream.stopped is not None:
            return False
        told = {**message, "params": self._params(message.get("params"))}
        if self._held is None:
            self._say(told)
        elif len(self._held) < HELD_MAX:
            self._held.append(told)
        return True

    def _say(self, message: dict[str, Any]) -> None:
        if self._standing is not None:
            self._standing.tell(message, once=True)

    def _params(self, params: Any) -> dict[str, Any]:
        """With the id of this subscription, not of the one with the upstream."""
        kept = dict(params) if isinstance(params, dict) else {}
        theirs = kept.pop("_meta", None)
        meta = {key: value for key, value in theirs.items() if key != SUBSCRIPTION_ID} if theirs else {}
        meta |= self._meta or {}
        return {**kept, "_meta": meta} if meta else kept


class Hearers:
    """Lives on the event loop; nothing here waits."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._listening: set[Hearer] = set()
        self._at: dict[tuple[str, Line], set[Hearer]] = {}
        for upstream in parts.catalog.upstreams():
            if isinstance(upstream, Telling):
                upstream.on_told(partial(self._told, upstream.spec.name))

    @contextmanager
    def listening(self, hearer: Hearer, stream: Stream, standing: Standing) -> Iterator[None]:
        """While the block runs this hearer listens on this stream, unless another one takes its place."""
        hearer.open(stream, standing)
        self._listening.add(hearer)
        self._tell_missed(hearer)
        try:
            yield
        finally:
            if hearer.stream is stream:
                hearer.close()
                self._listening.discard(hearer)

    # what is told

    def lists_changed(self, *kinds: str) -> None:
        """Everybody's lists may be others now; `kinds` of `tools`, `prompts`, `resources`."""
        for method, kind in LISTS.items():
            if kind in kinds:
                self._list_changed({"jsonrpc": "2.0", "method": method})

    def _told(self, upstream: str, line: Line, message: dict[str, Any]) -> bool:
        if message["method"] == UPDATED:
            return self._updated(upstream, line, message)
        return self._list_changed(message, line)

    def _list_changed(self, message: dict[str, Any], line: Line = _EVERYBODY) -> bool:
        agent_id, session_id, _ = line
        heard = False
        for hearer in list(self._listening):
            stream = hearer.stream
            if stream is None or message["method"] not in hearer.kinds:
                continue
            if agent_id in {"", stream.who.agent_id} and session_id in {"", stream.session_id}:
                heard |= hearer.tell(message)
        return heard

    def _updated(self, upstream: str, line: Line, message: dict[str, Any]) -> bool:
        params = message.get("params")
        uri = params.get("uri") if isinstance(params, dict) else None
        heard = False
        if not isinstance(uri, str):
            return False
        for hearer in list(self._at.get((upstream, line), ())):
            place = _place_of(hearer, uri, (upstream, line))
            if place is not None:
                heard |= self._tell(hearer, uri, place, message)
        return heard

    def tell(self, hearer: Hearer, uri: str, message: dict[str, Any]) -> None:
        """Of a resource that it subscribed to: now, or when it listens again."""
        if uri in hearer.places:
            self._tell(hearer, uri, hearer.places[uri], message)

    def _tell(self, hearer: Hearer, uri: str, place: Place, message: dict[str, Any]) -> bool:
        policy = self._parts.policies.current
        if hearer.stream is None:
            if len(hearer.missed) < HELD_MAX:
                hearer.missed[uri] = place
            return False
        if policy is None or not policy.grants(hearer.stream.who, place.subject, place.upstream):
            return False
        return hearer.tell(message)

    def _tell_missed(self, hearer: Hearer) -> None:
        missed, hearer.missed = hearer.missed, {}
        for uri, place in missed.items():
            self._tell(hearer, uri, place, updated(uri))

    # who subscribed to what

    def join(self, hearer: Hearer, uri: str, place: Place) -> bool:
        """False: it has as many as it may have, which it may have got since it asked."""
        if uri not in hearer.places and len(hearer.places) >= SUBSCRIPTIONS_MAX:
            self.decline(uri, place)
            return False
        hearer.places[uri] = place
        self._at.setdefault(place.where, set()).add(hearer)
        return True

    def leave(self, hearer: Hearer, uri: str) -> None:
        """It hears of this resource no more; when nobody does, its upstream is told."""
        place = hearer.places.pop(uri, None)
        hearer.missed.pop(uri, None)
        if place is None:
            return
        if not any(one.where == place.where for one in hearer.places.values()):
            here = self._at.get(place.where, set())
            here.discard(hearer)
            if not here:
                self._at.pop(place.where, None)
        self.decline(uri, place)

    def decline(self, uri: str, place: Place) -> None:
        """Whoever subscribed to it does not want it any more: when nobody does, its upstream is told."""
        if not any(uri in one.places for one in self._at.get(place.where, ())):
            upstream = self._parts.catalog.upstream(place.upstream)
            assert isinstance(upstream, Telling)
            upstream.quiet(place.line, uri)

    def leave_all(self, hearer: Hearer) -> None:
        for uri in list(hearer.places):
            self.leave(hearer, uri)

    def others(self, hearer: Hearer, uri: str, place: Place) -> bool:
        """Whether somebody else is told of the same resource at the same place."""
        return any(uri in one.places for one in self._at.get(place.where, ()) if one is not hearer)


def _place_of(hearer: Hearer, uri: str, where: tuple[str, Line]) -> Place | None:
    """Where it subscribed to this resource, or to one that this is a part of (2025-11-25, resources: subscriptions)."""
    exact = hearer.places.get(uri)
    if exact is not None:
        return exact if exact.where == where else None
    return next(
        (
            place
            for subscribed, place in hearer.places.items()
            if place.where == where and uri.startswith(subscribed.rstrip("/") + "/")
        ),
        None,
    )
