"""Every exception becomes an answer in one form, and every answer of 500 and above a line in the log that tells why."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from database.errors import SynapseError
from serving.front.refusals import Refusal, error_body, refusal_for, send_refusal
from serving.observability.logs import said

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("synapse.errors")


class Errors:
    """Answers what the rooms behind it raise. Once a response has begun, all that is left is to cut it off."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as exc:
            refusal = refusal_for(exc)
            log_failure(exc, refusal, scope)
            if not begun:
                await send_refusal(refusal, scope, send)


def log_failure(exc: BaseException, refusal: Refusal, scope: Scope) -> None:
    """Note why a request failed, when that is not the caller's doing."""
    if refusal.status_code < 500:
        return
    extra = {"request_id": scope.get("state", {}).get("request_id"), "code": refusal.code}
    if isinstance(exc, Refusal):
        log.warning("refused: %s", exc.message, extra=extra)
    else:  # of our own errors the place is known: what counts is what caused them
        shown = exc.__cause__ if isinstance(exc, SynapseError) else exc
        log.error("failed: %s", said(exc), extra=extra, exc_info=shown)


def install_handlers(app: FastAPI) -> None:
    """Let the router's own errors (no such route, a body that does not fit) take the same form."""
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


async def _answer(request: Request, exc: Any) -> Response:
    refusal = refusal_for(exc)
    log_failure(exc, refusal, request.scope)
    return _response(refusal, request)


async def _answer_invalid(request: Request, exc: Any) -> Response:
    """What does not fit and why; never the value, which may be a question or a key."""
    problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in exc.errors()[:5]]
    return _response(Refusal(422, f"The request does not fit: {'; '.join(problems)}."), request)


def _response(refusal: Refusal, request: Request) -> Response:
    body = json.dumps(error_body(refusal, request.scope), ensure_ascii=False).encode()
    return Response(body, refusal.status_code, dict(refusal.headers or {}), media_type="application/json")
