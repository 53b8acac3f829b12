"""What every command prints, and how it ends: results, errors, progress, exit codes."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from database.errors import FAILED, SynapseError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object; everything else goes to stderr.")]

INTERRUPTED = 130

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\x1b(?!\[[02]m)"
)  # dim, and its end, are ours


def print_json(value: dict[str, Any]) -> None:
    """Print the command's one JSON object on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A line for people, on standard output."""
    write(text + "\n")


def write(text: str) -> None:
    """
    Text for people, on standard output.

    A terminal obeys some characters, and what documents and users wrote is not to steer it; a file gets them as they are.
    """
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)


def harmless(text: str) -> str:
    """Text without the control characters that a terminal obeys, but for the end of a line and the tabulator."""
    return _CONTROL.sub("\ufffd", text)


def note(text: str) -> None:
    """A line for people that must not stand among results: on standard error."""
    sys.stderr.write(text + "\n")


def console(*, stderr: bool = False) -> Console:
    """Rich's console; on what is not a terminal it prints plain text, unwrapped, so that programs can read it."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream.isatty()
    width = None if is_terminal else 10_000  # a table folds at 80 columns otherwise, whatever width it is printed with
    return Console(stderr=stderr, highlight=False, soft_wrap=not is_terminal, width=width)


@contextmanager
def errors_reported(json_: bool) -> Iterator[None]:
    """
    End the program on an error with one sentence, or one JSON object, and the exit code that tells the truth.

    :param json_: Whether the caller asked for JSON.
    """
    try:
        yield
    except SynapseError as exc:
        _report(exc.code, exc.message, exc.hint, json_=json_)
        raise typer.Exit(exc.exit_code) from None
    except KeyboardInterrupt:
        _report("interrupted", "Interrupted; what was done is kept.", "Run it again to continue.", json_=json_)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except OSError as exc:
        where = f": {exc.filename}" if exc.filename else ""
        _report("system", f"{exc.strerror or exc}{where}.", "", json_=json_)
        raise typer.Exit(FAILED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as exc:
        log = _crash_log()
        _report(
            "internal", f"An error that was not expected: {type(exc).__name__}.", f"Details are in {log}.", json_=json_
        )
        raise typer.Exit(FAILED) from None


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """
    Rich's progress bar on standard error; silent where that is no terminal.

    :param quiet: Silent in any case.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    error_console = console(stderr=True)
    with Progress(*columns, console=error_console, disable=quiet or not error_console.is_terminal) as bar:
        yield bar


def _report(code: str, message: str, hint: str, *, json_: bool) -> None:
    if json_:
        print_json({"error": {"code": code, "message": message, "hint": hint}})
    note(f"{message} {hint}".strip())


def _crash_log() -> Path:
    """The traceback goes to a file: it may quote documents, and helps nobody who reads a terminal."""
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix="synapse-error-", suffix=".log")
    with os.fdopen(descriptor, "w") as file:
        traceback.print_exc(file=file)
    return Path(name)


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
