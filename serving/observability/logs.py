"""
The service's log: JSON lines for programs, short lines on a terminal.

What the service logs itself never holds texts of documents, questions, keys or passwords. Of an exception that nobody
expected, the log shows where it came from, but not what it says: messages of libraries quote the values they choke on.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from database.errors import SynapseError

if TYPE_CHECKING:
    from types import TracebackType

FIELDS = ("method", "route", "status", "ms", "tenant", "key", "code", "request_id")
"""What a record may carry beside its message."""

_HARMLESS = (TypeError, AttributeError, NameError, ImportError, IndexError, NotImplementedError, TimeoutError)
"""Errors whose messages name what stands in the program, not what it works on."""

_QUOTING = frozenset({"database", "data_refused", "invalid_input", "not_found"})
"""Codes of our own errors whose messages repeat what PostgreSQL or a caller said."""


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["exception"] = described(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


class ShortLines(logging.Formatter):
    """One line per record, with what a person at a terminal wants to know."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        took = f" {record.ms} ms" if hasattr(record, "ms") else ""
        who = f" {tenant}" if (tenant := getattr(record, "tenant", None)) else ""
        line = f"{when} {level}{_one_line(record.getMessage())}{took}{who}"
        if record.levelno > logging.INFO and getattr(record, "request_id", None):
            line += f" [{record.request_id}]"  # type: ignore[attr-defined]
        return f"{line}\n{described(record.exc_info[1])}" if record.exc_info else line


def configure(stream: TextIO | None = None, *, level: int = logging.INFO) -> logging.Handler:
    """
    Send the log of this process to one place, in one form.

    :param stream: Where to; `None` means standard error.
    :param level: What is shown of our own at least; of libraries, warnings.
    :returns: The handler, for whoever wants to take it away again.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ShortLines() if stream.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("synapse").setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"  # RequestLog writes its lines, without paths
    logging.captureWarnings(True)
    _take_over_loguru()
    return handler


def described(exc: BaseException | None) -> str:
    """Where an exception and its causes came from; of what they say, only what cannot quote anyone's text."""
    parts: list[str] = []
    while exc is not None and len(parts) < 10:
        parts.append(f"{_frames(exc.__traceback__)}{said(exc)}")
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    return "\ncaused by:\n".join(parts)


def _frames(trace: TracebackType | None) -> str:
    return "".join(traceback.format_tb(trace))


def said(exc: BaseException) -> str:
    """The name of an exception, and its message where that cannot quote anyone's text."""
    name = f"{type(exc).__module__}.{type(exc).__qualname__}"
    if isinstance(exc, SynapseError):
        return f"{name}: {exc.message}" if exc.code not in _QUOTING else name
    if state := getattr(exc, "sqlstate", None):
        return f"{name} (SQLSTATE {state})"
    return f"{name}: {exc}" if type(exc) in _HARMLESS else name


def _one_line(text: str) -> str:
    """A log line stays one line, and steers no terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _take_over_loguru() -> None:
    """Hayhooks logs through loguru, whose own handler shows the values of local variables beside a traceback."""
    if "loguru" not in sys.modules:
        return
    from loguru import logger

    def forward(message: Any) -> None:
        record = message.record
        exception = record["exception"]
        info = (exception.type, exception.value, exception.traceback) if exception else None
        logging.getLogger(record["name"]).log(record["level"].no, "%s", record["message"], exc_info=info)

    logger.remove()
    logger.add(forward, level="WARNING", format="{message}", backtrace=False, diagnose=False)
