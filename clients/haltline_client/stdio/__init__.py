"""The bridge for hosts that only launch commands: lines of JSON-RPC on standard streams, MCP over HTTP to the broker."""
