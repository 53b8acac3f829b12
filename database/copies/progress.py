"""What a copy reports while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    How far a step is.

    :param step: What is done, as a person would say it: `copying`, `building documents_x_hnsw_index`.
    :param done: Of `total`, in `unit`.
    :param unit: `bytes`, `rows`, or what else is counted.
    """

    step: str
    done: int = 0
    total: int | None = None
    unit: str = "rows"


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report nothing."""


class Counter:
    """
    A step that several threads work on.

    :param step: Its name.
    :param total: Of how many.
    """

    def __init__(self, on_progress: OnProgress, step: str, total: int, *, unit: str = "rows") -> None:
        self._on_progress, self._step, self._total, self._unit = on_progress, step, total, unit
        self._done, self._lock = 0, threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        """Count some more as done."""
        with self._lock:
            self._done += count
            self._on_progress(
                Progress(step=self._step, done=min(self._done, self._total), total=self._total, unit=self._unit)
            )


def batches(rows: Iterable[Item], size: int = 1000) -> Iterator[list[Item]]:
    """Rows, some at a time, so that each need not be reported."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch
