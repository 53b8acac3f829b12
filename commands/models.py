"""`models list | add | switch | drop`: the embedding models and their documents tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, note, print_json, say

app = typer.Typer(no_args_is_help=True, help="Embedding models: each has a documents table of its own.")

Model = Annotated[str, typer.Argument(help="Its name, as in `models list` or as sentence-transformers knows it.")]


@app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """The registered models; questions go to the active one."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.models import list_models

        found = list_models(open_database(Settings.from_env()))
        if json_:
            print_json({"models": [asdict(model) for model in found]})
            return
        for model in found:
            mark = "*" if model.active else " "
            cut = f"  {model.partitions} partitions" if model.partitions > 1 else ""
            say(
                f"{mark} {model.name:<32} {model.vector_type}({model.dimension})  {model.table_name}  {model.model}{cut}"
            )


@app.command()
def add(
    model: Annotated[str, typer.Argument(help="As sentence-transformers knows it, or a folder that holds it.")],
    dimension: Annotated[
        int | None, typer.Option(min=1, max=4000, help="Length of its vectors; loads the model to find out if missing.")
    ] = None,
    language: Annotated[str, typer.Option(help="PostgreSQL's text search configuration of its table.")] = "english",
    partitions: Annotated[
        int, typer.Option(min=1, max=1024, help="Cut its tables into so many parts by hash of id, each with an index.")
    ] = 1,
    json_: JsonFlag = False,
) -> None:
    """Register a model and create its documents table, beside the others."""
    with errors_reported(json_):
        from config import Settings
        from database.models import EmbeddingModel, add_model

        settings = Settings.from_env()
        if dimension is None:
            from pipelines.embedding import model_dimension

            note(f"{'Asking' if settings.embedding_base_url else 'Loading'} {model} to find out its dimension …")
            dimension = model_dimension(settings, model)
        described = EmbeddingModel.named(model, dimension=dimension, language=language, partitions=partitions)
        add_model(owner_database(settings), described)
        if json_:
            print_json(asdict(described))
            return
        say(f"Added {described.name} with table {described.table_name}, {described.vector_type}({dimension}).")
        say(
            f"Next: EMBEDDING_MODEL={model} python synapse.py index PATH…, "
            f"then python synapse.py models switch {described.name}"
        )


@app.command()
def switch(model: Model, json_: JsonFlag = False) -> None:
    """Send questions to another model."""
    with errors_reported(json_):
        from config import Settings
        from database.models import switch_model

        active = switch_model(owner_database(Settings.from_env()), model)
        if json_:
            print_json({"active": active.name})
            return
        say(f"{active.name} is the active model.")


@app.command()
def drop(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Drop a model with its documents; never the active one."""
    with errors_reported(json_):
        from config import Settings
        from database.errors import GuardError
        from database.models import drop_model, registered_model

        owner = owner_database(Settings.from_env())
        found = registered_model(owner, model)
        if not yes and not found.active:
            if json_:
                raise GuardError(f"Dropping {found.name} loses its documents.", hint="Repeat with --yes.")
            typer.confirm(f"Drop {found.name} and all documents in {found.table_name}?", abort=True, err=True)
        gone = drop_model(owner, found.name)
        if json_:
            print_json(gone)
            return
        say(f"Dropped {gone['name']}: table {gone['table']} with {gone['documents']:,} documents.")
