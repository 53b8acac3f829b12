"""`POST /ask` and `POST /search`: what the wrappers do, over plain JSON."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from serving.hayhooks_host import SPAN_PIPELINE_RUN, BasePipelineWrapper, trace_operation
from serving.routes.forms import AskBody, AskForm, SearchBody, SearchForm, errors

ANSWERING, SEARCHING = "synapse", "search"
"""Names of the pipelines; the first is also what OpenAI's clients know as the model."""

router = APIRouter(tags=["questions"])


@router.post("/ask", response_model=AskBody, responses=errors(404, 502), summary="Answer a question")
async def ask(form: AskForm, request: Request) -> Any:
    """Answer a question from the documents, and store both in a conversation."""
    wrapper = pipeline(request, ANSWERING)
    with trace_operation(SPAN_PIPELINE_RUN, tags={"hayhooks.pipeline.name": ANSWERING}):
        return await wrapper.run_api_async(
            question=form.question,
            filters=form.filters,
            top_k=form.top_k,
            session_id=form.session_id and str(form.session_id),
        )


@router.post("/search", response_model=SearchBody, responses=errors(), summary="Find passages")
async def search(form: SearchForm, request: Request) -> Any:
    """Find passages, whether or not they answer the question. Nothing is stored."""
    wrapper = pipeline(request, SEARCHING)
    with trace_operation(SPAN_PIPELINE_RUN, tags={"hayhooks.pipeline.name": SEARCHING}):
        return await wrapper.run_api_async(question=form.question, filters=form.filters, top_k=form.top_k)


def pipeline(request: Request, name: str) -> BasePipelineWrapper:
    """A pipeline of the app's registry."""
    wrapper: BasePipelineWrapper = request.app.state.pipeline_registry.get(name)
    return wrapper
