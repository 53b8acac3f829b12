"""`database upgrade | status`: the schema of whatever DATABASE_URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from commands import database_copies
from commands.output import JsonFlag, errors_reported, print_json, say

if TYPE_CHECKING:
    from config import Settings
    from database.connection import Database

app = typer.Typer(no_args_is_help=True, help="The schema: bring it to this program's version, or look at it.")


@app.command()
def upgrade(json_: JsonFlag = False) -> None:
    """Bring the schema to this program's version, as its owner (DATABASE_OWNER_URL, else DATABASE_URL)."""
    with errors_reported(json_):
        from config import Settings
        from database import schema

        settings = Settings.from_env()
        owner = owner_conninfo(settings)
        done = schema.upgrade(owner)
        login = bool(settings.database_url) and schema.grant_login(
            owner, application_conninfo=settings.database_url or ""
        )
        if json_:
            print_json({"before": done.before, "after": done.after, "application_login": login})
            return
        say(
            f"The schema is at version {done.after}; nothing was to do."
            if done.before == done.after
            else f"Upgraded the schema from {done.before or 'nothing'} to version {done.after}."
        )
        if login:
            say("The application role can log in with the password of DATABASE_URL.")


@app.command()
def status(json_: JsonFlag = False) -> None:
    """Where the database is, its versions, and what it holds."""
    with errors_reported(json_):
        from config import Settings
        from database import schema
        from database.connection import database_for

        settings = Settings.from_env()
        found = schema.status(database_for(settings.database_url, home=str(settings.home)))
        if json_:
            print_json({"embedded": not settings.database_url, **found.to_dict()})
            return
        kind = "an embedded server" if not settings.database_url else "DATABASE_URL"
        say(f"database      {found.database} ({kind})")
        say(f"PostgreSQL    {found.server_version}, pgvector {found.pgvector_version or 'not installed'}")
        say(f"schema        {found.schema_version or 'none'} (this program: {found.expected_schema_version})")
        say(f"role          {found.role}{' (superuser)' if found.superuser else ''}")
        say(f"size          {_size(found.size)}")
        for table in found.tables:
            say(f"  {table['name']:<40} ~{table['estimated_rows']:>9,} rows {_size(table['size']):>10}")
        for name in found.invalid_indexes:
            say(f"  index {name} is invalid: REINDEX INDEX CONCURRENTLY {name}")


def owner_conninfo(settings: Settings) -> str:
    """The owner's connection string; the embedded server is started for it."""
    from database.connection import database_for

    if settings.database_owner_url or settings.database_url:
        return settings.database_owner_url or settings.database_url or ""
    server = database_for(None, home=str(settings.home)).server
    assert server is not None
    return server.conninfo(owner=True)


def owner_database(settings: Settings) -> Database:
    """The database, connected as the owner of the schema, in the tenant of the settings."""
    from database.connection import database_for

    return database_for(owner_conninfo(settings)).for_tenant(settings.tenant)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


app.command()(database_copies.backup)
app.command()(database_copies.restore)
app.command()(database_copies.move)
