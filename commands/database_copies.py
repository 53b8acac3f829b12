"""`database backup | restore | move`: copies of the whole database, each compared with what it was made from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.output import JsonFlag, errors_reported, note, print_json, progress, say
from database.errors import FAILED, GuardError, InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from database.copies.move import Moved
    from database.copies.progress import OnProgress, Progress
    from database.copies.restore import Restored
    from migration.receipt import PartReceipt, Receipt

EMBEDDED = "embedded"

Jobs = Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Tables that are copied at once.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace what the target holds, once the copy is whole. Needs --yes.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def backup(
    place: Annotated[Path, typer.Argument(help="A folder that keeps backups, or a new file that ends in .dump.")],
    jobs: Jobs = 1,
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Backups that stay in the folder; older ones are removed.", show_default=False
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Copy the whole database into a folder or file, with checksums of every table."""
    with errors_reported(json_):
        from commands.database import owner_conninfo
        from config import Settings
        from database.copies.backup import back_up, note_backup

        began, settings = time.monotonic(), Settings.from_env()
        with steps(quiet=json_) as on_progress:
            done = back_up(owner_conninfo(settings), place, jobs=jobs, keep=keep, on_progress=on_progress)
        note_backup(settings.home, done)
        if json_:
            print_json(
                {
                    "backup": str(done.path),
                    "bytes": done.bytes,
                    "tables": len(done.manifest.tables),
                    "rows": done.manifest.rows,
                    "tenants": list(done.manifest.tenants),
                    "server_version": done.manifest.server_version,
                    "schema_version": done.manifest.schema_version,
                    "removed": [str(path) for path in done.removed],
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            return
        say(f"{done.path}: {len(done.manifest.tables)} tables, {done.manifest.rows:,} rows, {done.bytes:,} bytes.")
        for path in done.removed:
            say(f"Removed {path}.")


def restore(
    backup_: Annotated[Path, typer.Argument(metavar="BACKUP", help="A backup's folder, or its file.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The owner's connection string of the database, or embedded. By default as configured."
        ),
    ] = "",
    replace: Replace = False,
    yes: Yes = False,
    jobs: Jobs = 2,
    json_: JsonFlag = False,
) -> None:
    """Restore a backup into an empty database, and compare every table with it."""
    with errors_reported(json_):
        from config import Settings
        from database.copies.restore import restore as restored_from

        began = time.monotonic()
        _require_yes(replace=replace, yes=yes)
        settings = Settings.from_env()
        target = _conninfo(to, settings)
        with steps(quiet=json_) as on_progress:
            done = restored_from(backup_, target, replace=replace, jobs=jobs, on_progress=on_progress)
        login = not done.differences and _login(settings, target)
        if json_:
            print_json(_restored(done, login=login, seconds=time.monotonic() - began))
        else:
            _print_restored(done, login=login)
        if done.differences:
            raise typer.Exit(FAILED)


def move(
    to: Annotated[
        str, typer.Option(metavar="URL", help="The owner's connection string of an empty database, or embedded.")
    ],
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="The owner's connection string, or the home folder of an embedded server. By default as configured.",
        ),
    ] = "",
    freeze: Annotated[bool, typer.Option("--freeze", help="Writers of the source wait until the end.")] = False,
    replace: Replace = False,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at both sides, and write nothing.")] = False,
    queries: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="How many searches of each table are compared.")
    ] = 20,
    jobs: Jobs = 2,
    receipt: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the receipt goes. By default receipts/move-<time>.", show_default=False
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Copy the whole database to another server, which may have another major version, and prove that it is the same."""
    with errors_reported(json_):
        from commands.migration_run import finish
        from config import Settings
        from database.copies.move import move as moved_to
        from database.copies.move import rehearse

        _require_yes(replace=replace, yes=yes or dry_run)
        settings = Settings.from_env()
        with _source(from_, settings) as source, steps(quiet=json_) as on_progress:
            target = _conninfo(to, settings)
            if dry_run:
                done = rehearse(source, target, replace=replace, on_progress=on_progress)
            else:
                done = moved_to(
                    source, target, freeze=freeze, replace=replace, jobs=jobs, queries=queries, on_progress=on_progress
                )
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        made = _receipt(done, dry_run=dry_run, options={"freeze": freeze, "queries": queries}, run=f"move-{stamp}")
        if not dry_run and not json_ and made.closed:
            for line in _advice(to, settings, target):
                note(line)
        finish(
            made, None if dry_run and receipt is None else receipt or Path("receipts") / f"move-{stamp}", json_=json_
        )


@contextmanager
def steps(*, quiet: bool) -> Iterator[OnProgress]:
    """A bar with time left; on what is no terminal, a line when a step begins."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("Starting", total=None, detail="")
        current = [""]

        def show(now: Progress) -> None:
            scale = 2**20 if now.unit == "bytes" else 1
            if now.step != current[0]:
                current[0] = now.step
                bar.reset(task, total=now.total, description=now.step.capitalize())
                if not quiet and bar.disable:
                    note(f"{now.step.capitalize()} …")
            total = None if now.total is None else now.total / scale
            bar.update(
                task, completed=now.done // scale, total=total, detail="MiB" if scale > 1 else now.unit if total else ""
            )

        yield show


def _require_yes(*, replace: bool, yes: bool) -> None:
    if replace and not yes:
        raise GuardError("What the target holds would be gone after the copy.", hint="Repeat with --yes.")


