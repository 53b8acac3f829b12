"""
What chat code calls.

    assistant = Assistant(Settings.from_env())
    answer = assistant.ask("How long is the warranty?", history=history, filters='language == "en"')
    print(answer.text, answer.citations)
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from components.model_files import DEFAULT_MODEL
from database.connection import Database, open_database
from database.errors import InvalidInputError, SynapseError
from database.ledger import Ledger
from database.models import EmbeddingModel, chosen_model

if TYPE_CHECKING:
    from haystack import Document, Pipeline
    from haystack.dataclasses import ChatMessage, StreamingChunk

    from components.answers import Answer
    from config import Settings
    from database.search_plan import SearchPlan

Filters = str | Mapping[str, Any] | None
History = Sequence["ChatMessage | Mapping[str, str]"]

_timings: contextvars.ContextVar[dict[str, float] | None] = contextvars.ContextVar("timings", default=None)


@dataclass(frozen=True, kw_only=True)
class Found:
    """
    What a search found.

    :param documents: Best first; `score` is the fused one.
    :param timings_ms: Milliseconds by stage, and in `total`.
    """

    documents: tuple[Document, ...]
    timings_ms: dict[str, float]


class Assistant:
    """
    Answers questions from the indexed documents. Safe to share between threads and event loops.

    The database starts in the background at once; models are loaded with the first question, or by `warm_up()`.

    :param settings: Which database, which models.
    :param scope: A filter, in any form, that holds for every question; callers only narrow it.
    """

    def __init__(self, settings: Settings, *, scope: str | dict[str, Any] | None = None) -> None:
        self.settings = settings
        self.scope = scope
        self._lock = threading.Lock()
        self._query: Pipeline | None = None
        self._search: Pipeline | None = None
        self._opening = _in_background(self._open)

    def warm_up(self) -> None:
        """Load everything that the first question needs. Imports and the database's start overlap."""
        self._pipeline("query")

    def ask(
        self,
        question: str,
        *,
        history: History = (),
        filters: Filters = None,
        top_k: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """
        Answer a question.

        :param question: The question; with history it may be a follow-up.
        :param history: The conversation so far, oldest first: Haystack's messages, or `{"role": …, "content": …}`.
        :param filters: An expression, a mapping or a Haystack filter.
        :param top_k: How many documents to answer from; `None` means the settings' number.
        :param on_text: Called with each part of the answer as it is written; an extractive answer comes in one.
        :raises InvalidInputError: If the filter is malformed, or the question is empty.
        :raises LanguageModelError: If the language model's server failed.
        :raises DatabaseError: If PostgreSQL did.
        """
        pipeline = self._pipeline("query")
        began = time.perf_counter()
        streamed, data = self._data(question, history, filters, top_k, on_text)
        with _stages() as timings, _plain_errors():
            answer: Answer = pipeline.run(data)["answer"]["value"]
        answer = self._checked(answer)
        if on_text and not streamed():
            on_text(answer.text)
        return replace(answer, timings_ms=_rounded(timings, began))

    async def ask_async(
        self,
        question: str,
        *,
        history: History = (),
        filters: Filters = None,
        top_k: int | None = None,
        on_text: Callable[[str], Awaitable[None]] | None = None,
    ) -> Answer:
        """`ask`, for asyncio: nothing blocks the event loop; `on_text` is a coroutine function."""
        pipeline = await asyncio.to_thread(self._pipeline, "query")
        began = time.perf_counter()
        streamed, data = self._data(question, history, filters, top_k, on_text)
        with _stages() as timings, _plain_errors():
            answer: Answer = (await pipeline.run_async(data))["answer"]["value"]
        answer = await asyncio.to_thread(self._checked, answer)
        if on_text and not streamed():
            await on_text(answer.text)
        return replace(answer, timings_ms=_rounded(timings, began))

    async def stream(
        self,
        question: str,
        *,
        history: History = (),
        filters: Filters = None,
        top_k: int | None = None,
    ) -> AsyncIterator[str | Answer]:
        """
        Answer a question part by part.

        :returns: The parts of the answer's text as they are written, and last the whole `Answer`, checked. Leaving the
            iteration early stops the language model.
        """
        parts: asyncio.Queue[str | None] = asyncio.Queue()
        asking = asyncio.create_task(
            self.ask_async(question, history=history, filters=filters, top_k=top_k, on_text=parts.put)
        )
        asking.add_done_callback(lambda _: parts.put_nowait(None))
        try:
            while (part := await parts.get()) is not None:
                yield part
            yield await asking
        finally:
            asking.cancel()

    def search(self, question: str, *, filters: Filters = None, top_k: int | None = None) -> Found:
        """
        Find documents, whether or not they answer the question.

        :param question: What to look for.
        :param filters: An expression, a mapping or a Haystack filter.
        :param top_k: How many; `None` means the settings' number.
        """
        pipeline = self._pipeline("search")
        from pipelines.query import ranked_by  # imported by now

        began = time.perf_counter()
        _, data = self._data(question, (), filters, top_k, None)
        with _stages() as timings, _plain_errors():
            found = pipeline.run({name: data[name] for name in ("rewriter", "metadata_filter", "retriever")})
        documents = tuple(found[ranked_by(pipeline)]["documents"])
        return Found(documents=documents, timings_ms=_rounded(timings, began))

    def explain(self, question: str, *, filters: Filters = None, top_k: int | None = None) -> SearchPlan:
        """
        How the search for a question goes in the database; what only chooses among its documents is left out.

        :param question: What to look for.
        :param filters: An expression, a mapping or a Haystack filter.
        :param top_k: How many; `None` means the settings' number.
        """
        pipeline = self._pipeline("search")
        _, data = self._data(question, (), filters, top_k, None)
        with _plain_errors():
            retriever: Any = pipeline.get_component("retriever")
            plan: SearchPlan = retriever.document_store.explain_search(
                question,
                pipeline.get_component("embedder").run(text=question)["embedding"],
                filters=pipeline.get_component("metadata_filter").run(**data["metadata_filter"])["filters"],
                top_k=max(top_k or retriever.top_k, retriever.candidates or 0),
            )
        return plan

    def _open(self) -> tuple[Database, EmbeddingModel]:
        database = open_database(self.settings)
        model = chosen_model(database, self.settings.embedding_model)
        table = self.settings.table_name
        return database, replace(model, table_name=table) if table else model

    def _pipeline(self, kind: str) -> Pipeline:
        with self._lock:
            if kind == "search":
                self._search = self._search or self._built("search")
                return self._search
            self._query = self._query or self._built("query")
            return self._query

    def _built(self, kind: str) -> Pipeline:
        if self._opening.done() and self._opening.exception():
            self._opening = _in_background(self._open)  # what failed at the start may work now
        if not self.settings.embedding_base_url:
            from components.embedders import TextEmbedder  # takes seconds, while the database starts

            # A guess while the registry is not there yet: the weights are shared with the pipeline's embedder.
            if self.settings.embedding_model in (None, DEFAULT_MODEL) and not self._opening.done():
                TextEmbedder(model=DEFAULT_MODEL).warm_up()
        from pipelines.query import build_query_pipeline, build_search_pipeline

        _, model = self._opening.result()
        build = build_search_pipeline if kind == "search" else build_query_pipeline
        pipeline = build(self.settings, model=model, scope=self.scope)
        for name in pipeline.graph.nodes:
            _timed(name, pipeline.get_component(name))
        pipeline.warm_up()
        return pipeline

    def _data(
        self, question: str, history: History, filters: Filters, top_k: int | None, on_text: Callable[[str], Any] | None
    ) -> tuple[Callable[[], bool], dict[str, Any]]:
        """Whether anything was streamed so far, and the pipeline's inputs."""
        if not question.strip():
            raise InvalidInputError("A question must have words, but is empty.")
        messages = [_message(one) for one in history]
        data: dict[str, Any] = {
            "rewriter": {"question": question, "history": messages},
            "metadata_filter": {"filters": dict(filters) if isinstance(filters, Mapping) else filters},
            "retriever": {"top_k": top_k},
        }
        parts: list[bool] = []
        if self.settings.has_language_model:
            data["prompt_builder"] = {"history": messages}
            if on_text:
                data["llm"] = {"streaming_callback": _chunk_callback(on_text, parts)}
        return lambda: bool(parts), data

    def _checked(self, answer: Answer) -> Answer:
        """The answer without citations that do not stand in their source's converted text."""
        from components.answers import UNSUPPORTED_MARK

        database, model = self._opening.result()
        citations = answer.citations
        if not citations:
            return answer
        texts = Ledger(database, model=model).excerpts([(one.source, *one.span) for one in citations])
        good = tuple(one for one, text in zip(citations, texts, strict=True) if text is None or text == one.quote)
        if len(good) == len(citations):
            return answer
        kept = {one.number for one in good}
        text = re.sub(r"\[(\d+)\]", lambda found: found[0] if int(found[1]) in kept else UNSUPPORTED_MARK, answer.text)
        bad = tuple(one.quote for one in citations if one not in good)
        return replace(answer, text=text, citations=good, supported=bool(good), unsupported=(*answer.unsupported, *bad))


def _in_background(function: Callable[[], Any]) -> Future[Any]:
    """Run a function in a thread that does not keep the program from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, name="synapse-open-database", daemon=True).start()
    return future


def _message(given: ChatMessage | Mapping[str, str]) -> ChatMessage:
    from haystack.dataclasses import ChatMessage

    if isinstance(given, ChatMessage):
        return given
    if given["role"] == "assistant":
        return ChatMessage.from_assistant(given["content"])
    return ChatMessage.from_user(given["content"])


def _chunk_callback(on_text: Callable[[str], Any], parts: list[bool]) -> Callable[[StreamingChunk], Any]:
    """Haystack's callback for ours. A plain function: a pipeline deep-copies its inputs, but leaves functions alone."""

    def call(chunk: StreamingChunk) -> None:
        if chunk.content:
            parts.append(True)
            on_text(chunk.content)

    async def call_async(chunk: StreamingChunk) -> None:
        if chunk.content:
            parts.append(True)
            await on_text(chunk.content)

    return call_async if inspect.iscoroutinefunction(on_text) else call


class _stages:
    """Collects the milliseconds of the components that run inside it."""

    def __enter__(self) -> dict[str, float]:
        self.timings: dict[str, float] = {}
        self.token = _timings.set(self.timings)
        return self.timings

    def __exit__(self, *_: object) -> None:
        _timings.reset(self.token)


class _plain_errors:
    """Takes Haystack's wrapping off: callers catch what happened, not that it happened in a pipeline."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        cause = exc
        while cause is not None:
            if isinstance(cause, SynapseError):
                if cause is not exc:
                    raise cause from None
                return
            cause = cause.__cause__
        if exc is not None and type(exc).__name__ == "PipelineRuntimeError" and exc.__cause__ is not None:
            raise exc.__cause__


def _timed(name: str, component: Any) -> None:
    """Let a component note how long it ran; the pipeline calls whatever stands at its `run`."""
    run = component.run

    @functools.wraps(run)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return run(*args, **kwargs)
        finally:
            _note(name, began)

    component.run = timed
    if hasattr(component, "run_async"):
        run_async = component.run_async

        @functools.wraps(run_async)
        async def timed_async(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return await run_async(*args, **kwargs)
            finally:
                _note(name, began)

        component.run_async = timed_async


def _note(name: str, began: float) -> None:
    timings = _timings.get()
    if timings is not None:
        timings[name] = timings.get(name, 0.0) + (time.perf_counter() - began) * 1000


def _rounded(timings: dict[str, float], began: float) -> dict[str, float]:
    stages = {name: round(ms, 1) for name, ms in timings.items()}
    return {**stages, "total": round((time.perf_counter() - began) * 1000, 1)}
