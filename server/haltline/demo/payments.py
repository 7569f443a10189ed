"""A payments service as an MCP server over streamable HTTP: `python -m haltline.demo.payments --books FILE`.

Owns accounts of charges and refunds, and its own books of what it billed per call. It is an upstream like any other and
knows nothing of Haltline. Its URL is the first line of standard output.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from haltline.demo.books import Books, Shelf

__all__ = ["PRICES", "Payments", "payments_server", "serve"]

HOST = "127.0.0.1"
PATH = "/mcp"
MILLION = 1_000_000
PRICES = {"charge": 50_000, "refund": 50_000}
# A real processor takes its time; without it calls would hardly ever overlap.
PROCESSING_S = 0.15
SHUTDOWN_S = 1
HISTORY_ROWS = 50
SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (
    id TEXT PRIMARY KEY,
    payee TEXT NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros > 0),
    reference TEXT NOT NULL UNIQUE,
    refunded INTEGER NOT NULL DEFAULT 0
)
"""
READS = ToolAnnotations(read_only_hint=True)
CHARGES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)
REFUNDS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)

Payee = Annotated[str, Field(min_length=1, max_length=100, description="Who receives the money.")]
Amount = Annotated[str, Field(max_length=20, description='How much, as a decimal string such as "19.90".')]
Reference = Annotated[
    str, Field(min_length=1, max_length=100, description="Your own reference; the same one never charges twice.")
]
ChargeId = Annotated[str, Field(max_length=100, description="The id that charge answered with.")]


class Charge(BaseModel):
    """A charge as it stands. `repeated`: the reference had been charged before; no second charge was made."""

    id: str
    payee: str
    amount: str
    reference: str
    refunded: bool
    repeated: bool
    billed: str


class Balance(BaseModel):
    """What went out, what came back, and what this service billed for it."""

    charged: str
    refunded: str
    billed: str
    billed_micros: int


class History(BaseModel):
    """The newest charges."""

    charges: list[Charge]


class Payments:
    """The state of the service: what each tool does to it, apart from how it is called."""

    def __init__(self, file: Path, *, processing_s: float = PROCESSING_S) -> None:
        self._shelf = Shelf(file, SCHEMA)
        self._books = Books(self._shelf, PRICES)
        self._processing_s = processing_s

    async def charge(self, payee: Payee, amount: Amount, reference: Reference) -> Charge:
        """Pay an amount to a payee. The same reference with the same payee and amount charges once."""
        with self._books.bill("charge", reference) as cost:
            micros = _micros(amount)
            made = self._insert(payee, micros, reference)
            await anyio.sleep(self._processing_s)
            return self._charge(_charge_id(reference), repeated=not made, billed=cost)

    async def refund(self, charge_id: ChargeId) -> Charge:
        """Give a charge back, once."""
        with self._books.bill("refund", charge_id) as cost:
            with self._shelf.writing() as connection:
                changed = connection.execute(
                    "UPDATE charges SET refunded = 1 WHERE id = ? AND refunded = 0", (charge_id,)
                ).rowcount
            await anyio.sleep(self._processing_s)
            return self._charge(charge_id, repeated=not changed, billed=cost)

    async def balance(self) -> Balance:
        """What was charged and refunded so far, and what this service billed for the calls."""
        rows = self._shelf.rows("SELECT amount_micros, refunded FROM charges")
        total = self._books.total_micros()
        return Balance(
            charged=_text(sum(row["amount_micros"] for row in rows)),
            refunded=_text(sum(row["amount_micros"] for row in rows if row["refunded"])),
            billed=_text(total),
            billed_micros=total,
        )

    async def history(self) -> History:
        """The newest charges, newest first."""
        rows = self._shelf.rows("SELECT id FROM charges ORDER BY rowid DESC LIMIT ?", (HISTORY_ROWS,))
        return History(charges=[self._charge(row["id"], repeated=False, billed=PRICES["charge"]) for row in rows])

    def close(self) -> None:
        self._shelf.close()

    def _insert(self, payee: str, micros: int, reference: str) -> bool:
        """Whether a charge was made: a repeated reference makes none, and one for something else is an error."""
        with self._shelf.writing() as connection:
            known = connection.execute(
                "SELECT payee, amount_micros FROM charges WHERE reference = ?", (reference,)
            ).fetchone()
            if known is None:
                connection.execute(
                    "INSERT INTO charges (id, payee, amount_micros, reference) VALUES (?, ?, ?, ?)",
                    (_charge_id(reference), payee, micros, reference),
                )
                return True
        if (known["payee"], known["amount_micros"]) != (payee, micros):
            raise ToolError(f"reference {reference!r} was used for another payment: choose a new one")
        return False

    def _charge(self, charge_id: str, *, repeated: bool, billed: int) -> Charge:
        rows = self._shelf.rows("SELECT * FROM charges WHERE id = ?", (charge_id,))
        if not rows:
            raise ToolError(f"no charge {charge_id!r}")
        row = rows[0]
        return Charge(
            id=row["id"],
            payee=row["payee"],
            amount=_text(row["amount_micros"]),
            reference=row["reference"],
            refunded=bool(row["refunded"]),
            repeated=repeated,
            billed=_text(billed),
        )


def payments_server(payments: Payments) -> MCPServer:
    """The MCP face of the service."""
    server = MCPServer("payments", version="1", instructions="Pay and refund. Amounts are USD.", log_level="ERROR")
    server.add_tool(payments.charge, annotations=CHARGES)
    server.add_tool(payments.refund, annotations=REFUNDS)
    server.add_tool(payments.balance, annotations=READS)
    server.add_tool(payments.history, annotations=READS)
    return server


async def serve(books: Path, port: int) -> None:
    """Serve until SIGTERM or SIGINT; prints the URL once the port is bound."""
    payments = Payments(books)
    app = payments_server(payments).streamable_http_app(streamable_http_path=PATH, host=HOST)
    listener = socket.create_server((HOST, port))
    # Bound and listening: whoever connects from now on is answered as soon as the server runs.
    print(f"http://{HOST}:{listener.getsockname()[1]}{PATH}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S)
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        listener.close()
        payments.close()


def _charge_id(reference: str) -> str:
    return "ch_" + hashlib.sha256(reference.encode()).hexdigest()[:16]


def _micros(amount: str) -> int:
    try:
        micros = Decimal(amount) * MILLION
    except InvalidOperation:
        raise ToolError(f"{amount!r} is not an amount: write it as a decimal such as 19.90") from None
    if not micros.is_finite() or micros <= 0 or micros != micros.to_integral_value():
        raise ToolError(f"{amount!r} is not an amount above zero with at most six decimals")
    return int(micros)


def _text(micros: int) -> str:
    """`19.90`: two decimals, more only as needed."""
    whole, rest = divmod(micros, MILLION)
    return f"{whole}.{f'{rest:06d}'.rstrip('0').ljust(2, '0')}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m haltline.demo.payments", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--books", type=Path, required=True, help="SQLite file for charges and books")
    given = parser.parse_args()
    anyio.run(serve, given.books, given.port)


if __name__ == "__main__":
    main()
