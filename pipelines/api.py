"""Indexing from Python: files, documents, and removing them again, with the ledger that the command line uses."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.file_types import SUFFIXES, file_type
from database.connection import open_database
from database.errors import InvalidInputError, SynapseError
from database.ledger import Ledger, SourceState
from database.models import chosen_model
from pipelines.conversion_worker import ConversionError
from pipelines.fingerprint import fingerprint
from pipelines.indexing_driver import IndexingDriver
from pipelines.source_metadata import OutsideMetadata, metadata_hash
from pipelines.sync import PlannedSource, SyncPlan, SyncRules, plan_sync

if TYPE_CHECKING:
    from haystack import Document, Pipeline

    from config import Settings
    from pipelines.indexing_run import Embedder, SyncResult
    from pipelines.preparation import PreparedSource


def open_ledger(settings: Settings) -> Ledger:
    """
    The ledger of the embedding model that the settings name, or of the active one.

    :raises InvalidInputError: If the model is not registered.
    :raises DatabaseError: If the database is not there or its schema is another one.
    """
    database = open_database(settings)
    return Ledger(database, model=chosen_model(database, settings.embedding_model))


def with_model(settings: Settings, ledger: Ledger) -> Settings:
    """The settings, naming the ledger's model as it is loaded: chunks must fit its tokens, and be embedded by it."""
    return replace(settings, embedding_model=ledger.model.model)


def sync_rules(
    settings: Settings,
    *,
    metadata: OutsideMetadata | None = None,
    retry: bool = False,
    allow_mass_delete: bool = False,
) -> SyncRules:
    """
    The rules of a sync: what the settings say, and what is asked for in this run.

    :param metadata: Metadata from outside the files.
    :param retry: Whether what failed before is tried again although it did not change.
    :param allow_mass_delete: Whether much of a root may be removed at once.
    """
    return SyncRules(
        fingerprint=fingerprint(settings),
        suffixes=SUFFIXES,
        max_file_bytes=settings.max_file_bytes,
        metadata=metadata or OutsideMetadata(),
        retry=retry,
        allow_mass_delete=allow_mass_delete,
    )


def index_paths(
    paths: Sequence[str | os.PathLike[str]],
    *,
    settings: Settings,
    metadata: OutsideMetadata | None = None,
    retry: bool = False,
    allow_mass_delete: bool = False,
) -> SyncResult:
    """
    Bring the index in line with what stands below some paths, as `python synapse.py index` does.

    :param paths: Files and folders; what is gone below them is removed.
    :param settings: The database, the model, the limits.
    :param metadata: Metadata from outside the files.
    :param retry: Whether what failed before is tried again although it did not change.
    :param allow_mass_delete: Whether much of a root may be removed at once.
    :raises InvalidInputError: If a path is not there.
    :raises GuardError: If much of a root is gone.
    :raises DatabaseError: If the database cannot be read or written.
    """
    ledger = open_ledger(settings)
    settings = with_model(settings, ledger)
    rules = sync_rules(settings, metadata=metadata, retry=retry, allow_mass_delete=allow_mass_delete)
    plan = plan_sync(paths, ledger, rules=rules)
    with IndexingDriver(settings, ledger=ledger) as driver:
        return driver.apply(plan)


def index_documents(
    documents: Iterable[Document], *, settings: Settings, embedder: Embedder | None = None
) -> SyncResult:
    """
    Index texts that a program has, split like files are. Those that stand unchanged in the index are passed over.

    Each document is a source of its own, named by `meta["source"]` or else by its id. A name that ends in `.md` is read
    as Markdown, any other as plain text. Other sources stay as they are.

    :param documents: With text as their content; their names differ.
    :param settings: The database, the model, the limits.
    :param embedder: Instead of the one that the settings name.
    :raises InvalidInputError: If a document has no text, or two have one name.
    :raises DatabaseError: If the database cannot be read or written.
    """
    by_name = _by_name(documents)
    ledger = open_ledger(settings)
    settings = with_model(settings, ledger)
    known = ledger.read(list(by_name))
    plan = _plan_documents(by_name, known, version=fingerprint(settings))
    converter = _TextConverter(settings, by_name)
    with IndexingDriver(settings, ledger=ledger, embedder=embedder, converter=converter) as driver:
        return driver.apply(plan)


