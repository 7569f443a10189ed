"""authmcp-gateway before the benchmark's upstream, with a user's own credential and a row for each call. usage: URL PORT

Runs in its own environment. Its limit of calls a minute is off, and so is its log on standard error; the rows stay on.
The folder it is started in keeps its database; the credential is written there as `token`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

os.environ |= {
    "JWT_SECRET_KEY": "k" * 43,
    "AUTH_SQLITE_PATH": "auth.db",
    "RATE_LIMIT_ENABLED": "false",
    "JWT_ENFORCE_SINGLE_SESSION": "false",
    "ALLOW_INSECURE_HTTP": "true",
    "LOG_LEVEL": "ERROR",
}

import uvicorn
from authmcp_gateway.auth.jwt_handler import create_access_token
from authmcp_gateway.auth.user_store import create_user, init_database
from authmcp_gateway.config import get_config
from authmcp_gateway.mcp.store import create_mcp_server, init_mcp_database


def main(url: str, port: int) -> None:
    os.environ["MCP_PUBLIC_URL"] = f"http://127.0.0.1:{port}"
    init_database("auth.db")
    init_mcp_database("auth.db")
    user = create_user("auth.db", "bench", "bench@example.org", "no password", is_superuser=True)
    create_mcp_server("auth.db", "bench", url)
    Path("token").write_text(create_access_token(user, "bench", True, get_config().jwt), encoding="ascii")
    logging.disable(logging.WARNING)
    from authmcp_gateway.app import app  # reads the settings above

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
