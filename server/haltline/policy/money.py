"""Amounts as people write them, as calls and results state them, and as they are kept: integer micro-units (R7).

Lexical only: no float is ever computed with. Knows no currency's exponent. What is finer than a micro-unit is refused where
a person wrote it, and rounded up where a call or a result says it.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Self

__all__ = ["BEYOND_MICROS", "MAX_MICROS", "MICROS", "Written", "format_amount", "parse_amount", "read_amount"]

MICROS = 1_000_000
MAX_MICROS = 1_000_000_000 * MICROS
"""A thousand million units: whole in every JSON reader, and nine thousand of them still add up within 64 bits."""
BEYOND_MICROS = 1_000 * MAX_MICROS
"""Whatever a call or a result states above this is read as this: more than any cap, still whole within 64 bits."""

_DECIMAL = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?")
_NUMBER = re.compile(r"(-?)([0-9]{1,1000})(?:\.([0-9]{1,1000}))?(?:[eE]([+-]?[0-9]{1,5}))?")
_LONGEST = 400
"""Digits before the point, or zeros behind it, beyond what a double can be."""


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


class Written(float):
    """A JSON number that a double cannot hold as it was written; everywhere else it is that double."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.text = text
        return made


def read_amount(value: object, each_micros: int = MICROS) -> int:
    """What a value of an argument or a result is worth, `each_micros` for each 1 of it, rounded up to the micro-unit.

    A JSON number counts as written: the shortest text of a double is the one that was read, unless it is a `Written`.
    Raises ValueError with what is wrong, fit to follow the value's name.
    """
    sign, digits, exponent = _digits(value)
    if sign and digits:
        raise ValueError("is negative")
    if not digits or not each_micros:
        return 0
    if exponent + len(str(digits)) > _LONGEST:
        return BEYOND_MICROS
    micros = digits * each_micros
    scaled: int = micros * 10**exponent if exponent >= 0 else -(-micros // 10**-exponent)
    return min(scaled, BEYOND_MICROS)


def _digits(value: object) -> tuple[bool, int, int]:
    """Sign, digits and the power of ten."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("is not a number")  # noqa: TRY004 - see parse_amount
    if isinstance(value, int):
        return value < 0, min(abs(value), 10**_LONGEST), 0
    text = value if isinstance(value, str) else value.text if isinstance(value, Written) else repr(value)
    found = (_DECIMAL if isinstance(value, str) else _NUMBER).fullmatch(text)
    if found is None:
        negative = text.startswith("-") and _DECIMAL.fullmatch(text[1:])
        raise ValueError("is negative" if negative else "is not a decimal number")
    sign, whole, fraction, power = ("", found[1], found[2], "0") if isinstance(value, str) else found.groups()
    fraction = fraction or ""
    return sign == "-", int(whole + fraction), max(int(power or 0), -_LONGEST) - len(fraction)


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
