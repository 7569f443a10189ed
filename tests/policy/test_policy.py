"""What the rest of the broker may ask of a policy."""

from __future__ import annotations

import pytest

from haltline.policy.caps import CapLimit
from haltline.policy.model import Allow, CapKind, Caps, Deny, Facts, Rate
from haltline.policy.policy import ToolDeclared, ToolDefaults
from haltline.policy.prices import Fixed
from support.policy_texts import NOON_US, call, policy_from, who

PRICES = """
tiers: {t: {tools: ["*"]}}
tools:
  "*": {price: "9.00", timeout_s: 5}
  "pay__*": {price: "1.00", read_only: true, redact: [iban]}
  "pay__ch*": {charge_on_error: false}
  pay__charge: {price: {fixed: "0.05"}, timeout_s: 30, redact: [iban, card]}
redact: [email]
"""


@pytest.mark.promise("R6")
def test_each_setting_comes_from_the_most_specific_entry_that_states_it(tmp_path):
    policy = policy_from(tmp_path, PRICES)
    answers = {tool: policy.decide(call(tool), who(), Facts(), NOON_US) for tool in ("pay__charge", "pay__check", "x")}
    assert answers == {
        "pay__charge": Allow(
            50_000, "policy.yaml: pay__charge fixed 0.05", charge_on_error=False, read_only=True, deadline_s=30.0
        ),
        "pay__check": Allow(
            1_000_000, "policy.yaml: pay__* fixed 1.00", charge_on_error=False, read_only=True, deadline_s=5.0
        ),
        "x": Allow(9_000_000, "policy.yaml: * fixed 9.00", charge_on_error=True, read_only=False, deadline_s=5.0),
    }
    price = policy.price("pay__charge", "pay")
    assert price is not None
    assert (price.rate, price.text, price.where, price.matched_by) == (
        Fixed(50_000),
        "0.05",
        "policy.yaml:7",
        "pay__charge",
    )
    assert policy.redact_keys == ("email", "iban", "card")


def test_what_haltline_yaml_says_of_an_upstream_holds_where_no_entry_does(tmp_path):
    defaults = {"pay": ToolDefaults("0.07", read_only=True, timeout_s=9.0), "free": ToolDefaults()}
    policy = policy_from(
        tmp_path, 'tiers: {t: {tools: ["*"]}}\ntools: {pay__own: {price: "1", read_only: false}}', **defaults
    )
    other = policy.decide(call("pay__other"), who(), Facts(), NOON_US)
    assert other == Allow(70_000, "haltline.yaml: upstreams.pay fixed 0.07", read_only=True, deadline_s=9.0)
    own = policy.decide(call("pay__own"), who(), Facts(), NOON_US)
    assert own == Allow(1_000_000, "policy.yaml: pay__own fixed 1.00", read_only=False, deadline_s=9.0)
    assert policy.price("free__x", "free") is None
    assert policy.price("pay__x", "elsewhere") is None


def test_what_a_tool_s_own_code_says_holds_above_its_upstream_and_below_an_entry(tmp_path):
    declared = {
        "pay__charge": ToolDeclared("pay.py:3", "0.25", read_only=False, timeout_s=3.0),
        "pay__own": ToolDeclared("pay.py:9", "0.30", read_only=True),
        "pay__plain": ToolDeclared("pay.py:12"),
    }
    defaults = ToolDefaults("0.07", read_only=True, timeout_s=9.0, declared=declared)
    policy = policy_from(tmp_path, 'tiers: {t: {tools: ["*"]}}\ntools: {pay__own: {price: "1"}}', pay=defaults)

    def allowed(tool: str) -> Allow:
        decision = policy.decide(call(tool), who(), Facts(), NOON_US)
        assert isinstance(decision, Allow)
        return decision

    assert allowed("pay__charge") == Allow(
        250_000, "pay.py: pay__charge fixed 0.25", read_only=False, deadline_s=3.0, charge_on_error=True
    )
    own, plain = allowed("pay__own"), allowed("pay__plain")
    assert (own.amount_micros, own.read_only, own.deadline_s) == (1_000_000, True, 9.0)
    assert (plain.amount_micros, plain.read_only, plain.deadline_s) == (70_000, True, 9.0)
    price = policy.price("pay__charge", "pay")
    assert price is not None
    assert (price.where, price.matched_by) == ("pay.py:3", "pay__charge")
    assert policy.price("pay__charge", "elsewhere") is None


