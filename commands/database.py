"""`database upgrade | downgrade | status`: the schema of whatever DATABASE_URL names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from commands import database_copies, database_indexes
from commands.output import JsonFlag, errors_reported, note, print_json, progress, say

if TYPE_CHECKING:
    from rich.progress import TaskID

    from config import Settings
    from database.connection import Database
    from database.online import OnProgress, SchemaProgress
    from database.schema_status import Status

OLD_PROGRAMS = "Programs from before tenants are still let in. When none runs any more: python synapse.py database upgrade --finish"

app = typer.Typer(no_args_is_help=True, help="The schema: bring it to this program's version, or look at it.")


@app.command()
def upgrade(
    finish: Annotated[
        bool, typer.Option("--finish", help="Shut out programs from before tenants (versions below 0004), too.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Bring the schema to this program's version while programs work, as its owner (DATABASE_OWNER_URL, else DATABASE_URL)."""
    with errors_reported(json_):
        from config import Settings
        from database import schema

        settings = Settings.from_env()
        owner = owner_conninfo(settings)
        with _steps_shown(quiet=json_) as on_progress:
            done = schema.upgrade(owner, finish=finish, on_progress=on_progress)
        login = bool(settings.database_url) and schema.grant_login(
            owner, application_conninfo=settings.database_url or ""
        )
        if json_:
            print_json(
                {
                    "before": done.before,
                    "after": done.after,
                    "application_login": login,
                    "old_programs": done.old_programs,
                }
            )
            return
        say(
            f"The schema is at version {done.after}; nothing was to do."
            if done.before == done.after
            else f"Upgraded the schema from {done.before or 'nothing'} to version {done.after}."
        )
        if login:
            say("The application role can log in with the password of DATABASE_URL.")
        if done.old_programs:
            say(OLD_PROGRAMS)


@app.command()
def downgrade(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="An earlier version of the schema, such as 0005.")],
    yes: Annotated[bool, typer.Option("--yes", help="Lose what that version has no place for.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Take the schema back to an earlier version, for the program of that time; says what would be lost."""
    with errors_reported(json_):
        from config import Settings
        from database import schema

        owner = owner_conninfo(Settings.from_env())
        with _steps_shown(quiet=json_) as on_progress:
            done = schema.downgrade(owner, version, yes=yes, on_progress=on_progress)
        if json_:
            print_json({"before": done.before, "after": done.after, "lost": done.lost})
            return
        say(f"Took the schema back from version {done.before} to {done.after}.")
        for what, rows in done.lost.items():
            say(f"  gone: {rows:,} {what}")


@app.command()
def status(json_: JsonFlag = False) -> None:
    """Where the database is, its versions, and what it holds."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import database_for
        from database.schema_status import status as status_of

        settings = Settings.from_env()
        found = status_of(database_for(settings.database_url, home=str(settings.home)))
        if json_:
            print_json({"embedded": not settings.database_url, **found.to_dict()})
            return
        kind = "an embedded server" if not settings.database_url else "DATABASE_URL"
        say(f"database      {found.database} ({kind})")
        say(f"PostgreSQL    {found.server_version}, pgvector {found.pgvector_version or 'not installed'}")
        say(f"schema        {found.schema_version or 'none'} (this program: {found.expected_schema_version})")
        say(f"role          {found.role}{' (superuser)' if found.superuser else ''}")
        say(f"size          {_size(found.size)}")
        _say_tenants(found)
        for table in found.tables:
            say(f"  {table['name']:<40} ~{table['estimated_rows']:>9,} rows {_size(table['size']):>10}")
        _say_troubles(found)


def _say_tenants(found: Status) -> None:
    if found.tenants is None:
        return
    largest = ", ".join(f"{tenant['name']} {_size(tenant['size'])}" for tenant in found.tenants["largest"])
    rest = ", …" if found.tenants["count"] > len(found.tenants["largest"]) else ""
    say(f"tenants       {found.tenants['count']:,} with {_size(found.tenants['size'])}: {largest}{rest}")


def _say_troubles(found: Status) -> None:
    if found.upgrade is not None and found.upgrade["running"]:
        say("  an upgrade or a downgrade is at work")
    elif found.upgrade is not None:
        say(
            f"  a change of the schema from {found.upgrade['before']} to {found.upgrade['after']} was interrupted: "
            "python synapse.py database upgrade goes on"
        )
    if found.old_programs:
        say(f"  {OLD_PROGRAMS}")
    for index in found.missing_indexes:
        loading = ", as a bulk load goes on or was killed" if index["loading"] else ""
        say(
            f"  index {index['index_name']} of {index['table_name']} is missing{loading}: python synapse.py doctor says what to do"
        )
    for index in found.invalid_indexes:
        say(f"  index {index['name']} is left of a build that failed: {index['cure']}")


@contextmanager
def _steps_shown(*, quiet: bool) -> Iterator[OnProgress]:
    """A bar for each step that takes long, with rows and time left; a line for each version where that is no terminal."""
    with progress(quiet=quiet) as bar:
        tasks: dict[tuple[str, str], TaskID] = {}

        def show(step: SchemaProgress) -> None:
            key = (step.version, step.step)
            if key not in tasks:
                for task in tasks.values():
                    bar.stop_task(task)
                if bar.disable and not quiet:
                    note(f"{step.version}  {step.step}")
                tasks[key] = bar.add_task(f"{step.version}  {step.step}", total=None, detail="")
            waiting = f"waiting for {step.waiting_for}" if step.waiting_for else ""
            bar.update(tasks[key], completed=step.done, total=step.total, detail=waiting)

        yield show


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


app.command()(database_indexes.reindex)
app.command()(database_indexes.tune)
app.command()(database_copies.backup)
app.command()(database_copies.restore)
app.command()(database_copies.move)
