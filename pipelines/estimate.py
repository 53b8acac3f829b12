"""What a plan will cost, before anything is converted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from database.ledger import SourceState
    from pipelines.sync import SyncPlan

BYTES_PER_CHUNK = {".pdf": 6000, ".docx": 6000, ".pptx": 20000, ".xlsx": 3000, ".html": 2500, ".htm": 2500}
"""Where the index holds nothing of the kind to go by; other kinds are text."""

TEXT_BYTES_PER_CHUNK = 900
CHUNKS_PER_SECOND_AND_CORE = 15
"""Of the default model."""

START_SECONDS = 6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """
    What a plan will cost.

    :param embeddings: Chunks to embed.
    :param seconds: Duration of the sync.
    :param based_on: Where the figures come from.
    """

    embeddings: int
    seconds: float
    based_on: str


def estimate(plan: SyncPlan) -> Estimate:
    """
    Guess from sizes how many chunks a plan will embed.

    :param plan: The plan; what it leaves unchanged tells how many bytes make a chunk.
    """
    learned = _learned(plan.unchanged)
    embeddings = sum(_chunks(planned.state, learned) for planned in plan.to_convert)
    cores = os.cpu_count() or 1
    seconds = START_SECONDS + embeddings / (CHUNKS_PER_SECOND_AND_CORE * cores) if embeddings else 0.0
    source = "file sizes and the chunks of unchanged files" if learned else "file sizes alone"
    based_on = f"{source}; {CHUNKS_PER_SECOND_AND_CORE} chunks/s on each of {cores} cores"
    return Estimate(embeddings=embeddings, seconds=round(seconds, 1), based_on=based_on)


def _learned(states: Iterable[SourceState]) -> dict[str, float]:
    sizes: dict[str, int] = {}
    chunks: dict[str, int] = {}
    for state in states:
        suffix = _suffix(state)
        sizes[suffix] = sizes.get(suffix, 0) + state.size
        chunks[suffix] = chunks.get(suffix, 0) + state.chunks
    return {suffix: sizes[suffix] / chunks[suffix] for suffix in sizes if chunks[suffix]}


def _chunks(state: SourceState, learned: dict[str, float]) -> int:
    suffix = _suffix(state)
    per_chunk = learned.get(suffix) or BYTES_PER_CHUNK.get(suffix, TEXT_BYTES_PER_CHUNK)
    return max(1, round(state.size / per_chunk))


def _suffix(state: SourceState) -> str:
    return os.path.splitext(state.source)[1].lower()
