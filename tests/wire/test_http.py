"""A client's connection, as those that answer on it know it."""

from __future__ import annotations

from haltline.wire.http import Line


def test_who_wants_to_know_hears_once_that_a_connection_was_closed() -> None:
    line, heard = Line(), list[str]()
    line.tell(lambda: heard.append("a"))
    line.tell(lambda: heard.append("b"))
    line.close()
    line.close()
    assert sorted(heard) == ["a", "b"]


def test_who_asks_when_it_is_closed_already_hears_at_once() -> None:
    line, heard = Line(), list[str]()
    line.close()
    line.tell(lambda: heard.append("late"))
    assert heard == ["late"]


class Call:
    gone = 0

    def went(self) -> None:
        self.gone += 1


def test_whose_answer_is_written_hears_nothing_any_more() -> None:
    line, answered, waits = Line(), Call(), Call()
    for one in (answered, waits):
        line.tell(one.went)
    line.tell_no_more(answered.went)
    line.close()
    assert (answered.gone, waits.gone) == (0, 1)
