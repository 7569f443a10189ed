"""What no file of the project may hold, and what every module must."""

from __future__ import annotations

import ast
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", ".tools", "dist", "build", "__pycache__", "haltline-data", "node_modules"}
PACKAGES = {"haltline": ROOT / "server" / "haltline", "haltline_client": ROOT / "clients" / "haltline_client"}
TOP_LEVEL = {
    "pyproject.toml", "README.md", "server", "policies", "tests", "clients", ".ci", "Makefile", "LICENSE",
    "CHANGELOG.md", "SECURITY.md", ".gitignore", ".gitattributes", ".dockerignore", ".editorconfig",
}  # fmt: skip
# Each is put together from pieces, so that this file does not hold it.
FORBIDDEN = {
    "a path of the machine it was built on": "|".join(
        [r"/ro" + r"ot/\w", r"/ho" + r"me/\w", r"/Us" + r"ers/\w", r"/wo" + r"rk/\w"]
    ),
    "a registry or a download address": "|".join(
        [
            r"pypi\." + "org",
            r"python" + r"hosted\.",
            r"npmjs\." + "(org|com)",
            r"deb\.debian" + r"\.org",
            r"/simp" + "le/",
        ]
    ),
    "an unfinished note": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}
LOCKS = re.compile(r".*\.lock|.*-lock\.(json|yaml)|.*lock\.json|npm-shrinkwrap\.json|requirements.*\.txt")


def files() -> Iterator[Path]:
    for folder, names, found in os.walk(ROOT):
        names[:] = [name for name in names if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        if ".hypothesis" in names:
            names.remove(".hypothesis")
        yield from (Path(folder) / name for name in found if not name.endswith(".pyc") and name not in NOT_OURS)


FILES = sorted(files())


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what):
    pattern = re.compile(FORBIDDEN[what])
    wrong = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert wrong == []


def test_no_list_of_locked_downloads_is_kept():
    assert [str(file.relative_to(ROOT)) for file in FILES if LOCKS.fullmatch(file.name)] == []


def test_the_top_level_is_fixed():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} - TOP_LEVEL == set()


MODULES = {
    ".".join((package, *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): file
    for package, folder in PACKAGES.items()
    for file in sorted(folder.rglob("*.py"))
    if file.name != "__main__.py"
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is_and_names_what_is_public(name):
    parsed = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    if not parsed.body:
        return
    assert ast.get_docstring(parsed), "no docstring"
    if len(parsed.body) == 1:
        return
    public = importlib.import_module(name).__all__
    assert len(set(public)) == len(public)
    assert [one for one in public if not hasattr(importlib.import_module(name), one)] == []


@pytest.mark.parametrize("name", MODULES)
def test_no_file_or_function_is_longer_than_the_house_allows(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 70
    ]
    assert long == []


def test_no_module_has_a_name_that_says_nothing():
    empty = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}
    assert [name for name in MODULES if name.split(".")[-1] in empty] == []
