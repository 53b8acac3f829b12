"""`search`: the documents themselves, whether or not they answer anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands.ask import FilterOption, TopKOption, check_filter, dim, shortened, without_language_model
from commands.output import JsonFlag, errors_reported, print_json, say

if TYPE_CHECKING:
    from haystack import Document

    from database.search_plan import SearchPlan


def search(
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    filter_: FilterOption = None,
    top_k: TopKOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell how the search went: ways, rows looked at, time, plan.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Find documents by meaning and by words, best first."""
    with errors_reported(json_):
        check_filter(filter_)
        from components.answers import document_to_dict
        from config import Settings
        from pipelines.answering import Assistant

        settings = without_language_model(Settings.from_env(), True)
        assistant = Assistant(settings)
        found = assistant.search(query, filters=filter_, top_k=top_k)
        plan = assistant.explain(query, filters=filter_, top_k=top_k) if explain else None
        if json_:
            documents = [document_to_dict(document) for document in found.documents]
            said = {"explain": plan.to_dict()} if plan else {}
            print_json({"documents": documents, "timings_ms": found.timings_ms, **said})
            return
        for number, document in enumerate(found.documents, start=1):
            say(f"{number:>3}. {place(document)}  {dim(f'{document.score or 0:.2f}')}")
            say(f"     {shortened(document.content or '')}")
        count = len(found.documents)
        say(f"{count} document{'' if count == 1 else 's'} in {found.timings_ms['total']:.0f} ms.")
        if plan:
            show_plan(plan)


def show_plan(plan: SearchPlan) -> None:
    """How a search went, a line per leg, then PostgreSQL's plan."""
    from database.search_queries import CHEAP

    say("")
    for name, leg in (("By meaning", plan.dense), ("By words", plan.keyword)):
        say(f"{name}: {leg.way}.")
        say(f"    {leg.looked_at:,} rows looked at, {leg.proposed} documents proposed, {leg.ms:.1f} ms")
    say(f"Together: {plan.candidates} documents scored by both, {plan.execution_ms:.1f} ms with both legs.")
    say(f"Planning: {plan.planning_ms:.1f} ms.")
    if plan.exact_cost is not None:
        way = "cheap, so it is done" if plan.exact_cost <= CHEAP else "dear, so the index comes first"
        say(f"Comparing every document that passes the filter would cost {plan.exact_cost:,.0f}: {way}.")
    say("")
    for line in plan.plan:
        say(dim(line))


def place(document: Document) -> str:
    """Where a document stands: source, page, heading."""
    meta = document.meta
    parts = [f"page {meta['page']}" if meta.get("page") else "", str(meta.get("heading") or "")]
    where = ", ".join(part for part in parts if part)
    return f"{meta.get('source') or document.id}{f' ({where})' if where else ''}"
