"""Every setting, every default, and the only place that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dotenv import load_dotenv

from components.embedding_precision import Precision, checked_precision
from database.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parent

_RANGES = {
    "ef_search": (1, 1000),
    "search_candidates": (1, 1000),
    "keyword_weight": (0, 1),
    "bm25_k1": (0, 10),
    "bm25_b": (0, 1),
    "feedback": (0, 100),
    "rerank_top_k": (1, 1000),
    "diversity": (0, 1),
    "context_window": (0, 10),
    "serve_port": (0, 65535),
    "max_body_bytes": (1, 2**40),
    "max_question_chars": (1, 2**31),
    "max_top_k": (1, 1000),
    "max_concurrent": (1, 100_000),
    "requests_per_minute": (1, 2**31),
    "daily_tokens": (0, 2**62),
    "drain_seconds": (0, 3600),
}

_QUIET = {"HAYSTACK_TELEMETRY_ENABLED": "False", "TOKENIZERS_PARALLELISM": "false", "RAY_USAGE_STATS_ENABLED": "0"}
"""What libraries read, where nobody has set it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    What one run of Synapse works with. Immutable; `repr` shows no secrets.

    :param home: Folder of the embedded server and of what else the program keeps on disk.
    :param database_url: Any libpq connection string of the application role; `None` means the embedded server.
    :param database_owner_url: The owner of the schema, for upgrades; `None` means `database_url`.
    :param database_read_url: A standby of `database_url`, which searches are read from; `None` means none.
    :param database_max_lag_seconds: How far what is read there may be behind, above 0.
    :param from_environment: Whether the secrets stand in the environment, so that pipelines can be saved without them.
    :param embedding_model: A registered model, for indexing and asking; `None` means the registry's active one.
    :param embedding_batch_size: Chunks per call of the model, at least 1.
    :param embedding_precision: What the model computes in: `auto`, `fp32`, `bf16` or `fp16`.
    :param embedding_base_url: An OpenAI-compatible server that embeds; `None` means a model in this process.
    :param embedding_api_key: Its key; local servers need none.
    :param embedding_timeout: Seconds until an embedding that has not come is given up, above 0.
    :param table_name: Documents table; `None` means the table of the registry's active model.
    :param top_k: Documents that an answer is made from, at least 1.
    :param ef_search: Candidate list of an HNSW search, 1 to 1000; raised to `top_k` where that is larger.
    :param language: PostgreSQL text search configuration of the keyword leg.
    :param search_candidates: Documents that each leg of a search proposes, 1 to 1000; `None` means the store's default.
    :param keyword_weight: Share of the words in a document's score, 0 to 1; likewise.
    :param bm25_k1: BM25's saturation of repeated words, 0 to 10; likewise.
    :param bm25_b: BM25's allowance for a document's length, 0 to 1; likewise.
    :param feedback: Documents whose embeddings expand the question, 0 to 100; 0 means none.
    :param rerank_model: A cross-encoder that orders what was found; `None` means none.
    :param rerank_top_k: Documents that the cross-encoder reads, 1 to 1000.
    :param diversity: How much what repeats better documents is put back, 0 to 1; 0 means not at all.
    :param context_window: Neighbouring chunks on either side that an answer is made from too, 0 to 10.
    :param llm_base_url: An OpenAI-compatible server; `None` with a key means OpenAI's own.
    :param llm_model: Name of the language model on that server.
    :param llm_api_key: Its key; local servers need none.
    :param llm_timeout: Seconds until an answer that has not come is given up, above 0.
    :param prompt_tokens: Budget of the prompt, in tokens, at least 256.
    :param conversion_timeout: Seconds that one file's conversion may take, above 0.
    :param max_file_bytes: Larger files are quarantined.
    :param chroma_token: Token of a Chroma server that is migrated.
    :param qdrant_api_key: Key of a Qdrant server that is migrated.
    :param tenant: Whose documents and conversations; the name of a tenant of `tenants list`.
    :param serve_host: Address that the service listens on.
    :param serve_port: Its port; 0 means a free one.
    :param public_url: The service's address as its users see it, behind a proxy; `None` means as it is asked for.
    :param cors_origins: Web origins, separated by commas, that may call the API from a browser; `None` means none.
    :param max_body_bytes: Larger requests are refused, uploads excepted, whose limit is `max_file_bytes`.
    :param max_question_chars: Longer questions are refused, at least 1.
    :param max_top_k: The largest `top_k` that a request may ask for, 1 to 1000.
    :param max_concurrent: Requests that are worked on at once; more are told to come back, at least 1.
    :param requests_per_minute: Requests of one key or user per minute, at least 1; `None` means no limit.
    :param daily_tokens: Tokens of the language model that one key or user may use per day (UTC); `None` means no limit.
    :param request_timeout: Seconds until a request that is not done is given up, above 0.
    :param drain_seconds: Seconds that running requests have to end when the service stops, at least 0.
    :param page_secret: Signs the page's sessions; `None` means one that is made and kept in `home`.
    :param otlp_endpoint: OpenTelemetry collector that traces are sent to, by HTTP; `None` means none.
    :param telemetry: Whether Haystack may send usage data.
    """

    home: Path = PROJECT / ".synapse"
    database_url: str | None = field(default=None, repr=False)
    database_owner_url: str | None = field(default=None, repr=False)
    database_read_url: str | None = field(default=None, repr=False)
    database_max_lag_seconds: float = 5.0
    from_environment: bool = False
    embedding_model: str | None = None
    embedding_batch_size: int = 32
    embedding_precision: Precision = "auto"
    embedding_base_url: str | None = None
    embedding_api_key: str | None = field(default=None, repr=False)
    embedding_timeout: float = 30.0
    table_name: str | None = None
    top_k: int = 10
    ef_search: int = 200
    language: str = "english"
    search_candidates: int | None = None
    keyword_weight: float | None = None
    bm25_k1: float | None = None
    bm25_b: float | None = None
    feedback: int = 0
    rerank_model: str | None = None
    rerank_top_k: int = 30
    diversity: float = 0.0
    context_window: int = 0
    llm_base_url: str | None = None
    llm_model: str = "gpt-4o-mini"
    llm_api_key: str | None = field(default=None, repr=False)
    llm_timeout: float = 60.0
    prompt_tokens: int = 3000
    conversion_timeout: float = 60.0
    max_file_bytes: int = 100 * 1024 * 1024
    chroma_token: str | None = field(default=None, repr=False)
    qdrant_api_key: str | None = field(default=None, repr=False)
    tenant: str = "default"
    serve_host: str = "127.0.0.1"
    serve_port: int = 8000
    public_url: str | None = None
    cors_origins: str | None = None
    max_body_bytes: int = 1024 * 1024
    max_question_chars: int = 4000
    max_top_k: int = 50
    max_concurrent: int = 64
    requests_per_minute: int | None = 120
    daily_tokens: int | None = None
    request_timeout: float = 120.0
    drain_seconds: float = 30.0
    page_secret: str | None = field(default=None, repr=False)
    otlp_endpoint: str | None = None
    telemetry: bool = False

    def __post_init__(self) -> None:
        for name, least in (("embedding_batch_size", 1), ("top_k", 1), ("prompt_tokens", 256), ("max_file_bytes", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} must be at least {least}, but is {getattr(self, name)}.")
        for name in (
            "llm_timeout",
            "embedding_timeout",
            "conversion_timeout",
            "request_timeout",
            "database_max_lag_seconds",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} must be a number of seconds above 0, but is {getattr(self, name)}.")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigurationError(f"{name} must be between {low} and {high}, but is {value}.")
        checked_precision(self.embedding_precision)

    @property
    def has_language_model(self) -> bool:
        """Whether a language model is configured; without one, answers are extractive."""
        return bool(self.llm_base_url or self.llm_api_key)

    @classmethod
    def from_env(cls, env_file: str | os.PathLike[str] | None = None) -> Settings:
        """
        Read the environment, after `.env` has been added to it where it exists.

        Variables that are set win over `.env`; an empty variable counts as not set. A secret may stand in a file, as
        Docker's and Kubernetes' secrets do: `DATABASE_URL_FILE=/run/secrets/database_url`.

        :param env_file: The file to read; `None` means the `.env` beside this module.
        :raises ConfigurationError: If a variable has a value that cannot be used; the message names it.
        """
        load_dotenv(env_file or PROJECT / ".env")
        for variable, quiet in _QUIET.items():
            os.environ[variable] = os.environ.get(variable) or quiet
        for variable in SECRETS:
            _read_secret(variable)
        given = {name: os.environ[variable] for name, variable in VARIABLES.items() if os.environ.get(variable)}
        values = {name: _converted(name, text) for name, text in given.items()}
        return cls(from_environment=True, **values)


VARIABLES = {
    "home": "SYNAPSE_HOME",
    "database_url": "DATABASE_URL",
    "database_owner_url": "DATABASE_OWNER_URL",
    "database_read_url": "DATABASE_READ_URL",
    "database_max_lag_seconds": "DATABASE_MAX_LAG_SECONDS",
    "embedding_model": "EMBEDDING_MODEL",
    "embedding_batch_size": "EMBEDDING_BATCH_SIZE",
    "embedding_precision": "EMBEDDING_PRECISION",
    "embedding_base_url": "EMBEDDING_BASE_URL",
    "embedding_api_key": "EMBEDDING_API_KEY",
    "embedding_timeout": "EMBEDDING_TIMEOUT",
    "table_name": "SYNAPSE_TABLE",
    "top_k": "SYNAPSE_TOP_K",
    "ef_search": "HNSW_EF_SEARCH",
    "language": "SYNAPSE_LANGUAGE",
    "search_candidates": "SEARCH_CANDIDATES",
    "keyword_weight": "KEYWORD_WEIGHT",
    "bm25_k1": "BM25_K1",
    "bm25_b": "BM25_B",
    "feedback": "FEEDBACK",
    "rerank_model": "RERANK_MODEL",
    "rerank_top_k": "RERANK_TOP_K",
    "diversity": "DIVERSITY",
    "context_window": "CONTEXT_WINDOW",
    "llm_base_url": "LLM_BASE_URL",
    "llm_model": "LLM_MODEL",
    "llm_api_key": "OPENAI_API_KEY",
    "llm_timeout": "LLM_TIMEOUT",
    "prompt_tokens": "SYNAPSE_PROMPT_TOKENS",
    "conversion_timeout": "SYNAPSE_CONVERSION_TIMEOUT",
    "max_file_bytes": "SYNAPSE_MAX_FILE_BYTES",
    "chroma_token": "CHROMA_TOKEN",
    "qdrant_api_key": "QDRANT_API_KEY",
    "tenant": "SYNAPSE_TENANT",
    "serve_host": "SERVE_HOST",
    "serve_port": "SERVE_PORT",
    "public_url": "SERVE_PUBLIC_URL",
    "cors_origins": "SERVE_CORS_ORIGINS",
    "max_body_bytes": "SERVE_MAX_BODY_BYTES",
    "max_question_chars": "SERVE_MAX_QUESTION_CHARS",
    "max_top_k": "SERVE_MAX_TOP_K",
    "max_concurrent": "SERVE_MAX_CONCURRENT",
    "requests_per_minute": "SERVE_REQUESTS_PER_MINUTE",
    "daily_tokens": "SERVE_DAILY_TOKENS",
    "request_timeout": "SERVE_REQUEST_TIMEOUT",
    "drain_seconds": "SERVE_DRAIN_SECONDS",
    "page_secret": "SERVE_PAGE_SECRET",
    "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "telemetry": "HAYSTACK_TELEMETRY_ENABLED",
}
"""Setting to environment variable; `.env.example` describes each."""

SECRETS = tuple(VARIABLES[f.name] for f in fields(Settings) if not f.repr)
"""Variables whose value may stand in a file instead, which `<variable>_FILE` names."""

_TYPES = {f.name: str(f.type) for f in fields(Settings)}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _read_secret(variable: str) -> None:
    """
    Put what the file of `<variable>_FILE` holds into the variable, without the line break that editors add.

    Into the environment, as pipelines that are saved name a variable there. The other is emptied, so that settings can be
    read again.
    """
    given = os.environ.get(f"{variable}_FILE")
    if not given:
        return
    if os.environ.get(variable):
        raise ConfigurationError(
            f"{variable} or {variable}_FILE was expected, but both are set.",
            hint="Unset one of them; empty counts as unset.",
        )
    path = Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(
            f"{variable}_FILE was expected to name a file that can be read, but {path} cannot: {reason}.",
            hint="Whoever runs the program must be able to read it; in a container, that is its user.",
        ) from None
    if not text.strip() or "\n" in text or "\0" in text:
        found = "has several lines" if text.strip() else "is empty"
        raise ConfigurationError(f"{variable}_FILE was expected to name a file with one line, but {path} {found}.")
    os.environ[variable], os.environ[f"{variable}_FILE"] = text, ""


def _converted(name: str, text: str) -> Any:
    kind = _TYPES[name].removesuffix(" | None")
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        raise ConfigurationError(f"{VARIABLES[name]} must be a number, but is {text!r}.") from None
    if kind == "bool":
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigurationError(f"{VARIABLES[name]} must be true or false, but is {text!r}.")
        return text.lower() in _TRUE
    if kind == "Path":
        return Path(text).expanduser().absolute()
    return text