def test_the_version_knows_what_code_says_and_not_at_which_line(tmp_path):
    def version(folder: str, **defaults: ToolDefaults) -> str:
        return policy_from(tmp_path / folder, "tiers: {a: {}}", **defaults).version

    versions = [
        version("1", pay=ToolDefaults()),
        version("2", pay=ToolDefaults(declared={"pay__x": ToolDeclared("pay.py:3", "1")})),
        version("3", pay=ToolDefaults(declared={"pay__x": ToolDeclared("pay.py:4", "1")})),
        version("4", pay=ToolDefaults(declared={"pay__x": ToolDeclared("pay.py:3", "2")})),
    ]
    assert versions[1] == versions[2]
    assert len(set(versions)) == 3


def test_the_version_is_what_the_files_say_and_not_how(tmp_path):
    one = policy_from(tmp_path / "1", "tiers: {a: {}, b: {}}\ncurrency: EUR")
    same = policy_from(tmp_path / "2", "# a comment\ncurrency: EUR\ntiers:\n  b: {}\n  a: {}")
    other = policy_from(tmp_path / "3", "tiers: {a: {}, b: {mode: audit}}\ncurrency: EUR")
    upstream = policy_from(tmp_path / "4", "tiers: {a: {}, b: {}}\ncurrency: EUR", pay=ToolDefaults("1"))
    assert one.version == same.version
    assert len({one.version, other.version, upstream.version}) == 3
    assert one.version.startswith("p_")
    assert len(one.version) == 14
    assert upstream.version.startswith(f"{one.version}+")


def test_limits_are_the_strictest_and_say_where_they_are_written(tmp_path):
    policy = policy_from(
        tmp_path,
        """\
        tiers:
          t:
            caps:
              task: "0.50"
              day: "5.00"
              rate: 5/minute
        """,
    )
    narrowed = who(
        agent_caps=Caps(day_micros=1_000_000, rate=Rate(100, 3600)), session_caps=Caps(task_micros=900_000, calls=3)
    )
    assert policy.limits(narrowed) == (
        CapLimit(CapKind.TASK, 500_000, "policy.yaml:4"),
        CapLimit(CapKind.DAY, 1_000_000, "agent"),
        CapLimit(CapKind.CALLS, 3, "session"),
        CapLimit(CapKind.RATE, 5, "policy.yaml:6", 60),
        CapLimit(CapKind.RATE, 100, "agent", 3600),
    )
    assert policy.rate_windows_s(narrowed) == (60, 3600)
    assert policy.limits(who(tier="none")) == ()


