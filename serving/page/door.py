"""What stands before Chainlit: who may come in, which of its routes exist, and what a browser is told about the page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from database.accounts import Identity
from database.errors import DatabaseError
from serving.page.library import TOKEN_COOKIE
from serving.page.sessions import COOKIE, LIFETIME, Patience, Sessions, Visitor, cookies, current, is_still_there

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serving.service import Service

PREFIX = "/chat"
MAX_BODY = 1024 * 1024
MAX_LOGIN = 16 * 1024
"""Bytes of a request's body, and of the form to sign in."""

_PAGES = re.compile(r"/(login|thread(/[^/]*)?)?")
_PUBLIC = re.compile(r"/(assets|public)/.+|/(favicon|logo|avatars/[^/]+|project/translations)")
_ROUTES = re.compile(
    r"(GET) (/user|/project/settings|/project/thread/[^/]+|/ws/socket\.io/?)"
    r"|(POST) (/project/threads|/project/action|/ws/socket\.io/?)"
    r"|(PUT|DELETE) (/project/thread|/feedback)"
)
"""Chainlit has more: uploads, elements, MCP, sharing, OAuth. Of what is not named here nobody sees anything."""

_INDEX = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Synapse</title>
    <meta name="robots" content="noindex">
    <meta property="og:root_path" content="{prefix}">
    <link rel="icon" href="{prefix}/favicon">
    <script>{inline}</script>
    {assets}
    <link rel="stylesheet" href="{prefix}/public/page.css">
    <script src="{prefix}/public/page.js" defer></script>
  </head>
  <body>
    <div id="root"></div>
    <noscript>The chat needs JavaScript.</noscript>
  </body>
