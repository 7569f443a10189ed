"""What is written out of the protocol is what the SDK says."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import mcp_types
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS
from mcp.shared.subscriptions import LISTEN_STREAM_METHODS, SUBSCRIPTION_ID_META_KEY
from mcp_types import jsonrpc, version

from haltline.wire import eras


def test_versions_keys_and_codes_are_the_sdks():
    assert eras.HANDSHAKE_VERSIONS == version.HANDSHAKE_PROTOCOL_VERSIONS
    assert eras.MODERN_VERSIONS == version.MODERN_PROTOCOL_VERSIONS
    assert eras.LATEST_HANDSHAKE == version.LATEST_HANDSHAKE_VERSION
    assert eras.PROTOCOL_VERSION == mcp_types.PROTOCOL_VERSION_META_KEY
    assert eras.CLIENT_CAPABILITIES == mcp_types.CLIENT_CAPABILITIES_META_KEY
    assert eras.CLIENT_INFO == mcp_types.CLIENT_INFO_META_KEY
    assert eras.SERVER_INFO == mcp_types.SERVER_INFO_META_KEY
    assert eras.LOG_LEVEL == mcp_types.LOG_LEVEL_META_KEY
    assert get_args(mcp_types.LoggingLevel) == eras.LOG_LEVELS
    assert eras.SUBSCRIPTION_ID == SUBSCRIPTION_ID_META_KEY
    assert eras.LISTEN_STREAM_METHODS == LISTEN_STREAM_METHODS
    assert dict(ERROR_CODE_HTTP_STATUS) == eras.HTTP_STATUS
    for name in (
        "PARSE_ERROR",
        "INVALID_REQUEST",
        "METHOD_NOT_FOUND",
        "INVALID_PARAMS",
        "INTERNAL_ERROR",
        "HEADER_MISMATCH",
    ):
        assert getattr(eras, name) == getattr(jsonrpc, name)


def test_the_broker_starts_without_the_sdk():
    script = "import sys, haltline.app; sys.exit(any(name.partition('.')[0] in {'mcp', 'mcp_types'} for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
