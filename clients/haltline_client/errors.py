"""What can go wrong between an operator's command and the broker, each with the exit code of the command line.

ClientError
├── BrokerUnreachable     nothing answers, or the answer never came      exit 69
├── Refused               the credential is dead, or may not do that     exit 2
├── RequestFailed         the broker understood and did not do it        exit 1 (3: its configuration is invalid)
└── SettingError          no usable credential or address on this side   exit 3
"""

from __future__ import annotations

__all__ = ["BrokerUnreachable", "ClientError", "Refused", "RequestFailed", "SettingError"]


class ClientError(Exception):
    """Says what happened and what to do; `exit_code` is the command line's, `code` is for programs."""

    exit_code = 1
    code = "client.error"

    @property
    def message(self) -> str:
        """The sentence for a person, without the code."""
        return str(self)


class BrokerUnreachable(ClientError):
    """No connection, or it broke. With `sent` the request may have been carried out all the same."""

    exit_code = 69
    code = "broker.unreachable"

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class _Answered(ClientError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Refused(_Answered):
    """The operator credential is unknown or ended (HTTP 401), or is of a class that may not do this (R21)."""

    exit_code = 2


class RequestFailed(_Answered):
    """The broker did not do it: no such thing, the wrong state, a wrong argument, a store that cannot be written."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        if code == "config.invalid":
            self.exit_code = 3


class SettingError(ClientError):
    """A credential or an address on this machine is missing, unreadable or unsafe to use; nothing was sent."""

    exit_code = 3
    code = "client.setting"
