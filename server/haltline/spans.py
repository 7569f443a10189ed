"""Spans for OpenTelemetry, one for each call that was decided, where the environment names a collector (`OTEL_…`).

Needs the extra `otel`; without a collector nothing of it is imported. A span says who, which listed tool and what became of
it: never arguments, results or anything else that others wrote (P9).
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from haltline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Spans", "open_spans"]

CLOSE_S = 2.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Spans:
    def __init__(self, provider: Any) -> None:
        """`provider`: a `TracerProvider` of the SDK."""
        self._provider = provider
        self._tracer = provider.get_tracer("haltline")

    def call(self, method: str, tool: str | None, said: Mapping[str, str], *, took_s: float) -> None:
        """One call that is over. `tool`: its name where an upstream lists it; `said`: further attributes."""
        attributes = {"mcp.method.name": method, **said}
        if tool is not None:
            attributes["gen_ai.tool.name"] = tool
        name = method if tool is None else f"{method} {tool}"
        now_ns = time.time_ns()
        self._tracer.start_span(name, attributes=attributes, start_time=now_ns - int(took_s * 1e9)).end(now_ns)

    def close(self) -> None:
        """Send what waits, within a bound: a collector that is away holds up no stop."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_S)


def open_spans(environ: Mapping[str, str] = os.environ) -> Spans | None:
    """None where no collector is named. Raises ConfigError where the extra is missing."""
    if not any(environ.get(name) for name in _ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            'OTEL_… names a collector, but OpenTelemetry is not installed: pip install "haltline[otel]", or unset it'
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", "haltline")}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)
