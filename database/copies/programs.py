"""
PostgreSQL's own programs: which pg_dump suits a server, and running it.

Whatever a program must know of a server, its password included, travels in its environment: arguments can be read by every
user of the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from database.embedded import PACKAGE
from database.errors import DatabaseError

_SYSTEM = (Path("/usr/lib/postgresql"), Path("/usr/local"), Path("/opt/homebrew/opt"), Path("/usr"))
_VERSION = re.compile(rb"\(PostgreSQL\) (\d+)")


@dataclass(frozen=True, kw_only=True)
class Programs:
    """
    pg_dump and pg_restore of one version.

    :param folder: Where they are.
    :param major: PostgreSQL's major version.
    """

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """A program, to be run."""
        return str(self.folder / name)


def programs_for(least: int, *, why: str) -> Programs:
    """
    The programs of a major version, or else the oldest later ones: pg_dump reads no server that is newer than itself.

    :param least: The major version that they must have at least.
    :param why: What has that version, for the message: `the server of …`.
    :raises DatabaseError: If neither the embedded server's package nor this machine has any.
    """
    found = installed_programs()
    suitable = [programs for programs in found if programs.major >= least]
    if suitable:
        return min(suitable, key=lambda programs: programs.major)
    newest = max((programs.major for programs in found), default=None)
    raise DatabaseError(
        f"pg_dump and pg_restore of PostgreSQL {least} or later were expected, as {why} has that version, "
        f"but {f'the newest here are of {newest}' if newest else 'there are none here'}.",
        hint=f"Install PostgreSQL's client programs, such as the package postgresql-client-{least}.",
    )


@cache
def installed_programs() -> tuple[Programs, ...]:
    """All that this machine has: those of the embedded server's package come first."""
    folders: list[Path] = []
    spec = find_spec(PACKAGE)  # found, not imported: it would make folders of its own
    if spec is not None and spec.origin is not None:
        folders += sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    if on_path := shutil.which("pg_dump"):
        folders.append(Path(on_path).parent)
    for place in _SYSTEM:
        folders += sorted(place.glob("*/bin"))
    found: dict[int, Programs] = {}
    for folder in folders:
        major = _major(folder)
        if major is not None:
            found.setdefault(major, Programs(folder=folder, major=major))
    return tuple(found.values())


def _major(folder: Path) -> int | None:
    if not (folder / "pg_dump").is_file() or not (folder / "pg_restore").is_file():
        return None
    try:
        done = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stdout)
    return int(found[1]) if found else None


def clean_environment(server: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    The variables of a program: those of this process without PostgreSQL's own, messages in English, and the server's.

    :param server: `PGHOST`, `PGPASSWORD` and their like.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"} | dict(server or {})


@contextmanager
def running(
    command: Sequence[str], *, environment: Mapping[str, str], keep_open: Sequence[int] = (), output: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A program that reads nothing, in a session of its own so that Ctrl-C reaches us alone; it ends with the block.

    :param keep_open: File descriptors that it inherits: a lock is then held for as long as it lives, whatever becomes of us.
    :param output: Where its standard output goes: by default nowhere.
    """
    process = subprocess.Popen(
        list(command),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output if output is not None else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=tuple(keep_open),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def output_of(command: Sequence[str]) -> bytes:
    """
    What a program prints that needs no server.

    :raises DatabaseError: If it fails.
    """
    done = subprocess.run(
        list(command), env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        raise failed(command[0], done.stderr.decode(errors="replace").splitlines())
    return done.stdout


def failed(program: str, lines: Sequence[str]) -> DatabaseError:
    """
    A program's failure as an error of ours.

    :param lines: What it wrote on standard error.
    """
    name = Path(program).name
    errors = [line for line in lines if "error:" in line or "ERROR:" in line] or [
        line for line in lines if line.strip()
    ]
    said = " ".join(" ".join(errors[:2]).split()) or "it said nothing"
    hint = "Free disk space there, and run it again." if "No space left" in said or "DiskFull" in said else ""
    return DatabaseError(f"{name} was expected to end well, but failed: {said.removeprefix(f'{name}: ')}", hint=hint)


def lines_of(stream: IO[bytes]) -> Iterator[str]:
    """Lines of a program's output as they come."""
    for line in stream:
        yield line.decode(errors="replace").rstrip("\n")
