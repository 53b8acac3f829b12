"""`doctor`: whether the database is right, what is wrong with it, and what mends that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.output import JsonFlag, console, errors_reported, harmless, note, print_json, say
from database.errors import BELOW_THRESHOLD

if TYPE_CHECKING:
    from config import Settings
    from database.health.finding import Finding
    from database.health.mending import Mended
    from database.health.patient import ModelFiles, Patient

SERVER_PATIENCE = 5.0
"""Seconds that the server that embeds may take."""

_MARKS = {"ok": "✓", "unknown": "?", "advice": "i", "warning": "!", "fault": "✗"}
_STYLES = {"ok": "green", "unknown": "dim", "advice": "cyan", "warning": "yellow", "fault": "bold red"}


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend, as the schema's owner; look again.")
    ] = False,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Look at the tables of every tenant, not of SYNAPSE_TENANT's alone.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 5 for advice, too.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Look at everything that the program relies on; exit code 5 where something is wrong."""
    with errors_reported(json_):
        from config import Settings
        from database.health.examination import examine
        from database.health.mending import mend

        settings = Settings.from_env()
        started = time.monotonic()
        patient = patient_of(settings)
        mended: list[Mended] = []
        try:
            patient.connect()
            if all_tenants:
                patient.tenants = _tenants(patient)
            with _spinner(quiet=json_) as looked_at:
                found = examine(patient, looked_at=looked_at)
            if fix and any(finding.fixable for finding in found):
                mended = mend(_owner(settings), found, doing=None if json_ else _say_doing)
                patient.close()
                patient = _again(patient)
                found = examine(patient)
        finally:
            patient.close()
        result = _result(patient, found, mended, embedded=not settings.database_url, seconds=time.monotonic() - started)
        if json_:
            print_json(result)
        else:
            _print(found, mended, result)
        failing = ("warning", "fault", "advice") if strict else ("warning", "fault")
        if any(finding.severity in failing for finding in found):
            raise typer.Exit(BELOW_THRESHOLD)


def patient_of(settings: Settings) -> Patient:
    """The database of the settings, and what the program is set up with."""
    import os

    from components.model_configuration import model_files
    from config import PROJECT
    from database.connection import Database
    from database.health.patient import Configured, Patient

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")

    def files_of(name: str) -> ModelFiles:
        return model_files(name, offline=offline)

    application, owner = _databases(settings)
    return Patient(
        application=application,
        owner=Database(owner) if owner else None,
        tenants=(settings.tenant,),
        configured=Configured(
            embedding_model=settings.embedding_model,
            ef_search=settings.ef_search,
            secret_files=(PROJECT / ".env", settings.home / "page_secret"),
            model_files=partial(_server_of, settings) if settings.embedding_base_url else files_of,
            read_url=settings.database_read_url,
        ),
    )


def _server_of(settings: Settings, name: str) -> ModelFiles:
    """What the server that embeds gives: it is asked once, and not waited for long."""
    from dataclasses import replace

    from database.errors import SynapseError
    from database.health.patient import ModelFiles
    from pipelines.embedding import model_dimension

    try:
        patience = min(settings.embedding_timeout, SERVER_PATIENCE)
        return ModelFiles(name=name, dimension=model_dimension(replace(settings, embedding_timeout=patience), name))
    except SynapseError as exc:
        return ModelFiles(name=name, problem=exc.message, cure=exc.hint or "Start the server of EMBEDDING_BASE_URL.")


def _databases(settings: Settings) -> tuple[Any, str | None]:
    """The application's database, and the owner's connection string where it is known; the embedded server is started."""
    from database.connection import Database
    from database.embedded import server_for
    from database.errors import ExtensionMissingError, SchemaError

    if settings.database_url:
        return Database(settings.database_url), settings.database_owner_url
    server = server_for(settings.home.absolute())
    with suppress(SchemaError, ExtensionMissingError):  # which the examination will find, and say more of
        server.start()
    return Database(server.conninfo(), server=server), server.conninfo(owner=True)


def _owner(settings: Settings) -> Any:
    from commands.database import owner_conninfo
    from database.connection import Database

    return Database(owner_conninfo(settings))


