"""
Converts, embeds and writes at the same time: while one batch is embedded, the next files are converted and the last
ones written.

A process converts, the calling thread embeds, a thread writes. The queues between them are bounded by the number of
chunks, so that memory does not grow with the number of files. Batches span files, and within a window chunks are
embedded by length, so that little is spent on padding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from components.chunk_ids import chunk_id
from database.errors import DataRefusedError, InvalidInputError, SchemaError
from database.ledger import IndexedSource
from pipelines.conversion_worker import ConversionError, SourceGoneError
from pipelines.weighted_queue import QueueClosed, WeightedQueue

if TYPE_CHECKING:
    from haystack import Document

    from database.ledger import Ledger, SourceState
    from pipelines.preparation import PreparedSource
    from pipelines.sync import PlannedSource

WINDOW = 512
"""Chunks that are sorted by length together."""

QUEUED = 1024
"""Chunks that wait for the embedder, and as many for the writer."""

WRITTEN_TOGETHER = 64
"""Sources of one transaction, at most."""

PATIENCE = 0.2
"""Seconds that less than a full batch waits for more chunks."""


class Converter(Protocol):
    """What a run needs of `ConversionWorker`."""

    def start(self) -> None:
        """Start it without waiting for it."""

    def convert(self, path: str, *, meta: Mapping[str, Any]) -> PreparedSource:
        """Convert one file, or raise a `ConversionError`."""

    def stop(self) -> None:
        """End the conversion that runs now, if any; `start` may be called again."""


class Embedder(Protocol):
    """What a run needs of `DocumentEmbedder`."""

    def warm_up(self) -> None:
        """Load the model, once."""

    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Give back `documents` with their embeddings, in the same order."""


