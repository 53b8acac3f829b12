"""
The source viewer: the stored text of a source, scrolled to the quote, beside the PDF at its page.

A source is opened through the answer that cites it, so whoever opens it may read that answer. What stands in a document is
shown as text; the page runs no scripts at all.
"""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from uuid import UUID

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from database.errors import DatabaseError, NotFoundError
from serving.page.answer_text import short_name
from serving.page.door import visitor_of
from serving.page.library import STATIC
from serving.page.pdf_page import page_picture

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from database.ledger import SourceState
    from serving.page.sessions import Sessions, Visitor
    from serving.service import Service

AROUND = 20_000
"""Characters of a text before and behind the quote; the rest is a click away."""

_ROUTE = re.compile(r"/(?P<message>[0-9a-f-]{36})/(?P<place>\d{1,4})(?P<picture>/page/(?P<page>\d{1,6})\.png)?")
_PAGE = Template((Path(__file__).with_name("source.html")).read_text(encoding="utf-8"))
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """
    A citation with what is known of its source by now.

    :param citation: As it is stored with the answer.
    :param text: The source's text; `None` if it is not indexed any more.
    :param span: Where the quote stands in it; `None` if it does not.
    :param file: The PDF that it was converted from, if that is still the same.
    """

    citation: dict[str, Any]
    text: str | None
    span: tuple[int, int] | None
    file: Path | None


class SourceViewer:
    """
    Serves `/sources/<answer>/<citation>` to whoever the answer was given to.

    :param service: Where answers and sources are.
    :param sessions: Whose cookies count.
    """

    def __init__(self, service: Service, sessions: Sessions) -> None:
        self._service = service
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await (await self._response(scope))(scope, receive, _with_headers(send))

    async def _response(self, scope: Scope) -> Response:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        found = _ROUTE.fullmatch(path)
        if scope["method"] != "GET":
            return PlainTextResponse("Sources are only read.", 405, headers={"Allow": "GET"})
        if path == "/source.css":
            return Response((STATIC / "source.css").read_bytes(), media_type="text/css")
        visitor = await visitor_of(scope, Headers(scope=scope), self._service, self._sessions)
        if visitor is None:
            return RedirectResponse("/chat/login", 303)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        theme = "dark" if query.get("theme") == ["dark"] else "light" if query.get("theme") == ["light"] else ""
        if found is None:
            return _not_there(theme)
        try:
            opened = await self._opened(visitor, UUID(found["message"]), int(found["place"]))
            if found["picture"]:
                return await _picture(opened, int(found["page"]))
        except (NotFoundError, ValueError):
            return _not_there(theme)
        except DatabaseError:
            return _shown(
                "Source", "<p>The documents cannot be reached at the moment. Try again in a minute.</p>", theme, 503
            )
        return _source_page(opened, path, theme=theme, whole=query.get("all") == ["1"])

    async def _opened(self, visitor: Visitor, message_id: UUID, place: int) -> Opened:
        message = await self._service.conversations.message_async(visitor.identity, message_id)
        if not 1 <= place <= len(message.citations):
            raise NotFoundError("A citation was expected, but the answer has none of this number.")
        citation: dict[str, Any] = message.citations[place - 1]
        return await self._service.in_thread(self._read, visitor.identity.tenant, citation)

    def _read(self, tenant: str, citation: dict[str, Any]) -> Opened:
        ledger = self._service.ledger(tenant)
        source = citation["source"]
        text = ledger.text(source)
        state = ledger.read([source]).get(source)
        return Opened(
            citation=citation,
            text=text,
            span=None if text is None else place_of_quote(text, citation["quote"], citation["span"]),
            file=self._original(state) if state else None,
        )

    def _original(self, state: SourceState) -> Path | None:
        """The PDF of a source, as long as its bytes are those that were indexed: a name alone proves nothing."""
        path = Path(state.source)
        if not state.root or path.suffix.lower() != ".pdf" or not path.is_absolute():
            return None
        try:
            if not path.is_file() or path.stat().st_size > self._service.settings.max_file_bytes:
                return None
            return path if hashlib.sha256(path.read_bytes()).hexdigest() == state.content_hash else None
        except OSError:
            return None


