"""
From a question to an answer with citations.

    question ─▶ rewriter ─▶ embedder ─▶ retriever ─▶ gate ─┬▶ answerer ────────────────────────┬▶ answer
    filters ──▶ metadata_filter ───────────┘               ├▶ prompt_builder ▶ llm ▶ citations ┤
                                                           └▶ "not in the documents" ──────────┘

Without a language model the passages go to `answerer`, with one to `prompt_builder`. What is off by default stands between
them where the settings ask for it: `reranker` and `diversity` before the gate, `context_window` behind it. Saved with `pipeline.dumps()`, and
loaded with `Pipeline.loads(text, allowed_modules=ALLOWED_MODULES)`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haystack import Pipeline
from haystack.components.joiners import BranchJoiner
from haystack.utils import Secret

from components.answers import Answer
from components.citation_checker import CitationChecker
from components.context_window import ContextWindow
from components.diversity import MaximalMarginalRelevance
from components.extractive_answerer import ExtractiveAnswerer
from components.hybrid_retriever import HybridRetriever
from components.metadata_filter import MetadataFilter
from components.prompt_builder import AnswerPromptBuilder
from components.question_rewriter import QuestionRewriter
from components.relevance_gate import RelevanceGate
from database.connection import open_database
from database.document_store import SynapseDocumentStore
from database.models import EmbeddingModel, chosen_model
from database.tenancy import schema_of
from pipelines.embedding import remote, text_embedder

if TYPE_CHECKING:
    from config import Settings

ALLOWED_MODULES = ["components.*", "database.*"]

DIVERSITY_CANDIDATES = 50
"""Documents among which diversity chooses, where no cross-encoder says how many."""

MOST_DOCUMENTS = 1000
"""As many as a cross-encoder may be given."""


def build_query_pipeline(
    settings: Settings, *, model: EmbeddingModel | None = None, scope: str | dict[str, Any] | None = None
) -> Pipeline:
    """
    The pipeline that answers questions.

    Inputs: `rewriter.question`; optionally `rewriter.history` (and `prompt_builder.history`), `metadata_filter.filters`,
    `retriever.top_k`, `llm.streaming_callback`. Output: `answer.value`, an `Answer`.

    :param settings: Which database, which models.
    :param model: The embedding model; `None` means the registry's active one, which is asked for.
    :param scope: A filter that no caller can leave.
    :raises DatabaseError: If the registry cannot be asked.
    """
    model = model or question_model(settings)
    pipeline = build_search_pipeline(settings, model=model, scope=scope)
    pipeline.add_component("gate", RelevanceGate(extractive=not settings.has_language_model))
    pipeline.add_component("answer", BranchJoiner(Answer))
    pipeline.connect("rewriter.question", "gate.question")
    pipeline.connect("retriever.passages", "gate.passages")
    pipeline.connect("gate.answer", "answer.value")
    last = ranked_by(pipeline)
    if last != "retriever":
        pipeline.connect(f"{last}.documents", "gate.ranked")
    if settings.context_window:
        pipeline.add_component(
            "context_window", ContextWindow(document_store(settings, model), window=settings.context_window)
        )
        pipeline.connect("gate.documents", "context_window.documents")
        pipeline.connect("metadata_filter.filters", "context_window.filters")
    if settings.has_language_model:
        _add_language_model(pipeline, settings)
    else:
        _add_extractive(pipeline, settings, model)
    return pipeline


def build_search_pipeline(
    settings: Settings, *, model: EmbeddingModel | None = None, scope: str | dict[str, Any] | None = None
) -> Pipeline:
    """
    The first half of it, which finds documents; `ranked_by` names the component that gives them.

    :param settings: Which database, and which of the rankers that are off by default.
    :param model: The embedding model; `None` means the registry's active one.
    :param scope: A filter that no caller can leave.
    """
    model = model or question_model(settings)
    store = document_store(settings, model)
    pipeline = Pipeline()
    generator = _language_model(settings) if settings.has_language_model else None
    pipeline.add_component("rewriter", QuestionRewriter(generator))
    pipeline.add_component("embedder", text_embedder(settings, model))
    pipeline.add_component("metadata_filter", MetadataFilter(scope, document_store=store))
    pipeline.add_component("retriever", _retriever(settings, store))
    pipeline.connect("rewriter.question", "embedder.text")
    pipeline.connect("rewriter.question", "retriever.query")
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("metadata_filter.filters", "retriever.filters")
    _add_rankers(pipeline, settings, model)
    return pipeline


def ranked_by(pipeline: Pipeline) -> str:
    """The component of a pipeline that says which documents were found, in which order."""
    return next(name for name in ("diversity", "reranker", "retriever") if name in pipeline.graph.nodes)


def ranking(settings: Settings) -> dict[str, float] | None:
    """The parameters of the store's ranking that the settings name; `None` where they name none."""
    named = {
        "k1": settings.bm25_k1,
        "b": settings.bm25_b,
        "keyword_weight": settings.keyword_weight,
        "candidates": settings.search_candidates,
    }
    return {name: value for name, value in named.items() if value is not None} or None


