"""An HTTP API through the broker: checked, priced, held, settled and recorded like every tool; in this process and as `serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.policy.model import Reason
from haltline.setup.settings import load_settings
from haltline.upstreams.open import open_all, tool_defaults
from support.api_documents import document, written_to
from support.broker_process import broker_process
from support.callers import Caller
from support.http_api import HttpApi, http_api, written
from support.world import Request, World, world

POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  roomy: {tools: ["*"], caps: {task: "10.00", day: "100.00"}}
tools:
  crm__getContact: {price: "0.05"}
  crm__addContact: {price: "0.25", charge_on_error: false}
"""
PATHS = {
    "/contacts/{id}": {
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 20}}],
        "get": {"operationId": "getContact"},
    },
    "/contacts": {
        "post": {
            "operationId": "addContact",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Contact"}}},
            },
        },
    },
    "/photos": {"post": {"operationId": "upload", "requestBody": {"content": {"multipart/form-data": {}}}}},
}
CONTACT = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


def configured(folder: Path, url: str, **more: Any) -> str:
    written_to(folder, document(PATHS, components={"schemas": {"Contact": CONTACT}}), "crm.json")
    headers = {"Authorization": "Bearer ${CRM_TOKEN}"}
    entry = {"openapi": "crm.json", "base_url": url, "headers": headers, "allow_private": True, **more}
    return f"upstreams: {json.dumps({'crm': entry})}\n"


@pytest.fixture
async def api() -> Any:
    async with http_api() as made:
        yield made


@pytest.fixture
async def w(tmp_path: Path, api: HttpApi) -> Any:
    (tmp_path / "haltline.yaml").write_text(configured(tmp_path, api.url))
    settings = load_settings(tmp_path / "haltline.yaml", environ={"CRM_TOKEN": "s3cret-token"})
    upstreams: Any = await open_all(settings.upstreams)
    defaults = tool_defaults(settings.upstreams, upstreams)
    async with world(tmp_path / "world", policy=POLICY, upstreams=upstreams, defaults=defaults) as made:
        yield made
        await upstreams[0].aclose()


async def opened(w: World) -> str:
    return (await w.session(await w.agent("ann", "roomy"), task="call Bob"))[1]


