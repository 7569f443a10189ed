"""Every promise and rule of `promises.txt` is carried by a test, and no test carries an id that does not exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
LISTED = Path(__file__).with_name("promises.txt")
EXISTING = {f"P{number}" for number in range(1, 13)} | {f"R{number}" for number in range(1, 33)}


def required() -> set[str]:
    return set(re.findall(r"^([PR]\d+)\s", LISTED.read_text(encoding="utf-8"), re.MULTILINE))


def carried() -> Iterator[tuple[str, str]]:
    """An id, and where a test is marked with it."""
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "promise":
                place = f"{file.relative_to(TESTS)}:{node.lineno}"
                yield from ((str(getattr(argument, "value", "not written out")), place) for argument in node.args)


def test_every_promise_and_rule_of_the_list_is_carried_by_a_test():
    assert sorted(required() - {name for name, _ in carried()}) == [], "no test is marked with these"


def test_every_id_that_a_test_carries_exists():
    assert [f"{place}: {name}" for name, place in carried() if name not in EXISTING] == []


def test_the_list_holds_only_what_exists():
    assert required() <= EXISTING
