"""Where the broker is and which credential to use, an operator's or an agent's: from options, environment and files.

Every answer says where it came from, so that a message can. Reads files only; talks to nobody.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from haltline_client.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AGENTS_URL",
    "DEFAULT_URL",
    "AgentConnection",
    "Connection",
    "DataFolder",
    "agents_url",
    "data_folder",
    "discover",
    "discover_agent",
]

DEFAULT_URL = "http://127.0.0.1:7401"
AGENTS_URL = "http://127.0.0.1:7400/mcp"
MAX_FILE_BYTES = 64 * 1024
LOOPBACK_URL = re.compile(r"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(/.*)?", re.IGNORECASE)
DATA_LINE = re.compile(r"""^data:[ \t]*(?P<quote>["']?)(?P<path>[^"'#\n]+?)(?P=quote)[ \t]*(#.*)?$""", re.MULTILINE)


class Connection(NamedTuple):
    """A control URL and an operator credential, and in words where each was found.

    `local` tells the weaker credential that the command line finds by itself from a person's own (R21).
    """

    url: str
    url_from: str
    token: str
    token_from: str
    local: bool

    def __repr__(self) -> str:
        return f"Connection({self.url!r} from {self.url_from}, credential from {self.token_from})"


class AgentConnection(NamedTuple):
    """The agents' URL and the credential of a session or an agent, and in words where each was found."""

    url: str
    url_from: str
    token: str
    token_from: str

    def __repr__(self) -> str:
        return f"AgentConnection({self.url!r} from {self.url_from}, credential from {self.token_from})"


class DataFolder(NamedTuple):
    """The broker's data folder. `chosen`: somebody named it, it is not just what lies in the current folder."""

    path: Path
    found_by: str
    chosen: bool


def discover(
    *,
    url: str | None = None,
    token_file: str | None = None,
    data: str | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Connection:
    """The connection that these options and this environment mean; `folder` is the current one.

    Raises SettingError when a credential is missing, unreadable, readable by others, or would go where it should not.
    """
    given, own = _given_url(url, environ), _own_token(token_file, environ)
    if given and own:
        return Connection(*given, *own, local=False)
    data_at = data_folder(environ, data=data, folder=folder or Path())
    found = given or _written_url(data_at)
    if own:
        return Connection(*found, *own, local=False)
    if given and not LOOPBACK_URL.fullmatch(given[0]):
        raise SettingError(
            f"{given[0]} is not this machine, so this machine's local credential is not sent there: "
            "set HALTLINE_OPERATOR_TOKEN or HALTLINE_OPERATOR_TOKEN_FILE"
        )
    return Connection(*found, *_local_token(data_at), local=True)


def discover_agent(
    *,
    url: str | None = None,
    token_file: str | None = None,
    data: str | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> AgentConnection:
    """The same for who calls tools. There is no local credential to fall back on: an agent has its own or none.

    Raises SettingError.
    """
    token, token_from = _agent_token(token_file, environ)
    found = _given_url(url, environ)
    if found is None:
        data_at = data_folder(environ, data=data, folder=folder or Path())
        written = _endpoint(data_at.path / "endpoints.json", data_at, "agents")
        found = (written, str(data_at.path / "endpoints.json")) if written else (AGENTS_URL, "the default")
    return AgentConnection(*found, token, token_from)


def data_folder(environ: Mapping[str, str], *, data: str | None = None, folder: Path) -> DataFolder:
    """`--data`, else HALTLINE_DATA, else the `data:` line of haltline.yaml, else ./haltline-data."""
    if data:
        return DataFolder(Path(data), "--data", chosen=True)
    if environ.get("HALTLINE_DATA"):
        return DataFolder(Path(environ["HALTLINE_DATA"]), "HALTLINE_DATA", chosen=True)
    chosen = bool(environ.get("HALTLINE_CONFIG"))
    config = Path(environ["HALTLINE_CONFIG"]) if chosen else folder / "haltline.yaml"
    named = _data_line(config, must_exist=chosen)
    if named is not None:
        return DataFolder(config.parent / named, str(config), chosen)
    return DataFolder((config.parent if chosen else folder) / "haltline-data", "the default", chosen)


def _data_line(config: Path, *, must_exist: bool) -> Path | None:
    # One line of the file is read with a pattern: a YAML parser costs more than the rest of the command.
    try:
        line = DATA_LINE.search(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if must_exist:
            raise SettingError(f"HALTLINE_CONFIG names {config}, which does not exist") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"cannot read {config}: {error}") from error
    return Path(os.path.expandvars(line["path"].strip())).expanduser() if line else None


def _given_url(url: str | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    if url:
        return url, "--url"
    return (environ["HALTLINE_URL"], "HALTLINE_URL") if environ.get("HALTLINE_URL") else None


def agents_url(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> str | None:
    """Where agents reach the broker of this folder, if one runs and wrote it down. Raises SettingError."""
    data = data_folder(environ, data=None, folder=folder or Path())
    return _endpoint(data.path / "endpoints.json", data, "agents")


def _written_url(data: DataFolder) -> tuple[str, str]:
    endpoints = data.path / "endpoints.json"
    written = _endpoint(endpoints, data, "control")
    return (written, str(endpoints)) if written else (DEFAULT_URL, "the default")


def _endpoint(file: Path, data: DataFolder, face: str) -> str | None:
    """The URL of this face that a running broker wrote down, if there is one and it can be trusted."""
    try:
        facts = file.stat()
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError) as error:
        raise SettingError(f"cannot read {file}: {error}; set HALTLINE_URL instead") from error
    # A folder that somebody else prepared must not be able to send a credential somewhere else.
    foreign = os.name != "nt" and not data.chosen and facts.st_uid not in {os.geteuid(), 0}
    if foreign or _open_to_writing(facts.st_mode):
        raise SettingError(
            f"{file} could have been written by another user, so it is not used: "
            "set HALTLINE_URL, or name the folder with --data"
        )
    written = content.get(face) if isinstance(content, dict) else None
    return written if isinstance(written, str) and written else None


def _own_token(token_file: str | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    if token_file:
        return _read_token(Path(token_file), f"--token-file {token_file}")
    if environ.get("HALTLINE_OPERATOR_TOKEN"):
        return environ["HALTLINE_OPERATOR_TOKEN"].strip(), "HALTLINE_OPERATOR_TOKEN"
    if environ.get("HALTLINE_OPERATOR_TOKEN_FILE"):
        file = environ["HALTLINE_OPERATOR_TOKEN_FILE"]
        return _read_token(Path(file), f"HALTLINE_OPERATOR_TOKEN_FILE ({file})")
    return None


def _agent_token(token_file: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    named, file = "--token-file " + (token_file or ""), token_file
    if not file and environ.get("HALTLINE_TOKEN"):
        token, named = environ["HALTLINE_TOKEN"].strip(), "HALTLINE_TOKEN"
    else:
        if not file:
            file = environ.get("HALTLINE_TOKEN_FILE")
            named = f"HALTLINE_TOKEN_FILE ({file})"
        if not file:
            raise SettingError(
                "no credential: set HALTLINE_TOKEN or HALTLINE_TOKEN_FILE to an agent's "
                "(haltline agents add NAME --tier experimental --credential) or a session's (haltline sessions open NAME)"
            )
        token, named = _read_token(Path(file).expanduser(), named, "the credential")
    if token.startswith("hl_o_"):
        raise SettingError(
            f"{named} holds an operator's credential; this takes an agent's (hl_a_…) or a session's (hl_s_…)"
        )
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingError(f"the credential from {named} holds a space or an unprintable character: copy it again")
    return token, named


def _local_token(data: DataFolder) -> tuple[str, str]:
    file = data.path / "local-operator.token"
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SettingError(
            f"no operator credential: HALTLINE_OPERATOR_TOKEN is not set and {file} does not exist.\n"
            "Run this in the broker's folder, name its data folder with --data, or set HALTLINE_OPERATOR_TOKEN. "
            "A broker that was never started has none: haltline serve"
        ) from error
    except PermissionError as error:
        raise SettingError(
            f"no operator credential: HALTLINE_OPERATOR_TOKEN is not set and you may not look into {data.path} "
            f"(found by {data.found_by}).\nSet HALTLINE_OPERATOR_TOKEN, or run this as the broker's user"
        ) from error
    return _read_token(file, str(file))


def _read_token(file: Path, named: str, what: str = "the operator credential") -> tuple[str, str]:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if os.name != "nt" and (mode & stat.S_IROTH or _open_to_writing(mode)):
                raise SettingError(
                    f"{what} in {file} is open to other users (mode {stat.S_IMODE(mode):04o}), "
                    f"so it is not used: chmod 600 {file}, and rotate it if others are on this machine"
                )
            token = opened.read(MAX_FILE_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingError(f"cannot read {what} from {named}: {reason}") from error
    if not token:
        raise SettingError(f"{what} file {named} is empty")
    return token, named


def _open_to_writing(mode: int) -> bool:
    return os.name != "nt" and bool(mode & (stat.S_IWGRP | stat.S_IWOTH))
