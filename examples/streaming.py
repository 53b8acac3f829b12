"""
Show an answer while it is written: by a callback, and by an async iterator.

    python -m examples.streaming

With a language model (LLM_BASE_URL or OPENAI_API_KEY) it comes word by word; sentences of the documents come at once.
"""

import asyncio

from components.answers import Answer
from config import Settings
from pipelines.answering import Assistant

QUESTION = "How can a visit that is cancelled because of the weather be moved?"


def show(part: str) -> None:
    """Called with each part of the answer."""
    print(part, end="", flush=True)


async def iterate(assistant: Assistant) -> Answer | None:
    """The same in asyncio; leaving the loop early would stop the model."""
    answer = None
    async for part in assistant.stream(QUESTION):
        if isinstance(part, Answer):
            answer = part  # the last one: the whole answer, its citations checked
        else:
            print(part, end="", flush=True)
    return answer


def main() -> None:
    """Ask the same question in both ways."""
    assistant = Assistant(Settings.from_env())
    answer = assistant.ask(QUESTION, on_text=show)
    print(f"\n  {len(answer.citations)} citation(s)")

    found = asyncio.run(iterate(assistant))
    print(f"\n  {len(found.citations) if found else 0} citation(s)")


if __name__ == "__main__":
    main()
