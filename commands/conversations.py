"""`conversations list | show | export | delete`: what was asked and answered."""

from __future__ import annotations

import getpass
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.keys import checked_id
from commands.output import JsonFlag, console, errors_reported, print_json, say
from database.errors import GuardError, InvalidInputError

if TYPE_CHECKING:
    from database.accounts import Identity
    from database.conversations import ChatMessage, ChatSession, Conversations

app = typer.Typer(
    no_args_is_help=True, help="What was asked and answered, in the terminal, on the page and by programs."
)

UserOption = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="Whose; by default who is logged in to this computer.")
]
ConversationId = Annotated[str, typer.Argument(metavar="ID", help="As in `conversations list`.")]


@app.command("list")
def list_(
    user: UserOption = None,
    search: Annotated[str | None, typer.Option("--search", metavar="WORDS", help="Only those that contain it.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")] = 50,
    json_: JsonFlag = False,
) -> None:
    """A user's conversations, the latest first."""
    with errors_reported(json_):
        conversations, identity = opened_conversations(user)
        found = conversations.sessions(identity, limit=limit, search=search)
        if json_:
            print_json({"conversations": [_session_to_dict(one) for one in found]})
            return
        if not found:
            say("There are no conversations that match." if search else "There are no conversations yet.")
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table("id", "last (UTC)", "messages", "title", box=SIMPLE_HEAD, pad_edge=False)
        for one in found:
            table.add_row(str(one.id), f"{one.updated_at:%Y-%m-%d %H:%M}", str(one.message_count), one.title)
        console().print(table)


@app.command()
def show(conversation: ConversationId, user: UserOption = None, json_: JsonFlag = False) -> None:
    """A conversation: its questions, its answers and their sources."""
    with errors_reported(json_):
        identifier = checked_id(conversation)
        conversations, identity = opened_conversations(user)
        session = conversations.session(identity, identifier)
        messages = conversations.messages(identity, identifier)
        if json_:
            print_json({**_session_to_dict(session), "messages": [_message_to_dict(one) for one in messages]})
            return
        say(session.title)
        for line in message_lines(messages):
            say(line)


@app.command()
def export(
    user: UserOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="A new file; by default, standard output.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """All that is stored of a user, as JSON: conversations, marks, usage and keys, without secrets."""
    with errors_reported(json_):
        conversations, identity = opened_conversations(user)
        found = conversations.export_user(identity)
        if output is None:
            print_json(found)
            return
        _write_privately(output, json.dumps(found, ensure_ascii=False, indent=2) + "\n")
        count = len(found["conversations"])
        if json_:
            print_json({"output": str(output), "conversations": count})
            return
        say(f"Wrote {count:,} conversation{'' if count == 1 else 's'} of {identity.user_name} to {output}.")


@app.command()
def delete(
    conversation: ConversationId,
    user: UserOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; there is no way back.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Delete a conversation; what it cost stays counted. `users delete` deletes all that is a user's."""
    with errors_reported(json_):
        identifier = checked_id(conversation)
        conversations, identity = opened_conversations(user)
        session = conversations.session(identity, identifier)
        if not yes:
            raise GuardError(
                f"“{session.title}” would be deleted, with {session.message_count} messages.", hint="Repeat with --yes."
            )
        conversations.delete(identity, identifier)
        if json_:
            print_json({"deleted": str(identifier), "messages": session.message_count})
            return
        say(f"Deleted “{session.title}”, with {session.message_count} messages.")


def opened_conversations(user: str | None) -> tuple[Conversations, Identity]:
    """
    The conversations of the database that the settings name, and who the user is.

    :param user: A name; `None` means the local user, who is made if need be.
    :raises NotFoundError: If there is no user of that name.
    """
    from config import Settings
    from database.accounts import Accounts
    from database.connection import open_database
    from database.conversations import Conversations

    settings = Settings.from_env()
    database = open_database(settings)
    accounts = Accounts(database)
    if user is None:
        return Conversations(database), accounts.ensure_user(settings.tenant, local_user_name())
    return Conversations(database), accounts.identity(settings.tenant, user)


def local_user_name() -> str:
    """The name of who is logged in to this computer; `local` where it has none for this user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return "local"
    return re.sub(r"[@\x00-\x20\x7f]", ".", name)[:200] or "local"


def message_lines(messages: list[ChatMessage]) -> list[str]:
    """Messages for people: questions after `>`, answers with their sources."""
    lines: list[str] = []
    for message in messages:
        if message.role == "user":
            lines += ["", f"> {message.content}"]
            continue
        lines.append(message.content + (" [interrupted]" if message.interrupted else ""))
        for citation in message.citations:
            place = f" (page {citation['page']})" if citation.get("page") else ""
            lines.append(f"  [{citation['number']}] {citation['source']}{place}")
        if message.feedback:
            comment = f": {message.feedback.comment}" if message.feedback.comment else ""
            lines.append(f"  marked as {'good' if message.feedback.mark > 0 else 'bad'}{comment}")
    return lines


def _write_privately(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise InvalidInputError(f"A new file was expected, but {path} exists.", hint="Name another one.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _session_to_dict(session: ChatSession) -> dict[str, Any]:
    return {
        "id": str(session.id),
        "title": session.title,
        "messages": session.message_count,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    }


def _message_to_dict(message: ChatMessage) -> dict[str, Any]:
    feedback = message.feedback
    return {
        "id": str(message.id),
        "role": message.role,
        "content": message.content,
        "citations": message.citations,
        "model": message.model,
        "timings_ms": message.timings_ms,
        "supported": message.supported,
        "extractive": message.extractive,
        "interrupted": message.interrupted,
        "created_at": message.created_at,
        "feedback": {"mark": feedback.mark, "comment": feedback.comment} if feedback else None,
    }