@dataclass(kw_only=True)
class SyncResult:
    """
    What was done; of an interrupted sync, what it came to.

    :param added: New sources that were indexed.
    :param updated: Changed sources that were indexed again.
    :param moved: Sources that got a new name.
    :param unchanged: Sources with nothing to do.
    :param removed: Sources that were removed.
    :param failed: Sources that are kept out, with the reason, also of an earlier sync.
    :param chunks: Chunks that were written.
    :param embedded: Chunks that were embedded; the others kept the embedding that they had.
    :param converted: Sources that were converted and then written or kept out.
    :param seconds: Duration.
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    chunks: int = 0
    embedded: int = 0
    converted: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class _Source:
    """A source on its way, with the number of its chunks that still lack an embedding."""

    planned: PlannedSource
    prepared: PreparedSource
    documents: list[Document]
    missing: int


@dataclass(kw_only=True)
class IndexingRun:
    """
    One pass of sources through converter, embedder and writer.

    :param ledger: Where to write.
    :param converter: It has been started.
    :param load_embedder: Called when the first chunk needs embedding.
    :param batch_size: Chunks per call of the model.
    :param result: What was done is counted here.
    :param on_progress: Called after every batch and every transaction, by several threads.
    """

    ledger: Ledger
    converter: Converter
    load_embedder: Callable[[], Embedder]
    batch_size: int
    result: SyncResult
    on_progress: Callable[[SyncResult], None]
    _converted: WeightedQueue[_Source] = field(default_factory=lambda: WeightedQueue(QUEUED), init=False)
    _embedded: WeightedQueue[_Source | SourceState] = field(default_factory=lambda: WeightedQueue(QUEUED), init=False)
    _window: list[_Source] = field(default_factory=list, init=False)
    _errors: list[BaseException] = field(default_factory=list, init=False)

    def run(self, planned: Sequence[PlannedSource]) -> None:
        """
        Index sources, in order.

        When interrupted, it first waits until those that have been embedded are written.

        :raises DatabaseError: If they cannot be written.
        """
        import haystack  # noqa: F401 - its modules import each other, so that two threads must not begin at the same time

        converting = threading.Thread(target=self._guarded, args=(self._convert, planned), daemon=True)
        writing = threading.Thread(target=self._guarded, args=(self._write,), daemon=True)
        converting.start()
        writing.start()
        try:
            if any(_is_new_text(one) for one in planned):
                self.load_embedder()  # at the same time as the converter starts
            self._embed()
        except QueueClosed:
            pass  # the writer failed; its error is raised below
        except BaseException:
            self._converted.abort()
            raise
        finally:
            if self._converted.is_aborted:
                self.converter.stop()
            self._embedded.finish()
            converting.join()
            writing.join()
        if self._errors:
            raise self._errors[0]

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except QueueClosed:
            pass  # another thread failed, or the run was interrupted
        except BaseException as exc:
            self._errors.append(exc)
            self._converted.abort()
            self._embedded.abort()

    # The first thread converts.

    def _convert(self, planned_sources: Sequence[PlannedSource]) -> None:
        for planned in planned_sources:
            if self._converted.is_aborted:
                return
            try:
                prepared = self.converter.convert(planned.path, meta=planned.meta)
            except SourceGoneError:
                continue  # the next sync will find it gone
            except ConversionError as exc:
                if not self._converted.is_aborted:
                    self._embedded.put(replace(planned.state, reason=exc.message))
                continue
            source = self._with_known_embeddings(planned, prepared)
            if source.missing:
                self._converted.put(source, weight=source.missing)
            else:
                self._embedded.put(source, weight=len(source.documents))
        self._converted.finish()

    def _with_known_embeddings(self, planned: PlannedSource, prepared: PreparedSource) -> _Source:
        """Give chunks their ids, and those that stand in the table already the embedding that they have there."""
        documents = [
            replace(document, id=chunk_id(planned.state.source, position, document))
            for position, document in enumerate(prepared.documents)
        ]
        if planned.previous is not None and planned.previous.chunks:
            known = self.ledger.known_embeddings([document.id for document in documents])
            documents = [replace(d, embedding=known[d.id]) if d.id in known else d for d in documents]
        missing = sum(document.embedding is None for document in documents)
        return _Source(planned=planned, prepared=prepared, documents=documents, missing=missing)

    # The calling thread embeds.

    def _embed(self) -> None:
        chunks = 0
        while True:
            try:
                source = self._converted.get(timeout=self._patience(chunks))
            except QueueClosed:
                break
            if source is not None:
                self._window.append(source)
                chunks += source.missing
            if source is None or chunks >= WINDOW:
                self._embed_window()
                chunks = 0
        if not self._converted.is_aborted:
            self._embed_window()

    def _patience(self, chunks: int) -> float | None:
        if chunks == 0:
            return None
        return 0 if chunks >= self.batch_size else PATIENCE

    def _embed_window(self) -> None:
        places = [(s, n) for s in self._window for n, document in enumerate(s.documents) if document.embedding is None]
        places.sort(key=lambda place: len(place[0].documents[place[1]].content or ""), reverse=True)
        try:
            for start in range(0, len(places), self.batch_size):
                self._embed_batch(places[start : start + self.batch_size])
        finally:
            for source in self._window:
                if not source.missing:
                    self._embedded.put(source, weight=len(source.documents))
            self._window.clear()

    def _embed_batch(self, places: Sequence[tuple[_Source, int]]) -> None:
        import numpy as np

        embedded = self.load_embedder().run(documents=[source.documents[number] for source, number in places])
        for (source, number), document in zip(places, embedded["documents"], strict=True):
            # As Python floats an embedding takes eight times the memory.
            vector: Any = np.asarray(document.embedding, dtype=np.float32)
            self._require_dimension(len(vector))
            source.documents[number] = replace(source.documents[number], embedding=vector)
            source.missing -= 1
        self.result.embedded += len(places)
        self.on_progress(self.result)

    def _require_dimension(self, length: int) -> None:
        model = self.ledger.model
        if length != model.dimension:
            raise SchemaError(
                f"Table {model.table_name} holds vectors of {model.dimension} numbers, but {model.model} gives {length}.",
                hint="Register the model with `python synapse.py models add`, and set EMBEDDING_MODEL to it.",
            )

    # The last thread writes.

    def _write(self) -> None:
        for group in self._ready_together():
            self._write_sources([item for item in group if isinstance(item, _Source)])
            self._quarantine([item for item in group if not isinstance(item, _Source)])
            self.on_progress(self.result)

    def _ready_together(self) -> Iterator[list[_Source | SourceState]]:
        """What is ready at the same moment: a lone source does not wait, many share a transaction."""
        group: list[_Source | SourceState] = []
        while True:
            try:
                item = self._embedded.get(timeout=0 if group else None)
            except QueueClosed:
                break
            if item is not None:
                group.append(item)
            if group and (item is None or len(group) == WRITTEN_TOGETHER):
                yield group
                group = []
        if group and not self._embedded.is_aborted:
            yield group

    def _write_sources(self, sources: Sequence[_Source]) -> None:
        try:
            self.ledger.write([_indexed(source) for source in sources])
        except (DataRefusedError, InvalidInputError) as exc:
            if len(sources) == 1:
                self._quarantine([replace(sources[0].planned.state, reason=exc.message)])
                return
            for source in sources:
                self._write_sources([source])
            return
        for source in sources:
            self.result.chunks += len(source.documents)
            self.result.converted += 1
            if source.planned.previous is None:
                self.result.added += 1
            else:
                self.result.updated += 1

    def _quarantine(self, states: Sequence[SourceState]) -> None:
        if states:
            self.ledger.quarantine(states)
            self.result.failed.update({state.source: state.reason or "" for state in states})
            self.result.converted += len(states)


def _is_new_text(planned: PlannedSource) -> bool:
    before = planned.previous
    return before is None or before.content_hash != planned.state.content_hash


def _indexed(source: _Source) -> IndexedSource:
    prepared = source.prepared
    # The file may have changed since it was planned; with the hash of what was converted the next sync will see that.
    state = replace(source.planned.state, content_hash=prepared.content_hash)
    return IndexedSource(
        state=state,
        title=prepared.title,
        mime_type=prepared.mime_type,
        text=prepared.text,
        documents=source.documents,
    )
