"""The block on standard error: everything a person needs, and nothing that an agent's words could make of it."""

from __future__ import annotations

import errno
import io
import threading

import anyio
import pytest

from haltline.alerts.model import Alert, Delivery, Later, Never
from haltline.alerts.stderr import StderrChannel
from haltline.alerts.text import block
from haltline.alerts.visible import clipped, visible
from support.post_office import START_US, an_alert


def a_delivery(alert: Alert) -> Delivery:
    return Delivery("alt_1.stderr", "alt_1", 1, START_US, START_US, alert)


async def test_the_block_says_everything() -> None:
    stream = io.StringIO()
    await StderrChannel(stream).send(a_delivery(an_alert()))
    head, *lines, end = stream.getvalue().splitlines()
    assert head.rstrip("=") == "=== ALERT critical session.halted since 2027-01-15T08:00:00.000000Z "
    assert set(end) == {"="}
    assert lines == [
        "  agent      booking-7",
        "  session    ses_booking-7",
        "  task       book the hotel",
        "  cause      [budget.task_exceeded] task cap 0.50 USD, spent 0.47, this call 0.05 (number 1)",
        "  by         cap task",
        "  threshold  0.50 USD",
        "  observed   0.52 USD",
        "  balances   day: spent 0.47 USD, held 0.00 USD, remaining 4.53 USD of 5.00 USD",
        "             task: spent 0.47 USD, held 0.00 USD, remaining 0.03 USD of 0.50 USD",
        "  actions    14:02:00Z payments__charge succeeded 0.05 USD",
        "             14:02:01Z payments__charge succeeded 0.05 USD",
        "             14:02:02Z payments__charge succeeded 0.05 USD",
        "             14:02:03Z payments__charge succeeded 0.05 USD",
        "             14:02:04Z payments__charge succeeded 0.05 USD",
        "  commands   haltline resume ses_booking-7 --reason '...'",
        "             haltline revoke booking-7 --reason '...'",
        "  alert      alt_1",
    ]


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
async def test_no_text_can_forge_a_line(break_: str) -> None:
    forged = f"x{break_}=== ALERT info all is well"
    plain = block(a_delivery(an_alert(task="x", agent="x", last_actions=("x",), commands=("x",))))
    text = block(a_delivery(an_alert(task=forged, agent=forged, last_actions=(forged,), commands=(forged,))))
    assert len(text.splitlines()) == len(plain.splitlines())


@pytest.mark.parametrize(
    "char", ["\x1b", "\x00", "\x7f", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041", "\ud800"]
)
def test_characters_that_act_are_written_out(char: str) -> None:
    shown = visible(f"a{char}b")
    assert char not in shown
    assert shown.isprintable()
    assert visible(shown) == shown
    assert f"{ord(char):04x}" in shown


def test_characters_that_show_stay_as_they_are() -> None:
    assert visible("Grüße, 東京 ✈ é a\\b") == "Grüße, 東京 ✈ é a\\b"
    assert clipped("abcdef", 6) == "abcdef"
    assert clipped("abcdefg", 6) == "abcde…"


async def test_a_terminal_with_a_small_alphabet_still_gets_it() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    await StderrChannel(stream).send(a_delivery(an_alert(task="東京")))
    assert rb"\u6771\u4eac" in raw.getvalue()


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EPIPE, "Broken pipe"), Never),
        (ValueError("I/O operation on closed file"), Never),
        (OSError(errno.ENOSPC, "No space left on device"), Later),
    ],
)
async def test_what_cannot_be_written_says_whether_it_ever_can(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await StderrChannel(Broken(error)).send(a_delivery(an_alert()))


async def test_a_process_without_standard_error_never_can() -> None:
    with pytest.raises(Never):
        await StderrChannel(None).send(a_delivery(an_alert()))


async def test_a_pipe_that_nobody_reads_stops_nobody_and_gets_no_second_thread() -> None:
    class Stuck(io.StringIO):
        entered = 0
        free = threading.Event()

        def write(self, text: str) -> int:
            self.entered += 1
            self.free.wait(10)
            return super().write(text)

    stream = Stuck()
    channel = StderrChannel(stream, timeout_s=0.05)
    try:
        with anyio.fail_after(30):
            for _ in range(2):
                with pytest.raises(Later):
                    await channel.send(a_delivery(an_alert()))
        assert stream.entered == 1
    finally:
        stream.free.set()
