"""`users create | list | password | delete`: who may ask, and log in to the page."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from commands.output import JsonFlag, console, errors_reported, print_json, say
from database.errors import GuardError, InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from database.accounts import Accounts

app = typer.Typer(no_args_is_help=True, help="The users of this tenant (SYNAPSE_TENANT).")

Name = Annotated[str, typer.Argument(help="The user's name.")]
StdinFlag = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


@app.command()
def create(
    name: Name,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password, for the page.")] = False,
    password_stdin: StdinFlag = False,
    json_: JsonFlag = False,
) -> None:
    """Make a user; without a password, one that has keys alone."""
    with errors_reported(json_):
        given = read_password(stdin=password_stdin) if password or password_stdin else None
        accounts, settings = opened_accounts()
        made = accounts.create_user(settings.tenant, name, password=given)
        if json_:
            print_json({"id": str(made.user_id), "name": name, "tenant": settings.tenant, "has_password": bool(given)})
            return
        say(f"Made the user {name}{' with a password' if given else ''}.")


@app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """The users, and whether they can log in."""
    with errors_reported(json_):
        accounts, settings = opened_accounts()
        found = accounts.list_users(settings.tenant)
        if json_:
            print_json({"users": [{**asdict(user), "id": str(user.id)} for user in found]})
            return
        if not found:
            say("There are no users yet.")
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table("user", "password", "created (UTC)", box=SIMPLE_HEAD, pad_edge=False)
        for user in found:
            table.add_row(user.name, "yes" if user.has_password else "no", f"{user.created_at:%Y-%m-%d %H:%M}")
        console().print(table)


@app.command()
def password(
    name: Name,
    password_stdin: StdinFlag = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the password away, and with it the login.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Give a user another password for the page; it is asked for."""
    with errors_reported(json_):
        given = None if remove else read_password(stdin=password_stdin)
        accounts, settings = opened_accounts()
        accounts.set_password(settings.tenant, name, given)
        if json_:
            print_json({"name": name, "has_password": given is not None})
            return
        say(f"{name} has {'no' if remove else 'a new'} password.")


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; there is no way back.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Delete a user with all conversations, feedback, usage and keys."""
    with errors_reported(json_):
        accounts, settings = opened_accounts()
        if not yes:
            counts = accounts.holdings(settings.tenant, name)
            raise GuardError(f"{name} would be deleted, with {counted(counts)}.", hint="Repeat with --yes.")
        counts = accounts.delete_user(settings.tenant, name)
        if json_:
            print_json({"deleted": name, **counts})
            return
        say(f"Deleted {name}, with {counted(counts)}.")


def opened_accounts() -> tuple[Accounts, Settings]:
    """The accounts of the database that the settings name, and the settings, whose tenant is meant."""
    from config import Settings
    from database.accounts import Accounts
    from database.connection import open_database

    settings = Settings.from_env()
    return Accounts(open_database(settings)), settings


def read_password(*, stdin: bool) -> str:
    """
    A password from standard input (one line) or, twice, from the terminal; never from the arguments, which others can see.

    :raises InvalidInputError: If there is neither.
    """
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInputError(
            "A terminal was expected to ask for the password, but there is none.", hint="Use --password-stdin."
        )
    given: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return given


def counted(counts: dict[str, int]) -> str:
    """Numbers of rows for people: `2 conversations, 8 messages`."""
    nouns = {"feedback": "mark", "usage": "usage record"}
    parts = []
    for kind, number in counts.items():
        noun = nouns.get(kind, kind.removesuffix("s"))
        parts.append(f"{number:,} {noun}{'' if number == 1 else 's'}")
    return ", ".join(parts)
