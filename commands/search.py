"""`search`: the documents themselves, whether or not they answer anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands.ask import FilterOption, TopKOption, check_filter, dim, shortened, without_language_model
from commands.output import JsonFlag, errors_reported, print_json, say

if TYPE_CHECKING:
    from haystack import Document


def search(
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    filter_: FilterOption = None,
    top_k: TopKOption = None,
    json_: JsonFlag = False,
) -> None:
    """Find documents by meaning and by words, best first."""
    with errors_reported(json_):
        check_filter(filter_)
        from components.answers import document_to_dict
        from config import Settings
        from pipelines.answering import Assistant

        settings = without_language_model(Settings.from_env(), True)
        found = Assistant(settings).search(query, filters=filter_, top_k=top_k)
        if json_:
            documents = [document_to_dict(document) for document in found.documents]
            print_json({"documents": documents, "timings_ms": found.timings_ms})
            return
        for number, document in enumerate(found.documents, start=1):
            say(f"{number:>3}. {place(document)}  {dim(f'{document.score or 0:.2f}')}")
            say(f"     {shortened(document.content or '')}")
        count = len(found.documents)
        say(f"{count} document{'' if count == 1 else 's'} in {found.timings_ms['total']:.0f} ms.")


def place(document: Document) -> str:
    """Where a document stands: source, page, heading."""
    meta = document.meta
    parts = [f"page {meta['page']}" if meta.get("page") else "", str(meta.get("heading") or "")]
    where = ", ".join(part for part in parts if part)
    return f"{meta.get('source') or document.id}{f' ({where})' if where else ''}"