def text(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def code(answer: dict[str, Any]) -> str:
    return str(answer["result"]["_meta"]["io.haltline/refusal"]["reasons"][0]["code"])


def answering(api: HttpApi, data: bytes) -> None:
    async def answer(request, writer):
        writer.write(data)
        if not data:
            writer.close()

    api.answer = answer


@pytest.mark.promise("P11")
async def test_an_operation_is_called_charged_and_recorded_and_its_credential_is_in_no_record(w, api, tmp_path):
    token = await opened(w)
    answering(api, written({"name": "Bob"}))
    answer = await w.call(token, "crm__getContact", {"id": "7"})
    assert answer["result"]["structuredContent"] == {"name": "Bob"}
    assert (api.seen[0].target, api.seen[0].headers["authorization"]) == ("/contacts/7", "Bearer s3cret-token")
    assert await w.holds() == [("crm__getContact", "settled", 50_000, 50_000)]
    assert b"s3cret-token" not in (tmp_path / "world" / "haltline.db").read_bytes()
    assert "s3cret-token" not in json.dumps(
        [await w.events(), [dict(tool.definition) for tool in w.parts.catalog.tools()]]
    )


OUTCOMES = {
    "an error": ("crm__getContact", written({"why": "gone"}, status=404), ("settled", 50_000), "call.failed"),
    "an error, free by policy": ("crm__addContact", written(status=500), ("settled", 0), "call.failed"),
    "a redirect": ("crm__getContact", written(status=302), ("settled", 50_000), "call.failed"),
    "lost": ("crm__addContact", b"", ("in_doubt", None), "call.in_doubt"),
    "not HTTP": ("crm__getContact", b"SSH-2.0\r\n\r\n", ("in_doubt", None), "call.in_doubt"),
}


@pytest.mark.promise("R10", "R11")
@pytest.mark.parametrize(("tool", "data", "hold", "kind"), OUTCOMES.values(), ids=OUTCOMES)
async def test_whatever_an_api_does_its_hold_ends_once(w, api, tool, data, hold, kind):
    token = await opened(w)
    answering(api, data)
    answer = await w.call(token, tool, {"id": "7"} if tool == "crm__getContact" else {"body": {"name": "Bob"}})
    assert answer["result"]["isError"] is True
    [(_, state, _, charged)] = await w.holds()
    assert (state, charged) == hold
    assert (await w.events("call."))[-1]["kind"] == kind
    assert len(api.seen) == 1


@pytest.mark.promise("P6")
async def test_arguments_that_do_not_fit_the_document_are_refused_before_anything_is_held(w, api):
    token = await opened(w)
    for tool, arguments in (
        ("crm__getContact", {}),
        ("crm__getContact", {"id": "x" * 21}),
        ("crm__getContact", {"id": "7", "evil": "1"}),
        ("crm__addContact", {"body": {}}),
        ("crm__addContact", {"name": "Bob"}),
    ):
        assert code(await w.call(token, tool, arguments)) == "args.schema"
    assert (await w.holds(), api.seen) == ([], [])


@pytest.mark.promise("R11")
async def test_a_value_that_would_lead_to_another_path_is_charged_nothing(w, api):
    answer = await w.call(await opened(w), "crm__getContact", {"id": "../admin"})
    assert code(answer) == "upstream.arguments"
    assert "nothing is charged" in text(answer)
    assert await w.holds() == [("crm__getContact", "voided", 50_000, None)]
    assert api.seen == []


@pytest.mark.promise("R17")
async def test_a_call_that_is_revoked_while_it_runs_is_cut_off_and_in_doubt(w, api):
    arrived = anyio.Event()

    async def never(request, writer):
        arrived.set()
        await anyio.sleep_forever()

    api.answer = never
    session, token = await w.session(await w.agent("ann", "roomy"))
    request = Request(token, "crm__getContact", {"id": "7"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(w.send, request)
        with anyio.fail_after(30):
            await arrived.wait()
            w.parts.calls.stop(session_ids=[session], reason=Reason("session.revoked", "revoked", {}))
            await w.parts.calls.ended(5)
    assert [hold[1] for hold in await w.holds()] == ["in_doubt"]


async def test_operators_see_which_operations_are_no_tools(w):
    [state] = w.parts.catalog.states()
    assert (state.kind, state.state, state.tools) == ("openapi", "ready", 2)
    assert "POST /photos: its body is multipart/form-data" in str(state.detail)


async def test_a_running_broker_serves_an_api_from_its_configuration(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    async with http_api() as api:
        written_to(folder, document(PATHS, components={"schemas": {"Contact": CONTACT}}), "crm.json")
        entry = {"openapi": str(folder / "crm.json"), "base_url": api.url, "allow_private": True, "price": "0.05"}
        upstreams = {"crm": entry, "broken": {"openapi": str(folder / "none.yaml")}}
        answering(api, written({"name": "Bob"}))

        def run() -> Any:
            return broker_process(folder, upstreams=upstreams, policy=POLICY)

        with run() as broker:
            await anyio.to_thread.run_sync(broker.await_tools, "crm__getContact")
            (one,) = await anyio.to_thread.run_sync(broker.open, ["ann"], "roomy")
            for mode in ("stream", "json", "handshake"):
                caller = Caller(broker.agents_port, one.token, mode)
                answer = await caller.call("crm__getContact", {"id": "7"})
                assert answer.kind == "result", answer
                caller.cut()
            with broker.control() as control:
                tools = await anyio.to_thread.run_sync(control.list_tools)
        states = {state["name"]: state for state in tools["upstreams"]}
        assert (states["crm"]["kind"], states["crm"]["state"]) == ("openapi", "ready")
        assert "none.yaml: No such file" in states["broken"]["detail"]
        assert [seen.target for seen in api.seen] == ["/contacts/7"] * 3
