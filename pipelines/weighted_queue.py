"""A queue between two threads that is bounded by what its items weigh, not by how many they are."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class QueueClosed(Exception):
    """Nothing more will come, or nobody takes any more."""


class WeightedQueue(Generic[Item]):
    """
    First in, first out. One item of any weight always fits, so that nothing is too heavy to pass.

    :param limit: Weight above which `put` waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._items: deque[tuple[Item, int]] = deque()
        self._changed = threading.Condition()
        self._finished = self._aborted = False

    def put(self, item: Item, *, weight: int = 1) -> None:
        """
        Append an item, after waiting for room.

        :raises QueueClosed: If the queue was finished or aborted.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._finished or self._aborted or not self._items or self._weight + weight <= self._limit
            )
            if self._finished or self._aborted:
                raise QueueClosed
            self._items.append((item, weight))
            self._weight += weight
            self._changed.notify_all()

    def get(self, *, timeout: float | None = None) -> Item | None:
        """
        Take the first item.

        :param timeout: Seconds to wait for one; `None` means as long as it takes.
        :returns: The item; `None` if none came in time.
        :raises QueueClosed: If the queue is finished and empty, or aborted.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._items or self._aborted:
                if self._finished or self._aborted:
                    raise QueueClosed
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                # A wait without end cannot be interrupted on Windows, and one with an end can everywhere.
                self._changed.wait(remaining if remaining is not None else 3600)
            item, weight = self._items.popleft()
            self._weight -= weight
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """Say that nothing more comes; what is in the queue can still be taken."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    @property
    def is_aborted(self) -> bool:
        """Whether it was given up."""
        return self._aborted

    def abort(self) -> None:
        """Give up: whoever waits on either side, or comes later, gets `QueueClosed`."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
