"""A collection in a documents table of its own, embedded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from haystack import Document
from haystack.utils import Secret

from components.section_splitter import SectionSplitter
from database.document_store import SynapseDocumentStore
from database.errors import InvalidInputError
from database.evaluation_schema import embedded_ids
from evaluation.collection import Collection, Text
from evaluation.evaluation import Result, evaluate
from evaluation.strategies import Options, build_strategy, strategy_names
from evaluation.tuning import Tuning, tune
from pipelines import embedding
from pipelines.query import ranking as application_ranking

if TYPE_CHECKING:
    from config import Settings
    from database.connection import Database
    from database.models import EmbeddingModel

TABLE = "documents"
BATCH = 256
"""Documents between two steps of the progress: enough for the model to sort them by length."""

ProgressFactory = Callable[[str, int | None], AbstractContextManager[Callable[[int, str], None]]]


def evaluation_store(
    owner: Database, *, schema: str, model: EmbeddingModel, ef_search: int, ranking: dict[str, float] | None = None
) -> SynapseDocumentStore:
    """The store of a collection's documents, in the evaluation's schema."""
    return SynapseDocumentStore(
        connection_string=Secret.from_token(owner.conninfo),
        create_extension=False,
        schema_name=schema,
        table_name=TABLE,
        language=model.language,
        embedding_dimension=model.dimension,
        vector_type="halfvec" if model.vector_type == "halfvec" else "vector",
        hnsw_ef_search=ef_search,
        ranking=ranking,
    )


def documents_of(collection: Collection, *, splitter: SectionSplitter | None = None) -> Iterator[Document]:
    """
    The documents to index, as indexing would make them: the title apart from the content.

    Embedding and keyword index both put the title before the content, so that it counts once.

    :param splitter: Splits each text into chunks; `None` means one chunk, and what the model cannot read is cut off.
    """
    for text in collection.texts:
        content, title = (text.text, text.title) if text.text.strip() else (text.title, "")
        meta: dict[str, Any] = {"title": title} if title else {}
        chunks = [Document(content=content, meta=meta)]
        if splitter is not None and content.strip():
            sections = [{"start": 0, "end": len(content), "kind": "prose"}]
            chunks = splitter.run([Document(content=content, meta={**meta, "sections": sections})])["documents"]
        for number, chunk in enumerate(chunks):
            yield Document(id=_chunk_id(text, number), content=chunk.content, meta=chunk.meta)


def texts_by_chunk(collection: Collection) -> Callable[[str], str]:
    """From a chunk's id to its document's id, which may be too long or too odd for PostgreSQL."""
    known = {_text_hash(text): text.id for text in collection.texts}
    return lambda chunk: known[chunk.split("-", 1)[0]]


def fill(
    store: SynapseDocumentStore,
    documents: Sequence[Document],
    *,
    embedder: Any,
    on_progress: Callable[[int], None],
) -> int:
    """
    Create the table, and embed and write what it lacks.

    :param documents: What it is to hold.
    :param embedder: A component that gives documents their embeddings.
    :param on_progress: Called with how many are in it.
    :returns: How many were embedded.
    """
    store.create_table()
    there = embedded_ids(store.database, schema=store.schema_name, table=store.table_name)
    missing = [document for document in documents if document.id not in there]
    done = len(documents) - len(missing)
    for start in range(0, len(missing), BATCH):
        on_progress(done)
        done += store.write_documents(embedder.run(documents=missing[start : start + BATCH])["documents"])
    on_progress(done)
    return len(missing)


class Workbench:
    """
    A collection in its table, and what is asked of it.

    :param owner: The database, connected as the owner of the evaluation's schema.
    :param schema: That schema.
    :param settings: Of the application: its options and sizes are those that are measured.
    :param model: The embedding model.
    :param collection: The documents and questions.
    :param split: Whether texts are split into chunks.
    :param progress: Gives a function that is told how many of so many are done, and a word on it.
    :param document_embedder: What embeds the documents; `None` means the application's own.
    :param text_embedder: What embeds the questions; `None` means the application's own.
    """

    def __init__(
        self,
        owner: Database,
        schema: str,
        *,
        settings: Settings,
        model: EmbeddingModel,
        collection: Collection,
        split: bool = False,
        progress: ProgressFactory,
        document_embedder: Any = None,
        text_embedder: Any = None,
    ) -> None:
        self.owner, self.schema, self.settings, self.model = owner, schema, settings, model
        self.collection, self.progress = collection, progress
        splitter = SectionSplitter(model=model.model, remote=bool(settings.embedding_base_url)) if split else None
        self._documents = list(documents_of(collection, splitter=splitter))
        self._text_of = texts_by_chunk(collection)
        self._document_embedder = document_embedder or embedding.document_embedder(
            settings, model.model, dimension=model.dimension
        )
        self._text_embedder = text_embedder or embedding.text_embedder(settings, model)

    @property
    def chunks(self) -> int:
        """How many rows the table has."""
        return len(self._documents)

    def store(self, ranking: dict[str, float] | None = None) -> SynapseDocumentStore:
        """The store, with settings of the ranking other than the application's."""
        return evaluation_store(
            self.owner,
            schema=self.schema,
            model=self.model,
            ef_search=self.settings.ef_search,
            ranking=ranking or application_ranking(self.settings),
        )

    def fill(self) -> int:
        """Embed and write what is missing; how many documents that were."""
        with self.progress("Embedding documents", self.chunks) as show:
            return fill(
                self.store(), self._documents, embedder=self._document_embedder, on_progress=lambda done: show(done, "")
            )

    def results(self, *, only: Sequence[str] | None = None) -> dict[str, Result]:
        """
        Ask all questions in all ways.

        :param only: Names of strategies; `None` means all.
        :raises InvalidInputError: If there is no strategy of such a name.
        """
        options = _options(self.settings)
        known = strategy_names(options)
        if unknown := [name for name in only or () if name not in known]:
            raise InvalidInputError(f"A strategy is one of {', '.join(known)}, but {', '.join(unknown)} was asked for.")
        store = self.store()
        strategies = {name: build_strategy(name, store, options) for name in known if only is None or name in only}
        embeddings = self._question_embeddings()
        with self.progress("Asking", len(self.collection.queries)) as show:
            return evaluate(
                self.collection,
                strategies,
                embeddings=embeddings,
                text_of=self._text_of,
                on_progress=lambda done: show(done, ""),
            )

    def tuned(self) -> Tuning:
        """Choose the settings of the ranking."""
        embeddings = self._question_embeddings()
        with self.progress("Tuning", None) as show:
            return tune(
                self.collection,
                self.store,
                start=self.store().ranking.to_dict(),
                embeddings=embeddings,
                text_of=self._text_of,
                on_progress=lambda tried, best, score: show(tried, f"nDCG@10 {score:.4f} with {settings_text(best)}"),
            )

    def _question_embeddings(self) -> dict[str, list[float]]:
        found = {}
        with self.progress("Embedding questions", len(self.collection.queries)) as show:
            for number, (query, text) in enumerate(self.collection.queries.items()):
                show(number, "")
                found[query] = self._text_embedder.run(text=text)["embedding"]
        return found


def _options(settings: Settings) -> Options:
    """What is configured of the options; what is off is measured with its usual value."""
    usual = Options()
    return Options(
        feedback=settings.feedback or usual.feedback,
        diversity=settings.diversity or usual.diversity,
        rerank_model=settings.rerank_model,
        rerank_top_k=settings.rerank_top_k,
    )


def settings_text(ranking: dict[str, float]) -> str:
    """Settings of the ranking, for people."""
    return ", ".join(f"{name} {value:g}" for name, value in ranking.items())


def _chunk_id(text: Text, number: int) -> str:
    return f"{_text_hash(text)}-{number}"


def _text_hash(text: Text) -> str:
    return hashlib.sha256(text.id.encode(errors="surrogatepass")).hexdigest()[:32]
