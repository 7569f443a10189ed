"""Rolling sums against lists that are searched from the start each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haltline.signals import rolling
from haltline.signals.rolling import Rolling

S = 1_000_000
WINDOWS_S = (0.5, 2.0, 10.0)


@st.composite
def _steps(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    acts = st.sampled_from(["add", "add", "add", "change", "ask", "let_go", "oldest"])
    return [(draw(acts), draw(st.integers(0, S)), draw(st.integers(-5, 9))) for _ in range(draw(st.integers(1, 80)))]


def _naive_most(kept: list[list[int]], window_us: int, at_us: int) -> int:
    """At each entry up to where a window with `at_us` ends, what the window before it holds; the last one whatever its time."""
    ends = [now_us for now_us, *_ in kept if now_us < at_us + window_us]
    sums = [(now, sum(one[1] for one in kept[: n + 1] if one[0] > now - window_us)) for n, now in enumerate(ends)]
    return max([0, *(money for now, money in sums if now >= at_us), *(money for _, money in sums[-1:])])


@given(_steps(), st.sampled_from([1, 4, 1024]))
def test_every_window_says_what_a_search_through_all_entries_says(steps: list[tuple[str, int, int]], tidied_at: int):
    now_us, kept, found, before = 10 * S, [], Rolling(), rolling._TIDIED_AT
    rolling._TIDIED_AT = tidied_at
    try:
        for act, passed_us, amount in steps:
            now_us += passed_us
            if act == "add":
                kept.append([now_us, amount, 1])
                found.add(now_us, amount, 1)
            elif act == "change":
                place = found.newest(now_us - passed_us, S)
                near = [one for one in kept if one[0] <= now_us - passed_us and now_us - passed_us - one[0] < S]
                assert (place is None) == (not near)
                if place is not None:
                    found.change(place, amount, 2)
                    near[-1][1:] = [near[-1][1] + amount, near[-1][2] + 2]
            elif act == "let_go":
                found.let_go(now_us - 10 * S)
                kept = [one for one in kept if one[0] > now_us - 10 * S]
            elif act == "oldest" and kept:
                found.let_go_of_oldest()
                del kept[0]
            else:
                _agree(found, kept, now_us)
        _agree(found, kept, now_us)
        _agree(Rolling.loaded(found.stored()), kept, now_us)
    finally:
        rolling._TIDIED_AT = before


def _agree(found: Rolling, kept: list[list[int]], now_us: int) -> None:
    assert len(found) == len(kept)
    for window_s in WINDOWS_S:
        within = [one for one in kept if one[0] > now_us - int(window_s * S)]
        assert found.sums(window_s, now_us) == (sum(one[1] for one in within), sum(one[2] for one in within))
        for at_us in (now_us, now_us - 3 * S, kept[0][0] if kept else 0):
            assert found.most(window_s, at_us) == _naive_most(kept, int(window_s * S), at_us)
