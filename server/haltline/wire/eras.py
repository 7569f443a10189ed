"""The names and numbers of the protocol's revisions (MCP 2024-11-05 … 2026-07-28, JSON-RPC 2.0).

Written out because the SDK's package costs half a second to import, and a broker must be ready before that; a test holds
each equal to the SDK's. What is more than a name or a number is the SDK's own code: `headers`.
"""

from __future__ import annotations

__all__ = [
    "CLIENT_CAPABILITIES",
    "CLIENT_INFO",
    "HANDSHAKE_VERSIONS",
    "HEADER_MISMATCH",
    "HTTP_STATUS",
    "IDEMPOTENCY_KEY",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "KEYED_METHODS",
    "LATEST_HANDSHAKE",
    "LISTEN_STREAM_METHODS",
    "LOG_LEVEL",
    "LOG_LEVELS",
    "METHOD_NOT_FOUND",
    "MODERN_VERSIONS",
    "NAMED",
    "PARSE_ERROR",
    "PROTOCOL_VERSION",
    "SERVER_INFO",
    "SUBSCRIPTION_ID",
]

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_HANDSHAKE = HANDSHAKE_VERSIONS[-1]
MODERN_VERSIONS = ("2026-07-28",)

NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods whose `Mcp-Name` header mirrors a parameter, and which."""

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
SERVER_INFO = "io.modelcontextprotocol/serverInfo"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""From the least severe (RFC 5424)."""
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"

IDEMPOTENCY_KEY = "io.haltline/idempotency-key"
"""Haltline's own in a request's `_meta`: a call with it outlives its client's connection, and its retry is not sent (R13)."""
KEYED_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Where it counts: what is carried out once and can have a price."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

HTTP_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""The HTTP status that goes with an error of 2026-07-28; 200 for every other."""

LISTEN_STREAM_METHODS = frozenset(
    {
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/tools/list_changed",
    }
)
"""What at 2026-07-28 is told on subscriptions, and nowhere else."""
