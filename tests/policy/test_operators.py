"""What a rule may ask of an argument, and where it looks."""

from __future__ import annotations

import time

import pytest

from haltline.policy.operators import compile_op
from haltline.policy.paths import MISSING, find, parse_path, reader

ARGUMENTS = {
    "amount": "5",
    "customer": {"id": 7, "odd.key": 1},
    "items": [{"price": 1}, {"price": 2}, {}],
    "none": None,
    "empty": [],
    "args": "own",
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("amount", ["5"]),
        ("args.amount", ["5"]),
        ("args", ["own"]),
        ("args.args", ["own"]),
        ("customer.id", [7]),
        ('args.customer["odd.key"]', [1]),
        ("items[0].price", [1]),
        ("items[9].price", [MISSING]),
        ("items[*].price", [1, 2, MISSING]),
        ("empty[*].price", []),
        ("amount[*]", [MISSING]),
        ("amount.x", [MISSING]),
        ("none", [None]),
        ("nowhere", [MISSING]),
        ("nowhere[*].x", [MISSING]),
    ],
)
def test_a_path_finds_each_value_or_that_there_is_none(path, values):
    assert list(find(ARGUMENTS, parse_path(path))) == values
    assert list(reader(parse_path(path))(ARGUMENTS)) == values


@pytest.mark.parametrize(
    "path", ["", ".", "a..b", "a.", "[0]", "a[-1]", "a[", "a b", "a['x']", "a" + ".b" * 20, "x" * 300, "a[*"]
)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match="is no path"):
        parse_path(path)


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    ("op", "value", "holds", "breaks"),
    [
        ("eq", "USD", ["USD"], ["usd", 1, None, MISSING, ["USD"]]),
        ("eq", 1, [1, 1.0], ["1", True, 2]),
        ("eq", True, [True], [1, "true"]),
        ("eq", [1, {"a": 1}], [[1, {"a": 1}], [1.0, {"a": 1}]], [[True, {"a": 1}], [1], [1, {"a": True}], [1, {"b": 1}]]),
        ("eq", None, [None], [0, "", MISSING]),
        ("ne", "root", ["admin"], ["root", 0, None, MISSING, ["x"]]),
        ("le", "25.00", ["25", "25.000", 25, 24.99, -3, "-1"], ["25.01", 25.000001, "1e1", "25 ", "x", "", None, True, [1], MISSING]),
        ("lt", "0.3", [0.1 + 0.1, "0.29"], [0.3, "0.3", 0.1 + 0.2]),
        ("gt", 0, [1, "0.000001"], [0, -1, "0.0", float("nan"), "NaN"]),
        ("ge", "9007199254740993", [9007199254740993, "9007199254740993"], [9007199254740992]),
        ("le", "100", [2**60 - 2**60], [2**63, 2**5000, float("inf"), "9" * 41]),
        ("in", ["USD", 1], ["USD", 1.0], ["EUR", True, "1", MISSING]),
        ("in", [[1], {"a": 1}, None, False], [[1.0], {"a": 1}, None, False], [[True], {"a": True}, 0, {}, MISSING]),
        ("not_in", [[1], "a"], [[2], "b"], [[1.0], "a", 1, None, {"a": 1}, MISSING]),
        ("not_in", ["a", "b"], ["c"], ["a", 1, None, MISSING, ["a"]]),
        ("matches", "ch_[a-z]{1,4}", ["ch_ab"], ["xch_ab", "ch_ab\n", "ch_abcde", "CH_ab", 5, None, MISSING, "a" * 70_000]),
        ("matches", "a|b", ["a", "b"], ["ab", "xb", "ax"]),
        ("matches", "(?i)abc", ["ABC"], ["ABCD"]),
        ("starts_with", "desk-", ["desk-", "desk-1"], ["Desk-1", " desk-", 1, MISSING]),
        ("under", "/srv/data", ["/srv/data", "/srv/data/a", "/srv/data/./a/../b", "//srv/data/a", "/srv//data/x"],
         ["/srv/data/../etc", "/srv/database", "srv/data/a", "~/x", "/srv\\data", "/srv/data/\0", "/srv/data/a\n", "", 1, MISSING, "file:///srv/data"]),
        ("under", "notes/", ["notes/a", "notes"], ["/notes/a", "notes/../x", "../notes/a", "a/../../notes/x"]),
        ("under", "/", ["/anything"], ["anything", ".."]),
        ("absent", None, [MISSING], [None, 0, ""]),
        ("present", None, ["", 0, False], [None, MISSING]),
    ],
)  # fmt: skip
def test_an_operator_holds_only_for_what_it_speaks_of(op, value, holds, breaks):
    question = compile_op(op, value)
    assert [given for given in holds if not question.holds(given)] == []
    assert [given for given in breaks if question.holds(given)] == []


@pytest.mark.parametrize(
    ("op", "value", "said"),
    [
        ("le", "cheap", "compares numbers"),
        ("le", True, "compares numbers"),
        ("le", "1e3", "compares numbers"),
        ("in", "USD", "needs a list"),
        ("in", [], "needs a list"),
        ("not_in", {}, "needs a list"),
        ("matches", "(a", "linear time"),
        ("matches", "(?=a)b", "linear time"),
        ("matches", r"(a)\1", "linear time"),
        ("matches", "((a{0,1000}){0,1000}){0,1000}", "linear time"),
        ("matches", "a)|(b", "linear time"),
        ("matches", "a" * 513, "at most 512"),
        ("matches", 5, "needs a text"),
        ("starts_with", "", "needs a text"),
        ("under", "..", "under needs a folder"),
        ("under", "~/x", "under needs a folder"),
        ("under", ".", "under needs a folder"),
    ],
)
def test_a_value_that_does_not_fit_its_operator_is_refused_with_a_sentence(op, value, said):
    with pytest.raises(ValueError) as refused:
        compile_op(op, value)
    assert said in str(refused.value)


def test_a_pattern_that_would_backtrack_for_ever_elsewhere_answers_at_once():
    question = compile_op("matches", "((a+)+)+b")
    begin = time.perf_counter()
    assert not question.holds("a" * 60_000)
    assert time.perf_counter() - begin < 5


def test_a_demand_reads_as_a_sentence():
    assert compile_op("le", "25.00").demand == "must be at most 25.00"
    assert compile_op("in", ["USD", None, True]).demand == "must be one of 'USD', null, true"
