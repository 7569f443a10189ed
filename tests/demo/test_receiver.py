"""The receiver of alerts: what arrives, and whether it was signed."""

from __future__ import annotations

import hashlib
import hmac
import json

import anyio
import httpx

from haltline.demo.receiver import receiving

BODY = json.dumps({"version": "4", "alerts": [{"labels": {"agent": "scout"}}]}).encode()


def sign(secret: str, at: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


async def test_an_alert_is_found_with_its_delivery_and_its_signature_checked() -> None:
    with receiving() as receiver, anyio.fail_after(30):
        headers = {"X-Haltline-Signature": f"t=5,v1={sign('right', '5', BODY)}"}
        async with httpx.AsyncClient() as http:
            answer = await http.post(receiver.url, content=BODY, headers=headers)
        found = await receiver.wait(lambda alert: alert["labels"]["agent"] == "scout", 5)
    assert answer.is_success
    assert found is not None
    arrived, alert = found
    assert alert == {"labels": {"agent": "scout"}}
    assert arrived.signed("right")
    assert not arrived.signed("wrong")


async def test_an_unsigned_delivery_is_not_signed_and_an_unwanted_one_is_not_found() -> None:
    with receiving() as receiver, anyio.fail_after(30):
        async with httpx.AsyncClient() as http:
            await http.post(receiver.url, content=BODY)
        found = await receiver.wait(lambda alert: "nobody" in str(alert), 0.05)
        [arrived] = receiver.arrived
    assert found is None
    assert not arrived.signed("right")
