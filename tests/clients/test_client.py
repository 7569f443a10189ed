"""The control client on the wire: what it sends, what it accepts, and what each failure becomes."""

from __future__ import annotations

import inspect
import socket
import threading

import pytest

from haltline_client import BrokerUnreachable, ControlClient, Refused, RequestFailed, SettingError
from support.fake_control import PERSON, Failure, FakeControl, RawAnswer


@pytest.fixture
def client(control: FakeControl):
    with ControlClient(control.url, PERSON) as opened:
        yield opened


def test_a_call_is_one_post_that_the_endpoint_accepts(control, client):
    assert client.revoke("research-bot", reason="leak")["calls_cancelled"] == 3
    assert control.calls == [("revoke", {"target": "research-bot", "reason": "leak"})]


def test_an_answer_may_come_as_an_event_stream_behind_notices(control, client):
    control.as_stream = True
    assert client.status()["ready"] is True
    assert client.status()["ready"] is True


def test_arguments_that_were_not_given_are_not_sent(control, client):
    client.open_session("bot", "t", caps={"task": "0.50"}, tools=("a__*",))
    client.query_audit(tool="a__b", after_seq=0)
    client.list_sessions()
    assert [arguments for _, arguments in control.calls] == [
        {"agent": "bot", "task": "t", "tools": ["a__*"], "caps": {"task": "0.50"}},
        {"tool": "a__b", "after_seq": 0},
        {},
    ]


def test_every_control_tool_has_a_method_of_its_name(control, client):
    methods = {name for name, _ in inspect.getmembers(ControlClient, inspect.isfunction)}
    assert set(control.answers) <= methods


def test_calls_share_one_connection(control, client):
    for _ in range(3):
        client.status()
    assert len(control.connections) == 1


def test_a_kept_connection_that_the_broker_closed_is_replaced(control, client):
    client.status()
    control.connections[0].shutdown(socket.SHUT_RDWR)
    assert client.revoke("bot", reason="r")["already"] is False


def test_an_act_whose_answer_got_lost_is_not_repeated_and_says_that_it_may_have_happened(control, client):
    control.answers["open_session"] = RawAnswer(close=True)
    with pytest.raises(BrokerUnreachable, match="may have been carried out") as caught:
        client.open_session("bot", "t")
    assert caught.value.sent
    assert len(control.calls) == 1


def test_a_stop_is_repeated_on_a_fresh_connection_when_the_kept_one_broke(control, client):
    client.status()
    answers = iter([RawAnswer(close=True), {"target": "bot"}])
    control.answers["halt"] = lambda _: next(answers)
    assert client.halt("bot", reason="r") == {"target": "bot"}


def test_a_broker_that_never_answers_costs_the_timeout_and_no_more(control):
    never = threading.Event()
    control.answers["status"] = lambda _: never.wait(5) and None
    with (
        ControlClient(control.url, PERSON, timeout_s=0.05) as client,
        pytest.raises(BrokerUnreachable, match=r"0\.05 s"),
    ):
        client.status()
    never.set()


def test_nobody_listening_is_unreachable_and_nothing_was_sent():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            ControlClient(url, PERSON) as client,
            pytest.raises(BrokerUnreachable, match="no broker answers") as caught,
        ):
            client.status()
    assert not caught.value.sent
    assert caught.value.exit_code == 69


def test_an_unknown_credential_is_refused(control):
    with ControlClient(control.url, "hl_o_dead") as client, pytest.raises(Refused) as caught:
        client.status()
    assert (caught.value.code, caught.value.exit_code) == ("operator.unknown", 2)


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        ("operator.forbidden", Refused, 2),
        ("request.not_found", RequestFailed, 1),
        ("request.conflict", RequestFailed, 1),
        ("store.unavailable", RequestFailed, 1),
        ("config.invalid", RequestFailed, 3),
    ],
)
def test_an_error_result_carries_its_code_and_its_exit_code(control, client, code, kind, exit_code):
    control.answers["status"] = Failure(code, "said so")
    with pytest.raises(kind, match="said so") as caught:
        client.status()
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (RawAnswer(404, "text/html", b"<h1>no</h1>"), RequestFailed),
        (RawAnswer(302, "text/html", b""), RequestFailed),
        (RawAnswer(200, "application/json", b"{}"), RequestFailed),
        (RawAnswer(200, "application/json", b"not json"), RequestFailed),
        (RawAnswer(200, "text/event-stream", b"data: {}\n\n"), RequestFailed),
        (RawAnswer(200, "application/json", b'{"jsonrpc":"2.0","id":1,"result":{}}'), RequestFailed),
        (RawAnswer(404, "application/json", b'{"id":1,"error":{"code":-32601,"message":"unknown"}}'), RequestFailed),
        (RawAnswer(403, "text/plain", b"host"), Refused),
        (RawAnswer(503, "text/plain", b"starting"), BrokerUnreachable),
    ],
)
def test_what_is_no_answer_of_a_control_endpoint_is_an_error_not_a_crash(control, client, answer, kind):
    control.answers["status"] = answer
    with pytest.raises(kind):
        client.status()


@pytest.mark.promise("P9")
@pytest.mark.parametrize("url", ["http://10.0.0.1:7401", "http://broker.example", "http://127.0.0.1.evil.example"])
def test_a_credential_does_not_travel_unencrypted_over_a_network(url):
    with pytest.raises(SettingError, match="unencrypted"):
        ControlClient(url, PERSON)
    ControlClient(url, PERSON, insecure_http=True).close()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:7401", "ftp://x", "http://", "http://u:p@127.0.0.1", "http://[::1", "http://h:x"]
)
def test_a_url_that_is_none_is_told(url):
    with pytest.raises(SettingError):
        ControlClient(url, PERSON)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "ключ"])
def test_a_credential_that_cannot_be_a_header_is_told_without_showing_it(token):
    with pytest.raises(SettingError) as caught:
        ControlClient("http://127.0.0.1:1", token)
    assert not token or token not in str(caught.value)