</html>
"""
_INLINE = "const global = globalThis;"
"""The one inline script that Chainlit's own page has and its bundle needs."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; "
    f"script-src 'self' 'sha256-{base64.b64encode(hashlib.sha256(_INLINE.encode()).digest()).decode()}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'none'; object-src 'none'; worker-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PageDoor:
    """
    Lets in who is signed in, and hands requests on to Chainlit with a token that it believes.

    :param chainlit: Chainlit's ASGI app.
    :param service: Who signs users in and answers.
    :param sessions: Whose cookies count.
    """

    def __init__(self, chainlit: ASGIApp, service: Service, sessions: Sessions) -> None:
        self._chainlit = chainlit
        self._service = service
        self._sessions = sessions
        self._patience = Patience()
        self._index = index_page()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one websocket."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, path, headers)
            return
        send = _with_headers(send, path)
        if scope["method"] not in ("GET", "HEAD") and not same_origin(
            scope, headers, self._service.settings.public_url
        ):
            await PlainTextResponse("This request came from another site.", 403)(scope, receive, send)
        elif scope["method"] == "GET" and _PAGES.fullmatch(path):
            await HTMLResponse(self._index)(scope, receive, send)
        elif scope["method"] == "GET" and _PUBLIC.fullmatch(path):
            await self._chainlit(scope, receive, send)
        elif own := self._own_routes().get(f"{scope['method']} {path}"):
            await (await own(Request(scope, receive)))(scope, receive, send)
        elif not _ROUTES.fullmatch(f"{scope['method']} {path}"):
            await JSONResponse({"detail": "Not found"}, 404)(scope, receive, send)
        elif (visitor := await self._visitor(scope, headers)) is None:
            await JSONResponse({"detail": "Sign in first."}, 401)(scope, receive, send)
        else:
            await self._let_in(visitor, scope, limited(receive, MAX_BODY), send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, path: str, headers: Headers) -> None:
        visitor = await self._visitor(scope, headers)
        known = path.rstrip("/") == "/ws/socket.io"
        if visitor is None or not known or not same_origin(scope, headers, self._service.settings.public_url):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._let_in(visitor, scope, receive, send)

    async def _let_in(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> None:
        kept = [(name, value) for name, value in scope["headers"] if name not in (b"cookie", b"authorization")]
        token = (b"cookie", f"{TOKEN_COOKIE}={chainlit_token(visitor.login)}".encode())
        reset = current.set(visitor)
        try:
            await self._chainlit({**scope, "headers": [*kept, token]}, receive, send)
        finally:
            current.reset(reset)

    async def _visitor(self, scope: Scope, headers: Headers) -> Visitor | None:
        return await visitor_of(scope, headers, self._service, self._sessions)

    def _own_routes(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        return {
            "GET /auth/config": self._auth_config,
            "POST /login": self._login,
            "POST /logout": self._logout,
            "POST /set-session-cookie": self._no_cookie,
        }

    async def _auth_config(self, request: Request) -> Response:
        # Without a default theme the page follows the system's.
        picture = {"login_page_image": f"{PREFIX}/public/login.svg"}
        methods = {"requireLogin": True, "passwordAuth": True, "headerAuth": False, "oauthProviders": []}
        return JSONResponse({**methods, "ui": picture})

    async def _login(self, request: Request) -> Response:
        form = await _form(request)
        login, password = (form.get(name) for name in ("username", "password"))
        if not isinstance(login, str) or not isinstance(password, str):
            return JSONResponse({"detail": "credentialssignin"}, 401)
        address = request.client.host if request.client else ""
        if seconds := self._patience.wait(login, address):
            return JSONResponse({"detail": "toomany"}, 429, headers={"Retry-After": str(int(seconds) + 1)})
        self._patience.failed(login, address)  # before the password is checked, so that parallel tries count, too
        try:
            identity = await self._service.accounts.authenticate_password_async(login, password)
        except DatabaseError:
            return JSONResponse({"detail": "unavailable"}, 503, headers={"Retry-After": "5"})
        if identity is None:
            return JSONResponse({"detail": "credentialssignin"}, 401)
        self._patience.succeeded(login, address)
        response = JSONResponse({"success": True})
        secure = is_secure(request.scope, self._service.settings.public_url)
        response.set_cookie(
            COOKIE, self._sessions.start(identity), max_age=LIFETIME, httponly=True, samesite="lax", secure=secure
        )
        return response

    async def _logout(self, request: Request) -> Response:
        self._sessions.end(cookies(request.headers).get(COOKIE))
        response = JSONResponse({"success": True}, headers={"Clear-Site-Data": '"cache"'})
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return response

    async def _no_cookie(self, request: Request) -> Response:
        """Chainlit's page asks for a cookie that only load balancers use."""
        return JSONResponse({"message": "No cookie is needed."})


async def visitor_of(scope: Scope, headers: Headers, service: Service, sessions: Sessions) -> Visitor | None:
    """Whom a request comes from: the session's user, or the local one of a service that asks for no login."""
    if found := sessions.read(cookies(headers).get(COOKIE)):
        identity, session = found
        visitor = Visitor(
            identity=identity, session=session, service=service, is_gone=lambda: sessions.is_over(session)
        )
        if await is_still_there(visitor):
            return visitor
    local: Identity | None = scope.get("state", {}).get("identity")
    return Visitor(identity=local, session="", service=service) if local else None


def same_origin(scope: Scope, headers: Headers, public_url: str | None) -> bool:
    """Whether a request comes from our own page; programs other than browsers send no origin."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    own = {headers.get("host", "")} | ({urlsplit(public_url).netloc} if public_url else set())
    return urlsplit(origin).netloc in own


def is_secure(scope: Scope, public_url: str | None) -> bool:
    """Whether the page is served over https, by us or by the proxy before us."""
    return scope.get("scheme") == "https" or bool(public_url and public_url.startswith("https:"))


def chainlit_token(login: str) -> str:
    """A token for Chainlit that says who asks."""
    from chainlit.auth import create_jwt
    from chainlit.user import User

    return create_jwt(User(identifier=login))


def index_page() -> str:
    """Chainlit's page without what its own has from other hosts: fonts, formulas' styles, a banner."""
    import chainlit.server

    with open(f"{chainlit.server.build_dir}/index.html", encoding="utf-8") as file:
        theirs = file.read()
    found = re.findall(
        r'<(?:script type="module"|link rel="stylesheet") crossorigin (?:src|href)="/assets/[^>]+>', theirs
    )
    assets = "\n    ".join(
        tag.replace('="/assets', f'="{PREFIX}/assets') + ("</script>" if tag.startswith("<script") else "")
        for tag in found
    )
    return _INDEX.format(prefix=PREFIX, inline=_INLINE, assets=assets)


def limited(receive: Receive, most: int) -> Receive:
    """A body that ends where it grows too long, which whoever reads it takes for a client that left."""
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > most else message

    return receive_limited


async def _form(request: Request) -> FormData:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_LOGIN:
            return FormData()

    async def once() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        return await Request(request.scope, once).form(max_files=0, max_fields=10)
    except Exception:  # whatever a parser says of a form that is none
        return FormData()


def _with_headers(send: Send, path: str) -> Send:
    """What every answer of the page says: nothing of it is kept in the browser, but for the program itself."""
    program = path.startswith("/assets/")

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.update(_HEADERS)
            headers["Cache-Control"] = "public, max-age=31536000, immutable" if program else "no-store"
        await send(message)

    return send_with
