"""What operators' machines may read: metrics, spans and logs of a real broker, with no secret in any of them."""

from __future__ import annotations

import secrets
import time
import urllib.error
import urllib.request

import pytest

from haltline.demo.receiver import receiving
from support.broker_process import broker_process
from support.raw_mcp import HttpClient

POLICY = """
version: "1"
currency: USD
tiers:
  roomy: {tools: ["echo__*"], caps: {task: "100.00", day: "100.00"}}
  tight: {tools: ["echo__*"], caps: {task: "0.01"}}
tools:
  echo__say: {price: "0.05"}
"""
TOOLS = """
import haltline

@haltline.tool(price="0.00")
def say(text: str) -> dict[str, str]:
    return {"said": text, "more": text[::-1]}

@haltline.tool(price="0.00")
def complain(text: str) -> str:
    raise haltline.ToolError(f"cannot do {text}")

@haltline.tool(price="0.00")
def fail(text: str) -> str:
    raise RuntimeError(f"broken by {text}")
"""
CANARIES = 200


def page(broker, token=None, method="GET"):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{broker.control_url}/metrics", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def call(client, tool, text, **headers):
    client._headers.update(headers)
    return client.ask("tools/call", {"name": tool, "arguments": {"text": text}})[-1]


@pytest.mark.promise("P9")
def test_two_hundred_secrets_appear_in_no_metric_no_span_no_log_and_no_alert(tmp_path):
    words = [f"canary{secrets.token_hex(12)}" for _ in range(CANARIES // 2)]
    tokens = [f"ghp_{secrets.token_hex(18)}" for _ in range(CANARIES // 2)]
    with receiving() as collector:
        folder = tmp_path / "b"
        folder.mkdir()
        (folder / "echo.py").write_text(TOOLS)
        wrap = ("env", f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url.rsplit('/', 1)[0]}")
        with broker_process(folder, upstreams={"echo": {"python": "./echo.py"}}, policy=POLICY, wrap=wrap) as broker:
            broker.await_tools("echo__say", "echo__fail")
            (roomy,) = broker.open(["talker-1"], "roomy")
            (tight,) = broker.open(["pauper-1"], "tight")
            clients = [HttpClient(broker.agents_port, modern=True, token=one.token) for one in (roomy, tight)]
            for word, token in zip(words, tokens, strict=True):
                call(clients[0], "echo__say", word, **{"X-Secret": word})
                call(clients[0], "echo__complain", word)
                call(clients[0], "echo__fail", token)
                call(clients[0], f"no_{word}", token)
            for word in words[:10]:
                assert "Halted" in str(call(clients[1], "echo__say", word))
                stranger = HttpClient(broker.agents_port, modern=True, token=f"hl_s_{word}")
                stranger.ask("tools/list")
                stranger.close()
            for client in clients:
                client.close()
            status, metrics = page(broker, broker.token)
            assert status == 200
            with broker.control() as control:
                alerts = str(control.list_alerts()) + str(control.status())
            assert broker.stop() == 0
            log = broker.log.read_text()
        spans = b"".join(arrived.raw for arrived in collector.arrived)
    assert b"echo__say" in spans
    assert roomy.session.encode() in spans
    assert b"budget.task_exceeded" in spans
    assert "RuntimeError" in log, "what the functions raised is in the log, without its secrets"
    for place, text in {"metrics": metrics, "spans": spans.decode("latin-1"), "log": log, "alerts": alerts}.items():
        found = [one for one in (*words, *tokens) if one in text or one[::-1] in text]
        assert found == [], f"{len(found)} secrets in the {place}"
    assert 'haltline_decisions_total{code="",outcome="allow"} 300.0' in metrics
    assert 'haltline_decisions_total{code="budget.task_exceeded",outcome="halt"} 1.0' in metrics
    assert 'haltline_calls_total{outcome="succeeded"} 100.0' in metrics
    assert "haltline_spent_micros_total 5e+06" in metrics
    assert 'haltline_dispatch_seconds_count{upstream="echo"} 300.0' in metrics


def test_metrics_are_for_operators_alone_and_tell_what_stands(tmp_path):
    with broker_process(tmp_path / "b", upstreams={}, policy=POLICY) as broker:
        (one,) = broker.open(["talker-1"], "roomy")
        for token in (None, "hl_o_junk", one.token):
            status, text = page(broker, token)
            assert status == 401
            assert "haltline_" not in text
        assert page(broker, broker.token, method="POST")[0] == 405
        with broker.control() as control:
            control.halt("talker-1", reason="shown")
            local = (broker.data / "local-operator.token").read_text().strip()
            begun = time.perf_counter()
            status, text = page(broker, local)
            print(f"a page of {len(text)} characters in {(time.perf_counter() - begun) * 1000:.0f} ms")
            while "haltline_writer_queue 0.0" not in text and time.perf_counter() < begun + 30:
                status, text = page(broker, local)  # the halt's alert is being told meanwhile
    assert status == 200
    for line in (
        "haltline_ready 1.0",
        'haltline_halts{scope="agent"} 1.0',
        'haltline_holds{state="in_doubt"} 0.0',
        'haltline_stop_seconds_count{act="halt"} 1.0',
        "haltline_episodes_open 0.0",
        "haltline_writer_queue 0.0",
    ):
        assert line in text.splitlines(), text
    assert "haltline_store_bytes" in text
    assert "haltline_metrics_incomplete" not in text
