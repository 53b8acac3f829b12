"""The bodies of the REST routes, as OpenAPI describes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

FILTERS = Field(
    default=None,
    description="Only documents whose metadata match: an expression, or a filter in Haystack's form.",
    examples=['language == "en" and year >= 2024'],
)
TOP_K = Field(default=None, description="How many documents; by default as the service is set up.", examples=[5], ge=1)


class _Form(BaseModel):
    """What a client sends: an unknown field is an error, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid")


class SearchForm(_Form):
    """What to look for."""

    question: str = Field(description="What to look for.", examples=["How long is the warranty?"], min_length=1)
    filters: str | dict[str, Any] | None = FILTERS
    top_k: int | None = TOP_K


class AskForm(SearchForm):
    """What to answer."""

    question: str = Field(
        description="The question; in a conversation it may be a follow-up.",
        examples=["How long is the warranty?"],
        min_length=1,
    )
    session_id: UUID | None = Field(default=None, description="The conversation that it continues.")


class FoundDocument(BaseModel):
    """A passage."""

    id: str
    score: float | None = Field(description="Higher is better; comparable within one answer alone.")
    content: str | None
    meta: dict[str, Any]


class CitationBody(BaseModel):
    """Where a statement stands."""

    number: int = Field(description="The mark in the text, as in [1].")
    source: str
    page: int | None = Field(description="From 1; null where there are no pages.")
    heading: str | None
    quote: str = Field(description="Verbatim text of the source.")
    span: Annotated[list[int], Field(min_length=2, max_length=2, description="Start and end in the converted text.")]
    document_id: str


class SearchBody(BaseModel):
    """What was found."""

    documents: list[FoundDocument] = Field(description="Best first.")
    timings_ms: dict[str, float]


class Usage(BaseModel):
    """Tokens of the language model; 0 where none was asked."""

    tokens_in: int
    tokens_out: int


class AskBody(BaseModel):
    """An answer with what it rests on."""

    answer: str = Field(description="With marks such as [1], which refer to the citations.")
    supported: bool = Field(description="Whether the documents answer the question.")
    extractive: bool = Field(description="Whether the text is quoted from the documents, no language model involved.")
    citations: list[CitationBody]
    documents: list[FoundDocument] = Field(description="What the answer was made from, best first.")
    unsupported: list[str] = Field(description="Sentences of the answer that cite nothing that was found.")
    timings_ms: dict[str, float]
    session_id: UUID
    message_id: UUID | None = Field(description="The stored answer, for feedback.")
    usage: Usage


class SourceBody(BaseModel):
    """A source in the index."""

    source: str
    title: str | None
    mime_type: str | None
    chunks: int
    size: int
    reason: str | None = Field(description="Why it is kept out; null means that it is indexed.")
    indexed_at: datetime


class SourcesBody(BaseModel):
    """A page of sources, by name."""

    sources: list[SourceBody]
    next_after: str | None = Field(description="The `after` of the next page; null on the last one.")


class RemovedBody(BaseModel):
    """What is gone."""

    source: str
    chunks: int
    file_removed: bool = Field(description="Whether an uploaded file was deleted, too; others are not the service's.")


class FailedFile(BaseModel):
    """A file that is kept out."""

    name: str
    reason: str


class JobBody(BaseModel):
    """An upload that is being indexed."""

    id: UUID
    stage: Literal["queued", "indexing", "waiting", "done", "failed"] = Field(
        description="`waiting`: the database is away, and it will go on by itself."
    )
    done: int = Field(description="Files that are through, also those that are kept out.")
    total: int
    chunks: int = Field(description="Chunks written so far.")
    sources: list[str] = Field(description="The names under which the files are, or will be, in the index.")
    failed: list[FailedFile]
    created_at: datetime
    ended_at: datetime | None


class FieldBody(BaseModel):
    """A metadata field that a filter can name."""

    field: str
    types: list[str]
    documents: int = Field(description="Chunks that have it.")
    different: int = Field(description="How many different values there are.")
    examples: list[Any] = Field(description="Some of the most frequent values.")


class FieldsBody(BaseModel):
    """The fields that occur."""

    fields: list[FieldBody]


class ConversationBody(BaseModel):
    """A conversation of the caller's."""

    id: UUID
    title: str
    message_count: int
    created_at: datetime
    updated_at: datetime


class ConversationsBody(BaseModel):
    """A page of conversations, the latest first."""

    conversations: list[ConversationBody]
    next_before: UUID | None = Field(description="The `before` of the next page; null on the last one.")


class FeedbackBody(BaseModel):
    """What somebody thought of an answer."""

    mark: Literal[1, -1] = Field(description="1 is good, -1 is bad.")
    comment: str | None


class MessageBody(BaseModel):
    """A message of a conversation."""

    id: UUID
    role: Literal["user", "assistant"]
    content: str
    citations: list[CitationBody]
    model: str | None = Field(description="The language model that wrote it; null where none did.")
    supported: bool | None = Field(description="Whether the documents answered; null for questions.")
    interrupted: bool = Field(description="Whether whoever asked left before its end.")
    created_at: datetime
    feedback: FeedbackBody | None


class TranscriptBody(ConversationBody):
    """A conversation with its messages, oldest first."""

    messages: list[MessageBody]


class FeedbackForm(_Form):
    """What somebody thought of an answer."""

    mark: Literal[1, -1] = Field(description="1 is good, -1 is bad.")
    comment: str | None = Field(default=None, max_length=4000)


class ErrorDetail(BaseModel):
    """What was expected, what was found, what to do."""

    code: str = Field(examples=["invalid_input"])
    message: str
    hint: str
    request_id: str | None


class ErrorBody(BaseModel):
    """The form of every error."""

    error: ErrorDetail


class OpenAIErrorDetail(BaseModel):
    """An error, as OpenAI's clients know it."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str | None = None


class OpenAIErrorBody(BaseModel):
    """The form of every error below /v1."""

    error: OpenAIErrorDetail


_WHAT = {
    400: "Something in the request cannot be used, such as a filter.",
    401: "No API key, or one that is not known.",
    404: "There is no such thing, or it is somebody else's.",
    409: "It is there already.",
    413: "The request is too large.",
    415: "A file of a kind that is not indexed.",
    422: "The request does not have the form that is described here.",
    429: "Too many requests, or too many tokens today; Retry-After says when to come back.",
    500: "An error that was not expected.",
    502: "The language model's server failed.",
    503: "Something behind the service is away, or it is full; Retry-After says when to come back.",
    504: "It took too long.",
    507: "The service has no room for the files.",
}
_EVERYWHERE = (400, 401, 413, 422, 429, 500, 503, 504)


def errors(*statuses: int, openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """
    The error answers of a route.

    :param statuses: Besides those that every route may give.
    :param openai: Whether they take OpenAI's form.
    """
    model = OpenAIErrorBody if openai else ErrorBody
    return {status: {"model": model, "description": _WHAT[status]} for status in sorted({*_EVERYWHERE, *statuses})}