@pytest.mark.promise("R2")
def test_days_are_those_of_the_policys_zone(tmp_path):
    start, end = policy_from(tmp_path, "time_zone: Asia/Tokyo").day_bounds(NOON_US)
    assert end - start == 86_400_000_000
    assert (start // 3_600_000_000) % 24 == 15


@pytest.mark.promise("R24")
def test_a_tier_tells_how_its_sessions_open_and_end(tmp_path):
    policy = policy_from(
        tmp_path,
        """
        defaults: {session_expires: 2h, auto_session: {idle: 5m}, doubt_charges_after: 1h, on_deny: Ask.}
        tiers: {a: {}, b: {session_expires: 30m, auto_session: {longest: 1h}, on_deny: Do not ask.}}
        """,
    )
    a, b = policy.tier("a"), policy.tier("b")
    assert a is not None
    assert b is not None
    assert (a.session_expires_s, a.auto_session_idle_s, a.auto_session_longest_s, a.on_deny) == (
        7200,
        300,
        28_800,
        "Ask.",
    )
    assert (b.session_expires_s, b.auto_session_idle_s, b.auto_session_longest_s, b.on_deny) == (
        1800,
        300,
        3600,
        "Do not ask.",
    )
    assert policy.doubt_charges_after_s == 3600
    assert policy.tier("c") is None
    assert (policy.tier_names, policy.scope_names) == (("a", "b"), ())


def test_an_explanation_tells_every_rule_that_spoke_also_after_the_first_refusal(tmp_path):
    policy = policy_from(
        tmp_path,
        """
        tiers: {t: {tools: [pay__charge], scopes: [s], caps: {task: "0.50", calls: 5}}}
        scopes:
          s:
            arguments:
              - {path: args.amount, op: le, value: "5", say: too much}
              - {tools: [pay__other], path: args.x, op: present}
        tools: {pay__charge: {price: "0.05"}}
        """,
    )
    told = policy.explain(call("pay__charge", {"amount": "6"}), who(tools=("other",)), Facts(), NOON_US)
    assert [(rule.rule, rule.spoke, rule.where) for rule in told.rules] == [
        ("halt", "allow", "operator"),
        ("halt", "allow", "operator"),
        ("halt", "allow", "operator"),
        ("tools", "allow", "policy.yaml:2"),
        ("tools", "deny", "session"),
        ("inputSchema", "allow", "upstream"),
        ("arguments", "deny", "policy.yaml:6"),
        ("price", "allow", "policy.yaml:8"),
        ("task cap", "allow", "policy.yaml:2"),
        ("calls cap", "allow", "policy.yaml:2"),
    ]
    assert told.rules[6].text == "too much (scope s)"
    assert [reason.code for reason in told.decision.reasons] == ["scope.tool"]
    unpriced = policy.explain(call("pay__none", {"amount": "1"}), who(), Facts(), NOON_US)
    assert ("task cap", "silent") in [(rule.rule, rule.spoke) for rule in unpriced.rules]


def test_principals_that_differ_in_one_thing_are_never_confused(tmp_path):
    policy = policy_from(
        tmp_path, 'tiers: {t: {tools: ["*"]}, u: {}}\nscopes: {s: {tools: []}}\ntools: {"*": {price: "1"}}'
    )
    for changes in (
        {"tier": "u"},
        {"scopes": ("s",)},
        {"tools": ()},
        {"agent_caps": Caps(per_call_micros=0)},
        {"session_caps": Caps(task_micros=0)},
    ):
        assert isinstance(policy.decide(call(), who(), Facts(), NOON_US), Allow)
        assert not isinstance(policy.decide(call(), who(**changes), Facts(), NOON_US), Allow)


MANY_TOOLS = """
tiers: {t: {tools: ["pay__*", "files__read"], scopes: [desk, trial]}}
scopes:
  desk:
    tools: ["pay__*", "files__*"]
    arguments:
      - {path: amount, op: le, value: 5, tools: [pay__charge]}
      - {path: path, op: under, value: /srv, tools: ["files__*"]}
      - {path: note, op: absent}
  trial: {mode: audit, tools: ["pay__c*"], arguments: [{path: amount, op: present}]}
tools: {"*": {price: "0"}}
"""


@pytest.mark.promise("P6")
def test_what_is_kept_for_a_tool_is_never_answered_for_another(tmp_path):
    """A decision asks only the rules that can refuse that tool; an explanation asks all, and must say the same."""
    policy = policy_from(tmp_path, MANY_TOOLS)
    asked = [
        (tool, arguments)
        for tool in ("pay__charge", "files__read", "pay__list", "files__write", "pay__charge", "mail__send")
        for arguments in ({"amount": 1}, {"amount": 9, "path": "/srv/a"}, {"note": "x", "path": "/etc"}, {})
    ]
    decided = [policy.decide(call(*one), who(), Facts(), NOON_US) for one in asked]
    assert decided == [policy.explain(call(*one), who(), Facts(), NOON_US).decision for one in asked]
    assert {type(one) for one in decided} == {Allow, Deny}
    assert any(isinstance(one, Allow) and one.would_deny for one in decided)
