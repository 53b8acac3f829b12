"""
What stands before every route, outermost first. The order is the point:

1. `RequestLog`      names the request; sees every answer, also refusals, and notes each once.
2. `Errors`          turns what anything behind it raises into an answer.
3. `Authentication`  nobody gets further without a key.

All are plain ASGI: a middleware that wraps the response in a task of its own would break streams, context variables and
cancelling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serving.service import Service


def install(app: FastAPI, service: Service, *, auth: bool = True) -> None:
    """
    Put the front before an app, and add its own routes.

    :param app: With all its routes; middlewares that others added stay innermost.
    :param service: Whose accounts know the keys.
    :param auth: Whether a key is asked for; without, everyone is the same local user.
    """
    from serving.front.authentication import Authentication
    from serving.front.errors import Errors, install_handlers
    from serving.front.request_log import RequestLog
    from serving.identity import LocalUser

    local = None if auth else LocalUser(service.accounts, service.settings.tenant).identity
    install_handlers(app)
    app.add_middleware(Authentication, lookup=service.accounts.authenticate_key_async, local=local)
    app.add_middleware(Errors)
    app.add_middleware(RequestLog)