def _tenants(patient: Patient) -> tuple[str, ...]:
    rows = patient.ask(
        "SELECT name FROM public.tenants ORDER BY name"
        if patient.ask("SELECT to_regclass('public.tenants') IS NOT NULL AS found")[0]["found"]
        else "SELECT 'default' AS name"
    )
    return tuple(row["name"] for row in rows)


def _again(patient: Patient) -> Patient:
    """The same database, of which nothing is remembered."""
    from dataclasses import fields

    from database.health.patient import Patient

    return Patient(**{field.name: getattr(patient, field.name) for field in fields(Patient)})


def _result(
    patient: Patient, found: Sequence[Finding], mended: Iterable[Mended], *, embedded: bool, seconds: float
) -> dict[str, Any]:
    from dataclasses import asdict

    from database.health.finding import worst

    def of(*severities: str) -> list[Finding]:
        return [finding for finding in found if finding.severity in severities]

    return {
        "database": patient.name,
        "embedded": embedded,
        "verdict": {"ok": "healthy", "unknown": "healthy"}.get(worst(list(found)), worst(list(found))),
        "findings": [finding.to_dict() for finding in of("fault", "warning", "advice")],
        "unknown": [{"subject": finding.subject, "what": finding.what} for finding in of("unknown")],
        "right": [{"subject": finding.subject, "what": finding.what} for finding in of("ok")],
        "mended": [asdict(one) for one in mended],
        "seconds": round(seconds, 2),
    }


def _spinner(*, quiet: bool) -> Any:
    """A line on the terminal with what is being looked at."""
    screen = console(stderr=True)
    if quiet or not screen.is_terminal:
        return nullcontext(None)
    return _Spinner(screen)


class _Spinner:
    """Rich's status line, as a function that says what is looked at."""

    def __init__(self, screen: Any) -> None:
        self._status = screen.status("Looking …")

    def __enter__(self) -> Any:
        self._status.__enter__()
        return lambda subject: self._status.update(f"Looking at {subject} …")

    def __exit__(self, *about: Any) -> None:
        self._status.__exit__(*about)


def _say_doing(finding: Finding) -> None:
    note(f"Mending {finding.code}: {finding.cure}")


def _print(found: Sequence[Finding], mended: Sequence[Mended], result: dict[str, Any]) -> None:
    """A line per subject that is right; of what is not, what it is, why it matters and what mends it."""
    from rich.text import Text

    screen = console()
    width = max(len(finding.subject) for finding in found)
    noticed = {finding.subject for finding in found if finding.severity not in ("ok", "unknown")}
    for finding in found:
        if finding.severity == "ok" and finding.subject in noticed:
            continue
        style, indent = _STYLES[finding.severity], " " * (width + 3)
        line = Text(f"{_MARKS[finding.severity]} {finding.subject:<{width}} ", style=style)
        screen.print(line.append(harmless(finding.what), style="" if finding.severity != "unknown" else "dim"))
        if finding.why:
            screen.print(Text(f"{indent}{finding.code}, {finding.severity}. {finding.why}", style="dim"))
        for cure in (finding.cure or "").splitlines():
            screen.print(Text(f"{indent}→ {harmless(cure)}"))
    for one in mended:
        say(f"mended {one.code}" if one.problem is None else f"could not mend {one.code}: {one.problem}")
    screen.print(Text(_verdict(found, result), style=_STYLES.get(result["verdict"], "green")))


def _verdict(found: Sequence[Finding], result: dict[str, Any]) -> str:
    from database.health.finding import ORDER

    counts = {severity: sum(finding.severity == severity for finding in found) for severity in ORDER}
    parts = [
        f"{counts[severity]} {severity}{'s' if counts[severity] != 1 and severity != 'advice' else ''}"
        for severity in ("fault", "warning", "advice")
        if counts[severity]
    ]
    fixable = sum(finding.fixable for finding in found)
    healthy = not counts["fault"] and not counts["warning"]
    sentence = f"Healthy{', with ' if parts else ''}" if healthy else ""
    mendable = f" --fix mends {fixable}." if fixable else ""
    return f"{sentence}{', '.join(parts)}.{mendable} {result['seconds']:.1f} s"
