"""`database reindex | tune`: the indexes of documents tables, rebuilt while they serve, and the settings they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.output import JsonFlag, errors_reported, note, print_json, progress, say
from database.errors import BELOW_THRESHOLD, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from config import Settings
    from database.connection import Database
    from database.index_advice import Advice
    from database.reindex import BuildProgress, Reindexed
    from evaluation.certificate import Certificate

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?", re.IGNORECASE)

Table = Annotated[
    str | None, typer.Argument(help="The documents table, instead of the active model's.", show_default=False)
]
TenantName = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="The tenant whose table it is, instead of the settings'.")
]


def reindex(
    table: Table = None,
    tenant: TenantName = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="That table of every tenant.")] = False,
    index: Annotated[
        str | None, typer.Option("--index", metavar="NAME", help="Another index, as it is: keywords', a field's.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="hnsw or ivfflat.")] = None,
    half: Annotated[
        bool | None, typer.Option("--half/--full", help="Embeddings in half precision in it, or as they are.")
    ] = None,
    m: Annotated[int | None, typer.Option("--m", min=2, max=100, help="Links per element of HNSW.")] = None,
    ef_construction: Annotated[
        int | None, typer.Option(min=4, max=1000, help="Candidates while HNSW takes a document in.")
    ] = None,
    lists: Annotated[int | None, typer.Option(min=1, max=32768, help="Lists of IVFFlat.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="An index beside it, of the documents that pass.")
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="For the build, such as 2GB.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, max=64, help="Parallel workers for the build.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Rebuild a table's index beside the old one, and put it in its place, while the table is read and written."""
    with errors_reported(json_):
        from components.metadata_filter import parse_filter
        from database.index_definition import Wanted

        wanted = Wanted(
            method=type_,
            half=half,
            m=m,
            ef_construction=ef_construction,
            lists=lists,
            filters=parse_filter(where),
        )
        if index is not None and wanted != Wanted():
            raise InvalidInputError("--index rebuilds an index as it is; what it is to be does not go with it.")
        if tenant is not None and all_tenants:
            raise InvalidInputError("--tenant names one tenant and --all-tenants means all; only one of them is taken.")
        given = None if memory is None else parse_size(memory)

        from config import Settings
        from database.reindex import reindex as rebuild

        settings = _settings(Settings.from_env(), table=table, tenant=tenant)
        name = _table_name(settings)
        done: list[dict[str, Any]] = []
        for owner in _owners(settings, all_tenants=all_tenants):
            with _build_progress(quiet=json_) as report:
                one = rebuild(owner, name, wanted=wanted, index=index, memory=given, workers=workers, progress=report)
            done.append({"tenant": owner.tenant, **asdict(one)})
            if not json_:
                _say_rebuilt(one, tenant=owner.tenant if all_tenants else None)
        if json_:
            print_json({"reindexed": done})