def delete_source(source: str, *, settings: Settings) -> int:
    """
    Remove a source with its chunks. A file that still exists returns with the next sync of its folder.

    :param source: Its name: an absolute path, or whatever name it was indexed under.
    :param settings: The database and the model.
    :returns: How many chunks are gone.
    :raises InvalidInputError: If there is no such source.
    """
    ledger = open_ledger(settings)
    if source not in ledger.read([source]):
        raise InvalidInputError(
            f"A source named {source!r} was expected in the index, but there is none.",
            hint="Run `python synapse.py documents list`.",
        )
    return ledger.remove([source])


def _by_name(documents: Iterable[Document]) -> dict[str, Document]:
    by_name: dict[str, Document] = {}
    for document in documents:
        name = str(document.meta.get("source") or document.id)
        if document.content is None:
            raise InvalidInputError(f"A document with text was expected, but {name!r} has none.")
        if name in by_name:
            raise InvalidInputError(
                f"Documents with different names were expected, but two are named {name!r}.",
                hint='Give each its own meta["source"], or join those that belong together.',
            )
        by_name[name] = document
    return by_name


def _meta(document: Document) -> dict[str, Any]:
    return {key: value for key, value in document.meta.items() if key != "source"}


def _plan_documents(by_name: Mapping[str, Document], known: Mapping[str, SourceState], *, version: str) -> SyncPlan:
    plan = SyncPlan(roots=())
    for name, document in by_name.items():
        data, before = (document.content or "").encode("utf-8", "surrogatepass"), known.get(name)
        state = SourceState(
            source=name,
            root="",
            size=len(data),
            mtime_ns=0,
            checked_at_ns=time.time_ns(),
            content_hash=hashlib.sha256(data).hexdigest(),
            meta_hash=metadata_hash(_meta(document)),
            fingerprint=version,
        )
        planned = PlannedSource(state=state, path=name, meta=_meta(document), previous=before)
        if before is None:
            plan.added.append(planned)
        elif before.reason is None and before == replace(
            state, checked_at_ns=before.checked_at_ns, chunks=before.chunks
        ):
            plan.unchanged.append(before)
        else:
            plan.changed.append(planned)
    return plan


class _TextConverter:
    """Splits texts in this process: they come from the program itself, and there is no parser to run away."""

    def __init__(self, settings: Settings, documents: Mapping[str, Document]) -> None:
        self._settings = settings
        self._documents = documents
        self._pipeline: Pipeline | None = None

    def start(self) -> None:
        """Nothing runs ahead."""

    def stop(self) -> None:
        """Nothing is left over."""

    def convert(self, path: str, *, meta: Mapping[str, Any]) -> PreparedSource:
        """Split the document of that name."""
        from haystack.dataclasses import ByteStream

        from pipelines.indexing import build_preparation_pipeline
        from pipelines.preparation import prepare

        if self._pipeline is None:
            self._pipeline = build_preparation_pipeline(self._settings)
            self._pipeline.warm_up()
        kind = file_type(path)
        suffix = "" if kind and kind.converter in ("markdown", "text") else ".txt"
        data = (self._documents[path].content or "").encode("utf-8", "surrogatepass")
        try:
            prepared = prepare(self._pipeline, ByteStream(data=data, meta={"source": path + suffix}), meta)
        except SynapseError as exc:
            raise ConversionError(exc.message) from exc
        documents = [replace(d, meta={**d.meta, "source": path}) for d in prepared.documents]
        return replace(prepared, documents=documents)
