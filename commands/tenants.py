"""`synapse.py tenants`: who shares this database without seeing each other."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, print_json, say

app = typer.Typer(no_args_is_help=True, help="Tenants: documents, users and conversations apart from each other's.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 40 of a to z, 0 to 9 and _, a letter first.")]


@app.command(name="list")
def list_(json_: JsonFlag = False) -> None:
    """The tenants that there are."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.tenancy import list_tenants

        found = list_tenants(open_database(Settings.from_env()))
        if json_:
            print_json({"tenants": [{"name": one.name, "created_at": one.created_at.isoformat()} for one in found]})
            return
        for one in found:
            say(f"{one.name:<40} since {one.created_at:%Y-%m-%d}")


@app.command()
def create(name: Name, json_: JsonFlag = False) -> None:
    """Make a tenant, as the owner of the schema; one that is there stays as it is."""
    with errors_reported(json_):
        from config import Settings
        from database.tenancy import create_tenant

        new = create_tenant(owner_database(Settings.from_env()), name)
        if json_:
            print_json({"tenant": name, "new": new})
            return
        say(f"{name} is {'made' if new else 'there already'}: SYNAPSE_TENANT={name} python synapse.py index FOLDER")


@app.command()
def drop(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Remove a tenant with its documents, users, keys and conversations, as the owner of the schema."""
    with errors_reported(json_):
        from config import Settings
        from database.errors import GuardError
        from database.tenancy import drop_tenant

        if not yes:
            raise GuardError(
                f"Dropping {name} removes its documents, users, keys and conversations for good.",
                hint=f"Run `python synapse.py tenants drop {name} --yes`.",
            )
        counts = drop_tenant(owner_database(Settings.from_env()), name)
        if json_:
            print_json({"tenant": name, "removed": counts})
            return
        rows = ", ".join(f"{count} {table}" for table, count in counts.items() if count)
        say(f"{name} is gone{': ' + rows if rows else ''}.")