def tune(
    table: Table = None,
    tenant: TenantName = None,
    target: Annotated[
        float, typer.Option(metavar="RECALL", min=0, max=1, help="The share of the nearest documents to be found.")
    ] = 0.95,
    top_k: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many documents a search returns.")] = 10,
    sample: Annotated[int, typer.Option(metavar="N", min=1, help="How many queries, at most.")] = 400,
    seconds: Annotated[float, typer.Option(metavar="S", min=0, help="No query is begun later.")] = 60,
    apply: Annotated[
        bool, typer.Option("--apply", help="Set what can be set for this database without a restart.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """What the machine should give the next build, which kind of index fits, and the ef_search that finds enough."""
    with errors_reported(json_):
        from config import Settings
        from database.index_advice import advise, apply_settings

        settings = _settings(Settings.from_env(), table=table, tenant=tenant)
        name = _table_name(settings)
        owner = next(_owners(settings, all_tenants=False))
        advice = advise(owner, name)
        certificate = _measured(settings, name, target=target, top_k=top_k, sample=sample, seconds=seconds, quiet=json_)
        ef_search = None if certificate is None else certificate.recommended or certificate.likely
        applied = apply_settings(owner, advice.settings) if apply else []
        if json_:
            found = None if certificate is None else certificate.to_dict()
            result = {"tenant": owner.tenant, **asdict(advice), "target": target, "ef_search": ef_search}
            print_json(
                {
                    **result,
                    "proven": bool(certificate and certificate.recommended),
                    "applied": applied,
                    "certificate": found,
                }
            )
        else:
            _say_advice(advice)
            _say_measured(certificate, target=target, configured=settings.ef_search)
            _say_applied(advice, applied, asked=apply)
        if certificate is not None and ef_search is None:
            raise typer.Exit(BELOW_THRESHOLD)


def parse_size(text: str) -> int:
    """
    Bytes of a size such as `2GB`, `512MB` or a plain number.

    :raises InvalidInputError: If it is none, or less than 1 MB, which PostgreSQL takes at least.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " ")) if found else 0
    if size < 2**20:
        raise InvalidInputError(f"A size of at least 1MB was expected, such as 2GB, but is {text!r}.")
    return size


def _settings(settings: Settings, *, table: str | None, tenant: str | None) -> Settings:
    return replace(settings, table_name=table or settings.table_name, tenant=tenant or settings.tenant)


def _table_name(settings: Settings) -> str:
    from database.connection import open_database
    from database.models import chosen_model

    return settings.table_name or chosen_model(open_database(settings), settings.embedding_model).table_name


def _owners(settings: Settings, *, all_tenants: bool) -> Iterator[Database]:
    """The database as the owner of the schema, in each tenant that is meant."""
    from commands.database import owner_database
    from database.tenancy import list_tenants

    owner = owner_database(settings)
    if not all_tenants:
        yield owner
        return
    for tenant in list_tenants(owner):
        yield owner.for_tenant(tenant.name)


@contextmanager
def _build_progress(*, quiet: bool) -> Iterator[Callable[[BuildProgress], None]]:
    """A bar with the time that is left, and a line for each transaction that the build waits for."""
    told: set[tuple[int, str]] = set()
    with progress(quiet=quiet) as bar:
        task = bar.add_task("Looking", total=None, detail="")

        def report(step: BuildProgress) -> None:
            phase = step.phase.removeprefix("building index: ")
            bar.update(
                task, description=step.index, completed=step.done, total=step.total or None, detail=phase, refresh=True
            )
            for one in step.waits_for:
                if (one.pid, str(one.since)) not in told:
                    told.add((one.pid, str(one.since)))
                    note(
                        f"Waiting for process {one.pid} ({one.role}, {one.application or 'unnamed'}, {one.state}): "
                        f"its transaction is open since {one.since}."
                    )

        yield report


def _say_rebuilt(done: Reindexed, *, tenant: str | None) -> None:
    for name in done.cleared:
        say(f"Removed {name}, left over from a build that was stopped.")
    for name in done.mended:
        say(f"Rebuilt {name}, which a build that was stopped had left invalid.")
    before = f", {_megabytes(done.bytes_before)} before" if done.bytes_before else ""
    rows = "" if done.rows is None else f" of {done.rows:,} documents"
    whose = f" of tenant {tenant}" if tenant else ""
    say(f"Rebuilt {done.index}{whose}{rows} in {done.seconds:.1f} s: {_megabytes(done.bytes_after)}{before}.")
    say(f"  {done.definition}")


def _measured(
    settings: Settings, table_name: str, *, target: float, top_k: int, sample: int, seconds: float, quiet: bool
) -> Certificate | None:
    """The certificate of the table's index; `None` where there is nothing to measure."""
    from database.index_recall import SampledTable, answers, floor_ms
    from evaluation.certificate import EF_SEARCHES, certify, made_queries
    from pipelines.query import document_store, question_model

    store = document_store(settings, question_model(settings))
    table = SampledTable(store)
    vectors = made_queries(table.vectors(sample))
    if not vectors:
        return None
    with progress(quiet=quiet) as bar:
        task = bar.add_task(f"Asking {table_name}", total=len(vectors), detail="")
        found = answers(
            store,
            vectors,
            filters=[(None, sorted({*EF_SEARCHES, settings.ef_search}))],
            top_k=top_k,
            seconds=seconds,
            on_progress=lambda done: bar.update(task, completed=done),
        )
    return certify(
        found,
        filters=[("", 1.0)],
        rows=table.rows,
        top_k=top_k,
        target=target,
        configured=settings.ef_search,
        floor_ms=floor_ms(store, vectors[:50]),
    )


def _say_advice(advice: Advice) -> None:
    say(f"{advice.table}: {advice.rows:,} documents, {advice.vector_type}({advice.dimension}), index {advice.kind}")
    machine = f"{_megabytes(advice.machine_memory)} of memory, {advice.cores} cores" if advice.local else "elsewhere"
    say(f"  server     {machine}; shared_buffers {_megabytes(advice.shared_buffers)}")
    say(f"  index      {_megabytes(advice.index_bytes)}; in half precision about {_megabytes(advice.half_bytes)}")
    say(f"  next build {_megabytes(advice.build_memory)} of memory, so that the graph is built in it")
    say(f"  kind       {advice.advised_kind}: {advice.reason}")
    say("Settings of the server for builds that are not given them by `database reindex`:")
    for line in advice.statements:
        say(f"  {line}")
    say(f"In Docker: {advice.docker}")


def _say_measured(certificate: Certificate | None, *, target: float, configured: int) -> None:
    if certificate is None:
        say("The table holds no document with an embedding: there is no ef_search to measure.")
        return
    say(f"Measured on {certificate.queries} queries, recall@{certificate.top_k}:")
    for one in certificate.groups[0].settings:
        mark = " *" if one.ef_search == configured else ""
        say(f"  ef_search {one.ef_search:>4}  {one.recall:.4f}  p50 {one.p50_ms:.2f} ms, p95 {one.p95_ms:.2f} ms{mark}")
    if certificate.recommended is not None:
        say(f"For {target:.2%}, put into .env: HNSW_EF_SEARCH={certificate.recommended}")
    elif certificate.likely is not None:
        say(
            f"For {target:.2%}, put into .env: HNSW_EF_SEARCH={certificate.likely} "
            f"(measured; {certificate.needed} perfect queries would prove it)"
        )
    else:
        say(f"No ef_search reaches {target:.2%}: rebuild with `database reindex --m 16 --ef-construction 128`.")


def _say_applied(advice: Advice, applied: list[str], *, asked: bool) -> None:
    if applied:
        say("Set for this database, from the next connection on:")
        for line in applied:
            say(f"  {line}")
    if not asked:
        say("Nothing was changed; --apply sets what needs no restart.")


def _megabytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.1f} MB"
