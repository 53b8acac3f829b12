"""`fields list | declare | drop`: the metadata fields that filters can name, and those with an index of their own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, note, print_json, progress, say

if TYPE_CHECKING:
    from config import Settings
    from database.connection import Database

app = typer.Typer(no_args_is_help=True, help="Metadata fields: which occur, and which have an index of their own.")

Name = Annotated[str, typer.Argument(help="Keys joined by dots, as in filters; a key with a dot stands in backquotes.")]
Model = Annotated[
    str | None, typer.Option("--model", help="The model whose documents are meant, instead of the active one.")
]


@app.command("list")
def list_(model: Model = None, json_: JsonFlag = False) -> None:
    """Every field that occurs, with its types, how many documents have it, and whether it is declared."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.metadata_fields import list_fields

        settings = Settings.from_env()
        database = open_database(settings)
        table = _table(settings, database, model)
        found = list_fields(database, table)
        if json_:
            print_json({"table": table, "fields": [asdict(field) for field in found]})
            return
        for field in found:
            types = ", ".join(
                kind if len(field.types) == 1 else f"{kind} ({count:,})" for kind, count in sorted(field.types.items())
            )
            declared = f"declared as {field.declared}" if field.declared else ""
            broken = ", but its index is missing: declare it again" if field.declared and not field.indexed else ""
            say(f"{field.name:<24} {field.documents:>10,}  {types:<24} {declared}{broken}".rstrip())
        if not found:
            note(f"No document in {table} has metadata.")


@app.command()
def declare(
    name: Name,
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="number, text, boolean or date.")],
    model: Model = None,
    json_: JsonFlag = False,
) -> None:
    """Build the index that serves filters on a field, while the table is read and written."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.metadata_fields import declare_field

        settings = Settings.from_env()
        table = _table(settings, open_database(settings), model)
        with progress(quiet=json_) as bar:
            task = bar.add_task(f"Indexing {name}", total=None, detail="")
            done = declare_field(
                owner_database(settings),
                table,
                name,
                type_,
                progress=lambda phase, blocks, of: bar.update(task, completed=blocks, total=of or None, detail=phase),
            )
        if json_:
            print_json({"table": table, "name": done.name, "type": done.type, "index": done.index_name})
            return
        say(f"Declared {done.name} of {table} as {done.type}: index {done.index_name}.")


@app.command()
def drop(name: Name, model: Model = None, json_: JsonFlag = False) -> None:
    """Drop a declared field's index; its values stay, and filters on it still work."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.metadata_fields import drop_field

        settings = Settings.from_env()
        table = _table(settings, open_database(settings), model)
        gone = drop_field(owner_database(settings), table, name)
        if json_:
            print_json({"table": table, "name": gone.name, "type": gone.type, "index": gone.index_name})
            return
        say(f"Dropped the index of {gone.name}, declared as {gone.type} of {table}.")


def _table(settings: Settings, database: Database, model: str | None) -> str:
    from database.models import chosen_model

    chosen = chosen_model(database, model or settings.embedding_model)
    return chosen.table_name if model else settings.table_name or chosen.table_name
