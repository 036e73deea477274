"""What goes wrong between a client and the server, and the one form in which it is told."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from longtake.core.errors import InputError, LongtakeError


class BusyError(LongtakeError, RuntimeError):
    """There is no room now; there will be later."""

    retry_after_s = 5


class LostError(LongtakeError, RuntimeError):
    """The process that has the device has stopped."""


class RateLimitError(LongtakeError, RuntimeError):
    """A key has used up what it may use for now."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFoundError(LongtakeError, LookupError):
    """There is nothing under this name, or not for this key."""


class ConflictError(LongtakeError, RuntimeError):
    """What is asked for does not fit the state that things are in."""


class UnauthorizedError(LongtakeError, PermissionError):
    """A key is needed, and none came that is known."""


class ForbiddenError(LongtakeError, PermissionError):
    """Who asks may not do this."""


class TooLargeError(LongtakeError, ValueError):
    """More bytes came than are taken."""


class UnsupportedError(LongtakeError, NotImplementedError):
    """A part of somebody else's interface that is not offered here."""


# status, type and code of what may be told to whoever asks; the first that fits counts
ERROR_RESPONSES: tuple[tuple[type[LongtakeError], int, str, str], ...] = (
    (BusyError, 503, "server_error", "busy"),
    (LostError, 503, "server_error", "device_lost"),
    (RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (NotFoundError, 404, "invalid_request_error", "not_found"),
    (ConflictError, 409, "invalid_request_error", "conflict"),
    (UnauthorizedError, 401, "invalid_request_error", "invalid_api_key"),
    (ForbiddenError, 403, "invalid_request_error", "forbidden"),
    (TooLargeError, 413, "invalid_request_error", "too_large"),
    (UnsupportedError, 501, "invalid_request_error", "not_supported"),
    (InputError, 400, "invalid_request_error", "invalid_value"),
)


def problem(error: Exception, *, request_id: str = "", validation_status: int = 422) -> JSONResponse:
    """An error as a response: `{"error": {"message", "type", "param", "code"}}`.

    Args:
        error: what went wrong. Of those that are not meant for whoever asks, only the request's id is told.
        request_id: under which the log has the rest.
        validation_status: of a message that does not fit its schema.
    """
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        text = first["msg"].removeprefix("Value error, ")
        message = f"{param}: {text}" if param else text
        return _answer(validation_status, message, "invalid_request_error", param or None, "invalid_value")
    if isinstance(error, HTTPException):
        return _answer(error.status_code, str(error.detail), "invalid_request_error", None, None, error.headers)
    for kind, status, name, code in ERROR_RESPONSES:
        if isinstance(error, kind):
            headers = None
            if isinstance(error, BusyError | RateLimitError):
                headers = {"Retry-After": str(error.retry_after_s)}
            elif isinstance(error, UnauthorizedError):
                headers = {"WWW-Authenticate": "Bearer"}
            return _answer(status, str(error), name, None, code, headers)
    message = f"something went wrong on the server; its log tells more under {request_id or 'this time'}"
    return _answer(500, message, "server_error", None, "internal_error")


async def _handle(request: Request, error: Exception) -> JSONResponse:
    # OpenAI answers 400 to a wrong field, and its clients expect that
    status = 400 if request.url.path.startswith("/v1/") else 422
    return problem(error, request_id=getattr(request.state, "request_id", ""), validation_status=status)


# for FastAPI(exception_handlers=...). What nobody expected goes up to the guard, which logs it.
HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = dict.fromkeys(
    (RequestValidationError, HTTPException, *(kind for kind, *_ in ERROR_RESPONSES)), _handle
)


def _answer(
    status: int, message: str, kind: str, param: str | None, code: str | None, headers: Any = None
) -> JSONResponse:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers=headers)
