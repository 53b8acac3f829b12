"""`migrate qdrant | bytea | sqlite | runs | rollback`: whatever is moved here besides Chroma."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from commands import migration_run as shared
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
    queries: shared.Queries = 50,
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
                ),
                settings,
            )  # fmt: skip


@app.command()
def runs(json_: JsonFlag = False) -> None:
    """The migrations that were run, oldest first."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.migration_runs import list_runs

        found = list_runs(open_database(Settings.from_env()))
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