def place_of_quote(text: str, quote: str, span: list[int]) -> tuple[int, int] | None:
    """Where a quote stands: where it stood, or, after the source was indexed anew, where it stands nearest to that."""
    start, end = span
    if text[start:end] == quote:
        return start, end
    places = [found.start() for found in re.finditer(re.escape(quote), text)] if quote else []
    if not places:
        return None
    nearest = min(places, key=lambda place: abs(place - start))
    return nearest, nearest + len(quote)


def marked_text(text: str, span: tuple[int, int], *, whole: bool) -> tuple[str, bool]:
    """
    Text as HTML with the quote marked.

    :returns: The HTML, and whether something of the text was left out.
    """
    start, end = span
    low, high = (0, len(text)) if whole else (max(0, start - AROUND), min(len(text), end + AROUND))
    marked = f'<mark id="quote" tabindex="-1">{html.escape(text[start:end])}</mark>'
    shown = f"{html.escape(text[low:start])}{marked}{html.escape(text[end:high])}"
    before, behind = ("… " if low else ""), (" …" if high < len(text) else "")
    return f"{before}{shown}{behind}", bool(before or behind)


def _source_page(opened: Opened, path: str, *, theme: str, whole: bool) -> Response:
    citation = opened.citation
    parts = []
    if opened.text is None:
        parts.append("<p class=hint>This source is not indexed any more. The answer quoted:</p>")
    elif opened.span is None:
        parts.append("<p class=hint>This source was changed since the answer. The answer quoted:</p>")
    if opened.text is None or opened.span is None:
        parts.append(f'<blockquote><mark id="quote" tabindex="-1">{html.escape(citation["quote"])}</mark></blockquote>')
    else:
        marked, is_cut = marked_text(opened.text, opened.span, whole=whole)
        parts.append(f'<section class="text" aria-label="Text" tabindex="0"><pre>{marked}</pre></section>')
        if is_cut:
            parts.append(f'<p class=hint><a href="?all=1&amp;theme={theme}#quote">Show the whole text</a></p>')
    parts.append(_picture_part(opened, path))
    where = " · ".join(
        html.escape(str(one))
        for one in (f"Page {citation['page']}" if citation["page"] else "", citation["heading"])
        if one
    )
    body = f'<p class="place">{where}</p><div class="source">{"".join(parts)}</div>'
    return _shown(short_name(citation["source"]), body, theme)


def _picture_part(opened: Opened, path: str) -> str:
    page = opened.citation["page"]
    if not page or not opened.citation["source"].lower().endswith(".pdf"):
        return ""
    if opened.file is None:
        return "<p class=hint>The original file is not there any more, or was changed; this is the text that was indexed.</p>"
    name = html.escape(short_name(opened.citation["source"]))
    return (
        f'<figure><img src="/sources{path}/page/{int(page)}.png" alt="Page {int(page)} of {name}">'
        f"<figcaption>Page {int(page)} of {name}</figcaption></figure>"
    )


async def _picture(opened: Opened, page: int) -> Response:
    if opened.file is None:
        return PlainTextResponse("The original file is not there any more.", 404)
    quote = opened.citation["quote"] if page == opened.citation["page"] else ""
    picture = await page_picture(opened.file.read_bytes(), page, quote=quote)
    if picture is None:
        return PlainTextResponse("This page cannot be shown.", 404)
    return Response(picture, media_type="image/png")


def _shown(title: str, body: str, theme: str, status: int = 200) -> Response:
    return HTMLResponse(_PAGE.substitute(title=html.escape(title), body=body, theme=theme), status)


def _not_there(theme: str) -> Response:
    return _shown("Not found", "<p>There is no such source, or it is not yours to see.</p>", theme, 404)


def _with_headers(send: Send) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(raw=message.setdefault("headers", [])).update(_HEADERS)
        await send(message)

    return send_with
