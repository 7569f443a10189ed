"""Importing a developer's module of tools, and saying in one sentence with file and line why that does not work.

Runs code that the operator named, once: a module is not read again while the broker runs. Knows nothing of calls.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from haltline import authoring
from haltline.authoring import Declaration, declarations_in
from haltline.policy.price_entry import parse_price
from haltline.upstreams.model import UpstreamSpec

__all__ = ["GROUP", "LoadFailed", "load"]

GROUP = "haltline.tools"
_MAX_WORDS = 500
_NOT_THE_AUTHOR_S = {__file__, authoring.__file__, importlib.__file__}


class LoadFailed(Exception):
    """Why these tools cannot be offered: for an operator, with file and line."""


def load(spec: UpstreamSpec) -> list[Declaration]:
    """Everything that is marked there, at least one and each under a name of its own. Raises LoadFailed."""
    if spec.entry_point is not None:
        where, namespace = f"entry point {spec.entry_point}", _of_entry_point(spec.entry_point)
    elif spec.python is not None and spec.python.endswith(".py"):
        where, namespace = spec.python, vars(_of_file(Path(spec.python), spec.name))
    else:
        where, namespace = f"module {spec.python}", vars(_of_module(str(spec.python)))
    declarations = declarations_in(namespace)
    if not declarations:
        raise LoadFailed(f"{where}: no function in it is marked with @haltline.tool")
    first: dict[str, Declaration] = {}
    for one in declarations:
        known = first.setdefault(one.name, one)
        if known is not one:
            raise LoadFailed(
                f"{one.file}:{one.line}: a second tool named {one.name!r}, after {known.file}:{known.line}; rename one"
            )
        _check_price(one)
    return declarations


def _check_price(one: Declaration) -> None:
    if one.price is None:
        return
    try:
        parse_price(one.price)
    except ValueError as error:
        raise LoadFailed(f"{one.file}:{one.line}: price of {one.name}: {error}") from error


def _of_file(path: Path, upstream: str) -> ModuleType:
    module = ModuleType("haltline_tools_" + upstream.replace("-", "_"))
    module.__file__ = str(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise LoadFailed(f"{path}: cannot be read: {error.strerror}") from error
    sys.modules[module.__name__] = module  # where models look up the names in their annotations
    try:
        # Compiled here and not by an import, which would take a cached version of another second for the same.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the operator named it
    except BaseException as error:
        del sys.modules[module.__name__]
        raise LoadFailed(_sentence(error, path)) from error
    return module


def _of_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise LoadFailed(
                f"there is no module {error.name} where haltline is installed; install it there"
            ) from error
        raise LoadFailed(_sentence(error)) from error
    except BaseException as error:
        raise LoadFailed(_sentence(error)) from error


def _of_entry_point(name: str) -> dict[str, Any]:
    offered = metadata.entry_points(group=GROUP)
    found = [one for one in offered if one.name == name]
    if not found:
        known = ", ".join(sorted({one.name for one in offered})) or "none"
        raise LoadFailed(f"no installed package offers {name!r} in the group {GROUP}; offered: {known}")
    if len({one.value for one in found}) > 1:
        packages = ", ".join(sorted(one.dist.name for one in found if one.dist is not None))
        raise LoadFailed(f"several installed packages offer {name!r} in the group {GROUP}: {packages}")
    value: Any = _of_module(found[0].module)
    for attribute in found[0].attr.split(".") if found[0].attr else ():
        if not hasattr(value, attribute):
            raise LoadFailed(f"entry point {name}: {found[0].value} has no {attribute}")
        value = getattr(value, attribute)
    if isinstance(value, ModuleType):
        return vars(value)
    return dict(enumerate(value if isinstance(value, Iterable) else [value]))  # type: ignore[arg-type]


def _sentence(error: BaseException, path: Path | None = None) -> str:
    """File, line, the kind of error and its first words."""
    said = str(error).strip().split("\n", 1)[0][:_MAX_WORDS]
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if _is_the_author_s(one.filename)]
    own = [one for one in frames if path is None or one.filename == str(path)]
    place = f"{own[-1].filename}:{own[-1].lineno}: " if own else "" if path is None else f"{path}: "
    beside = _beside(error, path)
    return f"{place}{type(error).__name__}: {said}{beside}"


def _is_the_author_s(filename: str) -> bool:
    return filename not in _NOT_THE_AUTHOR_S and not filename.startswith("<frozen")


def _beside(error: BaseException, path: Path | None) -> str:
    """What is meant to be imported may lie beside the file, where Python does not look."""
    if not isinstance(error, ModuleNotFoundError) or path is None or error.name is None:
        return ""
    if not (path.parent / f"{error.name}.py").exists() and not (path.parent / error.name).is_dir():
        return ""
    return f" (a file of tools stands alone: make it and {error.name} one package, install that, and name its module)"
