"""Files of this machine that hold secrets."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right
from database.health.patient import Patient

SUBJECT = "secrets"
NEEDS_SCHEMA = False

_SECRET = re.compile(r"(?m)^[ \t]*[A-Z0-9_]*(?:PASSWORD|KEY|TOKEN|SECRET)[ \t]*=[ \t]*\S|://[^\s:@/]*:[^\s@]+@")
"""In a file of settings: a password, a key, or a URL with one. Others hold no secret."""

SECRET_READABLE = Kind(
    code="secret_readable",
    subject=SUBJECT,
    severity="warning",
    means="`.env`, the page's secret or another file with secrets is open to other users of this machine.",
    why="Who reads it has the database's passwords and the language model's key, or can sign in to the page as anybody.",
    mended="`chmod 600 FILE`",
)
KINDS = (SECRET_READABLE,)


def look_at_files(patient: Patient) -> Iterator[Finding]:
    """What is not there needs no guard."""
    found = [path for path in patient.configured.secret_files if path.is_file() and _holds_secrets(path)]
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield SECRET_READABLE.shell(
                f"{path} has mode {mode:03o}: other users may read or write it.",
                f"chmod 600 {shlex.quote(str(path))}",
                fixable=True,
            )
    yield right(
        SUBJECT, f"{len(found)} {'file' if len(found) == 1 else 'files'} for this user alone" if found else "no file"
    )


def _holds_secrets(path: Path) -> bool:
    return path.name != ".env" or bool(_SECRET.search(path.read_text(encoding="utf-8", errors="replace")))


CHECKS = (look_at_files,)
