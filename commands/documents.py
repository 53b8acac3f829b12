"""`documents list | show | delete | fields`: what is in the index."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.output import JsonFlag, console, errors_reported, print_json, say
from database.errors import GuardError, InvalidInputError

if TYPE_CHECKING:
    from rich.table import Table

    from database.ledger import Ledger

app = typer.Typer(no_args_is_help=True, help="What is in the index: sources, their chunks, their metadata.")

FilterOption = Annotated[
    str | None, typer.Option("--filter", metavar="FILTER", help="Only sources with a chunk that it lets pass.")
]


@app.command("list")
def list_(
    source: Annotated[str | None, typer.Argument(help="One source, or a folder.", show_default=False)] = None,
    filter_: FilterOption = None,
    json_: JsonFlag = False,
) -> None:
    """The sources, also those that are kept out."""
    with errors_reported(json_):
        found = _selected(_ledger(), [source] if source else None, filter_)
        if json_:
            print_json({"sources": found})
            return
        if not found:
            say("Nothing is indexed that matches." if source or filter_ else "Nothing is indexed yet.")
            return
        _print_sources(found)


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="A path, or the name that it was indexed under.")],
    text: Annotated[bool, typer.Option("--text", help="Print its converted text and nothing else.")] = False,
    json_: JsonFlag = False,
) -> None:
    """A source: where it stands, its chunks, its converted text."""
    with errors_reported(json_):
        ledger = _ledger()
        (found,) = _selected(ledger, [source], None, exact=True)
        chunks, converted = ledger.chunks(found["source"]), ledger.text(found["source"])
        if json_:
            print_json({**found, "chunks": chunks, "text": converted})
        elif text:
            say((converted or "").rstrip("\n"))
        else:
            _print_source(found, chunks)


@app.command()
def delete(
    sources: Annotated[list[str] | None, typer.Argument(help="Sources, or folders.", show_default=False)] = None,
    filter_: FilterOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Remove sources from the index; the files stay. Those that still exist return with the next `index`."""
    with errors_reported(json_):
        if not sources and not filter_:
            raise InvalidInputError("What to remove was expected: sources or --filter.")
        ledger = _ledger()
        names = [found["source"] for found in _selected(ledger, sources or None, filter_)]
        if names and not yes:
            if json_:
                raise GuardError(f"{len(names)} sources would be removed.", hint="Repeat with --yes.")
            _print_few(names)
            typer.confirm(f"Remove {len(names)} from the index?", abort=True, err=True)
        chunks = sum(ledger.remove(names[start : start + 500]) for start in range(0, len(names), 500))
        if json_:
            print_json({"removed": names, "chunks": chunks})
            return
        say(f"Removed {_counted(len(names), 'source')} with {_counted(chunks, 'chunk')}.")


@app.command()
def fields(json_: JsonFlag = False) -> None:
    """The metadata fields: their types, how many chunks have them, their most frequent values."""
    with errors_reported(json_):
        from database.contents import fields as fields_of

        found = fields_of(_ledger())
        if json_:
            print_json({"fields": found})
            return
        if not found:
            say("Nothing is indexed yet.")
            return
        table = _table("field", "type", "chunks", "different", "for example")
        for row in found:
            table.add_row(
                row["field"],
                "/".join(row["types"]),
                str(row["documents"]),
                str(row["different"]),
                ", ".join(_short(_written(value), width=30) for value in row["examples"]),
            )
        _print_table(table)


def _ledger() -> Ledger:
    from config import Settings
    from pipelines.api import open_ledger

    return open_ledger(Settings.from_env())


def _selected(
    ledger: Ledger, sources: Sequence[str] | None, filter_: str | None, *, exact: bool = False
) -> list[dict[str, Any]]:
    """Rows of the ledger, by name; what is named but not there is an error."""
    rows: dict[str, dict[str, Any]] = {}
    names: list[str | None] = list(sources) if sources else [None]
    for source in names:
        found = _below(ledger, source, exact=exact)
        if source and not found:
            raise InvalidInputError(
                f"A source {'' if exact else 'or folder '}named {source!r} was expected in the index, but there is none.",
                hint="Run `python synapse.py documents list`.",
            )
        rows |= {row["source"]: row for row in found}
    if filter_:
        from components.metadata_filter import parse_filter
        from database.contents import matching_sources

        passing = set(matching_sources(ledger, parse_filter(filter_) or {}))
        rows = {name: row for name, row in rows.items() if name in passing}
    return [rows[name] for name in sorted(rows)]


def _below(ledger: Ledger, source: str | None, *, exact: bool) -> list[dict[str, Any]]:
    if source is None:
        return ledger.sources()
    for name in (source, os.path.abspath(source), os.path.realpath(source)):
        found = [row for row in ledger.sources(name) if not exact or row["source"] == name]
        if found:
            return found
    return []


def _print_sources(found: Sequence[dict[str, Any]]) -> None:
    table = _table("source", "title", "chunks", "indexed", "kept out because")
    common = os.path.commonpath([row["source"] for row in found]) if _all_paths(found) and len(found) > 1 else ""
    for row in found:
        name = os.path.relpath(row["source"], common) if common not in ("", "/") else row["source"]
        when = f"{row['indexed_at']:%Y-%m-%d %H:%M}"
        table.add_row(name, _short(row["title"] or ""), str(row["chunks"]), when, row["reason"] or "")
    if common not in ("", "/"):
        say(f"Below {common}:")
    _print_table(table)
    say(f"{_counted(len(found), 'source')}, {_counted(sum(row['chunks'] for row in found), 'chunk')}.")


def _all_paths(found: Sequence[dict[str, Any]]) -> bool:
    return all(os.path.isabs(row["source"]) for row in found)


def _print_source(found: dict[str, Any], chunks: Sequence[dict[str, Any]]) -> None:
    say(found["source"])
    for name in ("title", "mime_type", "size", "reason"):
        if found[name] is not None:
            say(f"  {name:<12} {found[name]}")
    say(f"  {'indexed_at':<12} {found['indexed_at']:%Y-%m-%d %H:%M:%S}")
    common = {key: value for key, value in (chunks[0]["meta"] if chunks else {}).items() if _holds(key, value, chunks)}
    for key, value in sorted(common.items()):
        if key not in ("source", "title"):
            say(f"  {key:<12} {_short(_written(value))}")
    say(f"  {'chunks':<12} {len(chunks)}")
    for chunk in chunks:
        meta = chunk["meta"]
        place = ", ".join(
            part for part in (f"page {meta['page']}" if meta.get("page") else "", meta.get("heading") or "") if part
        )
        say(f"{chunk['position']:>5}  {place + ': ' if place else ''}{_short(' '.join(chunk['content'].split()))}")


def _holds(key: str, value: Any, chunks: Sequence[dict[str, Any]]) -> bool:
    own = ("position", "span", "heading", "page")
    return key not in own and all(chunk["meta"].get(key) == value for chunk in chunks)


def _print_few(names: Sequence[str]) -> None:
    for name in names[:10]:
        say(f"  {name}")
    if len(names) > 10:
        say(f"  … and {len(names) - 10} more")


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in ("chunks", "different") else "left")
    return table


def _print_table(table: Table) -> None:
    out = console()
    out.print(table)


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str, *, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
