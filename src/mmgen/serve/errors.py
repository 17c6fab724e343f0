"""What goes wrong with a request, as a status and in OpenAI's schema of errors."""

from __future__ import annotations

from typing import Any

from mmgen.errors import MmgenError, OutOfMemoryError, UsageError

_KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_KINDS |= {413: "invalid_request_error", 429: "rate_limit_error"}


class RefusedError(UsageError):
    """A request is refused with a status of its own; param: the field that is off."""

    def __init__(self, status: int, message: str, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint)
        self.status, self.param = status, param


class FieldError(RefusedError):
    """A field of a body is off."""

    def __init__(self, param: str, message: str, hint: str = "") -> None:
        super().__init__(400, message, hint, param)


class BusyError(RefusedError):
    """There is no room; whoever asks later may find some."""

    def __init__(self, message: str) -> None:
        super().__init__(429, message, "ask again later")


class EndingError(RefusedError):
    """The server is ending."""

    def __init__(self, message: str = "the server is ending", hint: str = "ask again later") -> None:
        super().__init__(503, message, hint)


def status_of(error: MmgenError) -> int:
    """Give the status that says what kind of error it is."""
    if isinstance(error, RefusedError):
        return error.status
    return 503 if isinstance(error, OutOfMemoryError) else 400


def error_body(error: MmgenError) -> dict[str, Any]:
    """Write an error in OpenAI's schema, with its hint."""
    status = status_of(error)
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    param = error.param if isinstance(error, RefusedError) else None
    said = {"message": error.message, "type": kind, "param": param, "code": None, "hint": error.hint}
    return {"error": said}
