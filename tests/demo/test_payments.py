"""The payments service over streamable HTTP: what it keeps, what it bills, in both protocol eras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from haltline.demo.books import read_books
from support.demo_upstreams import ERAS, payments_running

INVOICE = {"payee": "acme", "amount": "19.90", "reference": "invoice-1"}


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return tmp_path / "payments.db"


@pytest.fixture
def url(books: Path) -> Iterator[str]:
    with payments_running(books) as url:
        yield url


def said(result: Any) -> str:
    return " ".join(part.text for part in result.content)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_charge_answers_with_structured_content_in_both_eras(url: str, mode: Any) -> None:
    async with Client(url, mode=mode) as client:
        assert client.protocol_version == ERAS[mode]
        result = await client.call_tool("charge", INVOICE)
    assert not result.is_error
    assert result.structured_content is not None
    assert result.structured_content["amount"] == "19.90"
    assert result.structured_content["billed"] == "0.05"
    assert not result.structured_content["repeated"]


async def test_tools_say_what_they_answer_with_and_whether_they_only_read(url: str) -> None:
    async with Client(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["charge", "refund", "balance", "history"]
    assert all(tool.output_schema for tool in tools.values())
    assert [bool(tool.annotations and tool.annotations.read_only_hint) for tool in tools.values()] == [0, 0, 1, 1]


async def test_the_same_reference_charges_once_and_is_billed_each_time(url: str, books: Path) -> None:
    async with Client(url) as client:
        first = (await client.call_tool("charge", INVOICE)).structured_content
        second = (await client.call_tool("charge", INVOICE)).structured_content
        history = (await client.call_tool("history", {})).structured_content
    assert first is not None
    assert second is not None
    assert history is not None
    assert (first["id"], second["repeated"]) == (second["id"], True)
    assert len(history["charges"]) == 1
    assert [(row.tool, row.cost_micros, row.subject) for row in read_books(books)] == [
        ("charge", 50_000, "invoice-1")
    ] * 2


async def test_a_reference_cannot_stand_for_two_payments(url: str, books: Path) -> None:
    async with Client(url) as client:
        await client.call_tool("charge", INVOICE)
        refused = await client.call_tool("charge", {**INVOICE, "amount": "20.00"})
    assert refused.is_error
    assert "choose a new one" in said(refused)
    assert [row.outcome for row in read_books(books)] == ["done", "failed"]


async def test_what_is_no_amount_is_refused_and_billed_all_the_same(url: str, books: Path) -> None:
    amounts = ["nine", "0", "-1", "NaN", "Infinity", "0.0000001"]
    async with Client(url) as client:
        for amount in amounts:
            refused = await client.call_tool("charge", {**INVOICE, "amount": amount})
            assert refused.is_error, amount
            assert "amount" in said(refused)
    assert [(row.cost_micros, row.outcome) for row in read_books(books)] == [(50_000, "failed")] * len(amounts)


async def test_a_refund_gives_a_charge_back_once(url: str) -> None:
    async with Client(url) as client:
        charged = (await client.call_tool("charge", INVOICE)).structured_content
        assert charged is not None
        first = (await client.call_tool("refund", {"charge_id": charged["id"]})).structured_content
        second = (await client.call_tool("refund", {"charge_id": charged["id"]})).structured_content
        balance = (await client.call_tool("balance", {})).structured_content
        unknown = await client.call_tool("refund", {"charge_id": "ch_none"})
    assert first is not None
    assert second is not None
    assert (first["refunded"], first["repeated"], second["repeated"]) == (True, False, True)
    assert balance == {"charged": "19.90", "refunded": "19.90", "billed": "0.15", "billed_micros": 150_000}
    assert unknown.is_error


async def test_calls_overlap_and_the_books_hold_each_of_them(url: str, books: Path) -> None:
    async with Client(url) as client:
        await client.list_tools()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(client.call_tool, "charge", {**INVOICE, "reference": f"invoice-{number}"})
        balance = (await client.call_tool("balance", {})).structured_content
    assert balance is not None
    assert balance["billed_micros"] == sum(row.cost_micros for row in read_books(books)) == 20 * 50_000
    assert {row.subject for row in read_books(books)} == {f"invoice-{number}" for number in range(20)}


async def test_reading_costs_nothing(url: str, books: Path) -> None:
    async with Client(url) as client:
        await client.call_tool("balance", {})
        await client.call_tool("history", {})
    assert read_books(books) == []


async def test_charges_and_books_outlive_the_process(books: Path) -> None:
    with payments_running(books) as url:
        async with Client(url) as client:
            await client.call_tool("charge", INVOICE)
    with payments_running(books) as url:
        async with Client(url) as client:
            again = (await client.call_tool("charge", INVOICE)).structured_content
    assert again is not None
    assert again["repeated"]
    assert len(read_books(books)) == 2
