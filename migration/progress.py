"""What long work reports while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    How far a step is.

    :param step: What is done, as a person would say it: `checking`, `loading`, `building documents_x_hnsw_index`, `verifying`.
    :param part: The part of the source; empty where it is not about one.
    :param done: Rows, or whatever `total` counts.
    :param total: Of how many, where that is known.
    """

    step: str
    part: str = ""
    done: int = 0
    total: int | None = None


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report nothing."""
