"""A stop reaches every call it names, at once, and nothing else (P5, R17)."""

from __future__ import annotations

import anyio
import pytest

from haltline.calls.running import RunningCalls, StoppedCall
from haltline.policy.model import Reason

WHY = Reason("session.revoked", "revoked")


def _running(calls, agent, session):
    call = calls.open()
    calls.bind(call, agent, session)
    return call


@pytest.fixture
async def three():
    calls = RunningCalls()
    return (
        calls,
        _running(calls, "agt_1", "ses_1"),
        _running(calls, "agt_1", "ses_2"),
        _running(calls, "agt_2", "ses_3"),
    )


@pytest.mark.promise("P5", "R17")
@pytest.mark.parametrize(
    ("named", "stopped"),
    [
        ({"session_ids": ["ses_1"]}, [True, False, False]),
        ({"agent_id": "agt_1"}, [True, True, False]),
        ({"agent_id": "agt_2", "session_ids": ["ses_1"]}, [True, False, True]),
        ({"everything": True}, [True, True, True]),
        ({"session_ids": []}, [False, False, False]),
    ],
)
async def test_a_stop_reaches_exactly_what_it_names(three, named, stopped):
    calls, *running = three
    assert calls.stop(reason=WHY, **named) == sum(stopped)
    assert [call.stopped is WHY for call in running] == stopped
    assert [call.scope.cancel_called for call in running] == stopped


@pytest.mark.promise("R18", "R27")
@pytest.mark.parametrize(
    ("named", "held_back"),
    [({"session_ids": ["ses_1", "ses_2"]}, 1), ({"agent_id": "agt_1"}, 1), ({"agent_id": "agt_2"}, 1), ({}, 0)],
)
async def test_only_what_has_not_left_yet_is_held_back(three, named, held_back):
    calls, sent, *_ = three
    sent.before_send()
    assert calls.hold_back(reason=WHY, **named) == held_back
    assert (sent.stopped, sent.scope.cancel_called) == (None, False)


@pytest.mark.promise("R17")
async def test_a_call_not_yet_bound_is_stopped_with_everything_only():
    calls = RunningCalls()
    unbound = calls.open()
    assert calls.stop(reason=WHY, session_ids=["ses_1"], agent_id="agt_1") == 0
    assert calls.stop(reason=WHY, everything=True) == 1
    assert unbound.stopped is WHY


@pytest.mark.promise("R17")
async def test_no_first_byte_leaves_after_a_stop(three):
    calls, call, *_ = three
    call.before_send()
    assert call.sent
    calls.stop(reason=WHY, session_ids=["ses_1"])
    with pytest.raises(StoppedCall):
        call.before_send()


async def test_nor_after_its_own_caller_cancelled(three):
    _, call, *_ = three
    call.cancel()
    with pytest.raises(StoppedCall):
        call.before_send()
    assert not call.sent
    assert call.stopped is None


async def test_a_second_stop_keeps_the_first_reason(three):
    calls, call, *_ = three
    calls.stop(reason=WHY, everything=True)
    assert calls.stop(reason=Reason("agent.halted", "later"), everything=True) == 0
    assert call.stopped is WHY


async def test_ended_waits_for_the_last_call_and_no_longer_than_told():
    calls = RunningCalls()
    call = _running(calls, "agt_1", "ses_1")
    assert not await calls.ended(0.01)
    async with anyio.create_task_group() as tasks:

        async def close():
            calls.close(call)

        tasks.start_soon(close)
        assert await calls.ended(5)
    assert (len(calls), calls.running_of("agt_1")) == (0, 0)
