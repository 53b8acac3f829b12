"""
A Haystack agent whose model decides when to look into the documents: the query pipeline is its tool.

    LLM_BASE_URL=http://localhost:11434/v1 LLM_MODEL=qwen3 python -m examples.haystack_agent
"""

import sys

from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage
from haystack.tools import PipelineTool
from haystack.utils import Secret

from components.answers import Answer
from components.language_model import LanguageModel
from config import Settings
from pipelines.query import build_query_pipeline

QUESTION = "We are 15 people. How long will our visit of the observatory take, and may the dog come, too?"


def as_text(answer: Answer) -> str:
    """What the agent's model reads: the answer, and the sentences that it rests on."""
    quotes = [f"[{citation.number}] {citation.source}: {citation.quote}" for citation in answer.citations]
    return "\n".join([answer.text, *quotes])


def documents_tool(settings: Settings) -> PipelineTool:
    """The query pipeline, of which the model sees a question and an answer, and nothing else."""
    return PipelineTool(
        build_query_pipeline(settings),
        name="ask_documents",
        description="Answers one question from the observatory's documents, with citations.",
        input_mapping={"question": ["rewriter.question"]},
        output_mapping={"answer.value": "answer"},
        outputs_to_string={"source": "answer", "handler": as_text},
    )


def main() -> None:
    """Let the agent answer; it may ask the documents several times."""
    settings = Settings.from_env()
    if not settings.has_language_model:
        sys.exit("An agent needs a language model that can call tools: set LLM_BASE_URL or OPENAI_API_KEY.")
    key = Secret.from_env_var("OPENAI_API_KEY", strict=False)
    model = LanguageModel(api_key=key, api_base_url=settings.llm_base_url, model=settings.llm_model)
    agent = Agent(
        chat_generator=model,
        tools=[documents_tool(settings)],
        system_prompt="Answer from the documents alone; ask them one thing at a time. Keep the citations.",
        max_agent_steps=6,
    )
    result = agent.run([ChatMessage.from_user(QUESTION)])
    for message in result["messages"]:
        for call in message.tool_calls:
            print(f"{call.tool_name}: {call.arguments['question']}")
    print(result["last_message"].text)


if __name__ == "__main__":
    main()
