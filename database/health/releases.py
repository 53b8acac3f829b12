"""Releases of PostgreSQL and pgvector, and what is known of them; brought up to date with each release of this program."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, kw_only=True)
class Major:
    """
    A major version of PostgreSQL.

    :param minor: The oldest release of it that is not out of date: that of May 2026.
    :param ends: When its last release appears: https://www.postgresql.org/support/versioning/.
    """

    minor: int
    ends: date


MAJORS = {
    16: Major(minor=14, ends=date(2028, 11, 9)),
    17: Major(minor=10, ends=date(2029, 11, 8)),
    18: Major(minor=4, ends=date(2030, 11, 14)),
}
"""What this program works on: the roles of tenants need GRANT … WITH INHERIT FALSE, which 16 brought."""

HNSW_FAULTS: dict[tuple[int, ...], str] = {
    (0, 8, 2): "a parallel build writes beyond a buffer (CVE-2026-3172)",
    (0, 8, 3): "VACUUM may corrupt the index",
    (0, 8, 4): 'VACUUM fails with "hnsw graph not repaired", and inserts during it may fail',
}
"""By the version of pgvector that mends it: https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md."""

IVFFLAT_FAULTS: dict[tuple[int, ...], str] = {(0, 8, 7): "building an IVFFlat index may write beyond a buffer"}


def version(text: str) -> tuple[int, ...]:
    """A version in numbers, to compare it."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def known_faults(installed: str, faults: dict[tuple[int, ...], str]) -> list[str]:
    """What later versions than the installed one have mended."""
    return [what for mended, what in faults.items() if version(installed) < mended]
