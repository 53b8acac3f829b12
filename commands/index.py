"""`index PATH…`: bring the index in line with files and folders, once or for as long as they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.output import JsonFlag, errors_reported, note, print_json, progress, say
from database.errors import PARTLY_DONE, GuardError, InvalidInputError, SynapseError

if TYPE_CHECKING:
    from config import Settings
    from database.ledger import Ledger
    from pipelines.indexing_driver import IndexingDriver
    from pipelines.indexing_run import SyncResult
    from pipelines.sync import SyncPlan, SyncRules

SHOWN = 20
"""Names of a kind that are printed; the counts are complete."""


class Engine(StrEnum):
    """Who converts and embeds."""

    local = "local"
    ray = "ray"


def index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files and folders.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    meta: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Metadata of every file of this run; repeatable.")
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Metadata from paths below PATH, as '{team}/{year}/…'; repeatable."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed, though it did not change.")] = False,
    allow_mass_delete: Annotated[
        bool, typer.Option("--allow-mass-delete", help="Remove what is gone, even if it is much of a folder.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and index whatever changes.")] = False,
    engine: Annotated[
        Engine, typer.Option(help="Where files are converted and embedded: here, or by Ray.")
    ] = Engine.local,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="With --engine ray: a running cluster; else on this machine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: how many; else one per processor of the cluster.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Index files and folders: what is new or changed is embedded, what is gone below PATH is removed."""
    with errors_reported(json_):
        from config import Settings
        from pipelines.api import open_ledger, sync_rules, with_model
        from pipelines.source_metadata import OutsideMetadata, PathPattern, parse_given

        if watch and (json_ or dry_run):
            raise InvalidInputError(
                "--watch goes on until it is stopped and has no one result; --json and --dry-run do not go with it."
            )
        if engine is Engine.local and (address or workers):
            raise InvalidInputError("--address and --workers are Ray's: they go with --engine ray.")
        if engine is Engine.ray and watch:
            raise InvalidInputError("--watch indexes what changes on this machine; it does not go with --engine ray.")
        settings = Settings.from_env()
        metadata = OutsideMetadata(
            given=parse_given(meta or []), patterns=[PathPattern(expression) for expression in pattern or []]
        )
        _require_paths(paths)
        ledger = open_ledger(settings)
        settings = with_model(settings, ledger)
        rules = sync_rules(settings, metadata=metadata, retry=retry, allow_mass_delete=allow_mass_delete)
        _note_inactive_model(ledger)
        if watch:
            _watch(paths, settings, ledger=ledger, rules=rules)
        elif dry_run:
            _dry_run(paths, ledger, rules=rules, json_=json_)
        else:
            with _driver(settings, ledger, engine=engine, address=address, workers=workers) as driver:
                _sync(paths, driver, rules=rules, json_=json_)


def _require_paths(paths: Sequence[Path]) -> None:
    from pipelines.source_files import distinct_roots

    distinct_roots(paths)


def _note_inactive_model(ledger: Ledger) -> None:
    if not ledger.model.active:
        note(
            f"Indexing with {ledger.model.name}; questions without EMBEDDING_MODEL go to the active model until "
            f"`python synapse.py models switch {ledger.model.name}`."
        )


def _driver(
    settings: Settings, ledger: Ledger, *, engine: Engine, address: str | None, workers: int | None
) -> IndexingDriver:
    if engine is Engine.ray:
        from pipelines.ray_indexing import RayDriver

        return RayDriver(settings, ledger=ledger, address=address, workers=workers, on_model=note)
    from pipelines.indexing_driver import IndexingDriver

    return IndexingDriver(settings, ledger=ledger, on_model=note)


def _sync(paths: Sequence[Path], driver: IndexingDriver, *, rules: SyncRules, json_: bool) -> None:
    started = time.monotonic()
    from pipelines.sync import plan_sync

    plan = plan_sync(paths, driver.ledger, rules=rules)
    result = _applied(plan, driver, json_=json_)
    result.seconds = time.monotonic() - started
    if json_:
        print_json(_as_json(result))
    else:
        _print_result(plan, result)
    if result.failed:
        raise typer.Exit(PARTLY_DONE)


def _applied(plan: SyncPlan, driver: IndexingDriver, *, json_: bool) -> SyncResult:
    try:
        with _bar(plan, quiet=json_) as on_progress:
            return driver.apply(plan, on_progress=on_progress)
    except KeyboardInterrupt:
        note(f"Stopped: {_counts(driver.result)}.")
        raise


@contextmanager
def _bar(plan: SyncPlan, *, quiet: bool) -> Iterator[Callable[[SyncResult], None] | None]:
    """A bar with files, chunks per second and time left; nothing where nothing is converted."""
    if not plan.to_convert:
        yield None
        return
    with progress(quiet=quiet) as bar:
        task = bar.add_task("Indexing", total=len(plan.to_convert), detail="loading the model")
        first: list[tuple[float, int]] = []  # the time that loading took is no part of the speed

        def show(result: SyncResult) -> None:
            now = time.monotonic()
            if not first and result.embedded:
                first.append((now, result.embedded))
            speed = (result.embedded - first[0][1]) / (now - first[0][0]) if first and now > first[0][0] else 0.0
            detail = f"{result.embedded} chunks" + (f", {speed:.0f}/s" if speed else "")
            if not result.embedded:
                detail = "loading the model"
            bar.update(task, completed=result.converted, detail=detail)

        yield show


