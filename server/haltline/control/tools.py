"""The tools on offer with their prices, and price entries for what an upstream offers (R6).

An import writes a new file into the policy folder and never touches one that is there: what a person edited stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.audit import Kind
from haltline.control.views import shown_upstream
from haltline.errors import Conflict, NotFound, RequestError, StoreError
from haltline.policy.destination import missing_from
from haltline.policy.patterns import check_pattern
from haltline.upstreams.model import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from haltline.control.desk import Desk, Operator, Request
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx
    from haltline.upstreams.catalog import Tool
    from haltline_client import results as r

__all__ = ["Tools"]

DESCRIPTION_MAX_CHARS = 500
FILES_MAX = 1_000
_HEAD = """\
# Written by `haltline tools import {upstream}`: what it offers and had no price. Review each: the price of one call, and
# read_only where it changes nothing. Delete what nobody shall call; a tool without an entry is refused.
# Which agents may call them is for the tiers to say. Then: haltline policy check, haltline policy reload
version: "1"
tools:
"""


class Tools:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def list_tools(self, request: Request, *, upstream: str | None = None) -> r.ToolList:
        """The tools of all upstreams or of one, with the price that a call would have now."""
        await self._desk.act(request, lambda _, __: None)
        states = self._parts.catalog.states()
        if upstream is not None:
            self._known(upstream)
            states = [state for state in states if state.name == upstream]
        tools = [tool for tool in self._parts.catalog.tools() if upstream in {None, tool.upstream}]
        policy = self._parts.policies.current
        return {
            "tools": [self._shown(tool, policy) for tool in tools],
            "upstreams": [shown_upstream(self._parts, state) for state in states],
        }

    def _shown(self, tool: Tool, policy: Policy | None) -> r.Tool:
        price = None if policy is None else policy.price(tool.name, tool.upstream)
        description = tool.definition.get("description")
        spec = self._parts.catalog.upstream(tool.upstream).spec
        pin = self._parts.pins.shown(tool.upstream, tool.own_name)
        served = pin is not None and pin.serves(tool.digest)
        reaches = None if policy is None else policy.reaches(tool.name, tool.upstream)
        missing = None if reaches is None else missing_from(tool.input_schema, reaches)
        return {
            "tool": tool.name,
            "upstream": tool.upstream,
            "upstream_tool": tool.own_name,
            "price": None if price is None else price.text,
            "matched_by": None if price is None else price.where,
            "shared_credential": spec.shared_by is not None,
            "description": description[:DESCRIPTION_MAX_CHARS] if isinstance(description, str) else None,
            "state": "pinned" if served else "quarantined",
            "flags": [] if pin is None else list(pin.why),
            "digest": tool.digest,
            "problem": None if missing is None else f"destination {reaches}: it has no argument {missing}",
        }

    async def import_tools(self, request: Request, *, upstream: str, reason: str | None = None) -> r.ImportedTools:
        """Write an entry at price 0 for each unpriced tool of an upstream, for a person's review.

        Raises Conflict while the folder holds changes that are not in force: they may price the same tools.
        """
        why = None if reason is None else self._desk.why(reason)
        await self._desk.act(request, lambda _, __: None)  # who asks comes before what it makes us do
        self._known(upstream)
        policy = self._settled_policy()
        names = _unpriced(await self._offered(upstream), policy)
        if not names:
            return {"written": "", "tools": []}
        text = _HEAD.format(upstream=upstream) + "".join(f'  "{name}": {{price: "0"}}\n' for name in names)
        path = _free_name(self._parts.policies.folder, upstream)

        def unit(tx: Tx, operator: Operator) -> None:
            body = {"target": upstream, "written": path.name, "tools": names, "reason": why}
            event = self._desk.event(Kind.TOOLS_IMPORTED, operator, request, body=body)
            self._parts.audit.append(tx, event)
            _write(path, text)

        try:
            await self._desk.act(request, unit)
        except StoreError:
            path.unlink(missing_ok=True)  # what is not on record must not be there
            raise
        return {"written": str(path), "tools": names}

    def _known(self, upstream: str) -> None:
        try:
            self._parts.catalog.upstream(upstream)
        except KeyError:
            known = ", ".join(sorted(state.name for state in self._parts.catalog.states())) or "none"
            raise NotFound(f"there is no upstream {upstream!r}; configured: {known}") from None

    def _settled_policy(self) -> Policy:
        policies = self._parts.policies
        if policies.current is None or policies.problems or policies.changed_on_disk():
            raise Conflict("the policy folder holds changes that are not in force; run: haltline policy reload")
        return policies.current

    async def _offered(self, upstream: str) -> Sequence[Tool]:
        try:
            return await self._parts.catalog.refresh(upstream)
        except UpstreamError as error:
            raise RequestError(f"{upstream} does not say now what it offers: {error.detail or error}") from error


def _unpriced(tools: Sequence[Tool], policy: Policy) -> list[str]:
    """Names without a price that a policy file can hold; upstreams choose them, so they are checked like a stranger's."""
    return sorted(
        tool.name for tool in tools if policy.price(tool.name, tool.upstream) is None and _writable(tool.name)
    )


def _writable(name: str) -> bool:
    try:
        return "*" not in check_pattern(name)
    except ValueError:
        return False


def _free_name(folder: Path, upstream: str) -> Path:
    for number in range(1, FILES_MAX):
        path = folder / f"imported-{upstream}{'' if number == 1 else f'-{number}'}.yaml"
        if not path.exists():
            return path
    raise Conflict(f"{folder} holds {FILES_MAX} imports of {upstream} already; merge them first")


def _write(path: Path, text: str) -> None:
    """Raises Conflict when it is there already, RequestError when it cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"{path.name} was just written by somebody else; look at it, then import again") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from error
