"""How well the shipped rules tell a failing agent from a normal one, on seeded traces of eight weeks.

The defaults were chosen on the kinds office, bursty and growth with seeds below 10; nightly and weekend, and every other seed,
were held out. Beside the shipped ones stand the design's triggers as written, without minimum amounts and counts.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from haltline.policy.policy import Policy, load_policy
from support.detection import play
from support.figures import Figures
from support.traces import DAY_US, FAILURES, HOUR_US, KINDS, WEEKS, normal, with_failure

POLICIES = Path(__file__).parents[2] / "policies"
CAPS = {"experimental": 5_000_000, "staging": 50_000_000, "production": 250_000_000}
CHOSEN_ON = ("office", "bursty", "growth")


def as_designed(folder: Path) -> Policy:
    """The same rules with next to no minimum amounts, counts and history."""
    shutil.copytree(POLICIES, folder, ignore=shutil.ignore_patterns("examples", "tests"))
    file = folder / "rules.yaml"
    bare = re.sub(r'at_least: "[0-9.]+"', 'at_least: "0.01"', file.read_text(encoding="utf-8"))
    bare = bare.replace("at_least: 50}", "at_least: 10}")
    file.write_text(bare, encoding="utf-8")
    return load_policy(folder)


def latest(
    policy: Policy, tier: str, kind: str, failure: str, seeds: range, *, beside_at_once: bool = False
) -> tuple[str, float]:
    """The seed that noticed it last: what is told of it, and the share of the daily cap that was spent by then."""
    worst, share = "", -1.0
    for seed in seeds:
        calls = with_failure(kind, seed, CAPS[tier], failure)
        seen = play(policy, tier, calls, beside_at_once=beside_at_once)
        rule, after, spent = seen.first or ("none", 0, CAPS[tier])
        if 100 * spent / CAPS[tier] > share:
            share = 100 * spent / CAPS[tier]
            stopped = "no halt" if seen.stopped is None else f"halted by {seen.stopped[0]} after {seen.stopped[1]}"
            worst = f"{rule}, {after} calls, {share:.1f} %; {stopped}"
    return worst, share


def of_normal(
    policy: Policy, tier: str, kind: str, seeds: range, *, beside_at_once: bool = False
) -> tuple[float, float]:
    """Alarms and halts in an agent-week."""
    told = [play(policy, tier, normal(kind, seed, CAPS[tier]), beside_at_once=beside_at_once) for seed in seeds]
    weeks = WEEKS * len(seeds)
    return sum(len(one.alarms) for one in told) / weeks, sum(len(one.halts) for one in told) / weeks


def late(policy: Policy, seeds: range, *, beside_at_once: bool = False, hours: range = range(24)) -> str:
    """On how many seeds a bursty agent's slow leak, in these hours, is noticed at half of the daily cap or later."""
    cap, found = CAPS["staging"], 0
    for seed in seeds:
        calls = with_failure("bursty", seed, cap, "slow leak")
        leaks = [call for call in calls if not call.bad or call.at_us % DAY_US // HOUR_US in hours]
        first = play(policy, "staging", leaks, beside_at_once=beside_at_once).first
        found += first is None or 2 * first[2] >= cap
    return f"{found} of {len(seeds)} seeds at half of the cap or later"


@pytest.mark.promise("R27", "R28")
def test_every_failure_is_noticed_before_half_the_daily_cap_and_normal_agents_are_left_alone(long, tmp_path):
    policy, designed = load_policy(POLICIES), as_designed(tmp_path / "designed")
    figures = Figures(
        "Rules on seeded traces: noticed after how many calls and how much of the daily cap; false alarms"
    )
    tiers = list(CAPS) if long else ["staging"]
    seeds = range(11, 17 if long else 12)
    for tier in tiers:
        for failure in FAILURES:
            for kind in KINDS if long else ("office", "bursty"):
                told, share = latest(policy, tier, kind, failure, range(11, 14) if long else range(11, 12))
                figures.must(f"{tier} {kind}: {failure}", told, share < 50, "< 50 %")
        told, _ = latest(policy, tier, "bursty", "slow leak", range(11, 12), beside_at_once=True)
        figures.note(f"{tier} bursty: slow leak, were a new hour usual for the next at once", told)
    if long:
        for of, some in (("chosen on", range(10)), ("held out", range(11, 21))):
            told = f"{late(policy, some)}; were a new hour usual at once {late(policy, some, beside_at_once=True)}"
            figures.note(f"bursty: slow leak, seeds {of}", told)
        told = late(policy, range(11, 16), hours=range(9, 18))
        figures.note("bursty: a leak in its own hours alone, within its own swings", told)
    for tier in tiers:
        total = []
        for kind in KINDS:
            of = seeds if kind in CHOSEN_ON else range(1, seeds.stop - 10)
            alarms, halts = of_normal(policy, tier, kind, of)
            bare = of_normal(designed, tier, kind, of)
            total.append((alarms, halts))
            known = "seeds held out" if kind in CHOSEN_ON else "kind held out"
            figures.note(
                f"{tier} {kind} ({known})",
                f"{alarms:.2f} alarms, {halts:.3f} halts a week; as designed {bare[0]:.2f} and {bare[1]:.3f}",
            )
        alarms, _ = of_normal(policy, tier, "bursty", seeds, beside_at_once=True)
        figures.note(f"{tier} bursty, were a new hour usual for the next at once", f"{alarms:.2f} alarms a week")
        alarms, halts = (sum(one) / len(total) for one in zip(*total, strict=True))
        figures.must(f"{tier}: false alarms a week", f"{alarms:.2f}", alarms < 1, "< 1")
        figures.must(f"{tier}: false halts a week", f"{halts:.3f}", halts < 0.05, "< 0.05")
    figures.show()
