"""Ends a request that takes too long, and one whose client has left: nobody works for nobody."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from serving.front.areas import Area, area_of
from serving.front.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("synapse.requests")

FAREWELL = 1.0
"""Seconds that a request that was ended may take to clean up before the client gets its answer."""


class Lifeline:
    """
    Gives up on a request after a while in which nothing moved: no byte came in, none went out.

    That is the time to an answer's first byte, and between two parts of a stream; a stream that goes on may last.
    What is given up is cancelled; a thread that it waited for ends by itself.

    :param seconds: How long nothing may move.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds
        self._left_behind: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or area_of(scope) is not Area.API:
            await self.app(scope, receive, send)
            return
        run = _Run(receive, send)
        task = asyncio.create_task(self._working(scope, run))
        reading = asyncio.create_task(run.read())
        try:
            ended = await run.wait(task, reading, self.seconds)
        finally:
            run.closed = True
            reading.cancel()
            await self._leave(task)
        if ended == "late":
            raise Refusal(504, f"The request was not done within {self.seconds:g} seconds.")
        if ended == "done":
            task.result()

    async def _working(self, scope: Scope, run: _Run) -> None:
        await self.app(scope, run.receive, run.send)

    async def _leave(self, task: asyncio.Task[None]) -> None:
        if task.done():
            return
        self._left_behind.add(task)
        task.add_done_callback(self._ended)
        task.cancel()
        await asyncio.wait([task], timeout=FAREWELL)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled() and (exc := task.exception()):
            log.warning("failed while it was given up: %s", type(exc).__name__, exc_info=exc)


class _Run:
    """One request on its way: the only reader of what the client sends, so that its leaving is seen at once."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        self._moved = self._loop.time()
        self.closed = False
        self.answered = False  # wholly: servers then say that the client is gone, and what is left is tidying up

    async def wait(self, task: asyncio.Task[None], reading: asyncio.Task[None], seconds: float) -> str:
        """How it ended: `done`, `late`, or `gone` with the client."""
        while True:
            left = self._moved + seconds - self._loop.time()
            if left <= 0:
                return "late"
            waiting = [task] if reading.done() else [task, reading]
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return "done"
            if reading.done() and not self.answered:
                return "gone"

    async def read(self) -> None:
        """Hand on what comes in, until the client leaves."""
        while True:
            try:
                message = await self._receive()
            except Exception as exc:  # what the body's limits say reaches the route through `receive`
                await self._messages.put(exc)
                await asyncio.Event().wait()
                return
            self._moved = self._loop.time()
            if message["type"] == "http.disconnect":
                return
            await self._messages.put(message)

    async def receive(self) -> Message:
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        received: Message = message
        return received

    async def send(self, message: Message) -> None:
        if self.closed:
            return
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.answered = True
        await self._send(message)
        self._moved = self._loop.time()
