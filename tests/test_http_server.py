"""Which path leads where, and that no path is reached under a foreign name."""

from __future__ import annotations

import httpx
import pytest

from haltline.http_server import Routes, bind, text_route
from haltline.wire.guard import Guard
from support.serving import LOOPBACK, served


@pytest.fixture
async def http():
    bound = bind(LOOPBACK, "control")
    guard = Guard("127.0.0.1", bound.getsockname()[1], hosts=(), origins=())
    async with served(Routes(guard, {"/healthz": text_route(lambda: (200, "ok"))}), bound) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            yield client


async def test_a_path_leads_to_its_route_and_no_other_path_does(http):
    assert (await http.get("/healthz")).text == "ok\n"
    assert (await http.post("/healthz")).status_code == 405
    for path in ("/healthz/", "/HEALTHZ", "//healthz", "/", "/healthz/../healthz/x"):
        assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
@pytest.mark.parametrize("hostile", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
async def test_under_a_foreign_host_or_origin_not_even_health_answers(http, path, hostile):
    assert (await http.get(path, headers=hostile)).status_code == 403
