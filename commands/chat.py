"""`chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import typer

from commands.ask import FilterOption, NoLlmFlag, TopKOption, sources_lines, without_language_model
from commands.conversations import local_user_name, message_lines
from commands.keys import checked_id
from commands.output import errors_reported, note, say, write
from commands.search import place
from database.errors import InvalidInputError, NotFoundError, SynapseError, UnknownTenantError

if TYPE_CHECKING:
    from components.answers import Answer
    from config import Settings
    from database.accounts import Identity
    from database.conversations import ChatSession
    from pipelines.answering import Assistant
    from pipelines.conversing import Conversing

HELP = """\
Ask anything; follow-up questions ("and on Supabase?") know what was said before.
  /filter EXPR    only documents whose metadata match, e.g. /filter year >= 2024; without EXPR, all
  /sources [N]    the documents of the last answer; with N, the whole text of one
  /history        what was said in this conversation
  /new            begin another conversation
  /help           this
  /quit           leave, as Ctrl-D does; Ctrl-C stops an answer"""
REMEMBERED_TURNS = 10
LINES_KEPT = 1000


def chat(
    conversation: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="With --continue: which conversation; by default the last one.")
    ] = None,
    continue_: Annotated[bool, typer.Option("--continue", help="Go on with a conversation that is stored.")] = False,
    no_store: Annotated[bool, typer.Option("--no-store", help="Keep nothing of the conversation.")] = False,
    filter_: FilterOption = None,
    top_k: TopKOption = None,
    no_llm: NoLlmFlag = False,
) -> None:
    """Talk with the documents; /help says what else."""
    with errors_reported(False):
        wanted = _wanted(conversation, continue_=continue_, no_store=no_store)
        from config import Settings

        settings = without_language_model(Settings.from_env(), no_llm)
        from pipelines.answering import Assistant

        assistant = Assistant(settings)
        storage = None if no_store else _storage(assistant, settings)
        talk = Conversation(assistant, top_k=top_k, storage=storage)
        if continue_:
            talk.go_on(wanted)
        if filter_:
            talk.set_filter(filter_)
        if sys.stdin.isatty():
            say("Loading …")
            assistant.warm_up()
            say("Ask a question; /help for more, Ctrl-D to leave.")
        with _line_editing(settings.home / "chat_history"):
            _converse(talk)


def _wanted(conversation: str | None, *, continue_: bool, no_store: bool) -> UUID | None:
    if conversation is not None and not continue_:
        raise InvalidInputError(
            f"Without --continue no conversation was expected, but {conversation[:60]!r} is given.",
            hint="Questions are asked with `ask`, or typed here.",
        )
    if continue_ and no_store:
        raise InvalidInputError("Either --continue or --no-store was expected, but both are given.")
    return checked_id(conversation) if conversation is not None else None


def _storage(assistant: Assistant, settings: Settings) -> Storage | None:
    """Where the local user's conversations are stored; `None`, and a note, where the database has no users."""
    from database.accounts import Accounts
    from database.connection import open_database
    from database.conversations import Conversations
    from pipelines.conversing import Conversing

    database = open_database(settings)
    try:
        identity = Accounts(database).ensure_user(settings.tenant, local_user_name())
    except UnknownTenantError as exc:
        note(f"This conversation is not stored. {exc}")
        return None
    return Storage(Conversing(lambda _: assistant, Conversations(database)), identity)


def _converse(conversation: Conversation) -> None:
    interactive = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if interactive else "").strip()
            if line in ("/quit", "/exit"):
                return
            if line:
                if not interactive:
                    say(f"> {line}")
                conversation.hear(line)
        except KeyboardInterrupt:
            say()  # what was typed or written so far stays visible, and the session goes on
        except EOFError:
            if interactive:
                say()
            return
        except SynapseError as exc:
            note(str(exc))


@dataclass(frozen=True)
class Storage:
    """
    What stores a conversation.

    :param conversing: Answers, and stores what was said.
    :param identity: Whose conversation.
    """

    conversing: Conversing
    identity: Identity

    def find(self, session_id: UUID | None) -> ChatSession:
        """A conversation of the user's; `None` means the last one."""
        conversations = self.conversing.conversations
        if session_id is not None:
            return conversations.session(self.identity, session_id)
        if not (found := conversations.sessions(self.identity, limit=1)):
            raise NotFoundError("A conversation to go on with was expected, but there is none yet.")
        return found[0]

    def lines(self, session_id: UUID) -> list[str]:
        """What was said in a conversation, for people."""
        return message_lines(self.conversing.conversations.messages(self.identity, session_id))


