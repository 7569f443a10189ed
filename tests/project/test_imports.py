"""Imports go one way: from the faces down to the policy, which knows nobody; the client never knows the server."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "haltline"
CLIENT = ROOT / "clients" / "haltline_client"

LAYERS: tuple[tuple[str, ...], ...] = (
    # What knows nothing of the rest.
    ("errors", "clock", "credentials", "redact", "stored_json", "logs", "authoring", "spans", "counters", "telemetry"),
    ("policy", "wire"),
    ("store", "lineage"),
    # The parts: none knows another.
    ("identity", "identity_credentials", "identity_rows", "ledger", "accounts", "audit", "audit_check", "books", "checkpoints", "halts", "alerts", "upstreams", "pins", "signals"),
    ("policy_source",),
    # The path of a call, what an operator can do, and what both stand on.
    ("parts", "facts", "standings", "alarm", "overage", "clockwatch", "upkeep", "quarantine", "rules", "calls", "children", "health", "broker", "control", "control_tools", "policy_tests", "shapes"),
    ("gateway", "control_mcp", "drill"),
    ("setup",),
    ("http_server", "exposition"),
    ("app",),
    ("commands", "demo"),
    ("cli", "__main__"),
)  # fmt: skip
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
PARTS = LAYERS[3]
FAMILIES = (
    {"identity", "identity_credentials", "identity_rows"},
    {"ledger", "accounts"},
    {"audit", "audit_check", "books", "checkpoints"},
)
"""One part in several files."""
OF_A_CALL = {"broker", "calls"}
OF_OPERATORS = {"control", "control_tools"}


def room(file: Path) -> str:
    return file.relative_to(SERVER).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """The absolute names that a file imports, those for annotations alone too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            if node.module == "haltline":
                yield from (f"haltline.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def edges() -> set[tuple[str, str]]:
    """Which room imports which."""
    return {
        (room(file), name.split(".")[1])
        for file in SERVER.rglob("*.py")
        for name in imported(file)
        if name.startswith("haltline.") and name.split(".")[1] not in {room(file), "__version__"}
    }


EDGES = edges()


def test_every_room_has_its_place():
    rooms = {room(file) for file in SERVER.rglob("*.py")} - {"__init__"}
    assert rooms - set(RANK) == set(), "say in LAYERS where these belong"


def test_no_room_imports_what_stands_above_it():
    wrong = sorted(f"{above} imports {below}" for above, below in EDGES if RANK.get(above, 99) < RANK.get(below, -1))
    assert wrong == []


def test_the_parts_do_not_import_one_another():
    wrong = sorted(
        f"{one} imports {other}"
        for one, other in EDGES
        if one in PARTS and other in PARTS and not any({one, other} <= family for family in FAMILIES)
    )
    assert wrong == []


def test_the_policy_imports_errors_alone():
    assert {below for above, below in EDGES if above == "policy"} <= {"errors"}


def test_the_path_of_a_call_and_what_operators_do_do_not_import_one_another():
    wrong = sorted(
        f"{one} imports {other}"
        for one, other in EDGES
        if (one in OF_A_CALL and other in OF_OPERATORS) or (one in OF_OPERATORS and other in OF_A_CALL)
    )
    assert wrong == []


def test_the_demo_s_upstreams_know_nothing_of_the_broker():
    for name in ("payments", "tasks"):
        assert not [one for one in imported(SERVER / "demo" / f"{name}.py") if one == "haltline.broker"]


@pytest.mark.parametrize("file", sorted(CLIENT.rglob("*.py")), ids=lambda file: str(file.relative_to(CLIENT)))
def test_the_client_never_imports_the_server(file):
    assert not [name for name in imported(file) if name == "haltline" or name.startswith("haltline.")]
