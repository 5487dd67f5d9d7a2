"""Errors as HTTP: the one place that knows both. Bodies are problem details (RFC 9457)."""

import re
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from market.protocol.errors import (
    ChainError,
    InvalidTransition,
    MarketError,
    NodeUnavailable,
    NotFound,
    ProtocolError,
    StorageFull,
    TransactionReverted,
)

MEDIA_TYPE: Final = "application/problem+json"

HTTP_STATUS: Final[dict[type[MarketError], int]] = {
    NotFound: 404,
    InvalidTransition: 409,
    TransactionReverted: 409,
    ProtocolError: 422,
    MarketError: 500,
    ChainError: 502,
    NodeUnavailable: 503,
    StorageFull: 507,
}


class Problem(BaseModel):
    """Why a request failed. ``retryable``: the same request may succeed later; ``faults``: by field."""

    type: str
    title: str
    status: int
    detail: str
    retryable: bool = False
    faults: dict[str, str] = {}


PROBLEM: Final[dict[str, Any]] = {  # as OpenAPI describes a response
    "description": "Why it failed",
    "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
}


def get_http_status(error: MarketError) -> int:
    """Return the status of the nearest mapped ancestor of ``error``."""
    return next(HTTP_STATUS[cls] for cls in type(error).__mro__ if cls in HTTP_STATUS)


def describe_error(error: MarketError) -> Problem:
    """Return ``error`` as a problem whose type names its class."""
    kind = type(error)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    return Problem(
        type=f"urn:touchstone:{words.replace(' ', '-')}",
        title=words.capitalize(),
        status=get_http_status(error),
        detail=str(error),
        retryable=isinstance(error, NodeUnavailable),
    )


def _respond(problem: Problem) -> Response:
    headers = {"Retry-After": "1"} if problem.retryable else None
    body = problem.model_dump_json(exclude_defaults=True)
    return Response(body, problem.status, headers, media_type=MEDIA_TYPE)


def _answer_market_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, MarketError)
    return _respond(describe_error(error))


def _answer_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = {".".join(map(str, fault["loc"])): fault["msg"] for fault in error.errors()}
    detail = "; ".join(f"{field}: {message}" for field, message in faults.items())
    title = "Invalid request"
    kind = "urn:touchstone:invalid-request"
    return _respond(Problem(type=kind, title=title, status=422, detail=detail, faults=faults))


def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = error.detail
    return _respond(
        Problem(type="about:blank", title=title, status=error.status_code, detail=title)
    )


def _answer_defect(_: Request, _error: Exception) -> Response:
    title = "Internal server error"
    return _respond(Problem(type="about:blank", title=title, status=500, detail="see the log"))


def _answer_disconnect(_: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # to nobody


def install_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every failure with a problem."""
    app.add_exception_handler(MarketError, _answer_market_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(Exception, _answer_defect)