def _conninfo(given: str, settings: Settings) -> str:
    """The owner's connection string; the embedded server is started for it."""
    from commands.database import owner_conninfo
    from database.connection import database_for

    if given != EMBEDDED:
        return given or owner_conninfo(settings)
    server = database_for(None, home=str(settings.home)).server
    assert server is not None
    return server.conninfo(owner=True)


@contextmanager
def _source(given: str, settings: Settings) -> Iterator[str]:
    """The same for what is moved, which may also be the home folder of an embedded server, with data of an older version."""
    folder = Path(given).expanduser().absolute() if given else None
    if folder is None or given == EMBEDDED or not folder.is_dir():
        yield _conninfo(given, settings)
        return
    from database.embedded import PROGRAMS, EmbeddedServer, data_major

    major = data_major(EmbeddedServer(folder).data)
    if major not in PROGRAMS:
        raise InvalidInputError(
            f"Data of PostgreSQL {' or '.join(map(str, PROGRAMS))} was expected in {folder}, but it is of {major}."
        )
    server = EmbeddedServer(folder, major=major, keeps_schema=True)
    server.start()
    try:
        yield server.conninfo(owner=True)
    finally:
        server.stop()


def _login(settings: Settings, target: str) -> bool:
    """Let the application in, where DATABASE_URL is of the database that was restored."""
    from database.connection import parse_conninfo
    from database.schema import grant_login

    if not settings.database_url:
        return False
    application, owner = parse_conninfo(settings.database_url), parse_conninfo(target)
    if any(application.get(name) != owner.get(name) for name in ("host", "port", "dbname")):
        return False
    return grant_login(target, application_conninfo=settings.database_url)


def _restored(done: Restored, *, login: bool, seconds: float) -> dict[str, Any]:
    return {
        "database": done.database,
        "tables": len(done.manifest.tables),
        "rows": done.manifest.rows,
        "schema_version": done.manifest.schema_version,
        "differences": [asdict(difference) for difference in done.differences],
        "roles_made": done.roles_made,
        "left_out": done.left_out,
        "replaced": done.replaced,
        "application_login": login,
        "seconds": round(seconds, 1),
    }


def _print_restored(done: Restored, *, login: bool) -> None:
    from database.schema import SCHEMA_VERSION

    for item in done.left_out:
        say(f"Left out {item['name']}: {item['reason']}.")
    if done.differences:
        for difference in done.differences:
            say(f"Not as in the backup: {difference}.")
        say(f"{done.database} is marked as unfinished: no program works with it. Restore again.")
        return
    say(f"{done.database}: {len(done.manifest.tables)} tables, {done.manifest.rows:,} rows, all as in the backup.")
    if login:
        say("The application role can log in with the password of DATABASE_URL.")
    if done.manifest.schema_version != SCHEMA_VERSION:
        say(
            f"Its schema is at version {done.manifest.schema_version}, this program's is {SCHEMA_VERSION}: "
            "run `python synapse.py database upgrade`."
        )


def _receipt(done: Moved, *, dry_run: bool, options: dict[str, Any], run: str) -> Receipt:
    """What was moved, as the receipt of a migration."""
    from migration.receipt import Receipt

    before, after = done.manifest.tables, {difference.table for difference in done.changed}
    return Receipt(
        kind="dry run" if dry_run else "move",
        source={
            "kind": "PostgreSQL",
            "location": done.source,
            "version": f"{done.manifest.server_version}, pgvector {done.manifest.pgvector_version}",
            "schema_version": done.manifest.schema_version,
        },
        target={
            "database": done.target,
            "server_version": done.target_facts["server_version"].split()[0],
            "pgvector_version": done.target_facts["pgvector_version"],
            "schema_version": done.manifest.schema_version,
        },
        options=options,
        parts=[_part(done, name) for name in before],
        left_out=done.left_out,
        problems=[
            *done.problems,
            *(
                f"The source was written to while it was moved, and that is not in the copy: {name}"
                for name in sorted(after)
            ),
            *(str(difference) for difference in done.differences if difference.table not in before),
        ],
        run={"id": run, "seconds": {step: round(value, 1) for step, value in done.seconds.items()}},
    )


def _part(done: Moved, name: str) -> PartReceipt:
    from migration.receipt import PartReceipt

    expected, found = done.manifest.tables[name], done.found.get(name)
    part = PartReceipt(name=name, target=name, records=expected.rows, source_checksum=expected.checksum)
    if found is not None:
        part.copied, part.target_checksum = found.rows, found.checksum
    if name in done.searches:
        parity = done.searches[name]
        part.checks["search"] = {
            "passed": parity.passed,
            "found": f"overlap@10 {parity.overlap:.4f}, recall@10 of the index {parity.recall_after:.4f}, "
            f"before {parity.recall_before:.4f}",
            **asdict(parity),
        }
    return part


def _advice(to: str, settings: Settings, target: str) -> list[str]:
    """What to set, so that programs use the copy; without its passwords."""
    from database.connection import parse_conninfo

    if to == EMBEDDED:
        return [f"In .env, empty DATABASE_URL and DATABASE_OWNER_URL; SYNAPSE_HOME={settings.home}"]
    known = parse_conninfo(target)
    place = f"{known.get('host', 'localhost')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
    return [
        "In .env, with passwords in place of …:",
        f"  DATABASE_URL=postgresql://synapse_app:…@{place}",
        f"  DATABASE_OWNER_URL=postgresql://{known.get('user', 'postgres')}:…@{place}",
        "Then `python synapse.py database upgrade`, which gives synapse_app its password.",
    ]
