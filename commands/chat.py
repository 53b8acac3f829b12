"""`chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from commands.ask import FilterOption, NoLlmFlag, TopKOption, sources_lines, without_language_model
from commands.output import errors_reported, note, say
from commands.search import place
from database.errors import SynapseError

if TYPE_CHECKING:
    from components.answers import Answer
    from pipelines.answering import Assistant

HELP = """\
Ask anything; follow-up questions ("and on Supabase?") know what was said before.
  /filter EXPR    only documents whose metadata match, e.g. /filter year >= 2024; without EXPR, all
  /sources [N]    the documents of the last answer; with N, the whole text of one
  /new            forget the conversation
  /help           this
  /quit           leave, as Ctrl-D does; Ctrl-C stops an answer"""
REMEMBERED_TURNS = 10
LINES_KEPT = 1000


def chat(filter_: FilterOption = None, top_k: TopKOption = None, no_llm: NoLlmFlag = False) -> None:
    """Talk with the documents; /help says what else."""
    with errors_reported(False):
        from config import Settings

        settings = without_language_model(Settings.from_env(), no_llm)
        from pipelines.answering import Assistant

        assistant = Assistant(settings)
        conversation = Conversation(assistant, top_k=top_k)
        if filter_:
            conversation.set_filter(filter_)
        if sys.stdin.isatty():
            say("Loading …")
            assistant.warm_up()
            say("Ask a question; /help for more, Ctrl-D to leave.")
        with _line_editing(settings.home / "chat_history"):
            _converse(conversation)


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


@dataclass
class Conversation:
    """
    What was said so far, and what to do with what is said next.

    :param assistant: Who answers.
    :param top_k: How many documents an answer is made from; `None` means the settings' number.
    """

    assistant: Assistant
    top_k: int | None = None
    filter: str | None = None
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
            say("A new conversation.")
        elif command == "/help":
            say(HELP)
        elif command.startswith("/"):
            note(f"There is no command {command}. /help lists them.")
        else:
            self._answer(line)

    def set_filter(self, expression: str) -> None:
        """Narrow all further questions; an empty expression takes the filter away."""
        from components.metadata_filter import parse_filter

        parse_filter(expression)
        self.filter = expression or None
        say(f"Filter: {expression}" if expression else "No filter.")

    def _answer(self, question: str) -> None:
        def show(part: str) -> None:
            sys.stdout.write(part)
            sys.stdout.flush()

        answer = self.assistant.ask(question, history=self.history, filters=self.filter, top_k=self.top_k, on_text=show)
        say()
        for sentence in answer.unsupported:
            say(f"[unsupported] {sentence}")
        for line in sources_lines(answer):
            say(line)
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
        self.history = [*self.history, *said][-2 * REMEMBERED_TURNS :]
        self.last = answer

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
