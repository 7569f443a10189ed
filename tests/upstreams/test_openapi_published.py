"""Descriptions that others published, as they are: how many operations become tools, how many do not and why, and how fast."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.policy.schemas import compile_schema
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.messages import dumps
from haltline.upstreams.model import UpstreamError
from support.api_documents import opened
from support.http_api import http_api
from support.upstream_calls import Sent

PACKAGES = Path(__file__).parents[2] / ".tools" / "descriptions" / "node_modules"
EXAMPLES = "@readme/oas-examples"
PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")

PUBLISHED = {
    "GitHub": ("@octokit/openapi", "generated/api.github.com.json", 1_000),
    "Directus": ("@directus/specs", "dist/openapi.json", 120),
    "Blockfrost": ("@blockfrost/openapi", "openapi.yaml", 110),
    "STAPI": (EXAMPLES, "3.0/json/star-trek.json", 70),
    "Train Travel": (EXAMPLES, "3.1/json/train-travel.json", 7),
}
"""Package, file, and how many tools there are at least."""


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """The broker's loop alone: some of these take seconds."""
    return "asyncio", {"use_uvloop": True}


def published(package: str, file: str) -> str:
    path = PACKAGES / package / file
    if not path.exists():
        pytest.skip(f"{package} could not be had from npm: {file} is not in .tools/descriptions")
    return str(path)


@pytest.mark.promise("P11")
@pytest.mark.parametrize(("package", "file", "least"), PUBLISHED.values(), ids=PUBLISHED)
async def test_a_published_description_becomes_tools(package, file, least, tmp_path):
    path = published(package, file)
    started = time.perf_counter()
    async with http_api() as api, opened(path, api.url, tmp_path) as upstream:
        took = time.perf_counter() - started
        tools = await upstream.list_tools()
        refused = upstream._ready.api.refused
        print(f"\n{package} {file} ({Path(path).stat().st_size / 1e6:.1f} MB): {len(tools)} tools in {took:.2f} s, "
              f"{len(dumps(tools)) / 1e6:.1f} MB of definitions; {len(refused)} operations are none")  # fmt: skip
        for why, count in Counter(why for _, why in refused).most_common():
            print(f"  {count}: {why}")
        assert len(tools) >= least
        assert len(refused) < len(tools) / 10
        assert len({tool["name"] for tool in tools}) == len(tools)
        for tool in tools:
            assert PLAIN.fullmatch(tool["name"])
            compile_schema(tool["inputSchema"])
        catalog = Catalog([upstream])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(catalog.run)
            with anyio.fail_after(30):
                await catalog.tried()
            assert len(catalog.tools()) == len(tools)
            tasks.cancel_scope.cancel()


async def test_operations_of_github_are_called_as_it_describes_them(tmp_path):
    path = published(*PUBLISHED["GitHub"][:2])
    include = ["repos/get-content", "issues/create", "GET /search/*", "repos/list-for-org"]
    async with http_api() as api, opened(path, api.url, tmp_path, source={"include": include}) as github:
        names = {tool["name"] for tool in await github.list_tools()}
        assert {"repos_get-content", "issues_create", "search_code", "repos_list-for-org"} <= names
        assert len(names) < 15
        await Sent()(github, "repos_get-content", {"owner": "o", "repo": "r", "path": "docs/a b.md", "ref": "main"})
        await Sent()(github, "issues_create", {"owner": "o", "repo": "r", "body": {"title": "t", "labels": ["bug"]}})
        await Sent()(github, "search_code", {"q": "a in:file language:js", "per_page": 5})
    assert [(one.method, one.target) for one in api.seen] == [
        ("GET", "/repos/o/r/contents/docs%2Fa%20b.md?ref=main"),
        ("POST", "/repos/o/r/issues"),
        ("GET", "/search/code?q=a%20in%3Afile%20language%3Ajs&per_page=5"),
    ]
    assert api.seen[1].json == {"title": "t", "labels": ["bug"]}


async def test_a_form_of_stapi_is_sent_as_it_describes_it(tmp_path):
    path = published(*PUBLISHED["STAPI"][:2])
    async with http_api() as api, opened(path, api.url, tmp_path, source={"include": ["* /animal*"]}) as stapi:
        tools = {tool["name"]: tool for tool in await stapi.list_tools()}
        name = next(name for name, tool in tools.items() if "body" in tool["inputSchema"]["properties"])
        await Sent()(stapi, name, {"body": {"name": "Targ & co", "avian": False}, "pageNumber": 1})
    [seen] = api.seen
    assert seen.target.startswith("/animal/search?pageNumber=1")
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert seen.body == b"name=Targ%20%26%20co&avian=false"


async def test_a_description_of_an_older_kind_is_refused_readably(tmp_path):
    path = published(EXAMPLES, "2.0/json/petstore.json")
    with pytest.raises(UpstreamError) as caught:
        async with opened(path, "http://127.0.0.1:1", tmp_path):
            pass
    assert "Swagger 2.0, not OpenAPI 3.0 or 3.1; convert it first" in str(caught.value.detail)
