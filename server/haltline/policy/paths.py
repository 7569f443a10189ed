"""Where a rule looks in a call's arguments: `amount`, `args.customer.id`, `items[0]`, `items[*].price`, `["odd.key"]`."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["MISSING", "ArgumentPath", "Missing", "find", "parse_path", "reader"]


class Missing(Enum):
    """What is found where nothing is."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
_ALL: Final = None
Step = str | int | None
ArgumentPath = tuple[Step, ...]
_LONGEST = 256
_DEEPEST = 16
_STEP = re.compile(r'(?:\.|^)([A-Za-z_$][A-Za-z0-9_$-]*)|\[([0-9]{1,6})\]|\[(\*)\]|\["([^"\\\x00-\x1f]+)"\]')


def parse_path(text: str) -> ArgumentPath:
    """The steps of a path; a leading `args.` may be left out. Raises ValueError with a sentence."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at) if len(text) <= _LONGEST else None
        if found is None:
            raise ValueError(
                f"{text[:60]!r} is no path; write it as args.customer.id, args.items[0] or args.items[*].price"
            )
        name, index, every, quoted = found.groups()
        steps.append(_ALL if every else int(index) if index else name or quoted)
        at = found.end()
    if len(steps) > 1 and steps[0] == "args":
        del steps[0]
    if not steps or not isinstance(steps[0], str) or len(steps) > _DEEPEST:
        raise ValueError(
            f"{text!r} is no path; it names an argument first, such as args.amount, with at most {_DEEPEST} steps"
        )
    return tuple(steps)


def find(arguments: Mapping[str, Any], path: ArgumentPath) -> Iterator[Any]:
    """Every value at the path, MISSING for each place where there is none. `[*]` of an empty list yields nothing."""
    return _find(arguments, path)


def reader(path: ArgumentPath) -> Callable[[Mapping[str, Any]], Iterable[Any]]:
    """`find` for one path, asked for every call: a path that leads to one place needs no search."""
    if _ALL in path:
        return lambda arguments: _find(arguments, path)
    if len(path) == 1 and isinstance(path[0], str):
        name = path[0]
        return lambda arguments: (arguments.get(name, MISSING),)
    return lambda arguments: (_at(arguments, path),)


def _find(value: Any, path: ArgumentPath) -> Iterator[Any]:
    if _ALL not in path:
        yield _at(value, path)
        return
    every = path.index(_ALL)
    value = _at(value, path[:every])
    if value is MISSING:
        yield MISSING
    else:
        yield from _each(value, path[every + 1 :])


def _at(value: Any, path: ArgumentPath) -> Any:
    """The one value at a path without `[*]`."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step, MISSING) if hasattr(value, "get") else MISSING
        elif isinstance(step, int):
            value = value[step] if isinstance(value, (list, tuple)) and step < len(value) else MISSING
        if value is MISSING:
            break
    return value


def _each(value: Any, rest: ArgumentPath) -> Iterator[Any]:
    if not isinstance(value, (list, tuple)):
        yield MISSING
        return
    for item in value:
        yield from _find(item, rest)
