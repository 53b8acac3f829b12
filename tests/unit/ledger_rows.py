"""Rows of the ledger, for tests that need no database."""

from __future__ import annotations

from database.ledger import SourceState


def row(source: str, *, size: int = 1, chunks: int = 0) -> SourceState:
    """A source that is indexed."""
    return SourceState(
        source=source,
        root="/",
        size=size,
        mtime_ns=1,
        checked_at_ns=2,
        content_hash="c",
        meta_hash="m",
        fingerprint="f",
        chunks=chunks,
    )
