"""Errors between a client and the server, and their form as HTTP responses."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.serve.connections import path_of


class BusyError(LongtakeError, RuntimeError):
    """The server has no free capacity; the client can retry later."""

    retry_after_s = 5


class LostError(LongtakeError, RuntimeError):
    """The process that uses the device has stopped."""


class RateLimitError(LongtakeError, RuntimeError):
    """A key has reached one of its limits."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFoundError(LongtakeError, LookupError):
    """The resource does not exist, or not for this key."""


class ConflictError(LongtakeError, RuntimeError):
    """The request conflicts with the current state of the resource."""


class UnauthorizedError(LongtakeError, PermissionError):
    """A key is required, and the request has none or an unknown one."""


class ForbiddenError(LongtakeError, PermissionError):
    """The client is not permitted to do this."""


class TooLargeError(LongtakeError, ValueError):
    """The request has too many bytes."""


class UnsupportedError(LongtakeError, NotImplementedError):
    """The request uses a part of the OpenAI API that is not supported."""


# status, type and code of the errors that clients may see; the first match counts
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


INTERNAL_ERROR = "internal error; the server's log has the details"
CANNOT_STORE = "the server cannot store the take, as on a full disk; its log has the details"


def end_message(error: LongtakeError) -> str:
    """The reason why a session ends with an error, for its viewers. Paths of the server are left out."""
    if isinstance(error, MediaError):
        return CANNOT_STORE
    return str(error)


def code_of(error: LongtakeError) -> str:
    """Name of the reason of an error, the same over HTTP and WebSockets."""
    return next((code for kind, _, _, code in ERROR_RESPONSES if isinstance(error, kind)), "internal_error")


def problem(error: Exception, *, request_id: str = "", validation_status: int = 422) -> JSONResponse:
    """Convert an error to a response: `{"error": {"message", "type", "param", "code"}}`.

    Args:
        error: the error; for errors that clients may not see, the response has only the request id.
        request_id: id under which the server's log has the details.
        validation_status: status for a message that does not fit its schema.
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
    # OpenAI returns 400 for an invalid field, and its clients expect that
    status = 400 if path_of(request.scope).startswith("/v1/") else 422
    return problem(error, request_id=getattr(request.state, "request_id", ""), validation_status=status)


# handlers for FastAPI(exception_handlers=...). Unexpected errors reach the guard, which logs them.
HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = dict.fromkeys(
    (RequestValidationError, HTTPException, *(kind for kind, *_ in ERROR_RESPONSES)), _handle
)


def _answer(
    status: int, message: str, kind: str, param: str | None, code: str | None, headers: Any = None
) -> JSONResponse:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers=headers)
