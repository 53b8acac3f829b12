"""Finds the files below the roots of a sync: their names, sizes and times, never their bytes."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from database.errors import InvalidInputError

SIDECAR_SUFFIX = ".meta.json"
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
"""Never descended into, beside hidden folders and virtual environments."""

LONGEST_NAME = 2000
"""Bytes of a path; PostgreSQL cannot index keys much longer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """
    A file below a root.

    :param source: Its absolute path as text, the name that it has in the index.
    :param path: Its absolute path as the operating system knows it; differs from `source` only where that is not text.
    :param root: The root that it was found under.
    :param size: Bytes.
    :param mtime_ns: Time of its last change.
    :param checked_at_ns: When size and time were read.
    :param sidecar: Path of the file that holds its metadata, if there is one.
    """

    source: str
    path: str
    root: str
    size: int
    mtime_ns: int
    checked_at_ns: int
    sidecar: str | None = None

    @property
    def relative(self) -> str:
        """Its path below the root; its name, where the file itself is the root."""
        return os.path.basename(self.path) if self.path == self.root else os.path.relpath(self.path, self.root)


@dataclass(kw_only=True)
class Scan:
    """
    What stands below the roots.

    :param roots: Absolute, without those that lie below another.
    :param files: By source.
    :param refused: Files that cannot be read whatever they hold, each with its reason.
    :param closed: Folders and files that could not be looked at, with the reason: nothing is known about what is below.
    :param skipped: How many files of each unknown suffix were passed over.
    """

    roots: tuple[str, ...]
    files: dict[str, FoundFile] = field(default_factory=dict)
    refused: list[tuple[FoundFile, str]] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)


def scan(paths: Sequence[str | os.PathLike[str]], *, suffixes: Collection[str]) -> Scan:
    """
    List the files below some roots. A file that is itself a root is listed whatever its suffix.

    Links are followed, and each folder is entered once, by its own name where that lies below a root.

    :param paths: Files or folders; those below another count once.
    :param suffixes: Suffixes to list, lower case with their dot.
    :raises InvalidInputError: If a path is not there or is neither a file nor a folder.
    """
    found = Scan(roots=distinct_roots(paths))
    entered: set[tuple[int, int]] = set()
    for root in found.roots:
        if os.path.isdir(root):
            _scan_folder(root, found, suffixes=suffixes, entered=entered)
        else:
            sidecar = next((name for name in _sidecar_names(root) if os.path.isfile(name)), None)
            _add(found, root, root=root, status=os.stat(root), sidecar=sidecar)
    return found


def distinct_roots(paths: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """
    Absolute paths, sorted, without links and without those that lie below another.

    :raises InvalidInputError: If one is not there or is neither a file nor a folder.
    """
    roots: list[str] = []
    for root in sorted({os.path.realpath(path) for path in paths}, key=lambda path: Path(path).parts):
        _require_root(root)
        if not any(is_below(root, other) for other in roots):
            roots.append(root)
    return tuple(roots)


def is_below(path: str, root: str) -> bool:
    """Whether a path is a root or lies below it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def printable(path: str) -> str:
    """A path as text that can be stored: bytes that are not UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _require_root(root: str) -> None:
    name = printable(root)
    if not os.path.exists(root):
        raise InvalidInputError(
            f"A file or folder was expected at {name}, but there is none.",
            hint="Correct the path. To remove what was indexed from it, use `documents delete`.",
        )
    if not (os.path.isdir(root) or os.path.isfile(root)):
        raise InvalidInputError(f"A file or folder was expected at {name}, but it is a device, socket or pipe.")


def _scan_folder(root: str, found: Scan, *, suffixes: Collection[str], entered: set[tuple[int, int]]) -> None:
    # Linked folders wait until every folder has been entered by its own name, so that names do not depend on links.
    waiting = deque([root])
    links: deque[str] = deque()
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as exc:
            found.closed[folder] = f"the folder cannot be read: {exc.strerror}"
            continue
        names = {entry.name for entry in entries}
        for entry in entries:
            if _is_folder(entry):
                if not _is_skipped(entry):
                    (links if entry.is_symlink() else waiting).append(entry.path)
            else:
                _visit(entry, names, root=root, found=found, suffixes=suffixes)


def _visit(
    entry: os.DirEntry[str], names: Collection[str], *, root: str, found: Scan, suffixes: Collection[str]
) -> None:
    name = entry.name
    if name.startswith(".") or name.endswith(SIDECAR_SUFFIX):
        return
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in suffixes:
        found.skipped[suffix] += 1
        return
    try:
        status = entry.stat()
    except OSError as exc:
        found.closed[entry.path] = f"the file cannot be looked at: {exc.strerror}"
        return
    if entry.is_symlink() and any(is_below(os.path.realpath(entry.path), other) for other in found.roots):
        return  # the file itself is listed under its own name
    if stat.S_ISREG(status.st_mode):
        sidecar = next((candidate for candidate in _sidecar_names(name) if candidate in names), None)
        beside = sidecar and os.path.join(os.path.dirname(entry.path), sidecar)
        _add(found, entry.path, root=root, status=status, sidecar=beside)


def _add(found: Scan, path: str, *, root: str, status: os.stat_result, sidecar: str | None) -> None:
    source = printable(path)
    file = FoundFile(
        source=source,
        path=path,
        root=root,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        checked_at_ns=time.time_ns(),
        sidecar=sidecar,
    )
    if source != path:
        found.refused.append((file, "its name is not UTF-8; rename it"))
    elif len(source.encode()) > LONGEST_NAME:
        found.closed[path] = f"its path is longer than {LONGEST_NAME} bytes; move it"
    else:
        found.files[source] = file


def _sidecar_names(name: str) -> Iterator[str]:
    yield name + SIDECAR_SUFFIX
    yield os.path.splitext(name)[0] + SIDECAR_SUFFIX


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_skipped(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
        return True
    return os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
