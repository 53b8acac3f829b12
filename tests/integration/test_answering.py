"""Questions to a database with real documents, with and without a language model, in every way of asking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from haystack import Pipeline
from haystack.dataclasses import ChatMessage

from components.answers import NOT_IN_DOCUMENTS, UNSUPPORTED_MARK, Answer
from components.prompt_builder import NOT_FOUND
from config import Settings
from database.connection import Database
from database.errors import DatabaseError, InvalidInputError, LanguageModelError
from database.ledger import Ledger
from database.models import active_model
from pipelines.answering import Assistant
from pipelines.query import ALLOWED_MODULES, build_query_pipeline
from tests.fake_llm import FakeLanguageModel
from tests.support.answering import TEXTS, index_texts

KEY = "sk-very-secret"
HOW_LONG = "How long is the warranty of a dishwasher?"


@pytest.fixture
def indexed(database: Database) -> Database:
    index_texts(database)
    return database


@pytest.fixture
def settings(indexed: Database) -> Settings:
    return Settings(database_url=indexed.conninfo)


@pytest.fixture
def assistant(settings: Settings) -> Assistant:
    return Assistant(settings)


@pytest.fixture
def language_model() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel("It is 24 months [1].") as server:
        yield server


def with_model(database: Database, server: FakeLanguageModel, **options: Any) -> Assistant:
    settings = Settings(
        database_url=database.conninfo, llm_base_url=server.url, llm_api_key=KEY, llm_timeout=2.0, **options
    )
    return Assistant(settings)


def check_quotes(answer: Answer, database: Database) -> None:
    ledger = Ledger(database, model=active_model(database))
    for citation in answer.citations:
        text = ledger.text(citation.source)
        assert text is not None
        assert text[slice(*citation.span)] == citation.quote


class TestExtractive:
    def test_an_answer_has_its_sentence_and_its_place(self, assistant: Assistant, indexed: Database) -> None:
        answer = assistant.ask(HOW_LONG)
        assert answer.text == "Dishwashers carry a warranty of 24 months. [1]"
        assert answer.supported
        assert answer.extractive
        assert answer.citations[0].source == "warranty.md"
        assert answer.timings_ms["total"] >= answer.timings_ms["retriever"] > 0
        check_quotes(answer, indexed)

    def test_a_question_in_the_text_is_not_its_own_answer(self, assistant: Assistant) -> None:
        assert "service@example.org" in assistant.ask("How do I claim the warranty?").text

    def test_page_and_heading(self, assistant: Assistant) -> None:
        citation = assistant.ask("What is the default of ef_search?").citations[0]
        assert (citation.source, citation.page, citation.heading) == ("search.md", 3, "Settings > Search")

    @pytest.mark.parametrize("question", ["What is the capital of Mongolia?", "Who won the cup?", "?!", "x" * 5000])
    def test_what_the_documents_do_not_answer(self, assistant: Assistant, question: str) -> None:
        answer = assistant.ask(question)
        assert (answer.text, answer.supported, answer.citations) == (NOT_IN_DOCUMENTS, False, ())

    @pytest.mark.parametrize("filters", ['lang == "de"', {"lang": "de"}, {"year": {"<": 2021}}])
    def test_filters(self, assistant: Assistant, filters: Any) -> None:
        answer = assistant.ask("Welche Garantie hat der Kaffeeautomat?", filters=filters)
        assert [citation.source for citation in answer.citations] == ["garantie.md"]
        assert not assistant.ask(HOW_LONG, filters={"year": 1999}).supported

    @pytest.mark.parametrize("question", ["", " \n"])
    def test_nothing_is_no_question(self, assistant: Assistant, question: str) -> None:
        with pytest.raises(InvalidInputError, match="must have words"):
            assistant.ask(question)

    def test_a_malformed_filter_is_an_error(self, assistant: Assistant) -> None:
        with pytest.raises(InvalidInputError, match="a string in quotes"):
            assistant.ask(HOW_LONG, filters="lang ==")

    def test_nobody_leaves_the_scope(self, settings: Settings) -> None:
        scoped = Assistant(settings, scope={"lang": "de"})
        assert not scoped.ask(HOW_LONG, filters='lang == "en" or year > 0').supported
        assert {d.meta["lang"] for d in scoped.search(HOW_LONG, filters="lang != 'de' or year > 0").documents} == {"de"}

    def test_follow_ups(self, assistant: Assistant) -> None:
        history = [{"role": "user", "content": HOW_LONG}, {"role": "assistant", "content": "24 months [1]."}]
        assert assistant.ask("And how do I claim it?", history=history).citations[0].source == "warranty.md"
        messages = [ChatMessage.from_user("What is the default of ef_search?")]
        assert "Docker" in assistant.ask("and on Docker?", history=messages).text

    def test_streaming_gives_the_whole_answer(self, assistant: Assistant) -> None:
        parts: list[str] = []
        assert assistant.ask(HOW_LONG, on_text=parts.append).text == "".join(parts)

    def test_async(self, assistant: Assistant, settings: Settings) -> None:
        async def both() -> tuple[Answer, list[str | Answer]]:
            return await assistant.ask_async(HOW_LONG), [part async for part in assistant.stream(HOW_LONG)]

        for _ in range(2):  # each run has an event loop of its own
            answer, streamed = asyncio.run(both())
            assert answer.text == assistant.ask(HOW_LONG).text == streamed[0]
            assert isinstance(streamed[-1], Answer)

    def test_many_threads_at_once(self, assistant: Assistant) -> None:
        questions = [HOW_LONG, "What is the default of ef_search?", "What is the capital of Mongolia?"] * 3
        alone = {question: assistant.ask(question).text for question in questions}
        with ThreadPoolExecutor(8) as threads:
            assert [a.text for a in threads.map(assistant.ask, questions)] == [alone[q] for q in questions]

    def test_a_quote_that_no_longer_stands_in_its_source_is_no_citation(
        self, assistant: Assistant, indexed: Database
    ) -> None:
        with indexed.connection() as connection:
            connection.execute("UPDATE source_texts SET text = replace(text, '24 months', '12 months')")
        answer = assistant.ask(HOW_LONG)
        assert not answer.supported
        assert answer.citations == ()
        assert answer.text.endswith(UNSUPPORTED_MARK)
        assert answer.unsupported == ("Dishwashers carry a warranty of 24 months.",)

    def test_search(self, assistant: Assistant) -> None:
        found = assistant.search("warranty", top_k=2)
        assert found.documents[0].meta["source"] == "warranty.md"
        assert len(found.documents) == 2
        assert found.documents[0].embedding is None

    def test_an_unreachable_database_is_a_sentence_and_may_come_back(self, settings: Settings) -> None:
        gone = Assistant(Settings(database_url="postgresql://127.0.0.1:1/x"))
        for _ in range(2):
            with pytest.raises(DatabaseError):
                gone.ask(HOW_LONG)
        gone.settings = settings
        assert gone.ask(HOW_LONG).supported


class TestLanguageModel:
    def test_an_answer_with_checked_citations(self, indexed: Database, language_model: FakeLanguageModel) -> None:
        answer = with_model(indexed, language_model).ask(HOW_LONG)
        assert answer.text == "It is 24 months [1]."
        assert answer.supported
        assert not answer.extractive
        assert answer.citations[0].quote == "Dishwashers carry a warranty of 24 months."
        check_quotes(answer, indexed)
        assert TEXTS["warranty.md"][0] in language_model.requests[0]["messages"][-1]["content"]
        assert language_model.keys == [f"Bearer {KEY}"]

    def test_streaming(self, indexed: Database, language_model: FakeLanguageModel) -> None:
        assistant = with_model(indexed, language_model)
        parts: list[str] = []
        assert assistant.ask(HOW_LONG, on_text=parts.append).text == "It is 24 months [1]."
        assert parts == ["It", " is", " 24", " months", " [1]."]

        async def collect() -> list[str | Answer]:
            return [part async for part in assistant.stream(HOW_LONG)]

        streamed = asyncio.run(collect())
        assert streamed[:-1] == parts
        assert isinstance(streamed[-1], Answer)

    def test_leaving_the_stream_stops_the_model(self, indexed: Database) -> None:
        async def first_word(assistant: Assistant) -> object:
            stream = assistant.stream(HOW_LONG)
            async for part in stream:
                await stream.aclose()  # type: ignore[attr-defined]
                return part
            return None

        with FakeLanguageModel("word " * 200, token_delay=0.05) as server:
            assistant = with_model(indexed, server)
            assistant.warm_up()
            assert asyncio.run(asyncio.wait_for(first_word(assistant), timeout=5)) == "word"

    def test_history_goes_to_the_model_and_follow_ups_are_rewritten_by_it(self, indexed: Database) -> None:
        def reply(messages: list[dict[str, Any]]) -> str:
            return HOW_LONG if "Rewrite" in messages[0]["content"] else "It is 24 months [1]."

        with FakeLanguageModel(reply) as server:
            history = [
                {"role": "user", "content": "Tell me about dishwashers."},
                {"role": "assistant", "content": "Fine."},
            ]
            answer = with_model(indexed, server).ask("How long do they give on those?", history=history)
            assert answer.supported
            rewriting, answering = server.requests
            assert rewriting["messages"][-1]["content"] == "How long do they give on those?"
            said = [m["content"] for m in answering["messages"][1:]]
            assert [*said[:2], said[2].splitlines()[-1]] == [
                "Tell me about dishwashers.",
                "Fine.",
                HOW_LONG,
            ]

    def test_without_a_good_passage_the_model_is_not_asked(
        self, indexed: Database, language_model: FakeLanguageModel
    ) -> None:
        answer = with_model(indexed, language_model).ask("What is the capital of Mongolia?")
        assert (answer.text, answer.supported, answer.extractive) == (NOT_IN_DOCUMENTS, False, False)
        assert language_model.requests == []

    def test_the_model_finds_no_answer(self, indexed: Database) -> None:
        with FakeLanguageModel(NOT_FOUND) as server:
            answer = with_model(indexed, server).ask(HOW_LONG)
        assert (answer.text, answer.supported) == (NOT_IN_DOCUMENTS, False)

    def test_invented_citations_are_marked(self, indexed: Database) -> None:
        with FakeLanguageModel("It is 24 months [1]. The moon is cheese [9]. Trust me.") as server:
            answer = with_model(indexed, server).ask(HOW_LONG)
        assert answer.unsupported == ("The moon is cheese [9].", "Trust me.")
        assert answer.text.count(UNSUPPORTED_MARK) == 2

    @pytest.mark.parametrize("failure", ["429", "500", "401", "garbage", "silent", "cut"])
    @pytest.mark.parametrize("way", ["ask", "on_text", "async", "stream"])
    def test_failures_are_sentences(self, indexed: Database, failure: str, way: str) -> None:
        async def stream(assistant: Assistant) -> list[Any]:
            return [part async for part in assistant.stream(HOW_LONG)]

        with FakeLanguageModel("One two three [1].", forever=failure) as server:
            assistant = with_model(indexed, server)
            ways = {
                "ask": lambda: assistant.ask(HOW_LONG),
                "on_text": lambda: assistant.ask(HOW_LONG, on_text=lambda _: None),
                "async": lambda: asyncio.run(assistant.ask_async(HOW_LONG)),
                "stream": lambda: asyncio.run(stream(assistant)),
            }
            with pytest.raises(LanguageModelError) as caught:
                ways[way]()
        assert caught.value.hint
        assert KEY not in str(caught.value)

    def test_the_callers_own_error_comes_back_as_it_is(
        self, indexed: Database, language_model: FakeLanguageModel
    ) -> None:
        def fail(_: str) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            with_model(indexed, language_model).ask(HOW_LONG, on_text=fail)


class TestSavedPipelines:
    @pytest.fixture
    def environment(self, indexed: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setenv("DATABASE_URL", f"{indexed.conninfo} password=database-secret")
        monkeypatch.setenv("SYNAPSE_HOME", str(tmp_path))
        return tmp_path / "no.env"

    def test_without_a_language_model(self, environment: Path) -> None:
        pipeline = build_query_pipeline(Settings.from_env(environment))
        text = pipeline.dumps()
        assert "secret" not in text
        loaded = Pipeline.loads(text, allowed_modules=ALLOWED_MODULES)
        assert loaded.to_dict()["components"] == pipeline.to_dict()["components"]
        data = {"rewriter": {"question": HOW_LONG}, "metadata_filter": {"filters": 'lang == "en"'}}
        assert loaded.run(data)["answer"]["value"] == pipeline.run(data)["answer"]["value"]
        assert asyncio.run(loaded.run_async(data))["answer"]["value"].supported

    def test_with_a_language_model(
        self, environment: Path, language_model: FakeLanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("LLM_BASE_URL", language_model.url)
        text = build_query_pipeline(Settings.from_env(environment)).dumps()
        assert KEY not in text
        assert "secret" not in text
        loaded = Pipeline.loads(text, allowed_modules=ALLOWED_MODULES)
        answer = loaded.run({"rewriter": {"question": HOW_LONG}})["answer"]["value"]
        assert answer.text == "It is 24 months [1]."
        assert language_model.keys == [f"Bearer {KEY}"]

    def test_secrets_given_in_code_are_not_saved(self, indexed: Database) -> None:
        pipeline = build_query_pipeline(Settings(database_url=indexed.conninfo))
        with pytest.raises(ValueError, match="Cannot serialize"):
            pipeline.dumps()


def test_answers_in_other_threads_have_timings_of_their_own(assistant: Assistant) -> None:
    seen: list[Answer] = []
    threads = [threading.Thread(target=lambda: seen.append(assistant.ask(HOW_LONG))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all({"embedder", "retriever", "answerer", "total"} <= set(answer.timings_ms) for answer in seen)
    assert len(seen) == 4
