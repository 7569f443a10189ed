"""Every style of a parameter as OpenAPI writes it, and what may not be written."""

from __future__ import annotations

import pytest

from haltline.upstreams.openapi_styles import Unsendable, cookie_pairs, header_text, path_text, query_pairs

COLORS = ["blue", "black"]
RGB = {"R": 100, "G": 200}

QUERY = {
    "form, one": (("form", True), "blue", "color=blue"),
    "form, empty": (("form", True), "", "color="),
    "form, true": (("form", True), True, "color=true"),
    "form, number": (("form", True), 1.5, "color=1.5"),
    "form, list, exploded": (("form", True), COLORS, "color=blue&color=black"),
    "form, list": (("form", False), COLORS, "color=blue,black"),
    "form, object, exploded": (("form", True), RGB, "R=100&G=200"),
    "form, object": (("form", False), RGB, "color=R,100,G,200"),
    "space, list": (("spaceDelimited", False), COLORS, "color=blue%20black"),
    "space, list, exploded": (("spaceDelimited", True), COLORS, "color=blue&color=black"),
    "space, object": (("spaceDelimited", False), RGB, "color=R%20100%20G%20200"),
    "pipe, list": (("pipeDelimited", False), COLORS, "color=blue%7Cblack"),
    "pipe, object": (("pipeDelimited", False), RGB, "color=R%7C100%7CG%7C200"),
    "deep object": (("deepObject", True), RGB, "color[R]=100&color[G]=200"),
    "deep object, nested": (("deepObject", True), {"a": {"b": [1, 2]}}, "color[a][b][0]=1&color[a][b][1]=2"),
    "deep list": (("deepObject", True), ["x", "y"], "color[0]=x&color[1]=y"),
    "no list at all": (("form", True), [], ""),
    "nested where no style says how": (("form", True), [{"a": 1}], "color=%7B%22a%22%3A1%7D"),
    "encoded": (("form", True), "a&b=c d#/?+ü", "color=a%26b%3Dc%20d%23%2F%3F%2B%C3%BC"),
    "a comma in a list": (("form", False), ["a,b", "c"], "color=a%2Cb,c"),
}


@pytest.mark.parametrize(("how", "value", "expected"), QUERY.values(), ids=QUERY)
def test_a_query(how, value, expected):
    pairs = query_pairs("color", value, how[0], explode=how[1])
    assert "&".join(f"{key}={text}" for key, text in pairs) == expected


def test_what_may_stay_reserved_in_a_query_never_ends_a_value():
    [(_, text)] = query_pairs("q", "a/b?c:d&e=f#g+h", "form", explode=True, reserved=True)
    assert text == "a/b?c:d%26e%3Df%23g%2Bh"


def test_names_are_encoded_too():
    assert query_pairs("filter[name]&x", "v", "form", explode=True) == [("filter%5Bname%5D%26x", "v")]
    assert query_pairs("f", {"a]=1&b": "v"}, "deepObject", explode=True) == [("f[a%5D%3D1%26b]", "v")]


PATH = {
    "simple": (("simple", False), "blue", "blue"),
    "simple, list": (("simple", False), COLORS, "blue,black"),
    "simple, object": (("simple", False), RGB, "R,100,G,200"),
    "simple, object, exploded": (("simple", True), RGB, "R=100,G=200"),
    "label": (("label", False), "blue", ".blue"),
    "label, list": (("label", False), COLORS, ".blue,black"),
    "label, list, exploded": (("label", True), COLORS, ".blue.black"),
    "label, object": (("label", False), RGB, ".R,100,G,200"),
    "label, object, exploded": (("label", True), RGB, ".R=100.G=200"),
    "matrix": (("matrix", False), "blue", ";color=blue"),
    "matrix, list": (("matrix", False), COLORS, ";color=blue,black"),
    "matrix, list, exploded": (("matrix", True), COLORS, ";color=blue;color=black"),
    "matrix, object": (("matrix", False), RGB, ";color=R,100,G,200"),
    "matrix, object, exploded": (("matrix", True), RGB, ";R=100;G=200"),
    "encoded": (("simple", False), "a/b?c#d;e%2f", "a%2Fb%3Fc%23d%3Be%252f"),
}


@pytest.mark.parametrize(("how", "value", "expected"), PATH.values(), ids=PATH)
def test_a_path(how, value, expected):
    assert path_text("color", value, how[0], explode=how[1]) == expected


def test_an_empty_value_in_a_path_is_refused_because_it_would_mean_another_path():
    for value in ("", [""], [], {}):
        with pytest.raises(Unsendable):
            path_text("id", value, "simple", explode=False)


def test_a_header():
    assert header_text("a b", explode=False) == "a b"
    assert header_text(COLORS, explode=False) == "blue,black"
    assert header_text(RGB, explode=False) == "R,100,G,200"
    assert header_text(RGB, explode=True) == "R=100,G=200"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b", ["a", "b\r"], {"a\n": "b"}])
def test_a_header_with_a_line_break_is_refused(value):
    with pytest.raises(Unsendable, match="line breaks"):
        header_text(value, explode=True)


def test_a_cookie():
    assert cookie_pairs("c", "a; b=c", explode=True) == [("c", "a%3B%20b%3Dc")]
    assert cookie_pairs("c", COLORS, explode=False) == [("c", "blue,black")]