def question_model(settings: Settings) -> EmbeddingModel:
    """The embedding model that questions go to: the settings' or else the active one, on the settings' table if any."""
    model = chosen_model(open_database(settings), settings.embedding_model)
    return replace(model, table_name=settings.table_name) if settings.table_name else model


def document_store(settings: Settings, model: EmbeddingModel) -> SynapseDocumentStore:
    """
    The store of a model's documents, which reads from the standby where the settings name one.

    It can be saved unless a connection string was given in code.
    """
    if settings.database_url and not settings.from_environment:
        secret = Secret.from_token(settings.database_url)
    else:
        # Settings made in code without a URL mean the embedded server, whatever stands in the environment.
        names = ["DATABASE_URL"] if settings.from_environment else ["SYNAPSE_EMBEDDED_DATABASE_URL"]
        secret = Secret.from_env_var(names, strict=False)
    standby = None
    if settings.database_read_url and settings.from_environment:
        standby = Secret.from_env_var("DATABASE_READ_URL", strict=False)
    elif settings.database_read_url:
        standby = Secret.from_token(settings.database_read_url)
    return SynapseDocumentStore(
        connection_string=secret,
        read_connection_string=standby,
        max_lag=settings.database_max_lag_seconds,
        schema_name=schema_of(settings.tenant),
        table_name=model.table_name,
        language=model.language,
        embedding_dimension=model.dimension,
        vector_type="halfvec" if model.vector_type == "halfvec" else "vector",
        hnsw_ef_search=settings.ef_search,
        ranking=ranking(settings),
        home=str(settings.home),
    )


def _retriever(settings: Settings, store: SynapseDocumentStore) -> HybridRetriever:
    candidates = None
    if settings.rerank_model:
        candidates = settings.rerank_top_k
    elif settings.diversity:
        candidates = DIVERSITY_CANDIDATES
    return HybridRetriever(store, top_k=settings.top_k, candidates=candidates, feedback=settings.feedback)


def _add_rankers(pipeline: Pipeline, settings: Settings, model: EmbeddingModel) -> None:
    if settings.rerank_model:
        from components.reranker import Reranker

        # With diversity behind it, it passes on all that it reads.
        pipeline.add_component("reranker", Reranker(model=settings.rerank_model, top_k=MOST_DOCUMENTS))
        pipeline.connect("rewriter.question", "reranker.query")
        pipeline.connect("retriever.documents", "reranker.documents")
    if settings.diversity:
        store = document_store(settings, model)
        diversity = MaximalMarginalRelevance(store, diversity=settings.diversity, top_k=settings.top_k)
        pipeline.add_component("diversity", diversity)
        pipeline.connect("embedder.embedding", "diversity.query_embedding")
        pipeline.connect(f"{'reranker' if settings.rerank_model else 'retriever'}.documents", "diversity.documents")
    last = ranked_by(pipeline)
    if last != "retriever":
        pipeline.connect("retriever.top_k", f"{last}.top_k")


def _add_extractive(pipeline: Pipeline, settings: Settings, model: EmbeddingModel) -> None:
    answerer = ExtractiveAnswerer(model=model.model, compute_precision=settings.embedding_precision, **remote(settings))
    pipeline.add_component("answerer", answerer)
    pipeline.connect("rewriter.question", "answerer.question")
    pipeline.connect("embedder.embedding", "answerer.question_embedding")
    pipeline.connect(f"{_context(pipeline)}.documents", "answerer.documents")
    pipeline.connect("answerer.answer", "answer.value")


def _add_language_model(pipeline: Pipeline, settings: Settings) -> None:
    pipeline.add_component("prompt_builder", AnswerPromptBuilder(prompt_tokens=settings.prompt_tokens))
    pipeline.add_component("llm", _language_model(settings))
    pipeline.add_component("citations", CitationChecker())
    pipeline.connect("rewriter.question", "prompt_builder.question")
    pipeline.connect(f"{_context(pipeline)}.documents", "prompt_builder.documents")
    pipeline.connect("prompt_builder.messages", "llm.messages")
    pipeline.connect("llm.replies", "citations.replies")
    pipeline.connect("prompt_builder.documents", "citations.documents")
    pipeline.connect("citations.answer", "answer.value")


def _context(pipeline: Pipeline) -> str:
    return "context_window" if "context_window" in pipeline.graph.nodes else "gate"


def _language_model(settings: Settings) -> Any:
    from components.language_model import LanguageModel  # openai takes a second to import

    key = None
    if settings.from_environment:
        key = Secret.from_env_var("OPENAI_API_KEY", strict=False)
    elif settings.llm_api_key:
        key = Secret.from_token(settings.llm_api_key)
    return LanguageModel(
        api_key=key, model=settings.llm_model, api_base_url=settings.llm_base_url, timeout=settings.llm_timeout
    )
