"""`recall`: the certificate of the index, from the user's own table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.output import JsonFlag, errors_reported, note, print_json, progress, say
from database.errors import BELOW_THRESHOLD, DatabaseError, InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from database.document_store import SynapseDocumentStore
    from database.index_recall import Filter, SampledTable
    from database.models import EmbeddingModel
    from evaluation.certificate import Certificate

SHARES = (0.5, 0.1, 0.01)
"""Automatic filters pass about so much of the table."""


def recall(
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Real questions, one a line, instead of made ones.")
    ] = None,
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", metavar="FILTER", help="Measure under this filter, too; repeatable.")
    ] = None,
    top_k: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many documents a search returns.")] = 10,
    sample: Annotated[int, typer.Option(metavar="N", min=1, help="How many queries, at most.")] = 400,
    seconds: Annotated[float, typer.Option(metavar="S", min=0, help="No query is begun later.")] = 60,
    at_least: Annotated[
        float | None, typer.Option(metavar="RECALL", min=0, max=1, help="Exit code 5 where the index returns less.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw recall against latency.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Compare what the index returns with exact search, on the documents that are there."""
    with errors_reported(json_):
        from components.metadata_filter import parse_filter
        from evaluation.plots import check_plot, plot_recall

        check_plot(plot)
        given = [(text, parse_filter(text)) for text in filter_ or []]
        questions = _questions(queries, most=sample) if queries else None

        from config import Settings
        from database.index_recall import SampledTable
        from database.metadata_fields import declared_fields
        from pipelines.query import document_store, question_model

        settings = Settings.from_env()
        model = question_model(settings)
        store = document_store(settings, model)
        table = SampledTable(store)
        made_of = "documents' embeddings with noise" if questions is None else f"{len(questions)} questions"
        vectors = _made(table, sample) if questions is None else _embedded(questions, model, settings)
        if not table.rows or not vectors:
            _say_empty(store, json_=json_)
            raise typer.Exit(BELOW_THRESHOLD if at_least is not None else 0)
        declared = {field.name for field in declared_fields(store.database, store.table_name)}
        filters: list[tuple[str, Filter | None, float]] = [("", None, 1.0), *_filters(table, given, declared)]
        certificate = _certified(
            store, table, vectors, filters=filters, settings=settings, top_k=top_k, target=at_least or 0.99,
            seconds=seconds, quiet=json_,
        )  # fmt: skip
        result = {"table": store.table_name, "queries_from": made_of, **certificate.to_dict()}
        _keep(store, certificate, result)
        if plot is not None:
            title = f"{store.table_name}, {certificate.rows:,} rows"
            plot_recall(result["groups"], plot, title=title, top_k=top_k)
        if json_:
            print_json(result)
        else:
            _print(result, certificate)
        if at_least is not None and certificate.worst[1].recall < at_least:
            raise typer.Exit(BELOW_THRESHOLD)


def _questions(path: Path, *, most: int) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InvalidInputError(f"Questions in UTF-8, one a line, were expected in {path}.") from None
    found = [line for line in lines if line]
    if not found:
        raise InvalidInputError(f"Questions, one a line, were expected in {path}, but it is empty.")
    return found[:most]


def _made(table: SampledTable, count: int) -> list[list[float]]:
    from evaluation.certificate import made_queries

    return made_queries(table.vectors(count))


def _embedded(questions: Sequence[str], model: EmbeddingModel, settings: Settings) -> list[list[float]]:
    from pipelines.embedding import text_embedder

    embedder = text_embedder(settings, model)
    embedder.warm_up()
    return [embedder.run(text=question)["embedding"] for question in questions]


def _filters(
    table: SampledTable, given: Sequence[tuple[str, Filter | None]], declared: set[str]
) -> list[tuple[str, Filter | None, float]]:
    """Those that were given, or else some that the metadata suggest, each with the share that passes."""
    from database.index_recall import frequent_filters

    found = [(text, filters) for text, filters in given if filters is not None]
    if not given:
        import json

        for one in frequent_filters(table.metadata(2000), shares=SHARES, declared=declared):
            value = json.dumps(one["value"], ensure_ascii=False)
            found.append((f"{one['field'].removeprefix('meta.')} == {value}", one))
    return [(text, filters, table.share(filters)) for text, filters in found]


