"""Haltline's control client: open and revoke sessions, halt and resume agents, read the audit log, over the wire.

    from haltline_client import ControlClient, discover

    with ControlClient("http://127.0.0.1:7401", token) as control:
        control.halt("research-bot", reason="looping on refunds")

It speaks MCP to a broker's control listener and imports nothing of the server.
"""

from haltline_client.client import ControlClient
from haltline_client.discover import Connection, discover
from haltline_client.errors import BrokerUnreachable, ClientError, Refused, RequestFailed, SettingError
from haltline_client.version import __version__

__all__ = [
    "BrokerUnreachable",
    "ClientError",
    "Connection",
    "ControlClient",
    "Refused",
    "RequestFailed",
    "SettingError",
    "__version__",
    "discover",
]
