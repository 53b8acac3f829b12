"""`keys create | list | revoke`: what programs show to be let in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from commands.output import JsonFlag, console, errors_reported, note, print_json, say
from commands.users import opened_accounts
from database.errors import InvalidInputError

if TYPE_CHECKING:
    from datetime import datetime

    from database.accounts import ApiKey

app = typer.Typer(no_args_is_help=True, help="The API keys of this tenant (SYNAPSE_TENANT).")


@app.command()
def create(
    user: Annotated[str, typer.Argument(help="Whose key; see `users list`.")],
    label: Annotated[str, typer.Option("--label", help="What it is for.")] = "",
    daily_tokens: Annotated[
        int | None, typer.Option("--daily-tokens", min=0, max=2**62, help="Tokens per day (UTC); SERVE_DAILY_TOKENS.")
    ] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option("--requests-per-minute", min=1, max=2**31 - 1, help="By default SERVE_REQUESTS_PER_MINUTE."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Make a key for a user, and show it: once, as only its hash is kept."""
    with errors_reported(json_):
        accounts, settings = opened_accounts()
        text, key = accounts.create_key(
            settings.tenant,
            user,
            label=label,
            daily_tokens=daily_tokens,
            requests_per_minute=requests_per_minute,
        )
        if json_:
            print_json({"key": text, **_to_dict(key)})
            return
        note(f"The key {key.id} of {user}; keep it, as it is not shown again:")
        say(text)


@app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """The keys: whose, how they begin, when they were used last, and whether they are revoked."""
    with errors_reported(json_):
        accounts, settings = opened_accounts()
        found = accounts.list_keys(settings.tenant)
        if json_:
            print_json({"keys": [_to_dict(key) for key in found]})
            return
        if not found:
            say("There are no keys yet.")
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        columns = ("id", "user", "label", "begins", "tokens/day", "requests/min", "used (UTC)", "revoked (UTC)")
        table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
        for key in found:
            limits = (key.daily_tokens, key.requests_per_minute)
            shown = ("" if limit is None else str(limit) for limit in limits)
            dates = (_minute(key.last_used_at), _minute(key.revoked_at))
            table.add_row(str(key.id), key.user_name, key.label, f"{key.prefix}…", *shown, *dates)
        console().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As in `keys list`.")], json_: JsonFlag = False
) -> None:
    """Let a key be accepted no longer, at once."""
    with errors_reported(json_):
        identifier = checked_id(key_id)
        accounts, settings = opened_accounts()
        revoked = accounts.revoke_key(settings.tenant, identifier)
        if json_:
            print_json(_to_dict(revoked))
            return
        say(f"Revoked the key {revoked.id} of {revoked.user_name}.")


def checked_id(text: str) -> UUID:
    """
    An id as it is typed.

    :raises InvalidInputError: If it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInputError(
            f"An id such as 0f8fad5b-d9cb-469f-a165-70867728950e was expected, but {text[:60]!r} is none."
        ) from None


def _to_dict(key: ApiKey) -> dict[str, Any]:
    return {**asdict(key), "id": str(key.id)}


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""
