from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haltline.audit import COMMON, Kind
from haltline.control.reading import Filters, Page, moment_us, page
from haltline.errors import RequestError
from support.desk import Desk, Failed

if TYPE_CHECKING:
    from haltline.store.reader import Reader


async def some_history(at: Desk) -> dict:
    """Two agents, a session each, one call a minute of each."""
    sessions = {}
    for handle in ("booking-7", "other"):
        await at.agent(handle)
        sessions[handle] = await at.session(handle)
    for _ in range(3):
        for session in sessions.values():
            at.clock.forward(60)
            await at.call(session["token"])
    return sessions


async def test_filters_find_what_they_name_and_only_that(at: Desk) -> None:
    sessions = await some_history(at)
    by_agent = (await at.ask("query_audit", agent="other"))["events"]
    assert {one["agent"] for one in by_agent} == {"other"}
    assert len(by_agent) == 2 + 6
    session = sessions["booking-7"]["session"]
    assert len((await at.ask("query_audit", session=session))["events"]) == 1 + 6
    allowed = (await at.ask("query_audit", kind="call.allowed"))["events"]
    assert [one["kind"] for one in allowed] == ["call.allowed"] * 6
    for prefix in ("call", "call.", "call.*"):
        assert len((await at.ask("query_audit", kind=prefix))["events"]) == 12
    call = allowed[0]["call"]
    of_call = (await at.ask("query_audit", call=call))["events"]
    assert [one["kind"] for one in of_call] == ["call.allowed", "call.succeeded"]
    assert of_call[0]["arguments"] == {}
    assert of_call[1]["result"]["result"]["content"]
    assert (
        len((await at.ask("query_audit", tool="payments__charge", agent="other", kind="call.succeeded"))["events"]) == 3
    )
    assert (await at.ask("query_audit", tool="nothing"))["events"] == []


class Explained:
    """A reader that keeps how SQLite looks for what was asked."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.plans: list[str] = []

    async def rows(self, sql: str, given: Any = ()) -> Any:
        self.plans += [row["detail"] for row in await self._reader.rows(f"EXPLAIN QUERY PLAN {sql}", given)]
        return await self._reader.rows(sql, given)

    async def row(self, sql: str, given: Any = ()) -> Any:
        return next(iter(await self.rows(sql, given)), None)


@pytest.mark.parametrize("kind", [one for one in Kind if one not in COMMON] + ["agent.", "alert."])
async def test_what_is_rare_is_found_by_an_index(at: Desk, kind: str) -> None:
    reader: Any = Explained(at.parts.reader)
    await page(reader, Filters(kind=kind), Page(newest=True))
    assert [plan for plan in reader.plans if "events_by_kind" in plan], reader.plans


@pytest.mark.parametrize("kind", [*COMMON, "call."])
async def test_what_is_everywhere_is_found_on_the_way_through_the_log(at: Desk, kind: str) -> None:
    await some_history(at)
    reader: Any = Explained(at.parts.reader)
    assert len((await page(reader, Filters(kind=kind), Page(newest=True, limit=2)))["events"]) == 2
    assert not [plan for plan in reader.plans if "TEMP B-TREE" in plan], "in order: it ends with the page"


async def test_times_are_ages_or_iso_8601(at: Desk) -> None:
    await some_history(at)
    events = (await at.ask("query_audit", kind="call.succeeded"))["events"]
    assert len((await at.ask("query_audit", kind="call.succeeded", since="2m"))["events"]) == 3
    assert len((await at.ask("query_audit", kind="call.succeeded", until="2m"))["events"]) == 3
    since, until = events[1]["at"], events[4]["at"]
    between = (await at.ask("query_audit", kind="call.succeeded", since=since, until=until))["events"]
    assert [one["seq"] for one in between] == [one["seq"] for one in events[1:4]], "from then on, until then"
    assert (await at.ask("query_audit", since="2999-01-01"))["events"] == []
    assert (await at.ask("query_audit", until="1999-01-01T00:00:00+02:00"))["events"] == []


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment_us("since", "2026-11-23T20:00:00", 0) == moment_us("since", "2026-11-23T21:00:00+01:00", 0)
    assert moment_us("since", "90s", 100_000_000) == 10_000_000
    assert moment_us("since", "2026-11-23T20:00:00.000001Z", 0) % 1_000_000 == 1


@pytest.mark.parametrize("text", ["yesterday", "", "2 h", "5w", "2026-13-01", "-2h", "99999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="since"):
        moment_us("since", text, 0)


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"kind": "call.denid"}, "no kind 'call.denid'.*call"),
        ({"kind": "everything else"}, "no kind"),
        ({"since": "soon"}, "since"),
        ({"agent": "nobody"}, "no agent 'nobody'"),
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"after_seq": -1}, "after_seq"),
        ({"after_seq": "1"}, "after_seq"),
    ],
)
async def test_a_filter_that_names_nothing_is_refused_not_answered_empty(at: Desk, filters: dict, words: str) -> None:
    with pytest.raises(Failed, match=words):
        await at.ask("query_audit", **filters)


async def test_pages_walk_the_whole_log_once_and_in_order(at: Desk) -> None:
    await some_history(at)
    first = await at.ask("query_audit", limit=1)
    seen = [one["seq"] for one in first["events"]]
    following = first["next_after_seq"]
    while following is not None:
        part = await at.ask("query_audit", after_seq=following, limit=4)
        seen += [one["seq"] for one in part["events"]]
        following = part.get("next_after_seq")
    assert seen == list(range(1, len(await at.events()) + 1))
    newest = await at.ask("query_audit", newest=True, limit=3)
    assert [one["seq"] for one in newest["events"]] == seen[-3:]
    assert "next_after_seq" not in newest
    before = await at.ask("query_audit", before_seq=4, limit=100)
    assert [one["seq"] for one in before["events"]] == [1, 2, 3]
    exactly = await at.ask("query_audit", before_seq=4, limit=3)
    assert "next_after_seq" not in exactly, "nothing more matches"


async def test_a_page_of_heavy_payloads_ends_early_and_goes_on(at: Desk) -> None:
    await some_history(at)
    first = await page(at.parts.reader, Filters(kind="call."), Page(), max_bytes=1)
    assert len(first["events"]) == 1, "always one, so that pages advance"
    rest = await page(at.parts.reader, Filters(kind="call."), Page(after_seq=first["next_after_seq"]))
    assert rest["events"][0]["seq"] > first["events"][0]["seq"]


async def test_reading_the_log_is_recorded_once_for_each_reader_and_filter(at: Desk) -> None:
    await some_history(at)
    for after in range(3):
        await at.ask("query_audit", agent="other", after_seq=after)
    await at.ask("query_audit", at.local, agent="other")
    await at.ask("query_audit")
    reads = await at.events("control.read")
    assert [one["actor"] for one in reads] == ["operator:anna", "operator:local", "operator:anna"]
    assert reads[0]["filters"].keys() == {"agent_id"}
    assert reads[2]["filters"] == {}
    at.clock.forward(601)
    await at.ask("query_audit", agent="other")
    assert len(await at.events("control.read")) == 4, "a log that is followed is recorded again after a while"


@pytest.mark.promise("R31")
async def test_an_erased_payload_reads_as_erased(at: Desk) -> None:
    await some_history(at)
    await at.run(lambda tx: tx.execute("DELETE FROM payloads"))
    [one, *_] = (await at.ask("query_audit", kind="call.allowed"))["events"]
    assert one["arguments"] == "[erased]"
