"""An HTTP API on loopback, called through its document: what travels, what comes back, and what never leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from haltline.upstreams.credentials import Credential, Credentials
from haltline.upstreams.model import (
    Caller,
    NotSent,
    OpenApiSource,
    OutcomeUnknown,
    UpstreamCall,
    UpstreamError,
    UpstreamSpec,
)
from haltline.upstreams.open import open_upstream
from haltline.upstreams.openapi import OpenApiUpstream
from haltline.upstreams.openapi_results import HTTP_META
from support.api_documents import document, every_style, opened, written_to
from support.certificates import certificate
from support.http_api import http_api, written
from support.upstream_calls import ANN, Sent, closing, text_of

ANY = {"/any": {"get": {"operationId": "get"}, "head": {"operationId": "head"}, "post": {"operationId": "post"}}}


@pytest.fixture
async def api():
    async with http_api() as made:
        yield made


# What travels


@pytest.mark.promise("P11")
async def test_every_style_of_a_parameter_arrives_as_openapi_writes_it(api, tmp_path):
    async with opened(every_style(), api.url, tmp_path) as crm:
        await Sent()(
            crm,
            "query",
            {
                "form_list": ["a", "b"], "spaceDelimited_list": ["a", "b"], "pipeDelimited_list": ["a", "b"],
                "plain": "x&y=1 /?#", "flat_list": ["a,b", "c"], "flat_object": {"R": 1}, "open_object": {"G": 2},
                "deep": {"a": {"b": "c"}}, "free": "a/b?c", "filter": {"a": [1]},
            },
        )  # fmt: skip
        await Sent()(crm, "path", {"simple": "a/b?c#d%2f", "label": ["l", "m"], "matrix": ["n", "o"]})
    assert api.seen[0].target == (
        "/query?form_list=a&form_list=b&spaceDelimited_list=a%20b&pipeDelimited_list=a%7Cb&plain=x%26y%3D1%20%2F%3F%23"
        "&flat_list=a%2Cb,c&flat_object=R,1&G=2&deep[a][b]=c&free=a/b?c&filter=%7B%22a%22%3A%5B1%5D%7D"
    )
    assert api.seen[1].target == "/path/a%2Fb%3Fc%23d%252f/.l.m/x;matrix=n,o"


async def test_headers_and_cookies_arrive(api, tmp_path):
    async with opened(every_style(), api.url, tmp_path) as crm:
        given = {"X-Plain": "a b", "X-List": ["a", "b"], "X-Object": {"R": 1}, "session": "a; b=c", "tags": ["x", "y"]}
        await Sent()(crm, "header", given)
    headers = api.seen[0].headers
    assert (headers["x-plain"], headers["x-list"], headers["x-object"]) == ("a b", "a,b", "R=1")
    assert headers["cookie"] == "session=a%3B%20b%3Dc; tags=x,y"


async def test_bodies_of_every_kind_arrive(api, tmp_path):
    async with opened(every_style(), api.url, tmp_path) as crm:
        await Sent()(crm, "json", {"body": {"a": [1, None, "ü", 12345678901234567890123]}})
        await Sent()(crm, "json", {"body": [1]})
        await Sent()(crm, "vendor", {"body": {}})
        await Sent()(
            crm, "form", {"body": {"a": "x&y", "list": [1, 2], "deep": {"k": ["v"]}, "object": {"o": 1}, "no": None}}
        )
        await Sent()(crm, "text", {"body": "as it is\r\n"})
        await Sent()(crm, "post", {})
    assert api.seen[0].json == {"a": [1, None, "ü", 12345678901234567890123]}
    assert api.seen[1].json == [1]
    assert api.seen[2].headers["content-type"] == "application/vnd.x+json"
    assert api.seen[3].body == b"a=x%26y&list=1&list=2&deep[k][0]=v&object=%7B%22o%22%3A1%7D"
    assert api.seen[3].headers["content-type"] == "application/x-www-form-urlencoded"
    assert (api.seen[4].body, api.seen[4].headers["content-type"]) == (b"as it is\r\n", "text/plain")
    assert (api.seen[5].body, api.seen[5].headers["content-length"]) == (b"", "0")
    assert api.connections == 1


async def test_every_method_is_used(api, tmp_path):
    async with opened(every_style(), api.url, tmp_path) as crm:
        for method in ("get", "head", "post", "patch", "delete", "options"):
            answer = await Sent()(crm, method)
            assert answer["result"]["isError"] is False
    assert [one.method for one in api.seen] == ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"]


async def test_configured_headers_and_query_go_with_every_call_and_no_argument_changes_them(api, tmp_path):
    described = document(
        {
            "/x": {
                "get": {
                    "operationId": "x",
                    "parameters": [
                        {"name": "KEY", "in": "query", "schema": {}},
                        {"name": "x-token", "in": "header", "schema": {}},
                        {"name": "more", "in": "query", "schema": {"type": "object"}},
                    ],
                }
            }
        }
    )
    fixed = {"headers": {"Authorization": "Bearer s3cret", "X-Token": "t", "Host": "evil", "Content-Length": "9"}}
    async with opened(described, f"{api.url}/v1/", tmp_path, source={"query": {"key": "k&1"}}, **fixed) as crm:
        [tool] = await crm.list_tools()
        assert list(tool["inputSchema"]["properties"]) == ["more"]
        await Sent()(crm, "x", {"more": {"a": "b"}})
        for given in ({"KEY": "mine"}, {"x-token": "mine"}, {"more": {"KeY": "mine"}}, {"more": {"key[]": "mine"}}):
            sent = Sent()
            with pytest.raises(NotSent):
                await sent(crm, "x", given)
            assert sent.asked == 0
    assert [one.target for one in api.seen] == ["/v1/x?key=k%261&a=b"]
    headers = api.seen[0].headers
    assert (headers["authorization"], headers["x-token"]) == ("Bearer s3cret", "t")
    assert headers["host"] == api.url.removeprefix("http://")
    assert "content-length" not in headers


@pytest.mark.promise("R32")
async def test_each_agent_s_calls_carry_its_own_credential(api, tmp_path):
    own = {name: Credential(name, headers={"Authorization": f"of-{name}"}) for name in ("ann", "bob")}
    source = OpenApiSource(written_to(tmp_path, document(ANY)), api.url, allow_private=True)
    async with closing(open_upstream(UpstreamSpec("crm", openapi=source, credentials=Credentials(agents=own)))) as crm:
        assert len(await crm.list_tools()) == 3
        for name in ("ann", "bob", "ann"):
            await Sent()(crm, "get", caller=Caller(f"id_{name}", "s", name))
        with pytest.raises(NotSent):
            await Sent()(crm, "get", caller=Caller("id_eve", "s", "eve"))
    assert [one.headers["authorization"] for one in api.seen] == ["of-ann", "of-bob", "of-ann"]


ESCAPES = [
    "..", ".", "../admin", "a/../b", "..\\admin", "%2e%2e", "%2E%2E%2Fadmin", "%252e%252e%252f", "..;/admin", "", "./x",
]  # fmt: skip


@pytest.mark.parametrize("value", ESCAPES)
async def test_a_value_in_the_path_cannot_lead_to_another_one(api, tmp_path, value):
    described = document(
        {"/c/{id}/x": {"get": {"operationId": "x", "parameters": [{"name": "id", "in": "path", "schema": {}}]}}}
    )
    async with opened(described, api.url, tmp_path) as crm:
        sent = Sent()
        with pytest.raises(NotSent) as caught:
            await sent(crm, "x", {"id": value})
        assert caught.value.code == "upstream.arguments"
        assert (sent.asked, api.seen) == (0, [])


@pytest.mark.parametrize(
    "value", ["a?b=c", "a#b", "a/b", "a b", "a%2fb", "a;b", "http://evil.example/", "a\r\nX: y", "ü", "...", "..a"]
)
async def test_what_a_value_holds_stays_in_its_place_in_the_path(api, tmp_path, value):
    described = document(
        {"/c/{id}/x": {"get": {"operationId": "x", "parameters": [{"name": "id", "in": "path", "schema": {}}]}}}
    )
    async with opened(described, api.url, tmp_path) as crm:
        await Sent()(crm, "x", {"id": value})
    start, c, middle, end = api.seen[0].target.split("/")
    assert (start, c, end) == ("", "c", "x")
    assert not set("?# \r\n") & set(middle)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0", ["a", "b\n"], {"a": "\r"}])
async def test_a_header_cannot_become_two(api, tmp_path, value):
    described = document(
        {"/x": {"get": {"operationId": "x", "parameters": [{"name": "X-A", "in": "header", "schema": {}}]}}}
    )
    async with opened(described, api.url, tmp_path) as crm:
        sent = Sent()
        with pytest.raises(NotSent, match="line breaks"):
            await sent(crm, "x", {"X-A": value})
        assert (sent.asked, api.seen) == (0, [])


async def test_an_address_that_would_be_endless_is_not_sent(api, tmp_path):
    async with opened(every_style(), api.url, tmp_path) as crm:
        with pytest.raises(NotSent, match="longer than"):
            await Sent()(crm, "query", {"plain": "x" * 20_000})


# What comes back


async def answered(api, tmp_path, data: bytes, *, operation: str = "get", **more: Any) -> dict[str, Any]:
    async def answer(request, writer):
        writer.write(data)

    api.answer = answer
    async with opened(document(ANY), api.url, tmp_path, **more) as crm:
        result: dict[str, Any] = (await Sent()(crm, operation))["result"]
        return result


async def test_a_json_object_is_structured_content_and_text(api, tmp_path):
    result = await answered(api, tmp_path, written(b'{"id": 12345678901234567890123, "n": null}'))
    assert result["structuredContent"] == {"id": 12345678901234567890123, "n": None}
    assert result["content"] == [{"type": "text", "text": '{"id": 12345678901234567890123, "n": null}'}]
    assert (result["isError"], result["_meta"][HTTP_META]) == (False, {"status": 200})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (written([1, 2]), "[1, 2]"),
        (written(b"null"), "null"),
        (written(b"plain", kind="text/plain"), "plain"),
        (written("ü".encode("latin-1"), kind="text/plain; charset=latin-1"), "ü"),
        (written(b"\xff", kind="text/plain"), "�"),
        (written(b"x", kind="text/plain; charset=rot13"), "x"),
        (written(b"x", kind="text/plain; charset=no-such"), "x"),
        (written(b"<a/>", kind="application/xml"), "<a/>"),
        (written(b"no type", kind=""), "no type"),
        (written(status=204), "HTTP 204 No Content, no content"),
        (written(status=201, headers={"Location": "/c/7"}), "HTTP 201 Created, location: /c/7, no content"),
        (written(b"{broken"), "HTTP 200 OK; said to be JSON, but it is not valid JSON:\n{broken"),
        (
            written(b"\x89PNG\0", kind="image/png"),
            "HTTP 200 OK; the content is image/png, 5 bytes, and not text: it is not handed on",
        ),
        (written(b"\0", kind=""), "HTTP 200 OK; the content is of no type, 1 bytes, and not text: it is not handed on"),
    ],
)
async def test_anything_else_is_text_or_a_note(api, tmp_path, data, text):
    result = await answered(api, tmp_path, data)
    assert result["content"] == [{"type": "text", "text": text}]
    assert "structuredContent" not in result
    assert result["isError"] is False


async def test_json_that_is_too_deep_or_holds_half_a_character_is_text_that_can_be_written(api, tmp_path):
    for body in (b"[" * 10_000 + b"]" * 10_000, b'{"a": "\\ud83d"}', b'{"a": NaN}'):
        result = await answered(api, tmp_path, written(body))
        assert "structuredContent" not in result
        assert result["content"][0]["text"].endswith(body.decode())


ERRORS = {
    "a JSON error": (written({"error": "no such contact"}, status=404), 'HTTP 404 Not Found: {"error": "no such contact"}'),
    "no body": (written(status=500), "HTTP 500 Internal Server Error"),
    "retry later": (written(b"slow", status=429, kind="text/plain", headers={"Retry-After": "7"}), "HTTP 429 Too Many Requests (retry after 7): slow"),
    "bytes": (written(b"\0\1", status=400, kind="image/png"), "HTTP 400 Bad Request: HTTP 400 Bad Request; the content is image/png, 2 bytes, and not text: it is not handed on"),
    "of no known status": (written(b"x", status=599, kind="text/plain"), "HTTP 599: x"),
    "a redirect": (written(status=302, headers={"Location": "http://169.254.169.254/"}), "HTTP 302 Found: a redirect to http://169.254.169.254/, and redirects are not followed"),
    "not modified": (written(status=304), "HTTP 304 Not Modified: a redirect, and redirects are not followed"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "text"), ERRORS.values(), ids=ERRORS)
async def test_an_error_status_is_an_error_that_can_be_read(api, tmp_path, data, text):
    result = await answered(api, tmp_path, data)
    assert result["isError"] is True
    assert text_of({"result": result}) == text
    assert len(api.seen) == 1


async def test_a_long_error_is_cut(api, tmp_path):
    result = await answered(api, tmp_path, written(b"x" * 10_000_000, status=500, kind="text/plain"))
    assert len(text_of({"result": result})) < 4_100


async def test_an_answer_that_is_too_large_is_cut_and_says_that_the_call_was_answered(api, tmp_path):
    result = await answered(api, tmp_path, written(b"y" * 5_000_000, kind="text/plain"), max_result_bytes=1_000_000)
    text = text_of({"result": result})
    assert text.startswith("HTTP 200 OK; the answer is more than the 1000000 bytes that are allowed; it begins:\nyyy")
    assert len(text) < 70_000
    assert result["isError"] is False


async def test_an_endless_answer_ends_at_the_bound(api, tmp_path):
    async def endless(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    api.answer = endless
    async with opened(document(ANY), api.url, tmp_path, max_result_bytes=1_000_000) as crm:
        with anyio.fail_after(30):
            assert "more than the 1000000 bytes" in text_of(await Sent()(crm, "get"))


async def test_a_head_request_ends_with_its_head(api, tmp_path):
    data = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Type: text/plain\r\nETag: "a"\r\n\r\n'
    with anyio.fail_after(30):
        result = await answered(api, tmp_path, data, operation="head")
    assert result["_meta"][HTTP_META] == {"status": 200, "etag": '"a"'}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "upstream.lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "upstream.lost"),
        (b"not HTTP at all\r\n\r\n", "upstream.lost"),
        (written(b"x", headers={"Content-Encoding": "gzip"}), "upstream.malformed"),
    ],
)
async def test_an_answer_that_never_came_whole_is_an_unknown_outcome(api, tmp_path, data, code):
    async def answer(request, writer):
        writer.write(data)
        writer.close()

    api.answer = answer
    async with opened(document(ANY), api.url, tmp_path) as crm:
        with pytest.raises(OutcomeUnknown) as caught:
            await Sent()(crm, "post")
        assert caught.value.code == code
        assert len(api.seen) == 1


async def test_silence_ends_at_the_deadline_as_an_unknown_outcome(api, tmp_path):
    async def never(request, writer):
        await asyncio.sleep(3600)

    api.answer = never
    async with opened(document(ANY), api.url, tmp_path) as crm:
        with pytest.raises(OutcomeUnknown) as caught:
            await Sent()(crm, "get", deadline_s=0.2)
        assert caught.value.code == "upstream.timeout"


# When it leaves


@pytest.mark.promise("R17")
async def test_a_call_that_is_stopped_at_the_last_moment_never_leaves(api, tmp_path):
    async with opened(document(ANY), api.url, tmp_path) as crm:
        sent = Sent(refuse=RuntimeError("stopped"))
        with pytest.raises(RuntimeError, match="stopped"):
            await sent(crm, "post")
        assert sent.asked == 1
        await Sent()(crm, "get")
    assert [one.method for one in api.seen] == ["GET"]


async def test_a_cancelled_call_closes_its_connection(api, tmp_path):
    closed, arrived = anyio.Event(), anyio.Event()

    async def wait(request, writer):
        arrived.set()
        try:
            while True:
                writer.write(b"HTTP/1.1 102 X\r\n\r\n")  # fails once the other end has closed
                await writer.drain()
                await anyio.lowlevel.checkpoint()
        finally:
            closed.set()

    api.answer = wait
    async with opened(document(ANY), api.url, tmp_path) as crm:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Sent(), crm, "get")
                await arrived.wait()
                tasks.cancel_scope.cancel()
            await closed.wait()


async def test_a_refused_connection_and_an_operation_that_is_gone_were_not_sent(tmp_path):
    async with opened(document(ANY), "http://127.0.0.1:1", tmp_path) as crm:
        for name in ("get", "no-such"):
            sent = Sent()
            with pytest.raises(NotSent) as caught:
                await sent(crm, name)
            assert (caught.value.code, sent.asked) == ("upstream.unreachable", 0)


async def test_other_methods_than_calls_of_tools_are_not_known(tmp_path, api):
    async with opened(document(ANY), api.url, tmp_path) as crm:
        call = UpstreamCall(ANN, {}, 5, Sent().before_send, lambda _: None, method="prompts/get")
        assert (await crm.call(call))["error"]["code"] == -32601


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::1]", "0.0.0.0"])
async def test_a_private_address_is_refused_at_the_connection_unless_allowed(api, tmp_path, host):
    url = api.url.replace("127.0.0.1", host)
    async with opened(document(ANY), url, tmp_path, source={"allow_private": False}) as crm:
        sent = Sent()
        with pytest.raises(NotSent) as caught:
            await sent(crm, "get")
        assert str(caught.value) == "crm leads where no connection may go"
        assert (sent.asked, api.connections) == (0, 0)


async def test_an_api_over_tls_is_checked_by_its_name(tmp_path):
    server, trusting = certificate(tmp_path, "localhost")
    async with http_api(server) as api:
        for url, right in ((api.url, False), (api.url.replace("127.0.0.1", "localhost"), True)):
            async with opened(document(ANY), url, tmp_path, tls=trusting) as crm:
                if right:
                    assert text_of(await Sent()(crm, "get"))
                    continue
                with pytest.raises(NotSent):
                    await Sent()(crm, "get")
        assert len(api.seen) == 1


# The document


async def test_the_server_of_the_document_is_used_where_none_is_configured(api, tmp_path):
    server = {"url": "http://{host}:{port}/v{n}", "variables": {
        "host": {"default": "127.0.0.1"}, "port": {"default": api.url.rpartition(":")[2]}, "n": {"default": "2"}}}  # fmt: skip
    async with opened(document(ANY, servers=[server]), None, tmp_path) as crm:
        [tool, *_] = await crm.list_tools()
        assert tool["_meta"] == {"io.haltline/destination": api.url.removeprefix("http://")}
        await Sent()(crm, "get")
    assert api.seen[0].target == "/v2/any"


BAD_SERVERS: list[Any] = [
    None, [], [{}], [{"url": "/v1"}], [{"url": "ftp://x"}], [{"url": "https://"}], [{"url": "http://a b/"}], "x",
    [{"url": "http://u:p@host/"}], [{"url": "http://h\r\nX: y/"}], [{"url": "http://{x}/"}], [{"url": "http://h:99999"}], [7],
]  # fmt: skip


@pytest.mark.parametrize("servers", BAD_SERVERS)
async def test_a_document_without_a_whole_address_needs_one_configured(tmp_path, servers):
    with pytest.raises(UpstreamError) as caught:
        async with opened(document(ANY, servers=servers), None, tmp_path):
            pass
    assert "set base_url" in str(caught.value.detail)


async def test_a_document_from_an_address_does_not_decide_who_gets_the_credentials(api, tmp_path):
    async def answer(request, writer):
        writer.write(written(document(ANY, servers=[{"url": "http://elsewhere.example"}])))

    api.answer = answer
    async with opened(f"{api.url}/api.json", None, tmp_path) as crm:
        assert len(await crm.list_tools()) == 3
    with pytest.raises(UpstreamError) as caught:
        async with opened(f"{api.url}/api.json", None, tmp_path, headers={"Authorization": "s3cret"}):
            pass
    assert "names a server at elsewhere.example; set base_url" in str(caught.value.detail)
    assert all("authorization" not in one.headers for one in api.seen)


FETCHED = {
    "a redirect": (written(status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302 for it, and redirects"),
    "not found": (written(status=404), "HTTP 404"),
    "no document": (written(b"<html>"), "neither JSON nor YAML|no mapping"),
    "swagger": (written({"swagger": "2.0", "paths": {}}), "Swagger 2.0"),
    "too large": (written(b"{" + b" " * (33 * 2**20) + b"}"), "larger than"),
}


@pytest.mark.parametrize(("data", "said"), FETCHED.values(), ids=FETCHED)
async def test_a_document_that_cannot_be_fetched_says_why(api, tmp_path, data, said):
    async def answer(request, writer):
        writer.write(data)

    api.answer = answer
    with pytest.raises(UpstreamError) as caught:
        async with opened(f"{api.url}/api.json", "http://127.0.0.1:1", tmp_path):
            pass
    assert any(one in str(caught.value.detail) for one in said.split("|"))
    assert "document" not in str(caught.value)


async def test_a_document_at_a_private_address_is_not_fetched(api, tmp_path):
    with pytest.raises(UpstreamError) as caught:
        async with opened(f"{api.url}/api.json", None, tmp_path, source={"allow_private": False}):
            pass
    assert "where no connection may go" in str(caught.value.detail)
    assert api.connections == 0


async def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(UpstreamError) as caught:
        async with opened(str(tmp_path / "nope.yaml"), None, tmp_path):
            pass
    assert "nope.yaml: No such file" in str(caught.value.detail)


async def test_an_unchanged_document_is_not_compiled_again_and_a_changed_one_is(api, tmp_path):
    async with opened(document(ANY), api.url, tmp_path) as crm:
        first = await crm.list_tools()
        assert [one is other for one, other in zip(await crm.list_tools(), first, strict=True)] == [True] * 3
        written_to(tmp_path, document({"/new": {"get": {"operationId": "new"}}}))
        assert [tool["name"] for tool in await crm.list_tools()] == ["new"]
        await Sent()(crm, "new")
        (tmp_path / "api.json").unlink()
        with pytest.raises(UpstreamError):
            await crm.list_tools()
        await Sent()(crm, "new")


REMOTE = {"/x": {"post": {"operationId": "x", "requestBody": {"$ref": "URL#/Body"}}}}
BODIES = {"Body": {"content": {"application/json": {"schema": {"type": "integer"}}}}}


async def test_another_document_is_never_fetched_unless_that_is_allowed(api, tmp_path):
    async def answer(request, writer):
        writer.write(written(BODIES))

    api.answer = answer
    described = document({"/x": {"post": {"operationId": "x", "requestBody": {"$ref": f"{api.url}/b.json#/Body"}}}})
    async with opened(described, api.url, tmp_path) as crm:
        assert await crm.list_tools() == []
        assert "remote_refs: true would allow that" in crm.notes[0]
        assert api.connections == 0
    async with opened(described, api.url, tmp_path, source={"remote_refs": True}) as crm:
        [tool] = await crm.list_tools()
        assert tool["inputSchema"]["properties"]["body"] == {"type": "integer"}


async def test_a_document_beside_it_is_read_where_that_is_allowed_and_none_further_up(api, tmp_path):
    (tmp_path / "in").mkdir()
    written_to(tmp_path / "in", BODIES, "b.json")
    written_to(tmp_path, BODIES, "secret.json")
    (tmp_path / "in" / "link.json").symlink_to(tmp_path / "secret.json")

    async def listed(ref):
        described = document({"/x": {"post": {"operationId": "x", "requestBody": {"$ref": ref}}}})
        async with opened(described, api.url, tmp_path / "in", source={"remote_refs": True}) as crm:
            return await crm.list_tools()

    assert len(await listed("b.json#/Body")) == 1
    for ref in (
        "../secret.json#/Body",
        "/etc/passwd#/Body",
        f"file://{tmp_path}/secret.json#/Body",
        "x/../../secret.json#/Body",
        "link.json#/Body",
    ):
        with pytest.raises(UpstreamError):
            await listed(ref)


async def test_documents_that_refer_to_ever_more_documents_end(api, tmp_path):
    async def answer(request, writer):
        number = int(request.target.strip("/"))
        writer.write(written({"next": {"$ref": f"{api.url}/{number + 1}"}}))

    api.answer = answer
    described = document({"/x": {"get": {"$ref": f"{api.url}/1"}}})
    with pytest.raises(UpstreamError) as caught:
        async with opened(described, api.url, tmp_path, source={"remote_refs": True}):
            pass
    assert "more than 50 other documents" in str(caught.value.detail)


async def test_what_is_no_tool_and_what_is_missing_is_told_to_operators(api, tmp_path):
    schemes = {
        "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    upload = {"post": {"operationId": "upload", "requestBody": {"content": {"multipart/form-data": {}}}}}
    described = document({**ANY, "/up": upload}, components={"securitySchemes": schemes})
    async with opened(described, api.url, tmp_path, source={"exclude": ["nothing*"]}) as crm:
        assert crm.notes == (
            "no operation matches nothing*",
            "1 operations are no tools: POST /up: its body is multipart/form-data; JSON, forms and text are sent",
            "it asks for key (apiKey in header X-Key) or bearer (http bearer), and neither headers nor query are configured",
        )
    async with opened(described, api.url, tmp_path, headers={"X-Key": "k"}) as crm:
        assert len(crm.notes) == 1


async def test_an_upstream_that_was_never_listed_reads_its_document_before_it_sends(api, tmp_path):
    source = OpenApiSource(written_to(tmp_path, document(ANY)), api.url, allow_private=True)
    upstream = OpenApiUpstream(UpstreamSpec("crm", openapi=source))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(Sent(), upstream, "get")
    await upstream.aclose()
    assert len(api.seen) == 3


async def test_an_upstream_whose_document_cannot_be_read_sends_nothing(tmp_path):
    upstream = OpenApiUpstream(UpstreamSpec("crm", openapi=OpenApiSource(str(tmp_path / "none.yaml"))))
    assert upstream.notes == ()
    with pytest.raises(NotSent):
        await Sent()(upstream, "get")
    await upstream.aclose()
