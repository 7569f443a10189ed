"""Where a resource leads: as listed, as a template says in linear time, and to what is granted first."""

from __future__ import annotations

import pytest

from haltline.upstreams.catalog import Catalog
from haltline.upstreams.model import NOBODY, Caller, UpstreamSpec
from haltline.upstreams.offers import LISTINGS, Offers, Template

ANN = Caller("agt_ann", "ses_1")


@pytest.mark.parametrize(
    ("template", "uri", "matches"),
    [
        ("file:///{path}", "file:///a/b", True),
        ("file:///{path}", "file:///", False),
        ("a://{x}/{y}", "a://1/2", True),
        ("a://{x}/{y}", "a://1/", False),
        ("a://{x}/{y}", "a:///2", False),
        ("a://{x}/z/{y}.txt", "a://1/z/2.txt", True),
        ("a://{x}/z/{y}.txt", "a://1/z/.txt", False),
        ("a://b", "a://b", True),
        ("a://b", "a://bc", False),
        ("{x}", "anything", True),
        ("{x}", "", False),
        ("{x}{y}", "ab", True),
        ("{x}{y}", "a", False),
    ],
)
def test_each_expression_stands_for_any_text_but_none(template, uri, matches):
    assert Template.of("u", template).matches(uri) is matches


@pytest.mark.promise("P5")
def test_a_hostile_uri_against_a_hostile_template_is_read_once():
    template = Template.of("u", "a://" + "{x}/" * 500 + "{y}!")
    for _ in range(100):  # one of these took minutes when templates were regular expressions
        assert not template.matches("a://" + "/" * 4_000 + "\n")


class Listing:
    """An upstream with resources."""

    def __init__(self, name, *uris):
        self.spec = UpstreamSpec(name=name, url="http://127.0.0.1:1/mcp")
        self.capabilities = {"resources": {}}
        self.uris = uris
        self.asked = 0

    async def call(self, call):
        call.before_send()
        self.asked += 1
        return {"result": {"resources": [{"uri": uri, "name": self.spec.name} for uri in self.uris]}}


async def _listed(offers, granted):
    return await offers.listed(LISTINGS["resources/list"], ANN, NOBODY, granted=granted, before_send=lambda: None)


@pytest.mark.promise("P5", "P11")
async def test_of_two_upstreams_with_one_uri_the_one_that_is_granted_answers():
    first, second = Listing("first", "a://x", "a://y"), Listing("second", "a://x")
    offers = Offers(Catalog([first, second]))
    assert [item["name"] for item in await _listed(offers, lambda *_: True)] == ["first", "first"]
    found = offers.resource("a://x", lambda _, upstream: upstream == "second")
    assert found.upstream == "second"
    assert offers.resource("a://x", lambda *_: True).upstream == "first"
    assert offers.resource("a://x", lambda *_: False).upstream == "first", "so that the refusal names what is missing"
    assert offers.resource("a://unknown", lambda *_: True) is None


@pytest.mark.promise("R32")
async def test_an_upstream_that_is_not_granted_is_not_asked():
    first, second = Listing("first", "a://x"), Listing("second", "a://y")
    offers = Offers(Catalog([first, second]))
    items = await _listed(offers, lambda name, _: name == "second__resources")
    assert [item["uri"] for item in items] == ["a://y"]
    assert (first.asked, second.asked) == (0, 1)
