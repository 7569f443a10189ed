"""What is remembered of conversations is bounded for each credential, so that none makes the others' be forgotten."""

from __future__ import annotations

from haltline.credentials import issue
from haltline.wire.conversations import Conversations, Question
from haltline.wire.sessions import owner_of


def test_a_credential_that_initializes_without_end_forgets_its_own_conversations_alone():
    every = Conversations()
    theirs = every.of("theirs", "bob")
    for number in range(10_001):
        newest = every.of(f"s{number}", "ann")
    assert every.of("theirs", "bob") is theirs
    assert every.of("s10000", "ann") is newest
    assert len(list(every)) == 65


def test_a_conversation_in_use_outlives_those_that_are_not():
    every = Conversations()
    asked, heard, idle = (every.of(name, "ann") for name in ("asked", "heard", "idle"))
    question = Question()
    asked.questions[question.id] = question
    heard.standing = lambda _: None
    for number in range(62):
        every.of(f"s{number}", "ann")
    assert idle not in list(every)
    assert every.of("asked") is asked
    assert every.of("heard") is heard


def test_where_all_are_in_use_the_oldest_goes_and_the_newest_stays():
    every = Conversations()
    for number in range(65):
        newest = every.of(f"s{number}", "ann")
        newest.standing = lambda _: None
    assert every.of("s64", "ann") is newest
    assert len(list(every)) == 64
    assert every.of("s0").standing is None


def test_the_owner_is_learned_later_and_an_end_gives_its_room_back():
    every = Conversations()
    first = every.of("first")
    assert every.of("first", "ann") is first
    for number in range(200):
        every.of(f"s{number}", "ann")
        every.end(f"s{number}")
    assert every.of("first") is first


def test_the_owner_is_the_credential_and_nobody_where_none_was_presented():
    token = issue("s")
    assert owner_of(token.token) == token.id
    assert owner_of(None) == owner_of("noise") == ""
