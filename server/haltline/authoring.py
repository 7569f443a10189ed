"""What the author of a tool imports: `@haltline.tool` marks a function, `Context` tells it about its call, `ToolError` is a failure
put into words for the model.

Knows nothing of the broker, so that a module of tools can be imported and tested without one: a marked function stays the
plain function that it was.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

__all__ = ["Context", "Declaration", "Flag", "ToolError", "declarations_in", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
Report = Callable[[float, float | None, str | None], None]
_MARK = "__haltline_tool__"
_MARKED_HERE = "__haltline_tools__"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRICE = re.compile(r"\d{1,12}(\.\d{1,6})?")
_DAY_S = 86_400


class ToolError(Exception):
    """Raise it with the text that the model shall read: the result is an error (`isError`) of exactly these words."""


class Flag(threading.Event):
    """Set once. `bool(flag)` is `flag.is_set()`; `flag.wait(seconds)` sleeps until then at most."""

    def __bool__(self) -> bool:
        return self.is_set()


class Context:
    """One call, as its function may know it: `def charge(amount: int, ctx: haltline.Context)`. Never part of the schema.

    Made by the broker; in a test make one yourself, with `report` to see what progress is reported.
    """

    __slots__ = ("_report", "agent", "cancelled", "session", "task")

    def __init__(self, *, agent: str = "", session: str = "", task: str = "", report: Report | None = None) -> None:
        self.agent = agent
        """The handle of the agent that calls."""
        self.session = session
        self.task = task
        self.cancelled = Flag()
        """Set once nobody waits for the result any more: a function in a thread cannot be ended, so it asks this."""
        self._report = report

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the caller how far it is, where the caller asked for it. From any thread; never waits."""
        if self._report is not None:
            self._report(done, total, message)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What `@tool` says of a function."""

    function: Callable[..., Any]
    name: str
    price: str | Mapping[str, str] | None
    side_effects: bool | None
    destination: str | None
    timeout_s: float | None
    file: str
    line: int


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    price: str | Mapping[str, str] | None = None,
    side_effects: bool | None = None,
    destination: str | None = None,
    timeout_s: float | None = None,
) -> Callable[[F], F]: ...
def tool(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    price: str | Mapping[str, str] | None = None,
    side_effects: bool | None = None,
    destination: str | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Mark a function, `def` or `async def`, as a tool. Its docstring and annotations are what agents see.

    `price` of one call (`"0.05"`, or a mapping as in policy files: `{"argument": "args.amount", "at_most": "500.00"}`),
    `side_effects=False` where it only reads, `timeout_s` and `destination` (the argument
    that names whom it acts on: `args.recipient`) hold where no policy entry says otherwise. Raises TypeError or
    ValueError for a declaration that cannot be meant.
    """
    if function is not None:
        return _marked(function, name, price, side_effects, destination, timeout_s)
    return lambda marked: _marked(marked, name, price, side_effects, destination, timeout_s)


def declarations_in(namespace: dict[str, Any]) -> list[Declaration]:
    """What is marked in a module and what it imported marked, in this order, each once; also what a later name hides."""
    found = [*namespace.get(_MARKED_HERE, ()), *(getattr(value, _MARK, None) for value in namespace.values())]
    return list({id(one): one for one in found if isinstance(one, Declaration)}.values())


def _marked(
    function: Any,
    name: str | None,
    price: str | Mapping[str, str] | None,
    side_effects: bool | None,
    destination: str | None,
    timeout_s: float | None,
) -> Any:
    plain = inspect.unwrap(function) if callable(function) else None
    if not inspect.isfunction(plain):
        raise TypeError(f"@haltline.tool marks functions; {function!r:.80} is none")
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(f"{plain.__name__} yields, and a tool returns its one result; report progress through Context")
    name = plain.__name__ if name is None else name
    _check(name, price, side_effects, destination, timeout_s)
    code = plain.__code__
    declaration = Declaration(
        function, name, price, side_effects, destination, timeout_s, code.co_filename, code.co_firstlineno
    )
    setattr(function, _MARK, declaration)
    plain.__globals__.setdefault(_MARKED_HERE, []).append(declaration)
    return function


def _check(name: Any, price: Any, side_effects: Any, destination: Any, timeout_s: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name={name!r:.80}: a tool's name has 1 to 64 letters, digits, - and _")
    if isinstance(price, Mapping):
        if not all(isinstance(part, str) for pair in price.items() for part in pair):
            raise ValueError(f"price={price!r:.80}: its keys and amounts must be text")
    elif price is not None and not (isinstance(price, str) and _PRICE.fullmatch(price)):
        raise ValueError(f'price={price!r:.80}: must be text with at most six decimals, such as "0.05"')
    if side_effects is not None and not isinstance(side_effects, bool):
        raise ValueError(f"side_effects={side_effects!r:.80}: must be True or False")
    if destination is not None and not isinstance(destination, str):
        raise ValueError(f'destination={destination!r:.80}: must be text, such as "args.recipient"')
    if timeout_s is None:
        return
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= _DAY_S:
        raise ValueError(f"timeout_s={timeout_s!r:.80}: must be seconds, more than 0 and at most {_DAY_S}")