def _watch(paths: Sequence[Path], settings: Settings, *, ledger: Ledger, rules: SyncRules) -> None:
    from pipelines.indexing_driver import IndexingDriver
    from pipelines.watch import watch

    def report(plan: SyncPlan, result: SyncResult) -> None:
        say(f"{time.strftime('%H:%M:%S')}  {_counts(result)}; {result.chunks} chunks in {result.seconds:.1f} s")
        for state in [*plan.refused, *[planned.state for planned in plan.to_convert]]:
            if state.source in result.failed:
                say(f"          kept out: {state.source}: {result.failed[state.source]}")

    def complain(error: SynapseError) -> None:
        note(f"{time.strftime('%H:%M:%S')}  {error}")

    with IndexingDriver(settings, ledger=ledger, on_model=note) as driver:
        note("Watching; Ctrl-C ends it.")
        try:
            watch(paths, driver=driver, rules=rules, on_sync=report, on_error=complain)
        except KeyboardInterrupt:
            note("Stopped watching.")


def _dry_run(paths: Sequence[Path], ledger: Ledger, *, rules: SyncRules, json_: bool) -> None:
    from pipelines.estimate import estimate
    from pipelines.sync import guard_mass_delete, plan_sync

    plan = plan_sync(paths, ledger, rules=replace(rules, allow_mass_delete=True))
    expected = estimate(plan)
    refusal = None
    if not rules.allow_mass_delete:
        try:
            guard_mass_delete(plan.removed, ledger.read(plan.roots), plan.roots)
        except GuardError as exc:
            refusal = str(exc)
    if json_:
        print_json(
            {
                "dry_run": True,
                "added": len(plan.added),
                "updated": len(plan.changed),
                "moved": len(plan.moved),
                "unchanged": len(plan.unchanged),
                "removed": len(plan.removed),
                "failed": [{"source": source, "reason": reason} for source, reason in _kept_out(plan).items()],
                "skipped": plan.skipped,
                "embeddings": expected.embeddings,
                "seconds": expected.seconds,
                "based_on": expected.based_on,
                "refused": refusal,
                "sources": {kind: names for kind, names in _named(plan).items()},
            }
        )
        return
    for kind, names in _named(plan).items():
        _print_names(f"{kind} {len(names)}", names)
    say(f"unchanged {len(plan.unchanged)}")
    _print_failed(_kept_out(plan))
    _print_skipped(plan)
    say(f"About {expected.embeddings} embeddings, {_duration(expected.seconds)} (a guess from {expected.based_on}).")
    if refusal:
        say(f"It would be refused: {refusal}")
    say("Nothing was written.")


def _named(plan: SyncPlan) -> dict[str, list[str]]:
    moves = [f"{p.previous.source if p.previous else ''} -> {p.state.source}" for p in plan.moved]
    return {
        "added": [planned.state.source for planned in plan.added],
        "updated": [planned.state.source for planned in plan.changed],
        "moved": moves,
        "removed": [state.source for state in plan.removed],
    }


def _kept_out(plan: SyncPlan) -> dict[str, str]:
    return {**plan.closed, **{state.source: state.reason or "" for state in [*plan.refused, *plan.kept_out]}}


def _as_json(result: SyncResult) -> dict[str, Any]:
    return {
        "added": result.added,
        "updated": result.updated,
        "moved": result.moved,
        "unchanged": result.unchanged,
        "removed": result.removed,
        "failed": [{"source": source, "reason": reason} for source, reason in sorted(result.failed.items())],
        "chunks": result.chunks,
        "seconds": round(result.seconds, 3),
    }


def _counts(result: SyncResult) -> str:
    counts = {
        "added": result.added,
        "updated": result.updated,
        "moved": result.moved,
        "unchanged": result.unchanged,
        "removed": result.removed,
        "kept out": len(result.failed),
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to do"


def _print_result(plan: SyncPlan, result: SyncResult) -> None:
    say(f"{_counts(result)}; {result.chunks} chunks written in {result.seconds:.1f} s.".capitalize())
    _print_failed(result.failed)
    _print_skipped(plan)


def _print_failed(failed: dict[str, str]) -> None:
    if failed:
        _print_names(f"kept out {len(failed)}", [f"{source}: {reason}" for source, reason in sorted(failed.items())])
        say("They are tried again when they change, or with --retry.")


def _print_skipped(plan: SyncPlan) -> None:
    if plan.skipped:
        kinds = sorted(plan.skipped.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in kinds[:SHOWN])
        say(f"Passed over, as their kind is not indexed: {listed}{' …' if len(kinds) > SHOWN else ''}.")


def _print_names(title: str, names: Sequence[str]) -> None:
    say(title)
    for name in names[:SHOWN]:
        say(f"  {name}")
    if len(names) > SHOWN:
        say(f"  … and {len(names) - SHOWN} more")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