@dataclass
class Conversation:
    """
    What was said so far, and what to do with what is said next.

    :param assistant: Who answers.
    :param top_k: How many documents an answer is made from; `None` means the settings' number.
    :param storage: Where it is stored; `None` means that it is remembered here alone.
    """

    assistant: Assistant
    top_k: int | None = None
    storage: Storage | None = None
    filter: str | None = None
    session_id: UUID = field(default_factory=uuid4)
    history: list[dict[str, str]] = field(default_factory=list)
    last: Answer | None = None

    def hear(self, line: str) -> None:
        """Do what a line says: a command, or a question."""
        command, _, rest = line.partition(" ")
        if command == "/filter":
            self.set_filter(rest.strip())
        elif command == "/sources":
            self._show_sources(rest.strip())
        elif command == "/new":
            self.history.clear()
            self.last = None
            self.session_id = uuid4()
            say("A new conversation.")
        elif command == "/history":
            self._show_history()
        elif command == "/help":
            say(HELP)
        elif command.startswith("/"):
            note(f"There is no command {command}. /help lists them.")
        else:
            self._answer(line)

    def go_on(self, session_id: UUID | None) -> None:
        """Go on with a conversation that is stored; `None` means the last one."""
        if self.storage is None:
            raise InvalidInputError("Stored conversations were expected, but this database stores none.")
        found = self.storage.find(session_id)
        self.session_id = found.id
        say(f"Going on with “{found.title}” ({found.message_count} messages).")

    def set_filter(self, expression: str) -> None:
        """Narrow all further questions; an empty expression takes the filter away."""
        from components.metadata_filter import parse_filter

        parse_filter(expression)
        self.filter = expression or None
        say(f"Filter: {expression}" if expression else "No filter.")

    def _answer(self, question: str) -> None:
        def show(part: str) -> None:
            write(part)
            sys.stdout.flush()

        answer = self._asked(question, show)
        say()
        for sentence in answer.unsupported:
            say(f"[unsupported] {sentence}")
        for line in sources_lines(answer):
            say(line)
        self.last = answer

    def _asked(self, question: str, show: Callable[[str], None]) -> Answer:
        if self.storage is not None:
            reply = self.storage.conversing.ask_sync(
                self.storage.identity,
                question,
                session_id=self.session_id,
                filters=self.filter,
                top_k=self.top_k,
                create=True,
                on_text=show,
            )
            return reply.answer
        answer = self.assistant.ask(question, history=self.history, filters=self.filter, top_k=self.top_k, on_text=show)
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
        self.history = [*self.history, *said][-2 * REMEMBERED_TURNS :]
        return answer

    def _show_history(self) -> None:
        lines: list[str] = []
        if self.storage is not None:
            with contextlib.suppress(NotFoundError):  # nothing was said yet
                lines = self.storage.lines(self.session_id)
        else:
            for message in self.history:
                lines += ["", f"> {message['content']}"] if message["role"] == "user" else [message["content"]]
        for line in lines or ["Nothing was said yet."]:
            say(line)

    def _show_sources(self, number: str) -> None:
        documents = self.last.documents if self.last else ()
        if not documents:
            say("The last answer has no documents.")
        elif not number:
            for position, document in enumerate(documents, start=1):
                say(f"  [{position}] {place(document)}")
        elif number.isdigit() and 1 <= int(number) <= len(documents):
            document = documents[int(number) - 1]
            say(place(document))
            say(document.content or "")
        else:
            note(f"/sources takes a number from 1 to {len(documents)}.")


@contextlib.contextmanager
def _line_editing(history: Path) -> Iterator[None]:
    """Line editing, and the lines of earlier sessions, in a file that nobody else reads."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:  # Python without it: lines can be typed, not edited
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(LINES_KEPT)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))  # the mode before the first line
            history.chmod(0o600)
            readline.write_history_file(history)
