"""Amounts as people write them and as they are kept: decimal text outside, integer micro-units inside (R7).

Lexical only: no float ever touches money. Knows no currency's exponent and no rounding; what is finer than a micro-unit
is refused where a person wrote it.
"""

from __future__ import annotations

import re
from math import isfinite

__all__ = ["MAX_MICROS", "MICROS", "format_amount", "parse_amount"]

MICROS = 1_000_000
MAX_MICROS = 1_000_000_000 * MICROS
"""A thousand million units: whole in every JSON reader, and nine thousand of them still add up within 64 bits."""

_DECIMAL = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?")


def parse_amount(text: object) -> int:
    """`"0.50"` as 500_000. Raises ValueError with a sentence that says what to write instead."""
    if not isinstance(text, str):
        raise ValueError(_unquoted(text))  # noqa: TRY004 - every fault of a written value is a ValueError with a sentence
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise ValueError(_malformed(text))
    whole, fraction = found[1], (found[2] or "").rstrip("0")
    if len(fraction) > 6:
        raise ValueError(f"{text} is finer than a millionth, the smallest amount kept; write at most six decimals")
    micros = int(whole) * MICROS + int(fraction.ljust(6, "0"))
    if micros > MAX_MICROS:
        raise ValueError(f"{_short(text)} is more than the largest amount, 1000000000.00")
    return micros


def format_amount(micros: int, currency: str = "") -> str:
    """500_000 as `0.50 USD`: two decimals at least, more only as needed."""
    sign = "-" if micros < 0 else ""
    whole, fraction = divmod(abs(micros), MICROS)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}{' ' if currency else ''}{currency}"


def _unquoted(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
        return f'write the amount in quotes, "{value}": an unquoted number may be read inexactly'
    return 'an amount is a decimal number in quotes, such as "0.50"'


def _malformed(text: str) -> str:
    shown = _short(text)
    if text.strip().startswith("-"):
        return f"{shown} is negative; an amount is zero or more"
    if text.strip().lower().lstrip("+") in {"nan", "inf", "infinity", ".nan", ".inf"}:
        return f'{shown} is not an amount; write a decimal number such as "0.50"'
    if re.fullmatch(r"[0-9.]+[eE][+-]?[0-9]+", text):
        return f'{shown} has an exponent; write all digits, such as "1000.00"'
    if re.fullmatch(r"[0-9]+,[0-9]+", text):
        return f'{shown} has a comma; write a point, such as "{text.replace(",", ".")}"'
    return f'{shown} is not an amount; write digits with a point, without sign, space or currency, such as "0.50"'


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
