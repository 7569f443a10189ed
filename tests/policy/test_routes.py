"""Routes of alerts: the first whose conditions hold takes one, circles and unknown names are refused where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from haltline.errors import ConfigError
from haltline.policy.policy import Policy, load_policy
from support.policy_texts import write_files

ROUTES = """
tiers: {staging: {}, production: {}}
alerts:
  quiet: 10m
  routes:
    night: {when: {tier: [production], severity: [critical], agent: ["pay-*"]}, channels: [pager], then: boss, after: 2m}
    anna: {when: {owner: [anna]}, channels: [mail]}
    boss: {channels: [phone, pager]}
    rest: {when: {}, channels: [ops], then: boss}
"""
CHANNELS = {"stderr", "pager", "phone", "mail", "ops"}


def policy(folder: Path, text: str = ROUTES) -> Policy:
    return load_policy(write_files(folder, a=text), channels=CHANNELS)


@pytest.mark.parametrize(
    ("alert", "route"),
    [
        (("critical", "production", "pay-1", "ben"), "night"),
        (("critical", "production", "pay-1", "anna"), "night"),
        (("warning", "production", "pay-1", "anna"), "anna"),
        (("critical", "staging", "pay-1", "ben"), "rest"),
        (("critical", "production", "book-1", "ben"), "rest"),
        (("info", None, None, None), "rest"),
    ],
)
def test_the_first_route_whose_conditions_all_hold_takes_an_alert(tmp_path: Path, alert: tuple, route: str) -> None:
    found = policy(tmp_path).alerts.first(*alert)
    assert found is not None
    assert found.name == route


def test_a_route_without_conditions_is_reached_by_another_alone(tmp_path: Path) -> None:
    routing = policy(tmp_path, "alerts: {routes: {boss: {channels: [phone]}}}").alerts
    assert routing.first("critical", "production", "a", "b") is None
    assert routing.route("boss") is not None


def test_times_have_defaults_and_places_are_kept(tmp_path: Path) -> None:
    routing = policy(tmp_path).alerts
    assert (routing.quiet_s, routing.routes["night"].after_s, routing.routes["rest"].after_s) == (600.0, 120.0, 300.0)
    assert routing.routes["rest"].where == "a.yaml:9"
    assert policy(tmp_path / "b", "tiers: {}").alerts.quiet_s is None


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        ("a: {channels: [ops], then: a}", "a.yaml:4: alerts.routes.a.then: these routes lead in a circle: a -> a; let one end"),
        ("a: {channels: [ops], then: b}\n    b: {channels: [ops], then: c}\n    c: {channels: [ops], then: b}",
         "a.yaml:5: alerts.routes.b.then: these routes lead in a circle: b -> c -> b; let one end"),
        ("a: {channels: [ops], then: bos}\n    boss: {channels: [ops]}", "a.yaml:4: alerts.routes.a.then: there is no route 'bos'; did you mean boss?"),
        ("a: {channels: [opss]}", "a.yaml:4: alerts.routes.a.channels.0: there is no alert channel 'opss' in haltline.yaml; there are: mail, ops, "),
        ("a: {when: {tier: [gold]}, channels: [ops]}", "a.yaml:4: alerts.routes.a.when.tier.0: there is no tier 'gold'"),
        ("a: {when: {severity: [fatal]}, channels: [ops]}", "a.yaml:4: alerts.routes.a.when.severity.0: "),
        ("a: {channels: []}", "a.yaml:4: alerts.routes.a.channels: "),
        ("a: {channels: [ops], after: soon}", "a.yaml:4: alerts.routes.a.after: "),
        ("a: {chanels: [ops]}", "a.yaml:4: alerts.routes.a.chanels: unknown key; did you mean 'channels'?"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_refused_with_file_line_and_key(tmp_path: Path, routes: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(tmp_path, f"tiers: {{}}\nalerts:\n  routes:\n    {routes}\n")
    told = [str(one).removeprefix(f"{tmp_path}/") for one in caught.value.problems]
    assert any(one.startswith(says) for one in told), told
    assert len(told) <= 2, "a circle is told once"


def test_where_channels_are_not_known_their_names_are_not_looked_at(tmp_path: Path) -> None:
    text = "alerts: {routes: {a: {when: {}, channels: [anything]}}}"
    assert load_policy(write_files(tmp_path, a=text)).alerts.routes["a"].channels == ("anything",)


def test_another_order_of_routes_is_another_policy(tmp_path: Path) -> None:
    lines = ["    a: {when: {}, channels: [ops]}", "    b: {when: {}, channels: [mail]}"]
    head = "alerts:\n  routes:\n"
    one = policy(tmp_path / "x", head + "\n".join(lines))
    other = policy(tmp_path / "y", head + "\n".join(reversed(lines)))
    assert one.version != other.version