def _certified(
    store: SynapseDocumentStore,
    table: SampledTable,
    vectors: Sequence[list[float]],
    *,
    filters: Sequence[tuple[str, Filter | None, float]],
    settings: Settings,
    top_k: int,
    target: float,
    seconds: float,
    quiet: bool,
) -> Certificate:
    from database.index_recall import answers, floor_ms
    from evaluation.certificate import EF_SEARCHES, EF_SEARCHES_FILTERED, certify

    def tried(filter_: Filter | None) -> list[int]:
        return sorted({*(EF_SEARCHES if filter_ is None else EF_SEARCHES_FILTERED), settings.ef_search})

    with progress(quiet=quiet) as bar:
        task = bar.add_task("Asking", total=len(vectors), detail="")
        found = answers(
            store,
            vectors,
            filters=[(one, tried(one)) for _, one, _ in filters],
            top_k=top_k,
            seconds=seconds,
            on_progress=lambda done: bar.update(task, completed=done),
        )
    return certify(
        found,
        filters=[(text, share) for text, _, share in filters],
        rows=table.rows,
        top_k=top_k,
        target=target,
        configured=settings.ef_search,
        floor_ms=floor_ms(store, vectors[:50]),
    )


def _keep(store: SynapseDocumentStore, certificate: Certificate, result: dict[str, Any]) -> None:
    """Keep the certificate for `doctor` and `status`; one that cannot be kept was measured all the same."""
    from database.certificates import save

    worst = certificate.worst[1]
    try:
        save(
            store.database,
            store.table_name,
            ef_search=certificate.configured,
            top_k=certificate.top_k,
            recall=worst.recall,
            lower=worst.interval[0],
            certificate=result,
        )
    except DatabaseError as exc:
        note(f"The certificate is not kept: {exc.message}")


def _say_empty(store: SynapseDocumentStore, *, json_: bool) -> None:
    sentence = f"Table {store.table_name} holds no document with an embedding: there is nothing to measure."
    if json_:
        print_json({"table": store.table_name, "rows": 0, "groups": []})
        note(sentence)
    else:
        say(sentence)


def _print(result: dict[str, Any], certificate: Certificate) -> None:
    say(
        f"{result['table']}: {certificate.rows:,} rows; {certificate.queries} queries made of {result['queries_from']}"
        if "noise" in result["queries_from"]
        else f"{result['table']}: {certificate.rows:,} rows; {certificate.queries} of {result['queries_from']}"
    )
    for group in certificate.groups:
        say()
        share = f", {group.share:.1%} of the rows" if group.filter else ""
        say(f"{group.filter or 'no filter'}{share}; exact {group.exact_ms:.1f} ms")
        say(f"  {'ef_search':>9}  {f'recall@{certificate.top_k}':>11}  {'95 % interval':<16} {'p50':>9} {'p95':>9}")
        for one in group.settings:
            mark = " *" if one.ef_search == certificate.configured else ""
            low, high = one.interval
            say(
                f"  {one.ef_search:>9}  {one.recall:>11.4f}  {low:.4f} to {high:.4f} {one.p50_ms:>7.2f} ms"
                f" {one.p95_ms:>6.2f} ms{mark}"
            )
    say()
    for line in _conclusions(certificate):
        say(line)


def _conclusions(certificate: Certificate) -> list[str]:
    group, setting = certificate.worst
    where = f" where {group.filter}" if group.filter else ""
    lines = [
        f"* The configured ef_search {certificate.configured} returns {setting.recall:.2%} of the nearest documents or more"
        + (f"; least{where}." if where else ".")
    ]
    if certificate.recommended is not None:
        lines.append(
            f"Recommended: HNSW_EF_SEARCH={certificate.recommended}, the smallest whose recall is at least "
            f"{certificate.target:.2%} under each filter, by the lower end of its interval."
        )
    elif certificate.likely is not None:
        lines.append(
            f"HNSW_EF_SEARCH={certificate.likely} is the smallest that was measured to reach {certificate.target:.2%}, but "
            f"{certificate.queries} queries do not prove it; it takes {certificate.needed} even if all are perfect: raise "
            "--sample and --seconds."
        )
    else:
        lines.append(f"No ef_search up to 1000 reaches {certificate.target:.2%} under each filter.")
    if certificate.exact_below >= certificate.rows:
        lines.append("Comparing every embedding is as quick as the index on a table of this size.")
    else:
        lines.append(
            f"Comparing every embedding is as quick as the index up to about {certificate.exact_below:,} rows."
        )
    return lines
