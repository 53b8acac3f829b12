"""`migrate qdrant | table | bytea | sqlite | runs | rollback`: whatever is moved here besides Chroma."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from commands import migration_run as shared
from commands.database import owner_database
from commands.migrate_bytea import bytea
from commands.migrate_sqlite import sqlite
from commands.output import JsonFlag, errors_reported, print_json, say
from database.errors import InvalidInputError

app = typer.Typer(
    no_args_is_help=True, help="Move data here, with a receipt. For Chroma: `python migrate_from_chroma.py`."
)

app.command()(bytea)
app.command()(sqlite)


@app.command()
def qdrant(
    path: Annotated[Path | None, typer.Argument(help="Folder of Qdrant's local mode.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="A server instead of a folder; its key in QDRANT_API_KEY.")
    ] = None,
    vector: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which vector, of collections that have several.")
    ] = None,
    content_field: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key of the payload that is the text, where it is not recognised.")
    ] = None,
    collection: shared.Collection = None,
    table: shared.Table = None,
    model: shared.Model = None,
    dry_run: shared.DryRun = False,
    on: shared.On = None,
    accept_rank_change: shared.AcceptRankChange = False,
    unpack_llamaindex: shared.UnpackLlamaIndex = False,
    queries: shared.Queries = 25,
    receipt: shared.ReceiptFolder = None,
    verify: shared.Verify = False,
    json_: JsonFlag = False,
) -> None:
    """Migrate Qdrant collections. The source is only read."""
    with errors_reported(json_):
        from config import Settings
        from migration.sources.qdrant import open_qdrant

        settings = Settings.from_env()
        if (path is None) == (url is None):
            raise InvalidInputError("Qdrant's folder or --url was expected, one of the two.")
        opened = open_qdrant(
            path=str(path) if path else None,
            url=url,
            api_key=settings.qdrant_api_key,
            vector=vector,
            content_field=content_field,
        )
        with closing(opened) as source:
            shared.migrate(
                source,
                shared.Choices(
                    collections=collection, table=table, model=model, dry_run=dry_run, on=on, receipt=receipt,
                    accept_rank_change=accept_rank_change, verify=verify, queries=queries, json_=json_,
                    unpack_llamaindex=unpack_llamaindex,
                ),
                settings,
            )  # fmt: skip


@app.command()
def table(
    table_: Annotated[str, typer.Argument(metavar="TABLE", help="The table, as SQL writes it.")],
    column: Annotated[str, typer.Argument(help="Its bytea column of packed float32.")],
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The table's database, if it is not the one that is migrated to.")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="The id. By default the primary key.")
    ] = None,
    content: Annotated[str | None, typer.Option(metavar="COLUMN", help="The text. By default there is none.")] = None,
    meta: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Metadata; repeatable. By default what is left.")
    ] = None,
    meta_json: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A jsonb column whose keys become metadata.")
    ] = None,
    dimension: Annotated[int | None, typer.Option(metavar="N", help="By default what most rows have.")] = None,
    big_endian: Annotated[
        bool | None, typer.Option("--big-endian/--little-endian", help="Byte order. By default little-endian.")
    ] = None,
    distance: Annotated[
        str, typer.Option(metavar="cosine|l2|ip", help="What the vectors were searched by.")
    ] = "cosine",
    into: Annotated[str | None, typer.Option("--table", metavar="NAME", help="The documents table.")] = None,
    model: shared.Model = None,
    dry_run: shared.DryRun = False,
    on: shared.On = None,
    accept_rank_change: shared.AcceptRankChange = False,
    queries: shared.Queries = 25,
    receipt: shared.ReceiptFolder = None,
    verify: shared.Verify = False,
    json_: JsonFlag = False,
) -> None:
    """Copy a table with vectors in a bytea column into a documents table. The table is only read."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import database_for
        from migration.sources.bytea import ByteaSource, Columns

        if distance not in ("cosine", "l2", "ip"):
            raise InvalidInputError(f"--distance must be cosine, l2 or ip, but is {distance!r}.")
        settings = Settings.from_env()
        database = database_for(database_url) if database_url else owner_database(settings)
        columns = Columns(embedding=column, id=id_, content=content, meta=meta or None, json=meta_json)
        source = ByteaSource(
            database, table_, columns, dimension=dimension, big_endian=big_endian,
            distance=distance,  # type: ignore[arg-type]
        )  # fmt: skip
        with closing(source):
            shared.migrate(
                source,
                shared.Choices(
                    collections=None, table=into, model=model, dry_run=dry_run, on=on, receipt=receipt,
                    accept_rank_change=accept_rank_change, verify=verify, queries=queries, json_=json_,
                ),
                settings,
            )  # fmt: skip


@app.command()
def runs(json_: JsonFlag = False) -> None:
    """The migrations that were run, oldest first."""
    with errors_reported(json_):
        from config import Settings
        from database.migration_runs import list_runs

        found = list_runs(owner_database(Settings.from_env()))
        if json_:
            print_json({"runs": [asdict(run) for run in found]})
            return
        for run in found:
            state = f"finished {run.finished_at:%Y-%m-%d %H:%M}" if run.finished_at else "not finished"
            say(f"{run.id}  {run.started_at:%Y-%m-%d %H:%M}  {state}  {run.source_kind} {run.source}")


@app.command()
def rollback(run: Annotated[str, typer.Argument(help="As `migrate runs` shows it.")], json_: JsonFlag = False) -> None:
    """Take away what a run made, and nothing else."""
    with errors_reported(json_):
        from config import Settings

        shared.roll_back(run, Settings.from_env(), json_=json_)
