"""Embedders that ask a server: what they send, what they make of answers, and how they tell of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.utils import Secret

from components.remote_embedders import RemoteDocumentEmbedder, RemoteTextEmbedder
from components.token_counter import APPROXIMATE_LIMIT, ApproximateTokenCounter, TokenCounter, counter_of
from config import Settings
from database.errors import ConfigurationError, EmbeddingModelError
from database.models import EmbeddingModel
from pipelines.embedding import model_dimension, text_embedder
from pipelines.fingerprint import fingerprint
from tests.support.embedding_server import EmbeddingServer, letters

KEY = "secret-of-the-embeddings"
MODEL = EmbeddingModel.named("org/some-model", dimension=384)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(key=KEY, model=MODEL.model) as server:
        yield server


def embedder(server: EmbeddingServer, **options: Any) -> RemoteTextEmbedder:
    usual = {"model": MODEL.model, "api_key": Secret.from_token(KEY), "max_retries": 0, "timeout": 10.0}
    return RemoteTextEmbedder(api_base_url=server.url, **{**usual, **options})


def documents(*contents: str, **meta: Any) -> list[Document]:
    return [Document(content=content, meta=meta) for content in contents]


def test_questions_get_unit_vectors(server: EmbeddingServer) -> None:
    found = embedder(server).run(text="question")["embedding"]
    plain = np.array(letters(["question"])[0])
    assert np.linalg.norm(plain) > 10
    assert found == pytest.approx(list(plain / np.linalg.norm(plain)))


async def test_asynchronously_too(server: EmbeddingServer) -> None:
    one = embedder(server)
    assert (await one.run_async(text="question"))["embedding"] == one.run(text="question")["embedding"]


def test_a_loop_of_its_own_each_time(server: EmbeddingServer) -> None:
    one = embedder(server)
    found = [asyncio.run(one.run_async(text="question"))["embedding"] for _ in range(3)]
    assert found[0] == found[1] == found[2]


def test_documents_go_in_batches_with_title_and_heading(server: EmbeddingServer) -> None:
    given = documents(*map(str, range(5)), title="T", heading="H", other="O")
    one = RemoteDocumentEmbedder(
        model=MODEL.model, api_base_url=server.url, api_key=Secret.from_token(KEY), batch_size=2, dimension=384
    )
    found = one.run(documents=given)["documents"]
    assert [len(request["input"]) for request in server.requests] == [2, 2, 1]
    assert server.texts == [f"T\nH\n{n}" for n in range(5)]
    assert [document.content for document in found] == list(map(str, range(5)))
    assert all(np.linalg.norm(document.embedding or []) == pytest.approx(1) for document in found)
    assert given[0].embedding is None


def test_documents_with_the_same_text_all_get_a_vector(server: EmbeddingServer) -> None:
    one = RemoteDocumentEmbedder(model=MODEL.model, api_base_url=server.url, api_key=Secret.from_token(KEY))
    found = one.run(documents=documents("same", "same"))["documents"]
    assert len(found) == 2
    assert found[0].embedding == found[1].embedding is not None
    assert one.run(documents=[]) == {"documents": []}


def test_answers_out_of_order_are_put_in_order(server: EmbeddingServer) -> None:
    one = embedder(server)
    expected = one.embed(["a", "bb", "ccc"])
    server.failures = ["shuffled"]
    assert one.embed(["a", "bb", "ccc"]) == expected


@pytest.mark.parametrize("failure", ["429", "500", "503", "cut"])
def test_what_may_pass_is_tried_again(server: EmbeddingServer, failure: str) -> None:
    server.failures = [failure]
    assert embedder(server, max_retries=1).run(text="question")["embedding"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("429", "is busy or out of quota (429)"),
        ("500", "failed (500)"),
        ("400", "refused a request (400)"),
        ("422", "refused a request (422)"),
        ("403", "refused the key (403)"),
        ("cut", "could not be reached"),
        ("html", "sent something that is not a list of embeddings"),
        ("garbage", "sent something that is not a list of embeddings"),
        ("short", "sent something that is not a list of embeddings"),
        ("nan", "sent something that is not a list of embeddings"),
        ("zeros", "sent an embedding that is all zeros, which is near to nothing"),
    ],
)
async def test_failures_are_one_sentence(server: EmbeddingServer, failure: str, sentence: str) -> None:
    server.forever = failure
    one = embedder(server)
    for run in (lambda: one.run(text="my question"), lambda: asyncio.run(one.run_async(text="my question"))):
        with pytest.raises(EmbeddingModelError) as caught:
            await asyncio.to_thread(run)
        assert caught.value.message == f"The embedding model's server 127.0.0.1 {sentence}."
        assert caught.value.hint
        assert "my question" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_server_that_does_not_answer(server: EmbeddingServer) -> None:
    server.forever = "silent"
    with pytest.raises(EmbeddingModelError, match="did not answer within"):
        embedder(server, timeout=0.2).run(text="question")


def test_a_server_that_is_not_there() -> None:
    one = RemoteTextEmbedder(model="m", api_base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(EmbeddingModelError, match="could not be reached"):
        one.run(text="question")


def test_a_wrong_key_and_a_wrong_model(server: EmbeddingServer) -> None:
    with pytest.raises(EmbeddingModelError, match=r"refused the key \(401\)") as caught:
        embedder(server, api_key=Secret.from_token("wrong-key")).run(text="question")
    assert "wrong-key" not in str(caught.value)
    with pytest.raises(EmbeddingModelError, match="knows no model 'other'"):
        embedder(server, model="other").run(text="question")


def test_another_dimension_than_the_tables(server: EmbeddingServer) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Vectors of 768 dimensions were expected of org/some-model.* gives 384"
    ):
        embedder(server, dimension=768).run(text="question")


def test_the_dimension_is_asked_for_once(server: EmbeddingServer) -> None:
    settings = Settings(embedding_base_url=server.url, embedding_api_key=KEY)
    assert model_dimension(settings, MODEL.model) == 384
    assert len(server.requests) == 1


def test_a_key_is_never_saved(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_API_KEY", KEY)
    monkeypatch.setenv("EMBEDDING_BASE_URL", server.url)
    settings = Settings.from_env("/dev/null")
    assert KEY not in repr(settings)
    pipeline = Pipeline()
    pipeline.add_component("embedder", text_embedder(settings, MODEL))
    saved = pipeline.dumps()
    assert KEY not in saved
    assert "EMBEDDING_API_KEY" in saved
    loaded = Pipeline.loads(saved, allowed_modules=["components.*"])
    assert loaded.run({"embedder": {"text": "x"}})["embedder"]["embedding"]
    given = text_embedder(Settings(embedding_base_url=server.url, embedding_api_key=KEY), MODEL)
    with pytest.raises(ValueError, match="serialize"):
        given.to_dict()


def test_the_default_models_own_tokens_are_counted() -> None:
    assert type(counter_of("sentence-transformers/all-MiniLM-L6-v2", remote=True)) is TokenCounter
    guessed = counter_of("text-embedding-3-small", remote=True)
    assert type(guessed) is ApproximateTokenCounter
    assert guessed.limit == APPROXIMATE_LIMIT


@pytest.mark.parametrize(
    "text",
    [
        "The embedded PostgreSQL starts with the first process that needs it, and the last one stops it. " * 20,
        "Die Versicherung verlangt eine Bearbeitungsgebühr, wenn der Vertrag vor Ablauf gekündigt wird. " * 20,
        "def f(x: int) -> str:\n    return f'{x!r}' if x > 10_000 else None  # 42\n" * 20,
        "東京都は日本の首都です。人口は千四百万人。" * 20,
        "| 1 | 2.5 | 300 | -4,000 |\n" * 50,
    ],
    ids=["english", "german", "code", "japanese", "numbers"],
)
def test_a_chunk_by_guess_is_not_too_long_for_a_model_of_256_tokens(text: str) -> None:
    (guessed,), (counted,) = ApproximateTokenCounter().counts([text]), TokenCounter().counts([text])
    assert counted * APPROXIMATE_LIMIT / guessed <= 256
    assert guessed <= 2 * counted


def test_guessed_chunks_have_another_fingerprint() -> None:
    local = Settings(embedding_model="text-embedding-3-small")
    remote = Settings(embedding_model="text-embedding-3-small", embedding_base_url="http://x/v1")
    assert fingerprint(local) != fingerprint(remote)
    assert fingerprint(Settings()) == fingerprint(Settings(embedding_base_url="http://x/v1"))
