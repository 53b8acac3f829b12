"""
Errors as clients see them, in one form:

    {"error": {"code": "invalid_input", "message": "…", "hint": "…", "request_id": "…"}}

and below `/v1/` in OpenAI's, which its clients know: {"error": {"message", "type", "param", "code", "request_id"}}.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from database.errors import SynapseError
from serving.front.areas import speaks_openai

if TYPE_CHECKING:
    from starlette.types import Scope, Send

STATUS = {
    "invalid_input": 400,
    "data_refused": 400,
    "not_found": 404,
    "refused": 409,
    "limit": 429,
    "unknown_tenant": 401,
    "language_model": 502,
    "embedding_model": 502,
    "database_unavailable": 503,
    "schema": 503,
    "database": 500,
    "extension_missing": 500,
    "configuration": 500,
    "failed": 500,
}
"""HTTP status of each `SynapseError.code`; a code that is not listed is the program's fault, and 500."""

RETRY_AFTER = 5
"""Seconds after which a client may come back when something behind the service is away."""

_OURS_TO_KNOW = {
    "language_model": "The language model's server failed.",
    "embedding_model": "The embedding model's server failed.",
    "database_unavailable": "The database cannot be reached at the moment.",
    "schema": "The database is being upgraded.",
}
"""What a client is told of failures behind the service: where servers stand and how they failed is not its business."""

_CODES = {
    400: "invalid_input",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
    429: "too_many_requests",
    431: "too_large",
    503: "unavailable",
    504: "timeout",
}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(HTTPException):
    """
    A request that ends here. An `HTTPException`, as routes pass those on unchanged also while they read a body.

    :param status: The HTTP status.
    :param message: One sentence: what was expected, what was found.
    :param code: A word for programs; `None` means the status' own.
    :param hint: One sentence: what to do about it; may be empty.
    :param headers: More headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail=message, headers=dict(headers or {}))
        self.code = code or _CODES.get(status, "failed")
        self.message = message
        self.hint = hint


def refusal_for(exc: BaseException) -> Refusal:
    """What a client is told of an exception; of one that nobody expected, nothing."""
    if isinstance(exc, Refusal):
        return exc
    if isinstance(exc, SynapseError):
        return _refusal_for_ours(exc)
    if isinstance(exc, HTTPException):
        message = exc.detail if isinstance(exc.detail, str) else "The request was refused."
        return Refusal(exc.status_code, message, headers=exc.headers)
    return Refusal(500, "An error that was not expected.", code="internal", hint="The log tells more under request_id.")


def _refusal_for_ours(exc: SynapseError) -> Refusal:
    status = STATUS.get(exc.code, 500)
    if status == 401:  # which tenants there are is not for strangers
        return Refusal(401, "A valid API key was expected.")
    if status < 500:
        later = {"Retry-After": str(_until_midnight())} if status == 429 else {}
        return Refusal(status, exc.message, code=exc.code, hint=exc.hint, headers=later)
    message = _OURS_TO_KNOW.get(exc.code, "The service failed.")
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    return Refusal(
        status, message, code=exc.code, hint="Try again; the log tells more under request_id.", headers=headers
    )


def _until_midnight() -> int:
    """Seconds until the limits of a day begin anew, UTC."""
    return 86400 - int(time.time()) % 86400


def error_body(refusal: Refusal, scope: Scope) -> dict[str, Any]:
    """The JSON body of a refusal; also for the last event of a stream that fails on its way."""
    request_id = scope.get("state", {}).get("request_id")
    if not speaks_openai(scope):
        error = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint, "request_id": request_id}
        return {"error": error}
    kind = _OPENAI_TYPES.get(
        refusal.status_code, "server_error" if refusal.status_code >= 500 else "invalid_request_error"
    )
    message = f"{refusal.message} {refusal.hint}".strip()
    error = {"message": message, "type": kind, "param": None, "code": refusal.code, "request_id": request_id}
    return {"error": error}


async def send_refusal(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Answer a request with a refusal."""
    body = json.dumps(error_body(refusal, scope), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **dict(refusal.headers or {})}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
