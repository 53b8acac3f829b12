"""Work that goes on in a task of its own, so that a request that ends takes it down gently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()


class Detached:
    """Async iterators that are read by tasks of their own, until they end, nobody listens, or the service closes."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def iterate(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """
        The items of a source, as they come.

        Leaving early cancels the source once; what it does then (storing, closing) is waited for by `close` alone.
        """
        items: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.create_task(_pump(source, items))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while (item := await items.get()) is not _END:
                yield item
            await task  # raises what the source raised
        finally:
            task.cancel()

    async def close(self) -> None:
        """End what still runs."""
        for task in list(self._tasks):
            if not task.cancelling():  # a second time would cut off what it does at its end
                task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


async def _pump(source: AsyncIterator[Any], items: asyncio.Queue[Any]) -> None:
    try:
        async for item in source:
            items.put_nowait(item)
    finally:
        items.put_nowait(_END)
        if hasattr(source, "aclose"):
            await source.aclose()
