"""
Answers in a web application of one's own: FastAPI sends each part as it is written, as a server-sent event.

    uvicorn examples.fastapi_streaming:app --port 8001
    curl --no-buffer --get http://127.0.0.1:8001/ask --data-urlencode "question=How long does a group visit last?"

Who may ask is for the application to say; nobody is asked for a key here. `python synapse.py serve` does it all.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from components.answers import Answer
from config import Settings
from database.errors import SynapseError
from pipelines.answering import Assistant


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One assistant for all requests: it keeps the models loaded and shares the connections."""
    app.state.assistant = Assistant(Settings.from_env())
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
async def ask(request: Request, question: str, filters: str | None = None) -> StreamingResponse:
    """Stream an answer: events `text`, then one `answer` with the citations, or one `error`."""
    return StreamingResponse(_events(request.app.state.assistant, question, filters), media_type="text/event-stream")


async def _events(assistant: Assistant, question: str, filters: str | None) -> AsyncIterator[str]:
    try:
        async for part in assistant.stream(question, filters=filters):  # a client that leaves stops the model, too
            if isinstance(part, Answer):
                citations = [citation.to_dict() for citation in part.citations]
                yield _event("answer", {"text": part.text, "citations": citations})
            else:
                yield _event("text", part)
    except SynapseError as exc:
        yield _event("error", exc.message)


def _event(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
