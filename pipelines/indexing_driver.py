"""Applies the plans of a sync, with one converter process and one loaded model for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.file_types import title_from_name
from pipelines.conversion_worker import ConversionWorker
from pipelines.embedding import document_embedder
from pipelines.indexing_run import Converter, Embedder, IndexingRun, SyncResult

if TYPE_CHECKING:
    from config import Settings
    from database.ledger import Ledger, SourceState
    from pipelines.sync import PlannedSource, SyncPlan

GROUP = 200
"""Sources of one transaction, where nothing is embedded."""


class IndexingDriver:
    """
    Applies plans one after the other.

    :param settings: Of converter and embedder.
    :param ledger: Where to write.
    :param embedder: `None` means the ledger's model, loaded when the first chunk needs it.
    :param converter: `None` means a process of its own, started when the first file needs it.
    :param on_model: Called once, before the model is loaded, with a sentence on what it computes in.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        embedder: Embedder | None = None,
        converter: Converter | None = None,
        on_model: Callable[[str], None] | None = None,
    ) -> None:
        self.ledger = ledger
        self.result = SyncResult()
        self._settings = settings
        self._on_model = on_model
        self._embedder = embedder
        self._converter = converter or ConversionWorker(settings)

    def __enter__(self) -> IndexingDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the converter process."""
        self._converter.stop()

    def apply(self, plan: SyncPlan, *, on_progress: Callable[[SyncResult], None] | None = None) -> SyncResult:
        """
        Do what a plan says. Each source is done as a whole or not at all, also when this is interrupted.

        :param plan: The plan.
        :param on_progress: Called, by several threads, with what was done so far; `self.result` is the same.
        :returns: What was done.
        :raises DatabaseError: If the database cannot be written; what was written before stays.
        """
        started = time.monotonic()
        self.result = result = SyncResult(unchanged=len(plan.unchanged))
        result.failed.update(plan.closed)
        result.failed.update({state.source: state.reason or "" for state in plan.kept_out})
        try:
            self._apply_without_embedding(plan)
            if plan.to_convert:
                self._index(plan.to_convert, on_progress or (lambda _: None))
        finally:
            result.seconds = time.monotonic() - started
        return result

    def index(self, planned: Sequence[PlannedSource]) -> SyncResult:
        """
        Index some sources of a plan that others apply.

        :returns: What was done.
        :raises DatabaseError: As `apply`.
        """
        self.result = SyncResult()
        if planned:
            self._index(planned, lambda _: None)
        return self.result

    def warm_embedder(self) -> Embedder:
        """The embedder with its model loaded."""
        if self._embedder is None:
            model = self.ledger.model
            self._embedder = document_embedder(self._settings, model.model, dimension=model.dimension)
            if self._on_model and not self._settings.embedding_base_url:
                from components.embedding_precision import precision_sentence

                self._on_model(precision_sentence(self._settings.embedding_precision))
        self._embedder.warm_up()
        return self._embedder

    def _index(self, planned: Sequence[PlannedSource], on_progress: Callable[[SyncResult], None]) -> None:
        self._converter.start()
        run = IndexingRun(
            ledger=self.ledger,
            converter=self._converter,
            load_embedder=self.warm_embedder,
            batch_size=self._settings.embedding_batch_size,
            result=self.result,
            on_progress=on_progress,
        )
        run.run(planned)

    def _apply_without_embedding(self, plan: SyncPlan) -> None:
        result = self.result
        # A source that came back since the plan was made is left alone.
        gone = [state.source for state in plan.removed if not os.path.lexists(state.source)]
        for sources in _groups(gone):
            self.ledger.remove(sources)
            result.removed += len(sources)
        for moves in _groups(plan.moved):
            titles = {row["source"]: row["title"] for row in self._listed(moves)}
            self.ledger.move([_move(planned, titles) for planned in moves])
            result.moved += len(moves)
        for states in _groups(plan.touched):
            self.ledger.touch(states)
        for states in _groups(plan.refused):
            self.ledger.quarantine(states)
            result.failed.update({state.source: state.reason or "" for state in states})

    def _listed(self, moves: Sequence[PlannedSource]) -> list[dict[str, Any]]:
        return [row for planned in moves if planned.previous for row in self.ledger.sources(planned.previous.source)]


def _move(planned: PlannedSource, titles: dict[str, str | None]) -> tuple[str, SourceState, dict[str, Any]]:
    """What a new name changes: a title that was taken from the old one follows, its place in the embedding does not."""
    assert planned.previous is not None
    old, new = planned.previous.source, planned.state.source
    modified = datetime.fromtimestamp(planned.state.mtime_ns / 1e9, UTC)
    changes = {"source": new, "modified": modified.isoformat(timespec="seconds")}
    if titles.get(old) == title_from_name(old):
        changes["title"] = title_from_name(new)
    return old, planned.state, changes


def _groups(items: Sequence[Any], size: int = GROUP) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
