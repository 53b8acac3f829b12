"""Files that are only read: which there are, and a hash of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from database.errors import InvalidInputError

CHUNK = 1 << 20
"""Bytes read at a time."""


def files_below(folder: Path) -> list[str]:
    """
    Every file below a folder, at any depth.

    :returns: Paths relative to the folder, sorted; a linked folder is not entered, and counts as nothing.
    :raises InvalidInputError: If a folder cannot be listed.
    """
    walked = os.walk(folder, onerror=_cannot_list)
    return sorted(str((Path(root) / name).relative_to(folder)) for root, _, names in walked for name in names)


def open_regular(path: Path) -> BinaryIO:
    """
    Open a file to read its bytes.

    :raises InvalidInputError: If it is not there, may not be read, or is no regular file, such as a pipe, which would
        keep its reader waiting.
    """
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)  # noqa: SIM115
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be read: {exc.strerror}.") from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidInputError(f"{path} cannot be read: a regular file was expected.")
    return file


def read_whole(path: Path, *, at_most: int) -> bytes:
    """
    The first bytes of a file.

    :param at_most: How many of them.
    :raises InvalidInputError: If it cannot be read.
    """
    with open_regular(path) as file:
        return _read(file, path, at_most)


def fingerprint(folder: Path, names: Iterable[str] | None = None) -> str:
    """
    A hash over files: their names, sizes and contents.

    :param folder: Where they are.
    :param names: Which, as paths relative to the folder; `None` means all that are below it.
    :returns: SHA-256, 64 hexadecimal digits.
    :raises InvalidInputError: If a file cannot be read, or changes its size meanwhile.
    """
    whole = hashlib.sha256()
    for name in sorted(files_below(folder) if names is None else names):
        path = folder / name
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            whole.update(f"{len(os.fsencode(name))} {size}\n".encode() + os.fsencode(name))
            seen = 0
            while block := _read(file, path, CHUNK):
                whole.update(block)
                seen += len(block)
        if seen != size:
            raise InvalidInputError(
                f"{path} changes while it is read: it had {size:,} bytes, then {seen:,}.",
                hint="Stop whatever writes to it, then start again.",
            )
    return whole.hexdigest()


def _read(file: BinaryIO, path: Path, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be read: {exc.strerror}.") from exc


def _cannot_list(exc: OSError) -> None:
    raise InvalidInputError(f"{exc.filename} cannot be listed: {exc.strerror}.") from exc
