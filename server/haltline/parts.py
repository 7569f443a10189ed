"""The parts that the broker and the operators' desk work with, wired once in `app`. Holds no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from haltline.telemetry import Telemetry

if TYPE_CHECKING:
    from haltline.alerts.outbox import Outbox
    from haltline.audit import Audit
    from haltline.calls.replays import Replays
    from haltline.calls.rounds import Rounds
    from haltline.calls.running import RunningCalls
    from haltline.clock import Clock
    from haltline.halts import Halts
    from haltline.identity import Identity
    from haltline.ledger import Ledger
    from haltline.pins.table import Pins
    from haltline.policy_source import PolicySource
    from haltline.signals.table import Signals
    from haltline.store.reader import Reader
    from haltline.store.writer import Writer
    from haltline.upstreams.catalog import Catalog

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    clock: Clock
    writer: Writer
    reader: Reader
    identity: Identity
    halts: Halts
    ledger: Ledger
    audit: Audit
    outbox: Outbox
    catalog: Catalog
    calls: RunningCalls
    rounds: Rounds
    replays: Replays
    policies: PolicySource
    pins: Pins
    signals: Signals
    telemetry: Telemetry = field(default_factory=Telemetry)
