"""A client of the service that measures: questions over REST, streams over OpenAI's protocol, conversations read back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

BUSY = (429, 503)
"""Answers that say when to come back."""

PATIENCE = 60.0
"""Seconds that a question is repeated for while the service is busy or away."""


@dataclass(kw_only=True)
class Heard:
    """
    What came back for one question.

    :param text: The answer as it is stored: checked, where that differs from what was streamed.
    :param passages: Quotes, sources and documents that came with it.
    :param session_id: The conversation.
    :param message_id: The stored answer.
    :param whole_ms: From sending the question to the end of the answer.
    :param first_at: `time.perf_counter` of the first part; `None` where it was not streamed.
    :param retrieval_ms: What the service says that embedding and retrieval took; `None` where it does not.
    :param refused: How often the service said to come back later.
    """

    text: str
    passages: list[str]
    session_id: str
    message_id: str | None
    whole_ms: float = 0.0
    first_at: float | None = None
    retrieval_ms: float | None = None
    refused: int = 0


class Failed(Exception):
    """A question was not answered; the text says how."""


@dataclass
class Client:
    """
    One user's access to the service.

    :param http: With the service's address as its base.
    :param key: The user's key.
    """

    http: httpx.AsyncClient
    key: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.key}"}

    async def ask(self, question: str, session_id: str | None = None, **options: Any) -> Heard:
        """Ask over REST."""
        body = {"question": question, **options, **({"session_id": session_id} if session_id else {})}
        found, refused, ms = await self._post("/ask", body)
        timings = found["timings_ms"]
        return Heard(
            text=found["answer"],
            passages=_passages(found),
            session_id=found["session_id"],
            message_id=found["message_id"],
            whole_ms=ms,
            retrieval_ms=timings.get("embedder", 0.0) + timings.get("retriever", 0.0),
            refused=refused,
        )

    async def search(self, question: str, **options: Any) -> Heard:
        """Search over REST."""
        found, refused, ms = await self._post("/search", {"question": question, **options})
        passages = [json.dumps(one, ensure_ascii=False) for one in found["documents"]]
        return Heard(text="", passages=passages, session_id="", message_id=None, whole_ms=ms, refused=refused)

    async def stream(self, question: str, session_id: str | None = None, *, model: str = "synapse") -> Heard:
        """Ask over OpenAI's protocol, and take the answer part by part."""
        messages = [{"role": "user", "content": question}]
        body = {"model": model, "stream": True, "messages": messages}
        if session_id:
            body["session_id"] = session_id
        refused, began = 0, time.perf_counter()
        while True:
            try:
                heard = await self._streamed(body)
                break
            except _Later as later:
                if time.perf_counter() - began > PATIENCE:
                    raise Failed(str(later)) from None
                refused += 1
                await asyncio.sleep(later.seconds)
        heard.refused, heard.whole_ms = refused, (time.perf_counter() - began) * 1000
        return heard

    async def events(self, body: dict[str, Any]) -> AsyncIterator[tuple[float, dict[str, Any]]]:
        """The chunks of a streamed completion, each with the time at which it came."""
        async with self.http.stream("POST", "/v1/chat/completions", json=body, headers=self.headers) as response:
            if response.status_code != 200:
                await response.aread()
                _refuse(response)
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise Failed(f"in the stream: {chunk['error']}")
                    yield time.perf_counter(), chunk

    async def transcript(self, session_id: str) -> list[dict[str, Any]]:
        """The messages of a conversation as they are stored, oldest first."""
        response = await self.http.get(f"/conversations/{session_id}", headers=self.headers)
        if response.status_code != 200:
            _refuse(response)
        messages: list[dict[str, Any]] = response.json()["messages"]
        return messages

    async def conversations(self) -> set[str]:
        """The ids of all conversations of the user."""
        found: set[str] = set()
        before: str | None = None
        while True:
            params = {"limit": "50", **({"before": before} if before else {})}
            response = await self.http.get("/conversations", params=params, headers=self.headers)
            if response.status_code != 200:
                _refuse(response)
            page = response.json()
            found |= {one["id"] for one in page["conversations"]}
            before = page["next_before"]
            if not before:
                return found

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], int, float]:
        """The answer, how often it was put off, and the milliseconds of it all."""
        refused, began = 0, time.perf_counter()
        while True:
            response = await self.http.post(path, json=body, headers=self.headers)
            if response.status_code == 200:
                return response.json(), refused, (time.perf_counter() - began) * 1000
            try:
                _refuse(response)
            except _Later as later:
                if time.perf_counter() - began > PATIENCE:
                    raise Failed(str(later)) from None
                refused += 1
                await asyncio.sleep(later.seconds)

    async def _streamed(self, body: dict[str, Any]) -> Heard:
        text, first_at = "", None
        last: dict[str, Any] = {}
        async for at, chunk in self.events(body):
            last = chunk if chunk["choices"] else last
            for choice in chunk["choices"]:
                part = choice["delta"].get("content") or ""
                first_at = first_at or (at if part else None)
                text += part
        delta = last["choices"][0]["delta"] if last else {}
        if "session_id" not in last:
            raise Failed(f"the stream ended early, after {text!r:.200}")
        return Heard(
            text=delta.get("checked_content", text),
            passages=_passages(delta),
            session_id=last["session_id"],
            message_id=last.get("message_id"),
            first_at=first_at,
        )


class _Later(Exception):
    """The service says to come back later."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.status_code} for {PATIENCE:g} s: {response.text:.300}")
        self.seconds = float(response.headers["Retry-After"])


def _refuse(response: httpx.Response) -> None:
    if response.status_code in BUSY and "Retry-After" in response.headers:
        raise _Later(response)
    raise Failed(f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text:.300}")


def _passages(found: dict[str, Any]) -> list[str]:
    """Whatever came with an answer, as text."""
    kinds = ("citations", "documents", "annotations")
    return [json.dumps(one, ensure_ascii=False) for kind in kinds for one in found.get(kind) or []]
