"""What the doctor sees of an upstream of Python functions without running any of them: whether they are there and can be read."""

from __future__ import annotations

import ast
import importlib.util
from importlib import metadata
from pathlib import Path

from haltline.setup.doctor.finding import Finding
from haltline.upstreams.model import UpstreamSpec

__all__ = ["functions"]

_GROUP = "haltline.tools"


def functions(spec: UpstreamSpec) -> Finding:
    if spec.entry_point is not None:
        return _entry_point(spec.name, spec.entry_point)
    python = str(spec.python)
    return _file(spec.name, Path(python)) if python.endswith(".py") else _module(spec.name, python)


def _file(name: str, path: Path) -> Finding:
    try:
        ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        return _fail(f"{name}: {path} cannot be read: {error.strerror}", "name a file that is there")
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        return _fail(f"{name}: {path}{line} is not Python: {error}", "mend it")
    return _ok(f"{name}: functions of {path}, in the broker's own process")


def _module(name: str, module: str) -> Finding:
    top = module.partition(".")[0]  # what is below it is found by importing it only
    if importlib.util.find_spec(top) is None:
        return _fail(f"{name}: there is no module {top} where haltline is installed", "install it there")
    return _ok(f"{name}: functions of {module}, in the broker's own process")


def _entry_point(name: str, entry_point: str) -> Finding:
    offered = metadata.entry_points(group=_GROUP)
    found = {one.value for one in offered if one.name == entry_point}
    if not found:
        known = ", ".join(sorted({one.name for one in offered})) or "none"
        return _fail(
            f"{name}: no installed package offers {entry_point!r} in the group {_GROUP}",
            f"install the package where haltline is installed, or name one of: {known}",
        )
    if len(found) > 1:
        return _fail(f"{name}: several installed packages offer {entry_point!r} in the group {_GROUP}", "uninstall one")
    return _ok(f"{name}: functions of {found.pop()}, in the broker's own process")


def _ok(said: str) -> Finding:
    return Finding("upstreams", "ok", said)


def _fail(said: str, to_do: str) -> Finding:
    return Finding("upstreams", "fail", said, to_do)
