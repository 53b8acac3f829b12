"""`migrate_from_chroma.py`: a Chroma directory or server into PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from commands import migration_run as shared
from commands.output import JsonFlag, errors_reported
from database.errors import InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from migration.source import Distance, Source


def chroma(
    path: Annotated[Path | None, typer.Argument(help="Chroma's folder.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="A Chroma server instead of a folder; its token in CHROMA_TOKEN.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Of the server.")] = None,
    database: Annotated[str | None, typer.Option(metavar="NAME", help="Of the server.")] = None,
    collection: shared.Collection = None,
    table: shared.Table = None,
    model: shared.Model = None,
    dry_run: shared.DryRun = False,
    on: shared.On = None,
    distance: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=cosine|l2|ip", help="The distance of a collection whose own records disagree."),
    ] = None,
    accept_rank_change: shared.AcceptRankChange = False,
    unpack_llamaindex: shared.UnpackLlamaIndex = False,
    queries: shared.Queries = 25,
    receipt: shared.ReceiptFolder = None,
    verify: shared.Verify = False,
    rollback: Annotated[
        str | None, typer.Option(metavar="RUN", help="Take away what this run made, and nothing else.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Migrate a Chroma database, every version from 0.3, with a receipt. The source is only read."""
    with errors_reported(json_):
        from config import Settings

        settings = Settings.from_env()
        if rollback is not None:
            shared.roll_back(rollback, settings, json_=json_)
            return
        if (path is None) == (url is None):
            raise InvalidInputError("Chroma's folder or --url was expected, one of the two.")
        with closing(_opened(path, url, settings, tenant=tenant, database=database, distance=distance)) as source:
            shared.migrate(
                source,
                shared.Choices(
                    collections=collection, table=table, model=model, dry_run=dry_run, on=on, receipt=receipt,
                    accept_rank_change=accept_rank_change, verify=verify, queries=queries, json_=json_,
                    unpack_llamaindex=unpack_llamaindex,
                ),
                settings,
            )  # fmt: skip


def _opened(
    path: Path | None,
    url: str | None,
    settings: Settings,
    *,
    tenant: str | None,
    database: str | None,
    distance: list[str] | None,
) -> Source:
    if path is not None:
        if tenant or database:
            raise InvalidInputError(
                "--tenant and --database are for servers; of a folder all are read.", hint="Choose with --collection."
            )
        from migration.sources.chroma_directory import ChromaDirectory

        return ChromaDirectory(path, distances=_distances(distance))
    from migration.sources.chroma_server import ChromaServer

    assert url is not None
    return ChromaServer(url, token=settings.chroma_token, tenant=tenant, database=database)


def _distances(given: list[str] | None) -> dict[str, Distance]:
    from migration.source import Distance

    found: dict[str, Distance] = {}
    for name, value in shared.assignments(given, "--distance takes NAME=cosine, l2 or ip").items():
        if value not in get_args(Distance):
            raise InvalidInputError(f"The distance of {name} must be cosine, l2 or ip, but is {value!r}.")
        found[name] = cast("Distance", value)
    return found
