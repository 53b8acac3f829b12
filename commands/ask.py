"""`ask`: an answer with its sources. Exit code 0 also when the documents have no answer: `supported` says so."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from commands.output import JsonFlag, errors_reported, print_json, say

if TYPE_CHECKING:
    from components.answers import Answer
    from config import Settings

FilterOption = Annotated[
    str | None,
    typer.Option("--filter", help="Only documents whose metadata match, e.g. 'language == \"en\" and year >= 2024'."),
]
TopKOption = Annotated[
    int | None,
    typer.Option("--top-k", min=1, max=1000, help="How many documents to look at; SYNAPSE_TOP_K by default."),
]
NoLlmFlag = Annotated[bool, typer.Option("--no-llm", help="Quote the documents, whether or not a model is configured.")]


def ask(
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One question, or several.")],
    filter_: FilterOption = None,
    top_k: TopKOption = None,
    no_llm: NoLlmFlag = False,
    json_: JsonFlag = False,
) -> None:
    """Answer questions from the indexed documents, with citations."""
    with errors_reported(json_):
        check_filter(filter_)
        from config import Settings
        from pipelines.answering import Assistant

        assistant = Assistant(without_language_model(Settings.from_env(), no_llm))
        answers = []
        for number, question in enumerate(questions):
            if not json_ and len(questions) > 1:
                say(f"{'' if number == 0 else chr(10)}> {question}")
            answer = assistant.ask(question, filters=filter_, top_k=top_k)
            answers.append(answer)
            if not json_:
                say(answer_text(answer))
        if json_:
            found = [answer.to_dict() for answer in answers]
            print_json(found[0] if len(found) == 1 else {"answers": found})


def check_filter(expression: str | None) -> None:
    """Refuse a malformed expression at once, not after seconds of loading."""
    if expression and not expression.lstrip().startswith("{"):
        from components.filter_expression import parse_expression

        parse_expression(expression)


def without_language_model(settings: Settings, wanted: bool) -> Settings:
    """The settings, without a language model if that is wanted."""
    return replace(settings, llm_base_url=None, llm_api_key=None) if wanted else settings


def answer_text(answer: Answer) -> str:
    """An answer for people: the text, what kind it is, and its sources."""
    return "\n".join([answer.text, *sources_lines(answer)])


def sources_lines(answer: Answer) -> list[str]:
    """What stands below an answer's text."""
    lines = []
    if answer.supported and answer.extractive:
        lines.append(dim("(sentences of the documents; no language model)"))
    if answer.unsupported:
        lines.append(dim(f"({len(answer.unsupported)} sentence(s) without support in the documents are marked)"))
    if answer.citations:
        lines += ["", "Sources"]
    for citation in answer.citations:
        place = [f"page {citation.page}" if citation.page else "", citation.heading or ""]
        where = ", ".join(part for part in place if part)
        lines.append(f"  [{citation.number}] {citation.source}{f' ({where})' if where else ''}")
        lines.append(dim(f"      “{shortened(citation.quote)}”"))
    return lines


def shortened(text: str, length: int = 160) -> str:
    """A text on one line, cut where it gets long."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length].rsplit(' ', 1)[0]} …"


def dim(text: str) -> str:
    """Less bright on a terminal; plain elsewhere."""
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text
