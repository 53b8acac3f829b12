"""Neighbours of hits from a real ledger: what is added, what is not, and where citations then point."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline

from components.answers import CONTEXT, Answer, cite
from components.context_window import ContextWindow, narrowed
from components.prompt_builder import AnswerPromptBuilder, count_tokens
from config import Settings
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.errors import ConfigurationError
from database.ledger import IndexedSource, Ledger, SourceState
from database.models import active_model
from pipelines.answering import Assistant
from pipelines.query import ALLOWED_MODULES, build_query_pipeline, build_search_pipeline, document_store
from tests.support.answering import index_texts
from tests.support.cross_encoder import save_cross_encoder

SENTENCES = [f"Sentence {word} of the book.  " for word in ("nought", "one", "two", "three", "four", "five", "six 😀")]


def chunks(source: str, sentences: list[str]) -> tuple[str, list[Document]]:
    """One chunk a sentence; two spaces lie between them, which are in no chunk."""
    documents, start = [], 0
    for position, sentence in enumerate(sentences):
        content = sentence.rstrip()
        meta = {
            "source": source,
            "span": [start, start + len(content)],
            "position": position,
            "page": position + 1,
            "heading": f"Part {position}",
            "secret": position == 4,
        }
        embedding = [0.0] * 384
        embedding[position] = 1.0
        documents.append(Document(id=f"{source}-{position}", content=content, meta=meta, embedding=embedding))
        start += len(sentence)
    return "".join(sentences), documents


def state(source: str) -> SourceState:
    return SourceState(
        source=source, root="", size=1, mtime_ns=0, checked_at_ns=1, content_hash="h", meta_hash="", fingerprint="test"
    )


def write(database: Database, source: str, sentences: list[str]) -> list[Document]:
    text, documents = chunks(source, sentences)
    indexed = IndexedSource(state=state(source), title=None, mime_type="text/plain", text=text, documents=documents)
    Ledger(database, model=active_model(database)).write([indexed])
    return documents


@pytest.fixture
def book(database: Database) -> list[Document]:
    return write(database, "book", SENTENCES)


@pytest.fixture
def store(database: Database) -> SynapseDocumentStore:
    return document_store(Settings(database_url=database.conninfo), active_model(database))


def widened(store: SynapseDocumentStore, documents: list[Document], **options: Any) -> list[Document]:
    window = ContextWindow(store, window=options.pop("window", 1))
    found: list[Document] = window.run(documents, **options)["documents"]
    return found


def numbers(document: Document) -> list[int]:
    parts = document.meta[CONTEXT]["parts"] if CONTEXT in document.meta else [{"document_id": document.id}]
    return [int(part["document_id"].rsplit("-", 1)[1]) for part in parts]


@pytest.mark.parametrize(
    ("hits", "window", "expected"),
    [
        ([2], 1, [[1, 2, 3]]),
        ([2], 2, [[0, 1, 2, 3, 4]]),
        ([0], 1, [[0, 1]]),
        ([6], 2, [[4, 5, 6]]),
        ([3], 9, [[0, 1, 2, 3, 4, 5, 6]]),
        ([3], 0, [[3]]),
        ([0, 5], 1, [[0, 1], [4, 5, 6]]),
        ([5, 0], 1, [[4, 5, 6], [0, 1]]),
        ([3, 2], 1, [[1, 2, 3, 4]]),
        ([2, 4], 1, [[1, 2, 3, 4, 5]]),
        ([6, 0, 3], 2, [[0, 1, 2, 3, 4, 5, 6]]),
        ([], 1, []),
    ],
)
def test_what_a_window_takes(
    book: list[Document], store: SynapseDocumentStore, hits: list[int], window: int, expected: list[list[int]]
) -> None:
    found = widened(store, [book[hit] for hit in hits], window=window)
    assert [numbers(document) for document in found] == expected
    text = "".join(SENTENCES)
    for document in found:
        start, end = document.meta["span"]
        assert document.content == text[start:end]


def test_citations_point_at_the_words_and_their_own_page(book: list[Document], store: SynapseDocumentStore) -> None:
    (document,) = widened(store, [book[2]])
    text, content = "".join(SENTENCES), document.content or ""
    for hit in (book[1], book[2], book[3]):
        start = content.index(hit.content or "")
        citation = cite(document, 1, (start, start + len(hit.content or "")))
        assert (citation.document_id, citation.page, citation.heading) == (
            hit.id,
            hit.meta["page"],
            hit.meta["heading"],
        )
        assert citation.quote == text[slice(*citation.span)] == hit.content
        assert list(citation.span) == hit.meta["span"]
    assert narrowed(document) == book[2]


async def test_asynchronously_it_is_the_same(book: list[Document], store: SynapseDocumentStore) -> None:
    window = ContextWindow(store, window=1)
    assert await window.run_async([book[6], book[2]]) == window.run([book[6], book[2]])
    public = {"field": "meta.secret", "operator": "==", "value": False}
    found = await window.run_async([book[3]], filters=public)
    assert numbers(found["documents"][0]) == [2, 3]
    assert await window.run_async([]) == {"documents": []}


def test_a_filter_ends_the_window(book: list[Document], store: SynapseDocumentStore) -> None:
    public = {"field": "meta.secret", "operator": "==", "value": False}
    (document,) = widened(store, [book[3]], window=3, filters=public)
    assert numbers(document) == [0, 1, 2, 3]
    assert "four" not in (document.content or "")
    (document,) = widened(store, [book[5]], window=3, filters=public)
    assert numbers(document) == [5, 6]


def test_what_is_left_as_it_is(database: Database, book: list[Document], store: SynapseDocumentStore) -> None:
    foreign = Document(id="foreign", content="Not from a source.", embedding=[1.0] * 384)
    store.write_documents([foreign])
    edited = replace(book[2], content="Sentence TWO of the book.")
    odd = replace(book[5], meta={**book[5].meta, CONTEXT: "a field of somebody's own"})
    assert widened(store, [foreign, edited, book[0]])[:2] == [foreign, edited]
    assert widened(store, [Document(id="gone", content="x")]) == [Document(id="gone", content="x")]
    assert cite(odd, 1, (0, 3)).page == odd.meta["page"]
    assert narrowed(odd) == odd
    # Chunks that no longer say what their source does.
    with database.connection() as connection:
        connection.execute("UPDATE source_texts SET text = 'written anew, and shorter'")
    assert widened(store, [book[2], book[3]]) == [book[2], book[3]]
    with database.connection() as connection:
        connection.execute("DELETE FROM source_texts")
    assert widened(store, [book[2]]) == [book[2]]


def test_a_source_that_moved_since_it_was_found(
    database: Database, book: list[Document], store: SynapseDocumentStore
) -> None:
    Ledger(database, model=active_model(database)).move([("book", state("shelf/book"), {"source": "shelf/book"})])
    assert widened(store, [book[2]]) == [book[2]]
    (found,) = store.dense_search(book[2].embedding or [], top_k=1)
    (document,) = widened(store, [found])
    assert document.content == "  ".join(sentence.strip() for sentence in SENTENCES[1:4])
    assert cite(document, 1, (0, 8)).source == "shelf/book"


def test_neighbours_of_another_source_stay_out(
    database: Database, book: list[Document], store: SynapseDocumentStore
) -> None:
    other = write(database, "leaflet", ["Only this.  "])
    assert widened(store, [other[0], book[0]])[0] == other[0]


def test_threads_that_share_a_window(book: list[Document], store: SynapseDocumentStore) -> None:
    window = ContextWindow(store, window=1)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: numbers(window.run([book[n % 7]])["documents"][0]), range(64)))
    assert found == [[p for p in (n % 7 - 1, n % 7, n % 7 + 1) if 0 <= p < 7] for n in range(64)]


def test_a_small_budget_gives_the_hit_alone(book: list[Document], store: SynapseDocumentStore) -> None:
    (document,) = widened(store, [book[3]], window=3)
    roomy = AnswerPromptBuilder(prompt_tokens=3000).run("What?", [document])
    assert roomy["documents"] == [document]
    fixed = count_tokens(AnswerPromptBuilder().run("What?", [])["messages"][0].text or "") + 40
    tight = AnswerPromptBuilder(prompt_tokens=fixed + 60).run("What?", [document])
    assert tight["documents"] == [book[3]]
    assert "three" in tight["messages"][-1].text
    assert "two" not in tight["messages"][-1].text


# The pipelines with everything turned on.

ALL = {"feedback": 2, "diversity": 0.4, "context_window": 1, "keyword_weight": 0.4, "bm25_k1": 1.0}


@pytest.fixture
def settings(database: Database) -> Settings:
    index_texts(database)
    return Settings(database_url=database.conninfo, **ALL)  # type: ignore[arg-type]


async def test_answers_with_everything_turned_on(settings: Settings) -> None:
    assistant = Assistant(settings)
    answer = assistant.ask("How long is the warranty of a dishwasher?")
    assert "24 months" in answer.text
    assert answer.supported
    assert {"diversity", "context_window"} <= answer.timings_ms.keys()
    question = "What is the capital of France, and who is its mayor?"
    assert not assistant.ask(question).supported, "feedback must not let through what has nothing to do with it"
    answer = await assistant.ask_async("How many candidates does ef_search keep?")
    assert "100" in answer.text
    assert all(citation.page == 3 for citation in answer.citations)


def test_search_gives_as_many_as_are_asked_for(settings: Settings) -> None:
    assistant = Assistant(settings)
    for top_k in (1, 2, 3):
        assert len(assistant.search("warranty", top_k=top_k).documents) == top_k
    assert assistant.search("warranty", filters='lang == "xx"').documents == ()


def test_what_is_turned_on_is_saved(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url or "")
    built = build_query_pipeline(replace(settings, from_environment=True, rerank_model="some/model"))
    loaded = Pipeline.loads(built.dumps(), allowed_modules=ALLOWED_MODULES)
    assert loaded.to_dict()["components"] == built.to_dict()["components"]
    built = build_query_pipeline(replace(settings, from_environment=True))
    pipeline = Pipeline.loads(built.dumps(), allowed_modules=ALLOWED_MODULES)
    data = {"rewriter": {"question": "How long is the warranty of a dishwasher?"}, "retriever": {"top_k": 2}}
    answer: Answer = pipeline.run(data)["answer"]["value"]
    assert "24 months" in answer.text
    assert len(answer.documents) <= 2
    ranking = pipeline.get_component("retriever").document_store.ranking  # type: ignore[attr-defined]
    assert (ranking.k1, ranking.keyword_weight) == (1.0, 0.4)


def test_the_cross_encoder_orders_what_is_found(database: Database, tmp_path: Path) -> None:
    texts = {
        "rain.md": ("Rain falls on the dome. The cloud is grey.", {"title": "Rain"}),
        "telescope.md": ("The telescope stands there, and rain is bad for it.", {"title": "Instrument"}),
        "cloud.md": ("A cloud brings rain.", {"title": "Cloud"}),
    }
    index_texts(database, texts)
    settings = Settings(database_url=database.conninfo)
    question = "What does a cloud bring, is it rain?"

    def first(settings: Settings) -> str:
        return str(Assistant(settings).search(question, top_k=2).documents[0].meta["source"])

    assert first(settings) == "cloud.md"
    reranked = replace(settings, rerank_model=str(save_cross_encoder(tmp_path)))
    assert first(reranked) == "telescope.md"
    assert first(replace(reranked, diversity=0.2)) == "telescope.md"
    found = Assistant(reranked).search(question, top_k=2)
    assert len(found.documents) == 2
    assert "reranker" in found.timings_ms
    with pytest.raises(ConfigurationError, match="RERANK_MODEL"):
        Assistant(replace(settings, rerank_model="org/nowhere")).search(question)


def test_nothing_of_it_is_there_by_default(settings: Settings) -> None:
    plain = Settings(database_url=settings.database_url)
    for pipeline in (build_query_pipeline(plain), build_search_pipeline(plain)):
        assert {"reranker", "diversity", "context_window"}.isdisjoint(pipeline.graph.nodes)
        assert pipeline.get_component("retriever").feedback == 0  # type: ignore[attr-defined]
