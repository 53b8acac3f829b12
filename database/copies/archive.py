"""
What pg_dump wrote, taken apart: tables and functions first, then rows, then indexes, triggers and policies, then rights.

pg_restore only translates it to SQL, which our own connections run: they speak TLS where the embedded package's programs do not,
know what an older server does not understand, and say which statement failed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from database.copies.programs import Programs, clean_environment, failed, output_of, running
from database.errors import DatabaseError

_ENTRY = re.compile(r"^(\d+); \d+ \d+ (.+)$")
_HEADER = re.compile(
    r"^--\n-- (?:Data for )?Name: (?P<name>.*); Type: (?P<kind>[A-Z ]+); Schema: (?P<schema>.*); Owner: .*\n--\n", re.M
)
_COPY = re.compile(rb"^COPY .* FROM stdin;\n$")
_END = b"\\.\n"
_META = re.compile(r"(?m)^\\(?:un)?restrict .*\n")
_LATER_SETTINGS = re.compile(r"(?m)^SET transaction_timeout = .*\n")  # of PostgreSQL 17, which earlier ones do not know

# What is made without the archive: the schema public, our version's table, the extension.
_LEFT_OUT = re.compile(
    r"^(SCHEMA - public |TABLE public alembic_version |TABLE DATA public alembic_version |EXTENSION |COMMENT - EXTENSION |COMMENT - SCHEMA public )"
)
_ROWS = "TABLE DATA "
_SEQUENCES = "SEQUENCE SET "
_RIGHTS = ("ACL ", "DEFAULT ACL ")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """
    One entry of an archive, as SQL.

    :param kind: PostgreSQL's word: `INDEX`, `CONSTRAINT`, `POLICY`.
    :param schema: Where its object stands.
    :param name: Of the object; a constraint's begins with its table's.
    """

    kind: str
    schema: str
    name: str
    sql: str


class Archive:
    """
    An archive of pg_dump, in custom or directory format.

    :param path: The file or folder.
    :param programs: Whose pg_restore reads it.
    :raises DatabaseError: If it is no archive, or a damaged one.
    """

    def __init__(self, path: Path, programs: Programs) -> None:
        self.path, self._programs = path, programs
        listed = output_of([programs.path("pg_restore"), "--list", str(path)]).decode(errors="replace")
        entries = [match.groups() for line in listed.splitlines() if (match := _ENTRY.match(line))]
        self._entries = {number: text for number, text in entries if not _LEFT_OUT.match(text)}
        self.row_entries = [number for number, text in self._entries.items() if text.startswith(_ROWS)]

    def before_rows(self, *, again: bool = False) -> str:
        """
        Types, functions, tables and views: everything before rows, without rights.

        :param again: Whether what has these names already, of a copy that did not end, is dropped first.
        """
        return self._sql("pre-data", without=_RIGHTS, options=["--clean", "--if-exists"] if again else [])

    def after_rows(self) -> list[Statement]:
        """Constraints, indexes, triggers and policies, in the archive's order."""
        return _statements(self._sql("post-data", without=_RIGHTS))

    def rights(self) -> list[Statement]:
        """GRANT and REVOKE."""
        return _statements(self._sql(None, only=_RIGHTS))

    def sequences(self) -> list[Statement]:
        """Where sequences go on; nothing in an archive without rows."""
        return _statements(self._sql(None, only=(_SEQUENCES,)))

    @contextmanager
    def rows(self, entry: str) -> Iterator[tuple[str, Iterator[bytes]]]:
        """
        Rows of one of `row_entries`, as pg_restore reads them.

        :returns: The COPY statement that takes them, and their lines.
        :raises DatabaseError: If the archive is damaged there.
        """
        with self._listed([entry]) as listed:
            command = [self._programs.path("pg_restore"), "--use-list", listed, "--file", "-", str(self.path)]
            with running(command, environment=clean_environment(), output=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                statement = next((line for line in process.stdout if _COPY.match(line)), None)
                if statement is not None:
                    yield statement.decode().rstrip("\n;"), _until_end(process.stdout)
                    process.stdout.read()
                said = process.stderr.read().decode(errors="replace").splitlines()
                if process.wait() or statement is None:
                    raise failed("pg_restore", said)

    def _sql(
        self, section: str | None, *, only: Sequence[str] = (), without: Sequence[str] = (), options: Sequence[str] = ()
    ) -> str:
        chosen = [
            number
            for number, text in self._entries.items()
            if (not only or text.startswith(tuple(only))) and not text.startswith((*without, _ROWS))
        ]
        with self._listed(chosen) as listed:
            command = [self._programs.path("pg_restore"), "--no-owner", "--use-list", listed, "--file", "-"]
            sections = ["--section", section] if section else []
            text = output_of([*command, *sections, *options, str(self.path)]).decode()
        return _LATER_SETTINGS.sub("", _META.sub("", text))

    @contextmanager
    def _listed(self, entries: Sequence[str]) -> Iterator[str]:
        """A file for --use-list."""
        with tempfile.NamedTemporaryFile("w", suffix=".list") as file:
            file.writelines(f"{number};\n" for number in entries)
            file.flush()
            yield file.name


def _until_end(output: IO[bytes]) -> Iterator[bytes]:
    for line in output:
        if line == _END:
            return
        yield line
    raise DatabaseError("The end of a table's rows was expected in the backup, but they break off.")


def _statements(sql: str) -> list[Statement]:
    """SQL taken apart at the comments that pg_restore puts before each entry."""
    headers = list(_HEADER.finditer(sql))
    ends = [*(header.start() for header in headers[1:]), len(sql)]
    return [
        Statement(
            kind=header["kind"], schema=header["schema"], name=header["name"], sql=sql[header.end() : end].strip()
        )
        for header, end in zip(headers, ends, strict=False)  # without any, there is an end all the same
    ]
